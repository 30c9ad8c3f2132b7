//! What a node keeps: the databases, over an [`Engine`].
//!
//! Transactions come in through [`Store::apply`] alone, one [`Command`](crate::command::Command) after the other, in
//! the order of the log; import, replay and replication all call it. Reads run beside it, from any thread.
//!
//! **Promises.** What a command does is seen whole or not at all, after a crash too: all its writes and the position in
//! the log are one batch. Two stores that applied the same commands answer the same and have the same [`Summary`]. A
//! read that is given a view never shows anything younger. A record that is not what was written is a fault that names
//! it, never an answer.
//!
//! **Nothing here is durable by itself**: after a crash the engine may hold an older state, and the log is applied
//! again from [`Store::applied`]. [`Store::flush`] says up to where that will not be needed.
//!
//! **Where to look**: `keys` lists every table and key, `value` what stands behind them, `pieces` what came ahead of its transaction, `apply` says what each command
//! means, `load` and `history` read, `undo` works out what undoing makes of objects, `pack` what a pack removes, `feed` tells
//! the sessions what was applied, `digest` and `verify` find out whether nodes hold the same. `docs/storage.md` has it in one
//! piece.
//!
//! **Left out**, with room for it: snapshots. Locks and views are not kept here: a view
//! is just a number that the caller brings along.

mod apply;
mod base;
mod decision;
mod digest;
mod feed;
mod history;
pub mod keys;
mod load;
#[cfg(test)]
mod model;
pub mod pack;
mod pieces;
#[cfg(test)]
mod pieces_tests;
mod position;
mod put;
mod stop;
mod store;
mod summary;
#[cfg(test)]
mod testing;
mod undo;
mod value;
mod verify;
mod walk;

pub use digest::{Digest, Hashing};
pub use feed::{Applied, Feed, RING_OIDS, RING_TRANSACTIONS};
pub use history::{HistoryEntry, UndoEntry};
pub use keys::TABLES;
pub use load::Loaded;
pub use position::Position;
pub use stop::Stop;
pub use store::{FORMAT, Store};
pub use summary::Summary;
pub use undo::{OwnWrite, Undone};
pub use value::Current;
pub use verify::Recount;
pub use walk::{Holding, Listing};
