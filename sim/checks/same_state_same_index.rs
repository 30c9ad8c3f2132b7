//! **Same state at the same index.** Nodes that have applied the log up to the same entry hold the same: the entry's
//! term and the digests are equal, also when a node applies the entry again after a crash.

use std::collections::BTreeMap;
use std::sync::Arc;

use zrs::server::Server;
use zrs::storage::Position;

#[derive(Default)]
pub struct States {
    /// By index: the term, the state, and the node that was seen there first.
    seen: BTreeMap<u64, (Position, String, u64)>,
    /// By node: where it was at the last look.
    last: BTreeMap<u64, Position>,
}

impl States {
    /// Looks at all nodes that run.
    pub fn look(&mut self, servers: &BTreeMap<u64, Arc<Server>>) -> Result<(), String> {
        for (node, server) in servers {
            let store = server.store();
            let (position, summaries) = store.summaries();
            if self.last.insert(*node, position) == Some(position) {
                continue;
            }
            let state = format!("{:?} {summaries:?}", store.reign());
            match self.seen.get(&position.index) {
                None => {
                    self.seen.insert(position.index, (position, state, *node));
                }
                Some((first, same, _)) if *first == position && *same == state => {}
                Some((first, other, earlier)) => {
                    return Err(format!(
                        "same_state_same_index: node {earlier} at {first:?} had {other}, node {node} at {position:?} has {state}"
                    ));
                }
            }
        }
        Ok(())
    }
}
