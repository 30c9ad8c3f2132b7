//! zrs: a replicated storage server for ZODB.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

// In dependency order. (The empty lines keep rustfmt from sorting them.)

pub mod zodb; // vocabulary: ids, records, refusals

pub mod roster; // which nodes are wanted

pub mod command; // what may be replicated

pub mod env; // the source of time, chance and threads

pub mod config; // settings, and every limit

pub mod net; // bytes between hosts

pub mod zeo; // the clients' language

pub mod engine; // ordered bytes on disk

pub mod journal; // the log on disk

pub mod storage; // the databases of a node, and what commands do to them

pub mod filestorage; // Data.fs, in and out

pub mod tpc; // two-phase commit on the primary

pub mod raft; // consensus

pub mod server; // clients' sessions

pub mod http; // operators' pages

pub mod client; // the Rust client

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing; // what must hold of foreign bytes, for `fuzz/`
