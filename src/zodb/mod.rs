//! The vocabulary of ZODB: ids, records, refusals.
//!
//! What everybody speaks and nobody does anything with: no I/O, no async, no clock. A *refusal* is an answer
//! (the same on every node) that a client gets as a Python exception; what goes wrong with a disk or a socket is a
//! fault, an `io::Error`, and never stands here.

mod ids;
mod record;
mod refusal;

pub use ids::{Oid, StorageId, Tid};
pub use record::{Revision, State, TransactionMeta};
pub use refusal::{Conflict, Refusal};
