//! The members as a primary sees them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::raft::types::{Incarnation, Seat};
use crate::roster::{Part, Roster, Wish};

/// The members as they are, and how the primary sees them.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The primary itself.
    pub own: Incarnation,
    pub voters: BTreeSet<Incarnation>,
    pub seats: BTreeMap<Incarnation, Seat>,
    /// The other members.
    pub signs: BTreeMap<Incarnation, Sign>,
    /// For how long this node has been primary.
    pub reigns: Duration,
    /// For how long the members have been these, as far as this node knows.
    pub settled: Duration,
}

/// A sign of life of another member.
#[derive(Clone, Copy, Debug)]
pub struct Sign {
    /// How long ago the member last answered; `None`: not since this node is primary, or since it is a member.
    pub silence: Option<Duration>,
    /// Whether the member has the entry that made the members these.
    pub knows_members: bool,
    /// Bytes of the database that the member has fetched from this node, of how many, if it is fetching it.
    pub fetching: Option<(u64, u64)>,
    /// How many entries of the log the member lacks.
    pub behind: u64,
}

/// How long a member that is to leave may take to hear of it.
pub(super) const TOLD: Duration = Duration::from_secs(5);
/// A member that has been silent for so long is not counted on.
const AWAY: Duration = Duration::from_secs(2);
/// A folder that has been silent for so long is taken for gone when its node comes with another one.
const GONE: Duration = Duration::from_secs(5);
/// Entries that a member may be behind and still count as caught up: those on their way to it.
pub const ON_THEIR_WAY: u64 = 64;

impl Facts {
    /// The member with this number.
    pub(super) fn member(&self, node: u64) -> Option<(Incarnation, &Seat)> {
        self.seats.iter().find(|(_, seat)| seat.node == node).map(|(folder, seat)| (*folder, seat))
    }

    /// When the member last answered. (As long as this node knows too little, nobody is there, and nobody is gone.)
    pub(super) fn silence(&self, folder: Incarnation) -> Option<Duration> {
        if folder == self.own { Some(Duration::ZERO) } else { self.signs.get(&folder)?.silence }
    }

    pub(super) fn is_there(&self, folder: Incarnation) -> bool {
        self.silence(folder).is_some_and(|silence| silence <= AWAY)
    }

    /// Whether the member is taken for one that does not come back.
    pub fn is_gone(&self, folder: Incarnation) -> bool {
        self.silence(folder).unwrap_or(self.reigns.min(self.settled)) >= GONE
    }

    /// How many entries the member lacks, if it is there.
    pub(super) fn behind(&self, folder: Incarnation) -> Option<u64> {
        match self.signs.get(&folder) {
            _ if folder == self.own => Some(0),
            Some(sign) if self.is_there(folder) => Some(sign.behind),
            _ => None,
        }
    }

    /// Why `voters` could not go on writing: too few of them are there.
    pub(super) fn too_few(&self, voters: &BTreeSet<Incarnation>) -> Option<String> {
        let there = voters.iter().filter(|folder| self.is_there(**folder)).count();
        let (all, needed) = (voters.len(), voters.len() / 2 + 1);
        match all {
            0 => Some("nobody who votes would be left".into()),
            _ if there >= needed => None,
            _ => Some(format!("{there} of the {all} voters that would be left are there, and {needed} are needed")),
        }
    }

    /// What the operators want as long as they have said nothing: the members as they are.
    pub fn as_wished(&self) -> Roster {
        let wish = |(folder, seat): (&Incarnation, &Seat)| {
            let part = if self.voters.contains(folder) { Part::Voter } else { Part::Observer };
            (seat.node, Wish { address: seat.address.clone(), part, folder: folder.0, instead_of: None })
        };
        Roster { nodes: self.seats.iter().map(wish).collect() }
    }
}

#[cfg(test)]
pub(in crate::raft) mod testing {
    use super::*;

    impl Sign {
        /// Of a member that has just answered, and has all.
        pub fn here() -> Sign {
            Sign { silence: Some(Duration::ZERO), behind: 0, knows_members: true, fetching: None }
        }
    }

    /// A cluster of these voters and observers, all there and up to date; node n has folder n, node 1 is primary.
    pub fn facts(voters: &[u64], observers: &[u64]) -> Facts {
        let seat = |n: &u64| (Incarnation(*n), Seat { node: *n, address: format!("host{n}:1") });
        let sign = |n: &u64| (Incarnation(*n), Sign::here());
        Facts {
            own: Incarnation(1),
            voters: voters.iter().map(|n| Incarnation(*n)).collect(),
            seats: voters.iter().chain(observers).map(seat).collect(),
            signs: voters.iter().chain(observers).map(sign).collect(),
            reigns: Duration::from_secs(60),
            settled: Duration::from_secs(60),
        }
    }

    pub fn silent(facts: &mut Facts, node: u64) {
        facts.signs.get_mut(&Incarnation(node)).unwrap().silence = Some(Duration::from_secs(60));
    }
}
