//! The journal: the log on disk, and the few values that must not be forgotten.
//!
//! Entries are numbered from 1 on, without gaps, and lie in *segments*: files that were written full of zeros before
//! they are used, so that an fdatasync moves no metadata. Values (a vote, a mark) lie in *slots*, a small file that is
//! written twice. Nothing here knows what an entry or a value means.
//!
//! ```text
//! log/00000000000000000001.log   entries from 1 on
//! log/00000000000000004711.log   entries from 4711 on
//! log/next                       the segment that will be used next, full of zeros
//! log/slots                      the values, twice
//! log/synced                     up to where the entries are known to be synced, twice
//! ```
//!
//! **Promises.** [`Journal::sync`] returns once every entry appended before the call survives a crash;
//! [`Journal::truncate_after`], [`Journal::purge`] and [`Journal::set`] are durable on return. What can be read after
//! [`Journal::open`] is durable. Opening reads every entry: an end that was never synced is cut, and said; if anything
//! is wrong with what *was* synced (a flip, a hole, a file that is cut or gone), the journal does not open and nothing
//! is changed; [`Damage`] names the file, the byte and the entry. After a failed write or sync every later call fails.
//!
//! **How damage is known from a torn end.** After a power cut, the last writes may be there in part. So the journal
//! must know what was synced, and learns it from two places. Each entry names the first entry of its *batch* (what was
//! written since the last sync): an intact entry proves that everything before its batch was synced. And after each
//! sync the file `synced` is written, without a sync of its own: the next one, or the operating system within seconds,
//! takes it to the disk. An unreadable place is a torn end only if neither says that it was synced.
//!
//! **Left out.** An older copy of the whole folder: the journal is whole then, and only others can know better.

mod damage;
mod directory;
mod entry;
mod files;
mod inspect;
mod mark;
mod open;
mod segment;
mod simfiles;
mod slots;
#[cfg(test)]
mod tests;
mod writer;

pub use damage::{Damage, Fault};
pub use directory::Directory;
pub use entry::Entry;
pub use files::{Files, Identity, OpenFile};
pub use inspect::{Inspection, inspect};
pub use open::{Cut, Sizes};
pub use simfiles::{FileFaults, SimFiles};
pub use slots::{NAME as SLOTS, Values};
pub use writer::{Journal, Reader};
