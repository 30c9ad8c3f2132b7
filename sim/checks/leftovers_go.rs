//! **Leftovers go.** What went ahead of a transaction that never came is removed again, whether its client has aborted
//! it or is gone, and whether its primary is another one now. (docs/storage.md: Pieces)

use std::collections::BTreeMap;
use std::sync::Arc;

use zrs::server::Server;

use crate::seen;

pub const STAGED: &str = "leftovers_go: looks at staged pieces";

/// How many pieces are counted at most.
const MOST: usize = 1_000;

/// Sees whether there is anything on its way.
pub fn look(servers: &BTreeMap<u64, Arc<Server>>) {
    let any = servers.values().next().is_some_and(|server| staged(server) > 0);
    seen::check(STAGED, u64::from(any));
}

/// The nodes that still have something of transactions that were not committed.
pub fn missing(servers: &BTreeMap<u64, Arc<Server>>) -> Option<String> {
    let left: Vec<(u64, u64)> = servers.iter().map(|(node, server)| (*node, staged(server))).collect();
    let any = left.iter().any(|(_, pieces)| *pieces > 0);
    any.then(|| format!("there are pieces of no transaction left: {left:?} (by node)"))
}

fn staged(server: &Server) -> u64 {
    let store = server.store();
    store.storage("1").and_then(|storage| store.count_unclaimed(storage, MOST).ok()).unwrap_or(0)
}
