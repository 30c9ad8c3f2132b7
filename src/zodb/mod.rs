//! The vocabulary of ZODB: ids, records, refusals.
//!
//! All other modules use these types, which do nothing themselves: no I/O, no async, no clock. A *refusal* is an
//! answer (the same on every node) that a client gets as a Python exception. A *fault* of a disk or a socket is an
//! `io::Error`, and no type of this module.

mod ids;
mod record;
mod refusal;

pub use ids::{Oid, StorageId, Tid};
pub use record::{Revision, State, TransactionMeta};
pub use refusal::{Conflict, Refusal};
