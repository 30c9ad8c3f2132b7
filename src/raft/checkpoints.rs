//! The checkpoints of this node's database that other nodes fetch.
//!
//! A checkpoint is made when a node asks for one, and shared by all that ask while it is fresh. From its position on
//! the log has to stay ([`Checkpoints::floor`]), or a node that has fetched it would have to begin again. It goes when
//! nobody has read from it for a while, or when the disk is nearly full; and all of them go at the start.
//!
//! Whoever fetches a database, here or from another member, says so to every member, and how far it is
//! ([`Checkpoints::note`]): the log of the one that is primary then has to go on from there.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::log::LogStore;
use super::pace::Pace;
use super::types::Incarnation;
use super::wire::Fetched;
use crate::config::limits;
use crate::engine::{Checkpoint, Shelf, ShelfFile};
use crate::env::Env;
use crate::storage::{Position, Store};

/// The checkpoints of a node.
pub struct Checkpoints {
    env: Env,
    store: Store,
    log: LogStore,
    shelf: Arc<dyn Shelf>,
    held: Mutex<Vec<Arc<Held>>>,
    /// Who has fetched lately, here or elsewhere.
    readers: Mutex<BTreeMap<Incarnation, Reading>>,
    /// Held while a checkpoint is made.
    making: tokio::sync::Mutex<()>,
    /// While one is made: how many entries it has applied, at least.
    made_from: Mutex<Option<u64>>,
    /// Bytes that may be sent in a second, to all together; and the moment until which those sent so far last.
    rate: u64,
    sent_until: Mutex<Instant>,
}

/// How far a node has read.
struct Reading {
    fetched: Fetched,
    pace: Pace,
    at: Instant,
    is_open: bool,
}

/// A checkpoint that others read.
pub struct Held {
    pub name: String,
    pub position: Position,
    /// A term that this node had heard of when the checkpoint had been made.
    pub term: u64,
    checkpoint: Arc<dyn Checkpoint>,
    made: Instant,
    used: Mutex<Instant>,
    is_read: AtomicBool,
}

impl Held {
    pub fn files(&self) -> Vec<ShelfFile> {
        self.checkpoint.files()
    }

    fn used(&self) -> MutexGuard<'_, Instant> {
        lock(&self.used)
    }
}

impl Checkpoints {
    /// Of `store`, on `shelf`; `rate`: bytes in a second that are sent of them, not 0.
    pub fn new(env: Env, store: Store, log: LogStore, shelf: Arc<dyn Shelf>, rate: u64) -> Checkpoints {
        let (held, readers, made_from) = (Mutex::default(), Mutex::default(), Mutex::default());
        let sent_until = Mutex::new(env.now());
        let making = tokio::sync::Mutex::new(());
        Checkpoints { env, store, log, shelf, held, readers, making, made_from, rate, sent_until }
    }

    /// The checkpoint called `name`, if it is still there.
    pub fn again(&self, name: &str) -> Option<Arc<Held>> {
        // (Only reading keeps it: who comes back again and again, and has no room for it, must not.)
        self.held().iter().find(|held| held.name == name).cloned()
    }

    /// Notes how far a node is with a checkpoint that it fetches here or from another member; `None`: it has ended, or
    /// was cut off.
    pub fn note(&self, reader: Incarnation, fetched: Option<Fetched>) {
        let at = self.env.now();
        let mut readers = lock(&self.readers);
        let known = readers.get_mut(&reader);
        match (fetched, known) {
            (Some(fetched), Some(reading)) if reading.is_open && reading.fetched.entries == fetched.entries => {
                if reading.fetched.done == 0 {
                    // (What was there from before has not come in the first second.)
                    reading.pace = Pace::begin(&self.env, fetched.done);
                }
                (reading.fetched, reading.at) = (fetched, at);
            }
            (Some(fetched), _) => {
                let pace = Pace::begin(&self.env, fetched.done);
                readers.insert(reader, Reading { fetched, pace, at, is_open: true });
            }
            (None, Some(reading)) => reading.is_open = false,
            (None, None) => {}
        }
    }

    /// How far a node is that fetches a checkpoint now, and bytes in a second.
    pub fn progress_of(&self, reader: Incarnation) -> Option<(Fetched, u64)> {
        let now = self.env.now();
        let readers = lock(&self.readers);
        // (A machine that has lost its power closes no connection.)
        let reads = |reading: &&Reading| reading.is_open && now < reading.at + limits::FETCH_SILENCE;
        let reading = readers.get(&reader).filter(reads)?;
        Some((reading.fetched, reading.pace.rate(&self.env, reading.fetched.done)))
    }

    /// Whether the log still has what follows its first `entries` entries.
    pub fn goes_on_from(&self, entries: u64) -> bool {
        self.log.purged().is_none_or(|purged| purged.index < entries)
    }

    /// The nodes that have read within [`limits::FETCHED_KEPT`], and may still have to catch up, each with how many
    /// entries its checkpoint has applied; `is_done` says which of them have.
    pub fn followers(&self, is_done: impl Fn(Incarnation) -> bool) -> Vec<(Incarnation, u64)> {
        let now = self.env.now();
        let mut readers = lock(&self.readers);
        readers.retain(|reader, reading| {
            reading.is_open || (now < reading.at + limits::FETCHED_KEPT && !is_done(*reader))
        });
        readers.iter().map(|(reader, reading)| (*reader, reading.fetched.entries)).collect()
    }

    /// A checkpoint with at least the first `entries` entries of the log applied.
    pub async fn at_least(&self, entries: u64) -> io::Result<Arc<Held>> {
        let _making = self.making.lock().await;
        let now = self.env.now();
        let fresh = |held: &&Arc<Held>| held.position.index >= entries && now < held.made + limits::CHECKPOINT_SHARED;
        if let Some(held) = self.held().iter().find(fresh) {
            *held.used() = now;
            return Ok(held.clone());
        }
        let applied = self.store.applied().index;
        if applied < entries {
            let why = format!("this node has applied {applied} entries, and {entries} are needed");
            return Err(io::Error::new(io::ErrorKind::NotFound, why));
        }
        let name = format!("{:016x}", self.env.seed());
        let (store, shelf, named) = (self.store.clone(), self.shelf.clone(), name.clone());
        *lock(&self.made_from) = Some(applied);
        let made = self.env.offload(move || store.checkpoint(&*shelf, &named)).await;
        // (In this order: what was applied was committed in this term or in an earlier one.)
        let (term, now) = (self.log.term(), self.env.now());
        let made = made.map(|(checkpoint, position)| {
            let (used, is_read) = (Mutex::new(now), AtomicBool::new(false));
            Arc::new(Held { name, position, term, checkpoint, made: now, used, is_read })
        });
        self.held().extend(made.as_ref().ok().cloned());
        *lock(&self.made_from) = None;
        if let Ok(held) = &made {
            let entries = held.position.index;
            tracing::info!("made a checkpoint of the database, with {entries} entries applied, for other nodes");
        }
        made
    }

    /// Reads a part of a file, when its turn by the rate has come.
    pub async fn read(&self, held: &Arc<Held>, name: String, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let now = self.env.now();
        let turn = {
            let mut until = lock(&self.sent_until);
            let turn = (*until).max(now);
            *until = turn + Duration::from_secs_f64(length as f64 / self.rate.max(1) as f64);
            turn
        };
        {
            let mut used = held.used();
            *used = turn.max(*used);
        }
        held.is_read.store(true, Ordering::Relaxed);
        self.env.sleep_until(turn).await;
        let checkpoint = held.checkpoint.clone();
        self.env.offload(move || checkpoint.read(&name, offset, length)).await
    }

    /// How many of the log's first entries may go without harm to whoever fetches; `None`: as many as you like.
    pub fn floor(&self) -> Option<u64> {
        let made_from = *lock(&self.made_from);
        self.held().iter().map(|held| held.position.index).chain(made_from).min()
    }

    /// Lets go of what nobody has read for a while; `all`: of everything, as the disk is nearly full.
    pub fn sweep(&self, all: bool) {
        let now = self.env.now();
        let mut gone = Vec::new();
        self.held().retain(|held| {
            let is_read = held.is_read.load(Ordering::Relaxed);
            let kept = if is_read { limits::CHECKPOINT_KEPT } else { limits::CHECKPOINT_AWAITED };
            let stays = !all && now < *held.used() + kept;
            if !stays {
                gone.push(held.clone());
            }
            stays
        });
        if !gone.is_empty() {
            // (Removing files may take a while.)
            let env = self.env.clone();
            self.env.spawn(async move { env.offload(move || drop(gone)).await });
        }
    }

    fn held(&self) -> MutexGuard<'_, Vec<Arc<Held>>> {
        lock(&self.held)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
