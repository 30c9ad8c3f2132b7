//! **The members become as they are wished.** Within a bounded time after the last fault everyone who is wanted is a
//! member, with the part that it was meant to have, and nobody else is; whoever has lost its folder has come back by
//! itself, and votes again. A wish that was granted stays granted, whoever wishes something else meanwhile; and none is
//! granted that would leave too few voters of those that are there.

use std::time::Duration;

use zrs::roster::Part;

use crate::cluster::{Cluster, NODES};
use crate::seen;

pub const WISHES: &str = "members_as_wished: wishes granted";
pub const REFUSED: &str = "members_as_wished: wishes that must be refused";
pub const SETTLED: &str = "members_as_wished: members that changed";

/// How long it may take. (Five seconds until a folder is known to be gone, after an election; then some steps, each of
/// half a second; and the database is fetched.)
pub const WITHIN: Duration = Duration::from_secs(20);

/// What is not as it is wished.
pub fn missing(cluster: &Cluster) -> Option<String> {
    let Some(server) = cluster.primary().and_then(|primary| cluster.server(primary)) else {
        return Some("there is no primary".into());
    };
    let (status, roster) = (server.node().status(), server.store().roster().1);
    if !status.changes.is_empty() {
        return Some(format!("the members are not as wished: {:?}, of {:?}", status.changes, status.members));
    }
    if let Some(node) = cluster.lost(server.store()) {
        return Some(format!("node {node} has lost its folder, and has not come back"));
    }
    let members: Vec<u64> = status.members.iter().map(|member| member.node).collect();
    if let Some(down) = members.iter().find(|node| !cluster.is_up(**node)) {
        return Some(format!("member {down} is down"));
    }
    if members != cluster.nodes() {
        return Some(format!("{members:?} are members, and {:?} run", cluster.nodes()));
    }
    if roster.nodes.is_empty() && members != NODES {
        return Some(format!("nobody has wished for other members, and they are {members:?}"));
    }
    let votes = |node: &u64| status.members.iter().any(|member| member.node == *node && member.part == Part::Voter);
    if let Some(node) = NODES.iter().find(|node| !cluster.books.touched.contains(node) && !votes(node)) {
        return Some(format!("node {node} does not vote, and nobody has wished for that: {:?}", status.members));
    }
    seen::check(SETTLED, u64::from(!roster.nodes.is_empty()));
    None
}

/// Whether all that was granted is still in the roster.
pub fn check(cluster: &Cluster) -> Result<(), String> {
    let Some(server) = cluster.primary().and_then(|primary| cluster.server(primary)) else { return Ok(()) };
    let roster = server.store().roster().1;
    for (node, part) in &cluster.books.granted {
        seen::check(WISHES, 1);
        let wished: Option<Part> = roster.nodes.get(node).map(|wish| wish.part);
        if wished != *part {
            return Err(format!(
                "members_as_wished: it was granted that node {node} is to be {part:?}, and the roster has {wished:?}"
            ));
        }
    }
    Ok(())
}
