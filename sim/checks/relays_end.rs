//! **A relay ends with the role of its primary.** A node that has become primary passes nothing on to another one: a
//! client that it had relayed would wait on a stream that leads to nobody. (`src/server/door/relay.rs`)

use std::collections::BTreeMap;
use std::sync::Arc;

use zrs::server::Server;

use crate::seen;

pub const RELAYS: &str = "relays_end: looks at relays";

/// For how many milliseconds a node may pass on the last words of the primary before it.
const WITHIN: u64 = 2_500;

/// For how many milliseconds each node has run as primary.
#[derive(Default)]
pub struct Relays(BTreeMap<u64, u64>);

impl Relays {
    /// Looks at all nodes that run.
    pub fn look(&mut self, servers: &BTreeMap<u64, Arc<Server>>) -> Result<(), String> {
        self.0.retain(|node, _| servers.get(node).is_some_and(|server| server.is_primary()));
        for (node, server) in servers {
            let relays = server.metrics().relays.get();
            if !server.is_primary() {
                seen::check(RELAYS, u64::from(relays > 0));
                continue;
            }
            let leads = self.0.entry(*node).or_default();
            *leads += 1;
            if *leads > WITHIN && relays > 0 {
                return Err(format!(
                    "relays_end: node {node} is primary for {leads} ms, and still relays {relays} clients"
                ));
            }
        }
        Ok(())
    }
}
