//! Where this node stands among the others, as far as it matters to clients.
//!
//! Data only. `follow` sets it; the doors and the sessions watch it.

use std::sync::Arc;

use super::primary::Primary;
use crate::raft::Member;

/// The primary, as seen from this node.
#[derive(Clone)]
pub enum Standing {
    /// There is no cluster yet.
    Forming,
    /// No primary is known; one is being elected, or this node is about to lead.
    Electing,
    /// Another node is primary.
    Following {
        primary: Member,
        /// This node has everything that the primary had when it last said so.
        caught_up: bool,
    },
    /// This node is primary.
    Leading(Arc<Primary>),
}

/// The node that is primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnownPrimary {
    ThisNode,
    Node(u64),
}

impl Standing {
    /// The node that is primary, if one is known.
    pub fn primary(&self) -> Option<KnownPrimary> {
        match self {
            Standing::Forming | Standing::Electing => None,
            Standing::Following { primary, .. } => Some(KnownPrimary::Node(primary.id)),
            Standing::Leading(_) => Some(KnownPrimary::ThisNode),
        }
    }
}
