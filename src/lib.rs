//! zrs: a replicated storage server for ZODB.
#![forbid(unsafe_code)]
#![warn(missing_docs)]
pub mod zodb;
pub mod command;
pub mod tpc;
pub mod env;
// pub mod engine;
// pub mod net;
