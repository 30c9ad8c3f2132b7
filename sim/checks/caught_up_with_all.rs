//! **Who has caught up has everything.** A node that says that it has caught up with its primary has applied an entry
//! of the primary's own term, and with that all that any primary before has answered. Before that it greets no client,
//! and `/readyz` says no. (docs/architecture.md: A failover)

use std::collections::BTreeMap;
use std::sync::Arc;

use zrs::raft::Role;
use zrs::server::Server;
use zrs::storage::Position;

use crate::cluster::Cluster;
use crate::seen;

pub const CAUGHT_UP: &str = "caught_up_with_all: nodes that have caught up";

/// For how many looks a node has to go on saying so. (Its term may have changed a moment after it was said.)
const LOOKS: u32 = 1_000;

#[derive(Default)]
pub struct CaughtUp {
    /// By node, its role at the last look.
    roles: BTreeMap<u64, Role>,
    /// By node, where it was when it said that it has caught up in a term of which it had applied nothing; the term;
    /// and for how many looks it has said so.
    doubts: BTreeMap<u64, (Position, u64, u32)>,
}

impl CaughtUp {
    pub fn look(&mut self, cluster: &Cluster, servers: &BTreeMap<u64, Arc<Server>>) -> Result<(), String> {
        self.roles.retain(|node, _| servers.contains_key(node));
        for (node, server) in servers {
            let role = server.node().role().look().clone();
            if self.roles.get(node) != Some(&role) {
                self.doubts.remove(node);
                if let Role::Secondary { caught_up: true, .. } = role {
                    seen::check(CAUGHT_UP, 1);
                    let (applied, term) = (server.store().applied(), server.node().status().term);
                    if applied.term < term {
                        self.doubts.insert(*node, (applied, term, 0));
                    }
                }
                self.roles.insert(*node, role);
            }
            let Some((applied, term, looks)) = self.doubts.get_mut(node) else { continue };
            *looks += u32::from(!cluster.node(*node).host.stands_still());
            if *looks > LOOKS {
                return Err(format!(
                    "caught_up_with_all: node {node} said in term {term} that it has caught up, and had {applied:?}"
                ));
            }
        }
        Ok(())
    }
}
