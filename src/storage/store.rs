//! The store itself: opening it, the catalog that it keeps in memory, and the turns of writer and readers.
//!
//! The other files of this module add to [`Store`] what they are named for.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard};

use super::feed::Feed;
use super::hot::{CacheCounts, Hot};
use super::marks::{Mark, Marks};
use super::position::Position;
use super::summary::Summary;
use super::{keys, value};
use crate::command::Reign;
use crate::engine::{Batch, Engine, Order};
use crate::env::{Watch, Watching};
use crate::roster::Roster;
use crate::zodb::{StorageId, Tid};

/// The format of the tables that this program reads and writes.
pub const FORMAT: u32 = 2;

/// How often a read is tried again beside a pack that keeps removing revisions, before the read makes the pack wait.
const STEADY_TRIES: usize = 4;

/// A node's store. Clones are handles to the same store.
#[derive(Clone)]
pub struct Store {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    engine: Arc<dyn Engine>,
    writing: Mutex<Writing>,
    pub catalog: RwLock<Catalog>,
    pub applied: Watch<u64>,
    pub hot: Hot,
    /// Counts up before and after each batch that removes revisions: odd while such a batch is being written.
    pub removals: AtomicU64,
    /// About how many bytes were removed since the disk was last given its space back.
    pub garbage: AtomicU64,
}

/// The turn to write; its lock is held by the one writer of the moment.
#[derive(Default)]
pub(super) struct Writing {
    /// A write has failed. Whether the engine holds that batch is unknown, so nothing may be written any more.
    pub failed: bool,
}

/// The meta table, in memory; changed after the engine was.
pub(super) struct Catalog {
    pub position: Position,
    pub reign: Reign,
    pub membership: Option<(Position, Vec<u8>)>,
    pub roster: (Position, Roster),
    pub marks: Marks,
    pub storages: BTreeMap<StorageId, Storage>,
}

/// A storage. One that was dropped stays in the catalog for those who still have its number: to them it is empty.
pub(super) struct Storage {
    pub name: String,
    pub is_dropped: bool,
    pub summary: Summary,
    pub feed: Arc<Feed>,
}

impl Storage {
    pub fn new(name: String, summary: Summary) -> Storage {
        let feed = Arc::new(Feed::new(summary.last_tid));
        Storage { name, is_dropped: false, summary, feed }
    }

    pub fn mark_dropped(&mut self) {
        self.is_dropped = true;
        self.summary = Summary::default();
        self.feed.end();
    }
}

impl Catalog {
    /// The storages that there are.
    fn present(&self) -> impl Iterator<Item = (StorageId, &Storage)> {
        self.storages.iter().filter(|(_, storage)| !storage.is_dropped).map(|(&id, storage)| (id, storage))
    }
}

/// What is to be done about a store of another format, of which these are the bytes.
fn other_format(format: &[u8]) -> String {
    let (format, cure) = match <[u8; 4]>::try_from(format).map(u32::from_be_bytes) {
        Ok(older) if older < FORMAT => (
            older.to_string(),
            "export the database with the zrsctl of the version before, and import it with this one",
        ),
        Ok(newer) => (newer.to_string(), "update zrsd"),
        Err(_) => (format!("{format:?}"), "update zrsd"),
    };
    format!("the store is of format {format}, but this program knows format {FORMAT}: {cure}")
}

impl Store {
    /// Opens the store in `engine`, which was opened with [`TABLES`](keys::TABLES). An empty engine
    /// becomes a store in which nothing was applied. No objects are kept in memory.
    ///
    /// # Errors
    /// `InvalidData` if the store is damaged, or of a format that a newer program wrote.
    pub fn open(engine: Arc<dyn Engine>) -> io::Result<Store> {
        Store::open_with_cache(engine, 0)
    }

    /// [`Store::open`], with at most `cache` bytes of memory for the objects that are loaded most.
    pub fn open_with_cache(engine: Arc<dyn Engine>, cache: u64) -> io::Result<Store> {
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
            Some(format) => return Err(io::Error::new(io::ErrorKind::InvalidData, other_format(&format))),
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
        let roster = match meta(&keys::ROSTER, value::ROSTER)? {
            Some(bytes) => {
                let (position, rest) =
                    bytes.split_at_checked(16).ok_or_else(|| value::damaged("the roster is cut short"))?;
                let read = postcard::from_bytes(rest);
                let roster = read.map_err(|why| value::damaged(format_args!("the roster can't be read: {why}")))?;
                (Position::from_bytes(position)?, roster)
            }
            None => Default::default(),
        };
        let mut storages = BTreeMap::new();
        for pair in engine.range(keys::META, &keys::NAMES.0, &keys::NAMES.1, Order::Ascending) {
            let (key, sealed) = pair?;
            let storage = keys::decode_name(&key).ok_or_else(|| value::damaged("a storage's key is not 5 bytes"))?;
            let is_dropped = value::is_of(value::DROPPED, &sealed);
            let kind = if is_dropped { value::DROPPED } else { value::NAME };
            let name = String::from_utf8(value::body(&key, kind, &sealed)?.to_vec())
                .map_err(|_| value::damaged(format_args!("the name of storage {storage} is not UTF-8")))?;
            if is_dropped {
                let mut dropped = Storage::new(name, Summary::default());
                dropped.mark_dropped();
                storages.insert(storage, dropped);
                continue;
            }
            let summary = meta(&keys::summary(storage), value::SUMMARY)?
                .ok_or_else(|| value::damaged(format_args!("storage {storage} has no summary")))?;
            storages.insert(storage, Storage::new(name, Summary::from_bytes(&summary)?));
        }

        let position = position.unwrap_or_default();
        let catalog = Catalog {
            position,
            reign: reign.unwrap_or_default(),
            membership,
            roster,
            marks: Marks::default(),
            storages,
        };
        let inner = Inner {
            engine,
            writing: Mutex::default(),
            catalog: RwLock::new(catalog),
            applied: Watch::new(position.index),
            hot: Hot::new(cache),
            removals: AtomicU64::new(0),
            garbage: AtomicU64::new(0),
        };
        Ok(Store { inner: Arc::new(inner) })
    }

    /// The last entry of the log that was applied. (After a crash the store may stand behind an older entry, but never
    /// behind one older than the last flush.)
    pub fn applied(&self) -> Position {
        self.catalog().position
    }

    /// Tells the index of [`Store::applied`] as it grows; every entry up to that index can be read.
    pub fn applied_watch(&self) -> Watching<u64> {
        self.inner.applied.watching()
    }

    /// Makes durable every entry that was applied before the call, and gives the position of the last of them.
    ///
    /// Only the log's entries up to that position may be purged.
    pub fn flush(&self) -> io::Result<Position> {
        let position = self.applied();
        self.inner.engine.sync()?;
        Ok(position)
    }

    /// About how many bytes were removed since the store was opened, and since the last [`Store::reclaim`].
    pub fn garbage(&self) -> u64 {
        self.inner.garbage.load(Relaxed)
    }

    /// Gives the disk the space of what was removed; see [`Engine::reclaim`].
    pub fn reclaim(&self, go_on: impl Fn() -> bool) -> io::Result<()> {
        self.inner.garbage.store(0, Relaxed);
        self.inner.engine.reclaim(&go_on)
    }

    /// The open reign: the one whose barrier was applied last.
    pub fn reign(&self) -> Reign {
        self.catalog().reign
    }

    /// Raft's membership as it was set last, and the position of the entry that set it.
    pub fn membership(&self) -> Option<(Position, Vec<u8>)> {
        self.catalog().membership.clone()
    }

    /// Which nodes the operators want in the cluster, as they said last, and the position of the entry by which they
    /// did.
    pub fn roster(&self) -> (Position, Roster) {
        self.catalog().roster.clone()
    }

    /// Digests of the state after certain entries, to be compared between nodes; oldest first.
    pub fn marks(&self) -> Vec<Mark> {
        self.catalog().marks.all()
    }

    /// All storages, by number.
    pub fn storages(&self) -> Vec<(StorageId, String)> {
        self.catalog().present().map(|(id, storage)| (id, storage.name.clone())).collect()
    }

    /// The storage of that name.
    pub fn storage(&self, name: &str) -> Option<StorageId> {
        self.catalog().present().find(|(_, storage)| storage.name == name).map(|(id, _)| id)
    }

    /// What the objects in memory were good for.
    pub fn cache_counts(&self) -> CacheCounts {
        self.inner.hot.counts()
    }

    /// The storage's [`Summary`].
    ///
    /// # Panics
    /// If `storage` never was one of [`Store::storages`].
    pub fn summary(&self, storage: StorageId) -> Summary {
        self.with(storage, |storage| storage.summary.clone())
    }

    /// All summaries at one and the same position, to be compared between nodes.
    pub fn summaries(&self) -> (Position, BTreeMap<StorageId, Summary>) {
        let catalog = self.catalog();
        (catalog.position, catalog.present().map(|(id, storage)| (id, storage.summary.clone())).collect())
    }

    /// The newest transaction; `Tid::ZERO` if there is none.
    ///
    /// # Panics
    /// If `storage` never was one of [`Store::storages`].
    pub fn last_tid(&self, storage: StorageId) -> Tid {
        self.with(storage, |storage| storage.summary.last_tid)
    }

    /// The feed of the transactions that are applied to the storage.
    ///
    /// # Panics
    /// If `storage` never was one of [`Store::storages`].
    pub fn feed(&self, storage: StorageId) -> Arc<Feed> {
        self.with(storage, |storage| storage.feed.clone())
    }

    /// Reads in more than one step as if no pack removed anything meanwhile: reads again if a pack did.
    ///
    /// (Commits need no such care: they only add revisions that are younger than every view.)
    pub(super) fn steady<T>(&self, read: impl Fn() -> io::Result<T>) -> io::Result<T> {
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
        // No pack step can be applied while the writer's turn is held.
        let _turn = self.writing();
        read()
    }

    pub(super) fn with<T>(&self, storage: StorageId, look: impl FnOnce(&Storage) -> T) -> T {
        look(
            self.catalog()
                .storages
                .get(&storage)
                .expect("storage ids come from this store, and a storage that was dropped stays in the catalog"),
        )
    }

    /// The storage's summary; `None`: there is no such storage. For commands, which may name any number.
    pub(super) fn summary_of(&self, storage: StorageId) -> Option<Summary> {
        self.catalog()
            .storages
            .get(&storage)
            .filter(|storage| !storage.is_dropped)
            .map(|storage| storage.summary.clone())
    }

    /// Up to this tid transactions can't be undone: they are packed, or are being packed.
    pub fn undo_floor(&self, storage: StorageId) -> Tid {
        let summary = self.summary(storage);
        summary.packed.max(summary.packing)
    }

    /// The writer's turn. While one caller holds it, no other can apply anything.
    pub(super) fn writing(&self) -> MutexGuard<'_, Writing> {
        self.inner.writing.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(super) fn catalog(&self) -> RwLockReadGuard<'_, Catalog> {
        self.inner.catalog.read().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(super) fn engine(&self) -> &dyn Engine {
        &*self.inner.engine
    }

    pub(super) fn hot(&self) -> &Hot {
        &self.inner.hot
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("applied", &self.applied()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_of_another_format_comes_with_what_helps() {
        assert!(other_format(&(FORMAT + 1).to_be_bytes()).ends_with("update zrsd"));
        let older = other_format(&(FORMAT - 1).to_be_bytes());
        assert!(older.starts_with("the store is of format 1, ") && older.contains("export the database"), "{older}");
    }
}
