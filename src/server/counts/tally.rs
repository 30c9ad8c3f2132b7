//! The counts of one storage's clients at this node, as ZEO's `server_status` and `ruok` tell them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use crate::env::Env;
use crate::zodb::StorageId;

/// A number that goes up, and perhaps down again.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub fn count(&self) {
        self.add(1);
    }

    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Relaxed);
    }

    pub fn up(&self) {
        self.add(1);
    }

    pub fn down(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The counts of one storage.
#[derive(Debug, Default)]
pub struct Tally {
    /// Clients registered now.
    pub connections: Count,
    pub loads: Count,
    pub stores: Count,
    pub commits: Count,
    pub aborts: Count,
    pub conflicts: Count,
    pub resolved: Count,
    /// Transactions open now.
    pub active: Count,
    /// When this node started, as C's `ctime` writes it.
    pub start: String,
}

/// The tallies of all storages.
#[derive(Debug)]
pub struct Tallies {
    start: String,
    tallies: Mutex<BTreeMap<StorageId, Arc<Tally>>>,
}

/// Counts a registered client while it lives.
pub struct Connected(Arc<Tally>);

impl Connected {
    pub fn new(tally: &Arc<Tally>) -> Connected {
        tally.connections.up();
        Connected(tally.clone())
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connections.down();
    }
}

impl Tallies {
    pub fn new(env: &Env) -> Tallies {
        Tallies { start: ctime(env), tallies: Mutex::default() }
    }

    pub fn of(&self, storage: StorageId) -> Arc<Tally> {
        let mut tallies = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Tally { start: self.start.clone(), ..Tally::default() });
        tallies.entry(storage).or_insert_with(new).clone()
    }
}

/// The wall clock as C's `ctime` writes it, in UTC.
fn ctime(env: &Env) -> String {
    let wall = jiff::SignedDuration::try_from(env.wall()).unwrap_or_default();
    let now = jiff::Timestamp::from_duration(wall).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    now.strftime("%a %b %e %H:%M:%S %Y").to_string()
}
