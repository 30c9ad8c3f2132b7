//! Room for the cluster itself: when there are too many connections, peers still come in.
//!
//! A node that is not primary keeps clients waiting in silence, and anybody may connect and say nothing. If too many
//! of those turned peers away as well, a cluster without a quorum could not get one back. So connections over the
//! limit are let in from the hosts of members, for as long as a peer takes to say that it is one; clients on those
//! hosts are not. The hosts are looked up beforehand, time and again: a burst of connections triggers no DNS queries.
//!
//! **Left out.** Peers that come from another address than `--peers` says (behind NAT): such peers wait like clients.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use crate::config::{OpenFiles, limits};
use crate::env::Env;
use crate::raft::{Node, ip_of};
use crate::server::counts::{Metrics, Present};

/// How many connections there may be, and who may come in beyond that.
#[derive(Debug)]
pub struct Reserve {
    files: OpenFiles,
    /// The IP addresses of the members, by address in `--peers`, as looked up last.
    known: Mutex<BTreeMap<String, Vec<IpAddr>>>,
}

/// The room there is for one more connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// Room for any connection.
    Ordinary,
    /// Room for a peer only.
    ForPeers,
    /// No room.
    Full,
}

impl Reserve {
    pub fn new(files: OpenFiles) -> Reserve {
        Reserve { files, known: Mutex::default() }
    }

    /// The room for a connection from `peer` (`host:port`).
    pub fn room(&self, metrics: &Metrics, peer: &str) -> Room {
        let below = |gauge: i64, limit: usize| gauge < limit as i64;
        // (A relayed client has a connection to the primary, too.)
        let open = metrics.open.get() + metrics.relays.get();
        if below(open, self.files.connections) && below(metrics.held.get(), limits::HELD) {
            return Room::Ordinary;
        }
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let is_member = ip_of(peer).is_some_and(|ip| known.values().flatten().any(|one| *one == ip));
        if is_member && below(metrics.reserved.get(), self.files.reserved) { Room::ForPeers } else { Room::Full }
    }

    /// A connection more to the primary, on behalf of a client here, which counts as long as what this gives lives;
    /// `None`: there is no room for one.
    pub fn relay(&self, metrics: &Metrics) -> Option<Present> {
        // (Counted first: of two that look at the same time both see both.)
        let relay = Present::new(&metrics.relays);
        let (open, relays) = (metrics.open.get(), metrics.relays.get());
        (open + relays <= self.files.connections as i64 && relays <= limits::RELAYS as i64).then_some(relay)
    }

    /// Looks up the members' addresses, time and again, for ever.
    pub async fn follow(&self, node: &Node, env: &Env) {
        loop {
            self.keep(node.hosts().await);
            env.sleep(limits::LOOK_UP_AGAIN).await;
        }
    }

    /// A member that could not be looked up keeps its last known addresses: name servers fail when networks do.
    fn keep(&self, mut found: BTreeMap<String, Vec<IpAddr>>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for (address, there) in &mut found {
            if there.is_empty() {
                *there = known.remove(address).unwrap_or_default();
            }
        }
        *known = found;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_have_room_when_others_have_none_but_not_without_end() {
        let (metrics, reserve) = (Metrics::new(), Reserve::new(OpenFiles::default()));
        let found = |second: &[&str]| {
            let there = |ips: &[&str]| ips.iter().map(|ip| ip.parse().unwrap()).collect();
            BTreeMap::from([("a:1".to_owned(), there(&["::1"])), ("b:1".to_owned(), there(second))])
        };
        reserve.keep(found(&["10.0.0.2"]));
        // (b can't be looked up now.)
        reserve.keep(found(&[]));
        let of = |peer| reserve.room(&metrics, peer);
        let (member, stranger) = ("10.0.0.2:5000", "10.0.0.3:5000");
        assert_eq!((of(member), of(stranger)), (Room::Ordinary, Room::Ordinary));
        for (gauge, limit) in [(&metrics.held, limits::HELD), (&metrics.open, limits::CONNECTIONS)] {
            gauge.set(limit as i64 - 1);
            assert_eq!((of(member), of(stranger)), (Room::Ordinary, Room::Ordinary));
            gauge.set(limit as i64);
            assert_eq!((of(member), of(stranger)), (Room::ForPeers, Room::Full));
            assert_eq!(
                (of("[::1]:5000"), of("[::ffff:10.0.0.2]:5000"), of("unix:7")),
                (Room::ForPeers, Room::ForPeers, Room::Full)
            );
            gauge.set(limit as i64 * 2);
            assert_eq!((of(member), of(stranger)), (Room::ForPeers, Room::Full));
            metrics.reserved.set(limits::RESERVED as i64);
            assert_eq!(of(member), Room::Full);
            metrics.reserved.set(0);
            gauge.set(0);
        }
        // The system's limit may be less; and relayed clients count twice.
        let few = Reserve::new(OpenFiles::of(200));
        let most = OpenFiles::of(200).connections as i64;
        metrics.open.set(most - 10);
        metrics.relays.set(9);
        assert_eq!(few.room(&metrics, stranger), Room::Ordinary);
        metrics.relays.set(10);
        assert_eq!(few.room(&metrics, stranger), Room::Full);
    }

    #[test]
    fn a_relay_has_room_among_the_open_files() {
        let (metrics, files) = (Metrics::new(), OpenFiles::of(200));
        let few = Reserve::new(files);
        metrics.open.set(files.connections as i64 - 2);
        let relays = [few.relay(&metrics), few.relay(&metrics)];
        assert!(relays.iter().all(Option::is_some) && few.relay(&metrics).is_none());
        assert_eq!(metrics.relays.get(), 2, "one that is refused counts no more");
        drop(relays);
        assert!(few.relay(&metrics).is_some());
        let many = Reserve::new(OpenFiles::default());
        metrics.open.set(0);
        metrics.relays.set(limits::RELAYS as i64 - 1);
        let last = many.relay(&metrics);
        assert!(last.is_some() && many.relay(&metrics).is_none());
    }
}
