//! Ordered bytes on disk.
//!
//! The [`Engine`] is one of the three seams below which production and simulation differ: [`Rocks`] keeps its tables in
//! RocksDB, [`SimDisk`] in memory, with exactly the promises below and no more. Tables are ordered by the bytes of
//! their keys.
//!
//! **Promises.** A reader sees a whole batch or nothing of it, from the moment when `write` returns, and sees batches
//! in the order in which they were written. After a crash the engine holds a prefix of the batches written, which
//! includes at least every batch written before the last successful `sync` *began*. What an engine holds when it is
//! opened is durable: a second crash does not take it away. A folder (or simulated disk) is open once at a time. A
//! range iterator shows the state of the moment when it was made. After an error from `write` or `sync` the batch may
//! or may not be there after a restart; the owner of the engine must stop.
//!
//! **Left out.** Transactions, comparators, expiry: the storage has no use for them.

mod contract;
mod folder;
#[cfg(feature = "rocksdb")]
mod folder_shelf;
#[cfg(feature = "rocksdb")]
mod rocks;
mod shelf;
mod simdisk;
mod simshelf;

pub use contract::{Batch, Edit, Engine, Order, Pair, Pairs, Table};
pub use folder::{FORMAT as FOLDER_FORMAT, Folder, NewFolder};
#[cfg(feature = "rocksdb")]
pub use folder_shelf::FolderShelf;
#[cfg(feature = "rocksdb")]
pub use rocks::{Durability, Rocks};
pub use shelf::{Checkpoint, Incoming, Shelf, ShelfFile};
pub use simdisk::{Counters, DiskFaults, SimDisk, SimEngine};
pub use simshelf::SimShelf;
