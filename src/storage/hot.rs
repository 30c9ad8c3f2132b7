//! The objects that are read again and again, in memory: the newest revision of each, with its record.
//!
//! **Promise.** What is here is what the store holds now, and no change of it is on its way. That takes an order
//! between those who change an object (apply alone, one batch at a time) and those who bring what they have read:
//!
//! - Before a batch is written, [`Hot::begin`] drops the objects that it changes. Until [`Hot::end`], when the batch is
//!   written and before anybody is told of it, there is nothing of them here, and nothing of them is taken.
//! - A reader that finds nothing takes a [`Ticket`], reads the store, and hands in the ticket with what it has read
//!   ([`Hot::keep`]). The ticket is worth nothing once a change of the object has begun since. So whatever is kept was
//!   read between two changes, however late the reader comes.
//!
//! Which objects a batch changes is read from the batch: those whose line in the table `objects` it writes. Nothing can
//! make another revision the newest one, or take the newest one away, without that; so commits, undo, deletion, packs
//! and whatever may come are all seen here. (A pack may move a record to a younger revision that shows it: what is read
//! stays the same.)
//!
//! A revision is told from here only to a view that has it, and as it is the newest one of all, no view that has it has
//! a younger one. So the answer has no end, whatever time was asked for.
//!
//! **Bounds.** All entries together have at most the bytes that [`Hot::new`] was given; records above
//! [`limits::CACHED_RECORD`] are not kept. (The tables of `quick_cache` grow with the number of entries, and stay when
//! these get fewer and larger: after records of 40 bytes, another half.) What goes first is decided by `quick_cache`
//! (Clock-PRO, which lets a scan of all objects pass by), without threads, time or chance: the same calls always leave
//! the same entries.
//!
//! **Left out**: older revisions, absent objects and blobs, which are asked for rarely.

use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};

use super::keys;
use super::value::{self, Current};
use crate::config::limits;
use crate::engine::{Batch, Edit};
use crate::zodb::{Oid, StorageId, Tid};

/// What an entry costs beside its record, about: keys, links, and the heads of two allocations.
const ENTRY: u64 = 160;
/// What an entry costs as a rule; only for reckoning how many there may be.
const USUAL_ENTRY: u64 = 1 << 10;
/// Parts of the cache with a lock each: as many as leave each of them room for a few of the largest records. Not the
/// number of processors, which would make the order in which entries go another one on each machine.
const SHARDS: std::ops::RangeInclusive<u64> = 1..=1024;
/// So many of the largest records have room in one of these.
const LARGE_IN_A_SHARD: u64 = 16;
/// So many turns are shared by all objects. A power of two.
const TURNS: usize = 256;

type Key = (StorageId, Oid);

/// The newest revision of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub tid: Tid,
    pub data: Bytes,
}

/// The newest revisions of the objects that are read most.
pub(super) struct Hot {
    entries: Option<Cache<Key, Held, Bytewise, Fixed>>,
    /// Counts, for each part of all objects, the begins and ends of changes: odd while one goes on.
    turns: [Mutex<u64>; TURNS],
    hits: AtomicU64,
    misses: AtomicU64,
}

/// The moment from which on a reader reads; only [`Hot::ticket`] makes one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    key: Key,
    turn: u64,
}

/// A change that has begun.
#[must_use = "until its end nothing of these objects is taken"]
pub(super) struct Changing {
    /// The numbers of the turns that were begun, each once.
    turns: Vec<usize>,
    /// Those of the changed objects that were here, as the change leaves them.
    after: Vec<(Key, Held)>,
}

/// How the cache does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheCounts {
    /// Loads that were answered from memory.
    pub hits: u64,
    /// Loads for which the tables were read, though they asked for what may be here.
    pub misses: u64,
    /// Objects that are in memory.
    pub objects: u64,
    /// Bytes that these take.
    pub bytes: u64,
}

impl Hot {
    /// A cache of at most so many bytes; of 0 none.
    pub fn new(bytes: u64) -> Hot {
        let options = || {
            let entries = usize::try_from(bytes / USUAL_ENTRY).unwrap_or(usize::MAX);
            let mut options = OptionsBuilder::new();
            let shards = bytes / (LARGE_IN_A_SHARD * limits::CACHED_RECORD as u64);
            let shards = shards.clamp(*SHARDS.start(), *SHARDS.end()) as usize;
            options.shards(shards).weight_capacity(bytes).estimated_items_capacity(entries.max(1));
            options.build().expect("both capacities are given")
        };
        let entries = (bytes > 0).then(|| Cache::with_options(options(), Bytewise, Fixed, DefaultLifecycle::default()));
        let turns = [const { Mutex::new(0) }; TURNS];
        Hot { entries, turns, hits: AtomicU64::new(0), misses: AtomicU64::new(0) }
    }

    /// The object's newest revision, if it is here and `fits`.
    pub fn get(&self, storage: StorageId, oid: Oid, fits: impl FnOnce(Tid) -> bool) -> Option<Held> {
        let held = self.entries.as_ref()?.get(&(storage, oid)).filter(|held| fits(held.tid))?;
        self.hits.fetch_add(1, Relaxed);
        Some(held)
    }

    /// Before a reader reads the store. `None`: what it reads will not be kept.
    pub fn ticket(&self, storage: StorageId, oid: Oid) -> Option<Ticket> {
        self.entries.as_ref()?;
        let key = (storage, oid);
        let turn = *self.turn(turn_of(&key));
        turn.is_multiple_of(2).then_some(Ticket { key, turn })
    }

    /// Keeps the newest revision of the ticket's object, which was read since the ticket was taken; unless that may be
    /// the newest one no more.
    pub fn keep(&self, ticket: Option<Ticket>, tid: Tid, data: &Bytes) {
        let (Some(entries), Some(Ticket { key, turn })) = (&self.entries, ticket) else { return };
        if data.len() > limits::CACHED_RECORD {
            return;
        }
        self.misses.fetch_add(1, Relaxed);
        // (Its lock is held until the entry is there: a change that begins now finds the entry.)
        let now = self.turn(turn_of(&key));
        if *now == turn {
            entries.insert(key, Held { tid, data: data.clone() });
        }
    }

    /// Before a batch is written.
    pub fn begin(&self, batch: &Batch) -> Changing {
        let mut changing = Changing { turns: Vec::new(), after: Vec::new() };
        let Some(entries) = &self.entries else { return changing };
        let changed = || batch.edits.iter().enumerate().filter_map(|(n, edit)| Some((n, object_of(edit)?)));
        changing.turns.extend(changed().map(|(_, key)| turn_of(&key)));
        changing.turns.sort_unstable();
        changing.turns.dedup();
        for turn in &changing.turns {
            *self.turn(*turn) += 1;
        }
        // (The last edit of an object first: it prevails.)
        for (n, key) in changed().rev() {
            // What is read much is read again, as soon as the clients that have it hear of the change.
            let was_here = entries.remove(&key).is_some();
            if let (true, Some(held)) = (was_here, held_after(&batch.edits[..=n], key)) {
                changing.after.push((key, held));
            }
        }
        changing
    }

    /// When the batch is written: readers find what it has changed.
    pub fn end(&self, changing: Changing) {
        let Changing { turns, after } = changing;
        if let Some(entries) = &self.entries {
            after.into_iter().for_each(|(key, held)| entries.insert(key, held));
        }
        for turn in turns {
            *self.turn(turn) += 1;
        }
    }

    pub fn counts(&self) -> CacheCounts {
        let (objects, bytes) = self.entries.as_ref().map_or((0, 0), |entries| (entries.len() as u64, entries.weight()));
        CacheCounts { hits: self.hits.load(Relaxed), misses: self.misses.load(Relaxed), objects, bytes }
    }

    fn turn(&self, number: usize) -> MutexGuard<'_, u64> {
        self.turns[number].lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn turn_of(key: &Key) -> usize {
    // (The low bits choose among a shard's entries.)
    (Fixed.hash_one(key) >> 40) as usize % TURNS
}

/// The object whose newest revision an edit changes.
fn object_of(edit: &Edit) -> Option<Key> {
    let key = match edit {
        Edit::Put(table, key, _) | Edit::Delete(table, key) if *table == keys::OBJECTS => key,
        Edit::DeleteRange(table, ..) if *table == keys::OBJECTS => {
            unreachable!("objects are removed one by one: the cache must be told of each")
        }
        _ => return None,
    };
    Some(keys::decode_object(key).expect("a batch has keys that were made by keys::object"))
}

/// The revision that the last of these edits makes the newest one, if the edit before brings its record.
fn held_after(edits: &[Edit], (storage, oid): Key) -> Option<Held> {
    let [.., Edit::Put(table, key, sealed), Edit::Put(_, object, current)] = edits else { return None };
    let Current { tid, absent: false } = Current::decode(object, current).ok()? else { return None };
    if *table != keys::REVISIONS || *key != keys::revision(storage, oid, tid) {
        return None;
    }
    let data = value::record_in(sealed).filter(|data| data.len() <= limits::CACHED_RECORD)?;
    Some(Held { tid, data: Bytes::copy_from_slice(data) })
}

/// Weighs entries by what they take.
#[derive(Clone)]
struct Bytewise;

impl Weighter<Key, Held> for Bytewise {
    fn weight(&self, _: &Key, held: &Held) -> u64 {
        ENTRY + held.data.len() as u64
    }
}

/// Hashes keys, in every process the same. Objects of one storage never have the same hash; who may write, and chooses
/// numbers whose hashes are alike, makes one of the shards slow.
#[derive(Clone, Copy)]
struct Fixed;

struct Mixer(u64);

impl BuildHasher for Fixed {
    type Hasher = Mixer;

    fn build_hasher(&self) -> Mixer {
        Mixer(0)
    }
}

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(26);
    }

    /// The last step of MurmurHash3: every bit of the keys moves every bit of the hash.
    fn finish(&self) -> u64 {
        let mut hash = self.0;
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        hash ^ (hash >> 33)
    }
}

#[cfg(test)]
#[path = "hot_tests.rs"]
mod tests;
