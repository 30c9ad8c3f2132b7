//! Ordered bytes on disk.
//!
//! The [`Engine`] is one of the three seams below which production and simulation differ: [`Rocks`] keeps its tables in
//! RocksDB, [`SimDisk`] in memory, with exactly the promises below and no more. Tables are ordered by key, byte by byte.
//!
//! **Promises.** A batch is seen whole or not at all, at once by whoever reads next, and batches are seen in
//! the order in which they were written. After a crash the engine holds a prefix of what was written, whole batches in their order, which
//! reaches at least to the last batch written before the last `sync` *began* that returned `Ok`. What is there when an
//! engine is opened is durable: it does not go in a second crash. A folder (or simulated disk) is open once at a time. What a range iterator
//! shows is the state of the moment when it was made. An error from `write` or `sync` leaves it open whether the batch
//! will be there after a restart; the owner of the engine must stop.
//!
//! **Left out.** Transactions, comparators, expiry: the storage has no use for them.

mod contract;
mod folder;
#[cfg(feature = "rocksdb")]
mod rocks;
mod simdisk;

pub use contract::{Batch, Edit, Engine, Order, Pair, Pairs, Table};
pub use folder::{FORMAT as FOLDER_FORMAT, Folder, NewFolder};
#[cfg(feature = "rocksdb")]
pub use rocks::{Durability, Rocks};
pub use simdisk::{Counters, Faults, SimDisk, SimEngine};
