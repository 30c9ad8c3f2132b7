//! **No exclusion.** A node that lost nothing of what was synced is never taken for an older copy of itself, whatever
//! crashes and comes back in whatever order.

use std::collections::BTreeMap;
use std::sync::Arc;

use zrs::raft::Role;
use zrs::server::Server;

pub fn look(servers: &BTreeMap<u64, Arc<Server>>) -> Result<(), String> {
    for (node, server) in servers {
        if let Role::Excluded(why) = &*server.node().role().look() {
            return Err(format!("no_exclusion: node {node} takes no part: {why}"));
        }
    }
    Ok(())
}
