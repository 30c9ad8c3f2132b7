//! The checkpoints of this node's database that other nodes fetch.
//!
//! A checkpoint is made when a node asks for one, and shared by all that ask while it is fresh. From its position on the
//! log has to stay ([`Checkpoints::floor`]), or a node that has fetched it would have to begin again. It goes when nobody
//! has read from it for a while, and all of them at the start.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::limits;
use crate::engine::{Checkpoint, Shelf, ShelfFile};
use crate::env::Env;
use crate::storage::{Position, Store};

/// The checkpoints of a node.
pub struct Checkpoints {
    env: Env,
    store: Store,
    shelf: Arc<dyn Shelf>,
    held: Mutex<Vec<Arc<Held>>>,
    /// Held while a checkpoint is made.
    making: tokio::sync::Mutex<()>,
    /// Bytes that may be sent in a second, to all together; and the moment until which those sent so far last.
    rate: u64,
    sent_until: Mutex<Instant>,
}

/// A checkpoint that others read.
pub struct Held {
    pub name: String,
    pub position: Position,
    checkpoint: Arc<dyn Checkpoint>,
    made: Instant,
    used: Mutex<Instant>,
}

impl Held {
    pub fn files(&self) -> Vec<ShelfFile> {
        self.checkpoint.files()
    }
}

impl Checkpoints {
    /// Of `store`, on `shelf`; `rate`: bytes in a second that are sent of them.
    pub fn new(env: Env, store: Store, shelf: Arc<dyn Shelf>, rate: u64) -> Checkpoints {
        let sent_until = Mutex::new(env.now());
        Checkpoints { env, store, shelf, held: Mutex::default(), making: tokio::sync::Mutex::new(()), rate, sent_until }
    }

    /// The checkpoint called `name`, if it is still there.
    pub fn again(&self, name: &str) -> Option<Arc<Held>> {
        self.held().iter().find(|held| held.name == name).cloned()
    }

    /// A checkpoint with at least the first `entries` entries of the log applied.
    pub async fn at_least(&self, entries: u64) -> io::Result<Arc<Held>> {
        let _making = self.making.lock().await;
        let fresh = |held: &&Arc<Held>| {
            held.position.index >= entries && self.env.now() < held.made + limits::CHECKPOINT_SHARED
        };
        if let Some(held) = self.held().iter().find(fresh) {
            return Ok(held.clone());
        }
        if self.store.applied().index < entries {
            let why = format!("this node has applied {} entries, not {entries}", self.store.applied().index);
            return Err(io::Error::new(io::ErrorKind::NotFound, why));
        }
        let name = format!("{:016x}", self.env.seed());
        let (store, shelf, named) = (self.store.clone(), self.shelf.clone(), name.clone());
        let made = self.env.offload(move || store.checkpoint(&*shelf, &named)).await;
        let (checkpoint, position) = made?;
        let (made, used) = (self.env.now(), Mutex::new(self.env.now()));
        let held = Arc::new(Held { name, position, checkpoint, made, used });
        self.held().push(held.clone());
        Ok(held)
    }

    /// Reads a part of a file, when its turn by the rate has come.
    pub async fn read(&self, held: &Arc<Held>, name: String, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let now = self.env.now();
        *held.used.lock().unwrap_or_else(PoisonError::into_inner) = now;
        let turn = {
            let mut until = self.sent_until.lock().unwrap_or_else(PoisonError::into_inner);
            let turn = (*until).max(now);
            *until = turn + Duration::from_secs_f64(length as f64 / self.rate as f64);
            turn
        };
        self.env.sleep_until(turn).await;
        let checkpoint = held.checkpoint.clone();
        self.env.offload(move || checkpoint.read(&name, offset, length)).await
    }

    /// How many of the log's first entries may go without harm to whoever fetches; `None`: as many as you like.
    pub fn floor(&self) -> Option<u64> {
        self.held().iter().map(|held| held.position.index).min()
    }

    /// Lets go of what nobody has read for a while.
    pub fn sweep(&self) {
        let now = self.env.now();
        let used = |held: &Arc<Held>| *held.used.lock().unwrap_or_else(PoisonError::into_inner);
        let mut gone = Vec::new();
        self.held().retain(|held| {
            let stays = now < used(held) + limits::CHECKPOINT_KEPT;
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
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
