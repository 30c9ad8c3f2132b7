//! Consensus: the only place that names openraft.
//!
//! A [`Command`](crate::command::Command) goes in; its outcome comes out, after a majority has the command on disk and
//! this node has applied it. Around the log stands the rest that a cluster needs: how it forms (`formation`), how peers
//! find and trust each other (`link`, `wire`), and when this node may call itself primary (`node::reign`).
//!
//! **Why** apart: openraft's interface changes, and the rest of zrs need not change with it. The rest says primary and
//! secondary, and watches the [`Role`].
//!
//! **Promises.** Proposals of one caller keep their order in the log. An outcome is given once, after apply; everything
//! else is [`Unknown`]. A role of `Primary(reign)` is published after the reign's barrier has applied here, and is
//! withdrawn within a heartbeat of the lease's end. [`Node::catch_up`] returns once this node has every commit whose
//! outcome any client was told.
//!
//! **Members** come and go while the cluster runs: `members` decides, `node::steward` acts.

mod addresses;
mod admission;
mod base;
mod catch_up;
mod checkpoints;
mod comparison;
mod edits;
mod errand;
mod fetch;
mod fitness;
mod formation;
mod heard;
pub(crate) mod hello;
mod lease;
mod link;
mod log;
mod machine;
mod members;
mod memory;
mod node;
pub(crate) mod obituary;
pub mod offline;
mod origin;
mod pace;
mod past;
mod peers;
mod pipeline;
mod runtime;
mod stamp;
mod tail;
mod telling;
mod types;
pub(crate) mod wire;

pub use errand::{Brought, Errand, Report, errands};
pub use hello::refusal;
pub use link::ip_of;
pub use log::unapplied;
pub use members::MembersAsk;
pub use node::{
    Accepted, Member, MemberStatus, Node, NodeStatus, NotCaughtUp, Proposal, RelayRefused, Role, Setup, Unknown,
};
pub use obituary::Will;
pub use wire::RelayRequest;

/// The part of the program, for directives of tracing, that speaks of Raft's own steps.
pub const LOG_TARGET: &str = "openraft";
/// Directives for tracing that keep openraft silent: it says the same about a dead node many times a second. Operators
/// are told of changes by this module, and why a node stops by [`Node::fault`].
pub const LOG_QUIET: &str = "openraft=off";
/// Directives for tracing that show openraft's steps.
pub const LOG_VERBOSE: &str = "openraft=info";
