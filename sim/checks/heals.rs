//! **It heals.** Within a bounded time after the last fault has ended there is a primary, every client gets on (one
//! that writes commits again, one that only reads is answered), and all nodes come to hold the same.

use std::time::Duration;

use crate::cluster::{Cluster, EVERY_CLIENT};
use crate::history::History;
use crate::seen;

pub const CLIENTS: &str = "heals: clients";

/// How long healing may take. (An election takes less than a second, as does a client that waits for its turn; a client
/// that was cut off in the middle of a call notices after a few seconds.)
pub const WITHIN: Duration = Duration::from_secs(10);
/// How many transactions each client has to get done.
const MOVES: usize = 3;

/// Says so as long as there is no primary.
pub fn leaderless(cluster: &Cluster) -> Option<String> {
    cluster.primary().is_none().then(|| "there is no primary".to_owned())
}

/// The part of the cluster that has not healed yet, of faults that had all ended at `since`; `None` if all is well.
pub fn missing(cluster: &Cluster, history: &History, since: Duration) -> Option<String> {
    let Some(waiting) = (0..EVERY_CLIENT).find(|client| history.moves(*client, since) < MOVES) else {
        seen::check(CLIENTS, EVERY_CLIENT as u64);
        return None;
    };
    Some(match cluster.primary() {
        None => "there is no primary".to_owned(),
        Some(primary) => format!("node {primary} is primary, but client {waiting} has not got {MOVES} things done"),
    })
}

/// The clients that have not ended; `None` if all have.
pub fn at_work(history: &History) -> Option<String> {
    let record = history.look();
    let waiting: Vec<usize> = (0..EVERY_CLIENT).filter(|client| !record.gone.contains(client)).collect();
    (!waiting.is_empty()).then(|| format!("clients {waiting:?} are still in the middle of something"))
}

/// The position that each node has applied; `None` if all are at the same one.
pub fn apart(cluster: &Cluster) -> Option<String> {
    let servers = cluster.servers();
    let applied: Vec<_> = servers.iter().map(|(node, server)| (*node, server.store().applied())).collect();
    let same = applied.len() == cluster.nodes().len() && applied.windows(2).all(|pair| pair[0].1 == pair[1].1);
    (!same).then(|| format!("the nodes have applied {applied:?}"))
}
