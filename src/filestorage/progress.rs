//! How far an import or export has come, and how it is stopped.

use std::io;

/// The part of the work that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The file is read through, before an import.
    Looking,
    /// The data are copied.
    Copying,
}

/// How far an import or export has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The part of the work; each part counts from zero.
    pub phase: Phase,
    /// Bytes done: of the file and its blobs (import), or of records (export).
    pub done: u64,
    /// Bytes to do in all.
    pub total: u64,
    /// Bytes copied, of records and blobs.
    pub bytes: u64,
}

/// Hears of the progress, and answers whether to go on.
pub type Overseer<'o> = &'o mut dyn FnMut(Progress) -> bool;

/// The error of an import or export that was told to stop.
pub fn stopped() -> io::Error {
    io::Error::new(io::ErrorKind::Interrupted, "stopped")
}
