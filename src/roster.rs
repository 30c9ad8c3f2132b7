//! The roster: which nodes the operators want in the cluster, and as what.
//!
//! Raft's membership says which nodes *are* members, the roster which ones *should* be. It is changed by commands of
//! the log, so that every node has the same one, and a wish outlives the primary that was asked for it: each primary
//! brings the membership nearer to the roster, a step at a time (`raft::members`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What the operators want; without any node: the members are what they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roster {
    /// By the operator's number.
    pub nodes: BTreeMap<u64, Wish>,
}

/// A node as it is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// `host:port`, for clients and peers alike.
    pub address: String,
    /// The part that the node is to have.
    pub part: Part,
    /// The life of the data folder that is meant: Raft's id of the node. Another one of that number goes.
    pub folder: u64,
    /// The node whose place it takes: that one leaves once this one has its part.
    pub instead_of: Option<u64>,
}

/// A node's part in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// It votes, and its acknowledgement of a commit counts.
    Voter,
    /// It has all data and serves reads, but never votes, and nobody waits for it.
    Observer,
}
