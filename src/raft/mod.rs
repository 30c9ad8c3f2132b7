//! Consensus: the only place that names openraft.
//!
//! **What** goes in is a [`Command`](crate::command::Command), what comes out is its outcome, after a majority has it on disk
//! and this node has applied it. Around that stand what a cluster needs besides a log: how it forms (`formation`), how
//! peers find and trust each other (`link`, `wire`), and when this node may call itself primary (`reign`).
//!
//! **Why** apart: openraft's interface moves; nobody else has to move with it. Everybody else says primary and secondary,
//! and [`Role`] is what they watch.
//!
//! **Promises.** Proposals of one caller keep their order in the log. An outcome is given once, after apply; everything
//! else is [`Unknown`]. A role of `Primary(reign)` is published after the reign's barrier has applied here, and withdrawn
//! within a heartbeat of the lease's end. [`Node::settle`] returns once this node has every commit that anybody was told of.
//!
//! **Left out** until issues ask: snapshots and purging, changes of membership, certificates for peers.

mod base;
mod formation;
mod heard;
mod link;
mod log;
mod machine;
mod node;
pub mod offline;
mod peers;
mod runtime;
mod stamp;
mod types;
pub(crate) mod wire;

pub use link::ip_of;
pub use log::{TABLES, unapplied};
pub use node::{
    Accepted, Member, MemberStatus, Node, NodeStatus, NotSettled, Proposal, RelayRefused, Role, Setup, Unknown,
};
pub use wire::RelayRequest;

/// Directives for the log that keep openraft to what operators need. What it says of a node that stops (an error, even
/// if it was asked to), [`Node::fault`] tells.
pub const LOG_QUIET: &str = "openraft=warn,openraft::raft::raft_inner=off";
/// The same for those who follow its steps.
pub const LOG_VERBOSE: &str = "openraft=info";
