//! The status of the node and its storages, in numbers: for `server_status`, monitors (`ruok`) and operators.
//!
//! The numbers of a storage are those of this node since it started, with the names that ZEO's monitors know.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::counts::Tally;
use super::shared::Shared;
use super::standing::Standing;
use crate::config::limits;
use crate::raft::NodeStatus;
use crate::zeo::ServerStatus;
use crate::zodb::Tid;

/// A storage, as `server_status` tells it to a client that may know of `last_transaction`.
pub fn of_storage(shared: &Shared, tally: &Tally, last_transaction: Tid) -> ServerStatus {
    let counts = match &*shared.standing.look() {
        Standing::Leading(primary) => primary.counts(),
        _ => Default::default(),
    };
    ServerStatus {
        connections: tally.connections.get(),
        loads: tally.loads.get(),
        stores: tally.stores.get(),
        commits: tally.commits.get(),
        aborts: tally.aborts.get(),
        active_txns: tally.active.get(),
        lock_time: None,
        conflicts: tally.conflicts.get(),
        conflicts_resolved: tally.resolved.get(),
        start: tally.start.clone(),
        waiting: counts.waiting as u64,
        timeout_thread_is_alive: true,
        last_transaction,
    }
}

/// The answer to `ruok`: JSON, the status of each storage by its name.
pub fn for_monitors(shared: &Shared) -> Vec<u8> {
    let mut all = Map::new();
    for (storage, name) in shared.store.storages() {
        let status = of_storage(shared, &shared.tallies.of(storage), shared.store.last_tid(storage));
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
    /// The node's part in the cluster.
    #[serde(flatten)]
    pub node: NodeStatus,
    /// Whether clients may write here.
    pub leading: bool,
    /// The reign in which clients may write.
    pub reign: Option<String>,
    /// Seconds since this node was last known to be up to date; none if it never was.
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
    /// Finishes whose outcome is unknown so far.
    pub unknown: usize,
}

/// A storage, for operators.
#[derive(Clone, Debug, Serialize)]
pub struct StorageStatus {
    /// The storage's name, as clients use it.
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

/// The status of this node.
pub(super) fn of_node(shared: &Shared) -> Status {
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
