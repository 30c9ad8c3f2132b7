//! The errors of a call, a connect and a commit.

use std::fmt;

use crate::zodb::{Conflict, Refusal};

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError {
    /// The server refused it.
    Refused(Refusal),
    /// There was no connection for as long as [`super::Options::wait`].
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
    /// Another transaction has changed an object that this one wrote or checked. Not committed; begin again.
    Conflict(Vec<Conflict>),
    /// The server refused it. Not committed.
    Refused(Refusal),
    /// The connection was lost after the finish was sent: committed, or not. To find out, read the written objects in a
    /// new transaction.
    Unknown,
    /// There was no connection for as long as [`super::Options::wait`]. Not committed.
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
    /// A server refused the client: there is no such storage, or it is read-only.
    Refused(Refusal),
    /// No server could serve in time: each address, and why it did not serve when it was last asked.
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
