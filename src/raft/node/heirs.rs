//! Who may take over from a primary.

use super::inner::Inner;
use super::status::{self, NodeStatus};
use crate::config::limits;
use crate::roster::Part;

/// An error if node `to` would not take over soon.
pub fn can_take_over(node: &Inner, to: u64) -> anyhow::Result<()> {
    let status = described(node);
    let Some(member) = status.members.iter().find(|member| member.node == to) else {
        anyhow::bail!(node.no_member(to));
    };
    if member.part == Part::Observer {
        anyhow::bail!("node {to} can't take over: it is an observer, which never votes");
    }
    match member.answered_ms {
        Some(silence) if silence <= node.config.election_timeout.as_millis() as u64 => {}
        Some(silence) => {
            let seconds = silence as f64 / 1000.0;
            anyhow::bail!("node {to} can't take over: it has not answered for {seconds:.1} s")
        }
        None => anyhow::bail!("node {to} can't take over: it has not answered since this node became primary"),
    }
    if let Some(why) = node.fitness.unfit_of(to) {
        anyhow::bail!("node {to} can't take over: {why}");
    }
    let behind = status.log.saturating_sub(member.log.unwrap_or(0));
    if behind > limits::TRANSFER_BEHIND {
        anyhow::bail!("node {to} can't take over: it is {behind} log entries behind; try again when it has caught up");
    }
    Ok(())
}

/// The member with most of the log that would take over soon.
pub fn most_advanced(node: &Inner) -> Option<u64> {
    able(node, |_| true)
}

/// The same of those that have said lately that they are fit to lead.
pub fn fit(node: &Inner) -> Option<u64> {
    able(node, |member| node.fitness.is_seen_fit(member))
}

fn able(node: &Inner, fits: impl Fn(u64) -> bool) -> Option<u64> {
    let status = described(node);
    let others = status.members.iter().filter(|member| member.node != status.node);
    let able = others.filter(|member| fits(member.node) && can_take_over(node, member.node).is_ok());
    able.max_by_key(|member| member.log).map(|member| member.node)
}

fn described(node: &Inner) -> NodeStatus {
    status::describe(node, node.running.get().map(|running| &running.raft))
}
