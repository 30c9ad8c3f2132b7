//! Counters: for operators (`metrics`), for the monitors of one storage's clients (`tally`), and by the reasons for
//! which connections are closed (`why`).
//!
//! Data only: this room uses nothing else of the server, so that every other room may count. Counting is an atomic
//! addition and never fails.

pub mod metrics;
pub mod tally;
pub mod why;

pub use metrics::{Metrics, PackCounters, Present};
pub use tally::{Connected, Tallies, Tally};
pub use why::Why;
