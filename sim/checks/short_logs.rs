//! **Logs are shortened, and nothing is missing for that.** What a node has purged from its log, its own database has.
//! (That a node which fetches another one's database holds the same as all others is told by the other checks; counted
//! here is how often that happened.)

use std::collections::BTreeMap;
use std::sync::Arc;

use zrs::server::Server;

use crate::seen;

pub const SHORTENED: &str = "short_logs: shortened";
pub const FETCHED: &str = "short_logs: databases fetched";

pub fn check(servers: &BTreeMap<u64, Arc<Server>>) -> Result<(), String> {
    for (node, server) in servers {
        let status = server.status().node;
        if status.purged > status.applied {
            let (purged, applied) = (status.purged, status.applied);
            return Err(format!("short_logs: node {node} has purged {purged} entries, and applied {applied}"));
        }
        seen::check(SHORTENED, u64::from(status.purged > 0));
    }
    Ok(())
}
