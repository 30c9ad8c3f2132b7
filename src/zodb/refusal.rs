//! Refusals: answers that a client gets as the Python exception it expects.
//!
//! A refusal is a value, the same on every node if it comes from `storage::apply`, and never stands for a broken disk
//! or socket. `zeo` writes each refusal on the wire.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::ids::{Oid, Tid};

/// Two writers met at one object (`ZODB.POSException.ConflictError`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// The object.
    pub oid: Oid,
    /// The object's current serial.
    pub committed: Tid,
    /// The serial that the client had read.
    pub read: Tid,
}

/// Why a client's call is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// `ZODB.POSException.POSKeyError`: no such object (as of the transaction asked for).
    NoObject(Oid),
    /// `ZODB.POSException.POSKeyError`: no blob file for this revision.
    NoBlob(Oid, Tid),
    /// `ZODB.POSException.ConflictError`.
    Conflict(Conflict),
    /// `ZODB.POSException.ReadConflictError`: an object that the client checks has changed.
    ReadConflict(Conflict),
    /// `ZODB.POSException.ReadOnlyError`.
    ReadOnly,
    /// `ZODB.POSException.StorageTransactionError`: a call out of turn.
    WrongTransaction(String),
    /// Like `ZODB.POSException.UndoError`: the transaction does not exist, or can't be undone any more.
    NotUndoable(String),
    /// `ZODB.POSException.MultipleUndoErrors`: for each object, why its change can't be undone.
    UndoFailed(Vec<(Oid, String)>),
    /// `builtins.ValueError`: no storage of this name.
    NoStorage {
        /// The name that was asked for.
        name: String,
        /// Names that there are, where they help whoever asked.
        known: Vec<String>,
    },
    /// `builtins.ValueError`.
    BadValue(String),
    /// `builtins.KeyError`: an iterator that does not exist any more, for example.
    NoKey(String),
    /// `builtins.TypeError`.
    BadType(String),
    /// `builtins.NotImplementedError`: the call is known, but not served.
    NotServed(String),
    /// `ZODB.POSException.StorageError`: something is larger than a limit, or than the room that the disks have left.
    TooLarge(String),
    /// `zrs.NotPrimary`, for clients that follow redirects: the primary's address, if a primary is known.
    NotPrimary(Option<String>),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NoObject(oid) => write!(f, "no object {oid}"),
            Refusal::NoBlob(oid, tid) => write!(f, "no blob for object {oid} at {tid}"),
            Refusal::Conflict(c) => write!(f, "conflict at object {}: current {}, read {}", c.oid, c.committed, c.read),
            Refusal::ReadConflict(c) => {
                write!(f, "read conflict at object {}: current {}, read {}", c.oid, c.committed, c.read)
            }
            Refusal::ReadOnly => f.write_str("read-only"),
            Refusal::UndoFailed(objects) => write!(f, "undo failed for {} objects", objects.len()),
            Refusal::NoStorage { name, known } if known.is_empty() => write!(f, "no storage named {name:?}"),
            Refusal::NoStorage { name, known } => {
                write!(f, "no storage named {name:?}; there are: {}", known.join(", "))
            }
            Refusal::NotPrimary(Some(address)) => write!(f, "not the primary; the primary is {address}"),
            Refusal::NotPrimary(None) => f.write_str("not the primary; no primary is known"),
            Refusal::WrongTransaction(why)
            | Refusal::NotUndoable(why)
            | Refusal::BadValue(why)
            | Refusal::NoKey(why)
            | Refusal::BadType(why)
            | Refusal::NotServed(why)
            | Refusal::TooLarge(why) => f.write_str(why),
        }
    }
}
