//! zrs: a replicated storage server for ZODB.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

// In dependency order (rustfmt sorts what stands together, hence the lines between).

pub mod zodb; // vocabulary: ids, records, refusals

pub mod command; // what may be replicated

pub mod env; // the source of time, chance and threads

pub mod config; // what an operator may say, and every limit

pub mod net; // bytes between hosts

pub mod zeo; // the clients' language

pub mod engine; // ordered bytes on disk

pub mod storage; // what a node keeps

pub mod filestorage; // Data.fs, in and out

pub mod tpc; // two-phase commit on the primary

pub mod raft; // consensus

pub mod server; // sessions

pub mod http; // operators

pub mod client; // the Rust client

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing; // what must hold of foreign bytes, for `fuzz/`
