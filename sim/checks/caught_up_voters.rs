//! **Who begins to vote has caught up.** A member votes only once it has nearly all of the log: before that, a voter
//! more would only be one more whose answer is waited for.

use std::collections::BTreeMap;
use std::sync::Arc;

use zrs::raft::Role;
use zrs::server::Server;

use crate::cluster::{Cluster, News};
use crate::seen;

pub const BEGINNERS: &str = "caught_up_voters: nodes that begin to vote";

/// Entries that the node may lack: those on their way when the primary looked, and those that have come since.
const BEHIND: u64 = 400;

pub fn look(cluster: &Cluster, servers: &BTreeMap<u64, Arc<Server>>) -> Result<(), String> {
    for news in cluster.news() {
        let News::Votes(node) = news else { continue };
        let primary = cluster.primary().and_then(|primary| servers.get(&primary));
        // (Its folder may have gone since, or it was started again.)
        let (Some(server), Some(primary)) = (servers.get(node), primary) else { continue };
        if cluster.lost(primary.store()).is_some() {
            continue;
        }
        seen::check(BEGINNERS, 1);
        let (status, log) = (server.node().status(), primary.node().status().log);
        let is_outside = matches!(&*server.node().role().look(), Role::Forming(_)) && status.cluster.is_none();
        if is_outside || (status.log > 0 && status.log + BEHIND < log) {
            return Err(format!(
                "caught_up_voters: node {node} begins to vote with {} entries, and the primary has {log} ({})",
                status.log, status.role
            ));
        }
    }
    Ok(())
}
