//! **Same state at the same index.** Whichever nodes have applied the log up to the same entry hold the same, at any time,
//! also when they apply it again after a crash: the same term there, and the same digests.

use std::collections::BTreeMap;
use std::sync::Arc;

use zrs::server::Server;
use zrs::storage::Position;

#[derive(Default)]
pub struct States {
    /// By index: the term, the state, and who was seen there first.
    seen: BTreeMap<u64, (Position, String, u64)>,
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
                Some((first, other, who)) => {
                    return Err(format!(
                        "same_state_same_index: node {who} at {first:?} had {other}, node {node} at {position:?} has {state}"
                    ));
                }
            }
        }
        Ok(())
    }
}
