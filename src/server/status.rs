//! How the node and its storages are, in numbers: for `server_status`, monitors (`ruok`) and operators.
//!
//! The numbers of a storage are those of this node since it started, with the names that ZEO's monitors know.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::Shared;
use super::standing::Standing;
use crate::config::limits;
use crate::env::Env;
use crate::raft::NodeStatus;
use crate::zeo::ServerStatus;
use crate::zodb::{StorageId, Tid};

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

    fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What one storage's clients have done at this node.
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
    start: String,
}

/// The tallies of all storages.
#[derive(Debug)]
pub struct Tallies {
    start: String,
    tallies: Mutex<BTreeMap<StorageId, Arc<Tally>>>,
}

/// A registered client, counted while it lives.
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

impl Tally {
    /// As `server_status` tells it to a client that may know of `last_transaction`.
    pub fn status(&self, shared: &Shared, last_transaction: Tid) -> ServerStatus {
        let counts = match &*shared.standing.look() {
            Standing::Leading(primary) => primary.counts(),
            _ => Default::default(),
        };
        ServerStatus {
            connections: self.connections.get(),
            loads: self.loads.get(),
            stores: self.stores.get(),
            commits: self.commits.get(),
            aborts: self.aborts.get(),
            active_txns: self.active.get(),
            lock_time: None,
            conflicts: self.conflicts.get(),
            conflicts_resolved: self.resolved.get(),
            start: self.start.clone(),
            waiting: counts.waiting as u64,
            timeout_thread_is_alive: true,
            last_transaction,
        }
    }
}

/// The answer to `ruok`: JSON, the status of each storage by its name.
pub fn for_monitors(shared: &Shared) -> Vec<u8> {
    let mut all = Map::new();
    for (storage, name) in shared.store.storages() {
        let status = shared.tallies.of(storage).status(shared, shared.store.last_tid(storage));
        all.insert(name, monitored(&status));
    }
    Value::Object(all).to_string().into_bytes()
}

fn monitored(status: &ServerStatus) -> Value {
    json!({
        "connections": status.connections,
        "loads": status.loads,
        "stores": status.stores,
        "commits": status.commits,
        "aborts": status.aborts,
        "active_txns": status.active_txns,
        "lock_time": status.lock_time,
        "conflicts": status.conflicts,
        "conflicts_resolved": status.conflicts_resolved,
        "start": status.start,
        "waiting": status.waiting,
        "timeout-thread-is-alive": status.timeout_thread_is_alive,
        "last-transaction": status.last_transaction.to_string(),
    })
}

/// A node, for operators.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Its part in the cluster.
    #[serde(flatten)]
    pub node: NodeStatus,
    /// Whether clients may write here.
    pub leading: bool,
    /// The reign in which they may.
    pub reign: Option<String>,
    /// Seconds since this node last knew that it had everything; none if it never did.
    pub lag_seconds: Option<f64>,
    /// All storages.
    pub storages: Vec<StorageStatus>,
    /// Open connections, of clients and peers.
    pub connections: i64,
    /// Registered clients that are served here.
    pub sessions: i64,
    /// Connections that have not registered.
    pub held: i64,
    /// Clients that are relayed to the primary.
    pub relays: i64,
    /// Transactions that wait for locks.
    pub waiting_votes: usize,
    /// Transactions that hold locks.
    pub holding: usize,
    /// Finishes whose outcome nobody can tell yet.
    pub unknown: usize,
}

/// A storage, for operators.
#[derive(Clone, Debug, Serialize)]
pub struct StorageStatus {
    /// As clients name it.
    pub name: String,
    /// The newest transaction applied here: 16 hex digits.
    pub last_transaction: String,
    /// Objects that exist.
    pub objects: u64,
    /// Bytes of all records.
    pub bytes: u64,
    /// Transactions kept.
    pub transactions: u64,
    /// Clients registered at this node.
    pub connections: u64,
    /// Pieces of blobs and large transactions that are here ahead of their commit; no more than
    /// [`limits::STAGED_COUNTED`] are counted.
    pub staged: u64,
}

pub(super) fn of(shared: &Shared) -> Status {
    let leading = match &*shared.standing.look() {
        Standing::Leading(primary) => Some(primary.clone()),
        _ => None,
    };
    let counts = leading.as_ref().map(|primary| primary.counts()).unwrap_or_default();
    let storages = shared.store.storages().into_iter().map(|(storage, name)| {
        let summary = shared.store.summary(storage);
        StorageStatus {
            name,
            last_transaction: summary.last_tid.to_string(),
            objects: summary.objects,
            bytes: summary.bytes,
            transactions: summary.transactions,
            connections: shared.tallies.of(storage).connections.get(),
            staged: shared.store.count_unclaimed(storage, limits::STAGED_COUNTED).unwrap_or_default(),
        }
    });
    let metrics = &shared.metrics;
    Status {
        node: shared.node.status(),
        leading: leading.is_some(),
        reign: leading.map(|primary| primary.reign().to_string()),
        lag_seconds: shared.node.lag().map(|lag| lag.as_secs_f64()),
        storages: storages.collect(),
        connections: metrics.open.get(),
        sessions: metrics.sessions.get(),
        held: metrics.held.get(),
        relays: metrics.relays.get(),
        waiting_votes: counts.waiting,
        holding: counts.holding,
        unknown: counts.unknown,
    }
}

/// The wall clock as C's `ctime` writes it, in UTC.
fn ctime(env: &Env) -> String {
    let wall = jiff::SignedDuration::try_from(env.wall()).unwrap_or_default();
    let now = jiff::Timestamp::from_duration(wall).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    now.strftime("%a %b %e %H:%M:%S %Y").to_string()
}
