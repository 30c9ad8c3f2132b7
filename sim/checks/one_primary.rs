//! **One primary.** No two nodes are primary at the same moment: a primary that is cut off gives up before another
//! begins. (No commit depends on that; but clients should not stay with a primary that can answer nothing.)
//! A process that stood still for longer than its lease needs a turn to learn of that: `one_state_at_a_time` sees what
//! it answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use zrs::server::Server;

use crate::cluster::Cluster;

pub fn look(cluster: &Cluster, servers: &BTreeMap<u64, Arc<Server>>) -> Result<(), String> {
    let leads = |node: &u64, server: &Server| server.is_primary() && !cluster.node(*node).host.has_just_gone_on();
    let primaries: Vec<u64> =
        servers.iter().filter(|(node, server)| leads(node, server)).map(|(node, _)| *node).collect();
    match primaries[..] {
        [] | [_] => Ok(()),
        _ => Err(format!("one_primary: nodes {primaries:?} are primary at the same time")),
    }
}
