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
mod digest;
mod feed;
mod history;
mod inspect;
pub mod keys;
mod load;
#[cfg(test)]
mod model;
pub mod pack;
mod pieces;
#[cfg(test)]
mod pieces_tests;
mod put;
mod stop;
mod summary;
#[cfg(test)]
mod testing;
mod undo;
mod value;
mod verify;
mod walk;

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard};

use crate::command::Reign;
use crate::engine::{Batch, Engine, Order};
use crate::env::{Watch, Watching};
use crate::zodb::{StorageId, Tid};

pub use digest::{Digest, Hashing};
pub use feed::{Applied, Feed, RING_OIDS, RING_TRANSACTIONS};
pub use history::{HistoryEntry, UndoEntry};
pub use inspect::{InspectedHead, InspectedRevision, InspectedTransaction};
pub use keys::TABLES;
pub use load::Loaded;
pub use stop::Stop;
pub use summary::Summary;
pub use undo::{Own, Undone};
pub use value::Current;
pub use verify::Recount;
pub use walk::{Holding, Listing};

/// The format of the tables that this program reads and writes.
pub const FORMAT: u32 = 2;

/// How often a read that a pack came across is tried beside it, before it makes the pack wait.
const STEADY_TRIES: usize = 4;

/// A place in the log. The default stands before the first entry: nothing was applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The entry's number, one more than that of the entry before; the first is 1.
    pub index: u64,
    /// The term in which the entry was made.
    pub term: u64,
}

/// A node's store. Clones are handles to the same.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Arc<dyn Engine>,
    /// Held by whoever writes. `true` once a write has failed: then nobody knows what the engine holds.
    writing: Mutex<bool>,
    state: RwLock<State>,
    applied: Watch<u64>,
    /// Goes up before and after each batch that removes revisions, so that it is odd in between.
    removals: AtomicU64,
}

/// What the meta table says, in memory; changed after the engine was.
struct State {
    position: Position,
    reign: Reign,
    membership: Option<(Position, Vec<u8>)>,
    storages: BTreeMap<StorageId, Storage>,
}

struct Storage {
    name: String,
    summary: Summary,
    feed: Arc<Feed>,
}

impl Storage {
    fn new(name: String, summary: Summary) -> Storage {
        let feed = Arc::new(Feed::new(summary.last_tid));
        Storage { name, summary, feed }
    }
}

impl Store {
    /// Opens the store in `engine`, which was opened with [`TABLES`]. An empty one becomes a store in which nothing was
    /// applied.
    ///
    /// # Errors
    /// `InvalidData` if the store is damaged, or of a format that a newer program wrote.
    pub fn open(engine: Arc<dyn Engine>) -> io::Result<Store> {
        let meta = |key: &[u8], kind: u8| -> io::Result<Option<Vec<u8>>> {
            let value = engine.get(keys::META, key)?;
            value.map(|value| value::body(key, kind, &value).map(<[u8]>::to_vec)).transpose()
        };
        match meta(&keys::FORMAT, value::FORMAT)? {
            None => {
                let mut batch = Batch::new();
                batch.put(keys::META, keys::FORMAT, value::seal(&keys::FORMAT, value::FORMAT, &FORMAT.to_be_bytes()));
                engine.write(batch)?;
            }
            Some(format) if format == FORMAT.to_be_bytes() => {}
            Some(format) => {
                let why = format!(
                    "the store is of format {format:?} (u32), but this program knows format {FORMAT}: update zrsd"
                );
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
        }

        let position = meta(&keys::POSITION, value::POSITION)?.map(|bytes| Position::from_bytes(&bytes)).transpose()?;
        let reign = meta(&keys::REIGN, value::REIGN)?.map(|bytes| value::reign_from_bytes(&bytes)).transpose()?;
        let membership = match meta(&keys::MEMBERSHIP, value::MEMBERSHIP)? {
            Some(bytes) => {
                let (position, rest) =
                    bytes.split_at_checked(16).ok_or_else(|| value::damaged("the membership is cut short"))?;
                Some((Position::from_bytes(position)?, rest.to_vec()))
            }
            None => None,
        };
        let mut storages = BTreeMap::new();
        for pair in engine.range(keys::META, &keys::NAMES.0, &keys::NAMES.1, Order::Ascending) {
            let (key, sealed) = pair?;
            let storage = keys::decode_name(&key).ok_or_else(|| value::damaged("a storage's key is not 5 bytes"))?;
            let name = String::from_utf8(value::body(&key, value::NAME, &sealed)?.to_vec())
                .map_err(|_| value::damaged(format_args!("the name of storage {storage} is not UTF-8")))?;
            let summary = meta(&keys::summary(storage), value::SUMMARY)?
                .ok_or_else(|| value::damaged(format_args!("storage {storage} has no summary")))?;
            storages.insert(storage, Storage::new(name, Summary::from_bytes(&summary)?));
        }

        let position = position.unwrap_or_default();
        let state = State { position, reign: reign.unwrap_or_default(), membership, storages };
        let inner = Inner {
            engine,
            writing: Mutex::new(false),
            state: RwLock::new(state),
            applied: Watch::new(position.index),
            removals: AtomicU64::new(0),
        };
        Ok(Store { inner: Arc::new(inner) })
    }

    /// The last entry of the log that was applied (and will be there after a crash only if it was flushed).
    pub fn applied(&self) -> Position {
        self.state().position
    }

    /// Tells the index of [`Store::applied`] when it grows; all that was applied up to it can be read.
    pub fn applied_watch(&self) -> Watching<u64> {
        self.inner.applied.watching()
    }

    /// Makes durable what was applied before the call, and gives the position up to which that is so.
    ///
    /// Only the log's entries up to it may be purged.
    pub fn flush(&self) -> io::Result<Position> {
        let position = self.applied();
        self.inner.engine.sync()?;
        Ok(position)
    }

    /// The open reign: the one whose barrier was applied last.
    pub fn reign(&self) -> Reign {
        self.state().reign
    }

    /// Raft's membership as it was set last, and the entry that set it.
    pub fn membership(&self) -> Option<(Position, Vec<u8>)> {
        self.state().membership.clone()
    }

    /// All storages, by number.
    pub fn storages(&self) -> Vec<(StorageId, String)> {
        self.state().storages.iter().map(|(&id, storage)| (id, storage.name.clone())).collect()
    }

    /// The storage of that name.
    pub fn storage(&self, name: &str) -> Option<StorageId> {
        self.state().storages.iter().find(|(_, storage)| storage.name == name).map(|(&id, _)| id)
    }

    /// The storage in numbers.
    ///
    /// # Panics
    /// If `storage` is none of [`Store::storages`].
    pub fn summary(&self, storage: StorageId) -> Summary {
        self.with(storage, |storage| storage.summary.clone())
    }

    /// All summaries at one and the same position, to be compared between nodes.
    pub fn summaries(&self) -> (Position, BTreeMap<StorageId, Summary>) {
        let state = self.state();
        (state.position, state.storages.iter().map(|(&id, storage)| (id, storage.summary.clone())).collect())
    }

    /// The newest transaction; `Tid::ZERO` if there is none.
    ///
    /// # Panics
    /// If `storage` is none of [`Store::storages`].
    pub fn last_tid(&self, storage: StorageId) -> Tid {
        self.with(storage, |storage| storage.summary.last_tid)
    }

    /// What is applied to the storage from now on.
    ///
    /// # Panics
    /// If `storage` is none of [`Store::storages`].
    pub fn feed(&self, storage: StorageId) -> Arc<Feed> {
        self.with(storage, |storage| storage.feed.clone())
    }

    /// Reads in more than one step as if no pack removed anything meanwhile: looks again if one did.
    ///
    /// (Commits need no such care: they only add what is younger than every view.)
    fn steady<T>(&self, read: impl Fn() -> io::Result<T>) -> io::Result<T> {
        for _ in 0..STEADY_TRIES {
            let before = self.inner.removals.load(SeqCst);
            if !before.is_multiple_of(2) {
                break;
            }
            let found = read();
            if self.inner.removals.load(SeqCst) == before {
                return found;
            }
        }
        // Nobody removes anything while this is held.
        let _turn = self.inner.writing.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        read()
    }

    fn with<T>(&self, storage: StorageId, look: impl FnOnce(&Storage) -> T) -> T {
        look(
            self.state()
                .storages
                .get(&storage)
                .expect("storage ids come from this store, and no storage is ever removed"),
        )
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.inner.state.read().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn engine(&self) -> &dyn Engine {
        &*self.inner.engine
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("applied", &self.applied()).finish_non_exhaustive()
    }
}
