//! The bounds that all clients of a node share: memory (`budget`), threads that may block (`long_reads`), sockets
//! (`reserve`) and lines in the log (`complaints`).
//!
//! Each has its limits in [`crate::config::limits`].

pub mod budget;
pub mod complaints;
pub mod long_reads;
pub mod reserve;

pub use budget::{Budget, Reservation};
pub use complaints::{Complaints, shortened};
pub use long_reads::LongReads;
pub use reserve::{Reserve, Room};
