//! The door: every connection from its socket until a client is seated, relayed or sent away.
//!
//! ```text
//!   accept ──► tls ──► greeting ──┬──► register ──┬──► session
//!   counts,            greet, or  │               ├──► relay: bytes to the primary and back
//!   limits             hold       │               └──► refused, redirected, closed
//!                                 ├──► raft: a peer
//!                                 └──► status: a monitor
//! ```

pub mod accept;
mod greeting;
mod register;
mod relay;
mod tls;
