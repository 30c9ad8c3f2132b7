//! Who is a member, and who should be: pure decisions, from what a primary knows.
//!
//! The membership in the log changes one voter at a time, each change an entry of its own, on a majority of the members
//! as they are *after* it. A node that comes back with an empty folder is another node to Raft
//! ([`Incarnation`](super::types::Incarnation)), so whatever its former folder had acknowledged counts for nothing from
//! the entry on that takes that folder out.

mod facts;
mod plan;
mod wishes;

pub use facts::{Facts, ON_THEIR_WAY, Sign};
pub use plan::{Plan, Step, Wait, differences, plan};
pub use wishes::{Found, MembersAsk, changed, returned};
