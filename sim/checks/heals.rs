//! **It heals.** Once nothing is wrong any more, there is a primary, every writing client commits again, and all nodes come to hold
//! the same, within a bounded time.

use std::time::Duration;

use crate::cluster::{CLIENTS, Cluster, NODES, READER};
use crate::history::History;

/// How long it may take. (An election and a client that waits for its turn take less than a second; a client that was left
/// in the middle of a call finds out after a few.)
pub const WITHIN: Duration = Duration::from_secs(10);
/// How many transactions each client has to commit.
const COMMITS: usize = 3;

/// What is not well yet, `since` nothing is wrong any more; `None`: nothing.
pub fn missing(cluster: &Cluster, history: &History, since: Duration) -> Option<String> {
    let lazy =
        (0..CLIENTS).filter(|client| *client != READER).find(|client| history.committed(*client, since) < COMMITS)?;
    Some(match cluster.primary() {
        None => "there is no primary".to_owned(),
        Some(primary) => format!("node {primary} is primary, but client {lazy} has not committed {COMMITS} times"),
    })
}

/// Whether all nodes have applied the same; else what each has.
pub fn apart(cluster: &Cluster) -> Option<String> {
    let servers = cluster.servers();
    let applied: Vec<_> = servers.iter().map(|(node, server)| (*node, server.store().applied())).collect();
    let same = applied.len() == NODES.len() && applied.windows(2).all(|pair| pair[0].1 == pair[1].1);
    (!same).then(|| format!("the nodes have applied {applied:?}"))
}
