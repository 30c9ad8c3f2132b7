//! The answer of a read: found, refused, or a fault of this disk.

use std::io;

use crate::zodb::Refusal;

/// A refusal is a value, the same on every node, and goes to the client. A fault is an error, and closes its
/// connection.
pub type Answered<T> = io::Result<Result<T, Refusal>>;
