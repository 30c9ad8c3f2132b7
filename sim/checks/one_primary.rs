//! **One primary.** No two nodes are primary at the same moment: a primary that is cut off gives up before another
//! begins. (No commit depends on that; but clients should not stay with a primary that can answer nothing.)

use std::collections::BTreeMap;
use std::sync::Arc;

use zrs::server::Server;

pub fn look(servers: &BTreeMap<u64, Arc<Server>>) -> Result<(), String> {
    let primaries: Vec<u64> = servers.iter().filter(|(_, server)| server.is_primary()).map(|(node, _)| *node).collect();
    match primaries[..] {
        [] | [_] => Ok(()),
        _ => Err(format!("one_primary: nodes {primaries:?} are primary at the same time")),
    }
}
