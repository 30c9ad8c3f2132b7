//! How a call, a connect, a commit can end otherwise than well.

use std::fmt;

use crate::zodb::{Conflict, Refusal};

/// Why a call was not answered with what it asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError {
    /// The server says no.
    Refused(Refusal),
    /// There was no connection to ask by for as long as [`super::Options::wait`].
    Disconnected,
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::Refused(refusal) => write!(f, "refused: {refusal}"),
            CallError::Disconnected => f.write_str("no server answered in time"),
        }
    }
}

impl std::error::Error for CallError {}

/// Why a transaction has not committed, or may not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommitError {
    /// Somebody else has changed what it wrote or checked. It has not committed; begin again.
    Conflict(Vec<Conflict>),
    /// The server says no. It has not committed.
    Refused(Refusal),
    /// The connection was lost after the finish was sent: it may have committed, or not. Whoever must know reads what it
    /// wrote in a new transaction.
    Unknown,
    /// There was no connection to commit by for as long as [`super::Options::wait`]. It has not committed.
    Disconnected,
}

impl fmt::Display for CommitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CommitError::Conflict(conflicts) => match conflicts.first() {
                Some(first) => write!(
                    f,
                    "{} conflicts, the first at object {}: current {}, read {}",
                    conflicts.len(),
                    first.oid,
                    first.committed,
                    first.read
                ),
                None => f.write_str("a conflict"),
            },
            CommitError::Refused(refusal) => write!(f, "refused: {refusal}"),
            CommitError::Unknown => f.write_str("the connection was lost while committing; it may have committed"),
            CommitError::Disconnected => f.write_str("not committed: no server answered in time"),
        }
    }
}

impl std::error::Error for CommitError {}

impl From<CallError> for CommitError {
    fn from(error: CallError) -> CommitError {
        match error {
            CallError::Refused(refusal) => CommitError::Refused(refusal),
            CallError::Disconnected => CommitError::Disconnected,
        }
    }
}

/// Why a client could not connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectError {
    /// A server says no: there is no such storage, or it is read-only.
    Refused(Refusal),
    /// None could serve in time: each address, and what was wrong with it last.
    Unreachable(Vec<(String, String)>),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectError::Refused(refusal) => write!(f, "refused: {refusal}"),
            ConnectError::Unreachable(tried) => {
                f.write_str("no server that can serve was found in time")?;
                tried.iter().try_for_each(|(address, why)| write!(f, "; {address}: {why}"))
            }
        }
    }
}

impl std::error::Error for ConnectError {}
