//! **Nobody is closed for a mistake.** Clients keep to the protocol, so no node closes a connection because of a call
//! that can't be: none out of turn, none for a transaction that is open or over, no second register. (docs/protocol.md)
//!
//! Looked at in the end, of the last lives of all nodes.

use std::collections::BTreeMap;
use std::sync::Arc;

use zrs::server::{Server, Why};

const MISTAKES: [Why; 3] = [Why::AsyncRefused, Why::BadFrame, Why::RegisteredTwice];

pub fn check(servers: &BTreeMap<u64, Arc<Server>>) -> Result<(), String> {
    for (node, server) in servers {
        let counts = server.metrics().text();
        for why in MISTAKES {
            let label = format!("zrs_closed_total{{why=\"{}\"}} ", why.word());
            let count = counts.lines().find_map(|line| line.strip_prefix(&label));
            if let Some(count) = count.filter(|count| *count != "0") {
                return Err(format!("no_mistakes: node {node} has closed {count} connections, as by {}", why.word()));
            }
        }
    }
    Ok(())
}
