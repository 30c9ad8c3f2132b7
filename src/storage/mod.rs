//! The databases of a node, over an [`Engine`](crate::engine::Engine).
//!
//! Transactions come in through [`Store::apply`] alone, one [`Command`](crate::command::Command) after the other, in
//! the order of the log; import, replay and replication all call it. Reads run beside apply, from any thread.
//!
//! **Promises.** A command's changes are seen whole or not at all, after a crash too: all its writes and the position
//! in the log are one batch. Two stores that applied the same commands answer the same and have the same [`Summary`].
//! A read that is given a view never shows anything younger. A record that is not as it was written is a fault that
//! names the record, never an answer.
//!
//! **Nothing here is durable by itself**: after a crash the engine may hold an older state, and the log is applied
//! again from [`Store::applied`] on. Entries up to the position that [`Store::flush`] gives never need that.
//!
//! **Where to look**
//!
//! | file | is about |
//! |---|---|
//! | `store` | opening, the catalog in memory, the writer's turn (`checkpoint`: copies of the whole for other nodes) |
//! | `keys`, `value` | every table and key, and the values behind the keys |
//! | `apply` | what each command means (`decision`: what apply decides; `put`: how that becomes keys and values) |
//! | `load`, `history`, `walk` | reads: of one object, along the time, of everything |
//! | `hot` | the objects that are read most, in memory |
//! | `undo` | which older revisions an undo makes objects show |
//! | `pieces` | data that came ahead of its transaction |
//! | `pack` | what a pack removes, and how |
//! | `feed` | what was applied lately, for the sessions |
//! | `summary`, `digest`, `verify` | whether nodes hold the same |
//!
//! `docs/storage.md` has the whole in one piece; `tests/scripts/storage/` plays it.
//!
//! **Left out.** Locks and views are not kept here: a view is just a number that the
//! caller brings along.

mod answered;
mod apply;
mod base;
mod checkpoint;
mod decision;
mod digest;
mod feed;
mod history;
mod hot;
mod inspect;
pub mod keys;
mod load;
mod marks;
#[cfg(test)]
mod model;
#[cfg(test)]
mod model_tests;
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

pub use answered::Answered;
pub use checkpoint::position_of;
pub use digest::{Digest, Hashing};
pub use feed::{Applied, Feed, RING_OIDS, RING_TRANSACTIONS};
pub use history::{HistoryEntry, UndoEntry};
pub use hot::CacheCounts;
pub use inspect::{InspectedHead, InspectedRevision, InspectedTransaction};
pub use keys::TABLES;
pub use load::Loaded;
pub use marks::{MARK_SCHEME, Mark};
pub use position::Position;
pub use stop::Stop;
pub use store::{FORMAT, Store};
pub use summary::Summary;
pub use undo::{OwnWrite, Undone};
pub use value::Current;
pub use verify::Recount;
pub use walk::{Holding, Listing};
