//! The server: who may come in, what each client sees, and what lives while this node is primary.
//!
//! # What it is
//!
//! ```text
//!   accept ──► introduction ──► register ──┬──► session ──► primary (tpc, tids) ──► raft
//!              greet, or hold              │       ▲
//!              P1: raft's peers            │       └── views: what storage applied, in order
//!              ruok: monitors              └──► relay: bytes to the primary and back
//! ```
//!
//! - `accept`: one task per connection, from the socket to its end; who is there, and when it is greeted. Where TLS is
//!   spoken, it begins with `secure`.
//! - `register`: what becomes of a client: served here, relayed, redirected, refused.
//! - `session`: one task per client that is served here. It alone writes to its client and moves its view.
//! - `primary`: locks, tids and object ids; one per reign. `standing` begins and ends it, `pack` lives in it.
//!
//! # What it promises
//!
//! A client with any one live address of a cluster that has a quorum gets to the primary; what it gets from there is one
//! ordered stream; what was answered is on a majority's disks. Each module says which part of that is its own. Everything
//! here is bounded by [`crate::config::limits`], and every wait has a deadline or an owner. `docs/architecture.md` is the map.
//!
//! # What is left out
//!
//! Blobs on a disk that is shared with clients: they are refused in plain words.

use std::sync::Arc;

use anyhow::Context;
use tokio::task::JoinHandle;

use crate::config::{Config, limits};
use crate::engine::Engine;
use crate::env::{Env, Watch};
use crate::net::{Network, Tls};
use crate::raft::{Node, Role, Setup};
use crate::storage::Store;

mod accept;
mod ahead;
mod budget;
mod calls;
mod commit;
mod complaints;
mod downloads;
mod introduction;
mod iterators;
mod life;
mod metrics;
mod oids;
mod pack;
mod pack_call;
mod pack_watch;
mod primary;
mod reads;
mod register;
mod relay;
mod reserve;
mod secure;
mod session;
mod staging;
mod standing;
mod status;
mod transaction;
mod undo;
mod uploads;
mod view;

pub use metrics::{Metrics, Why};
pub use status::{Status, StorageStatus};

use budget::Budget;
use complaints::Complaints;
use primary::Primary;
use reads::Reads;
use reserve::Reserve;
use standing::Standing;
use status::Tallies;

/// The two engines of a node.
pub struct Disks {
    /// The Raft log and the vote.
    pub log: Arc<dyn Engine>,
    /// The database.
    pub store: Arc<dyn Engine>,
}

/// A running node.
pub struct Server {
    shared: Arc<Shared>,
    address: String,
    read_address: Option<String>,
    doors: Vec<JoinHandle<()>>,
}

/// What the connections of a server have in common.
struct Shared {
    config: Arc<Config>,
    env: Env,
    /// What connections begin with, if it is spoken.
    tls: Option<Tls>,
    node: Node,
    store: Store,
    metrics: Metrics,
    complaints: Complaints,
    tallies: Tallies,
    budget: Budget,
    reserve: Reserve,
    /// What takes long to look up.
    reads: Reads,
    /// The pieces of blobs.
    piece_reads: Reads,
    standing: Watch<Standing>,
    /// Goes up whenever a primary becomes known, or another one.
    elections: Watch<u64>,
    phase: Watch<Phase>,
}

/// The life of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Open,
    /// No new clients come in; what is being finished is finished.
    Draining,
    /// Connections are closed.
    Closing,
}

/// A primary that answers no new votes. When this is dropped (a hand-over ended, or whoever wanted it went away), it does again.
struct Sealed(Arc<Primary>);

impl Drop for Sealed {
    fn drop(&mut self) {
        self.0.unseal();
    }
}

/// How often a closing server looks whether all is done.
const DRAIN_LOOK: std::time::Duration = std::time::Duration::from_millis(10);

impl Server {
    /// Opens the database, binds the addresses, joins (or forms) the cluster, and lets clients in.
    pub async fn start(
        config: Arc<Config>,
        env: Env,
        network: Arc<dyn Network>,
        tls: Option<Tls>,
        disks: Disks,
    ) -> anyhow::Result<Server> {
        let engine = disks.store;
        let store = env.offload(move || Store::open(engine)).await.context("the database can't be opened")?;
        let address = config.address();
        let listener = network.listen(&address).await.with_context(|| format!("can't listen at {address}"))?;
        let address = listener.address();
        let reading = match &config.read_listen {
            Some(at) => Some(network.listen(at).await.with_context(|| format!("can't listen at {at}"))?),
            None => None,
        };
        let read_address = reading.as_ref().map(|listener| listener.address());
        let setup = Setup {
            config: config.clone(),
            env: env.clone(),
            network,
            tls: tls.clone(),
            log: disks.log,
            store: store.clone(),
        };
        let node = Node::start(setup).await?;
        let shared = Arc::new(Shared {
            tallies: Tallies::new(&env),
            config,
            env: env.clone(),
            tls,
            node,
            store,
            metrics: Metrics::new(),
            complaints: Complaints::new(env.clone()),
            budget: Budget::default(),
            reserve: Reserve::default(),
            reads: Reads::new(&env, limits::LONG_READS),
            piece_reads: Reads::new(&env, limits::PIECE_READS),
            standing: Watch::new(Standing::Forming),
            elections: Watch::new(0),
            phase: Watch::new(Phase::Open),
        });
        env.spawn(standing::follow(shared.clone()));
        if shared.config.peers.len() > 1 {
            env.spawn(reserve::follow(shared.clone()));
        }
        let mut doors = vec![env.spawn(accept::serve(shared.clone(), listener, accept::Door::Main))];
        if let Some(listener) = reading {
            doors.push(env.spawn(accept::serve(shared.clone(), listener, accept::Door::Reading)));
        }
        Ok(Server { shared, address, read_address, doors })
    }

    /// Where clients and peers come in, as it was bound.
    pub fn address(&self) -> String {
        self.address.clone()
    }

    /// Where clients come in that take what this node has, as it was bound.
    pub fn read_address(&self) -> Option<String> {
        self.read_address.clone()
    }

    /// Its part in the cluster.
    pub fn node(&self) -> &Node {
        &self.shared.node
    }

    /// What it keeps.
    pub fn store(&self) -> &Store {
        &self.shared.store
    }

    /// What it has counted.
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// What it was started with.
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// How this node and its storages are.
    pub fn status(&self) -> Status {
        status::of(&self.shared)
    }

    /// Whether this node leads, and clients may write here: what `/primary` answers.
    pub fn is_primary(&self) -> bool {
        matches!(*self.shared.standing.look(), Standing::Leading(_))
    }

    /// Hands the primary's role to node `to`, or to the most advanced one, after what is being committed: gives the new
    /// primary. An error says why nothing has changed.
    pub async fn hand_over(&self, to: Option<u64>) -> anyhow::Result<u64> {
        let Shared { env, standing, node, .. } = &*self.shared;
        let leading = match &*standing.look() {
            Standing::Leading(primary) => primary.clone(),
            _ => anyhow::bail!("this node is not the primary"),
        };
        let sealed = Sealed(leading);
        let leading = &sealed.0;
        let drained = async {
            while leading.seal() > 0 {
                env.sleep(DRAIN_LOOK).await;
            }
        };
        if env.timeout(limits::DRAIN, drained).await.is_err() {
            tracing::warn!("some transactions were not finished in time; their clients lose their connections");
        }
        let handed = node.transfer(to).await;
        if *node.role().look_now() != Role::Primary(leading.reign()) {
            // The node knows before its sessions do. Held votes end with the reign: none may be answered in its last moment.
            let mut ended = leading.ended();
            let _ = env.timeout(limits::DRAIN, ended.until(|ended| *ended)).await;
        }
        handed
    }

    /// Lets nobody in any more, finishes what is being finished, hands the primary's role over, closes everything.
    pub async fn stop(&self) {
        let Shared { env, phase, node, metrics, .. } = &*self.shared;
        phase.send(Phase::Draining);
        if self.is_primary() {
            match self.hand_over(None).await {
                Ok(to) => tracing::info!(to, "handed the primary's role over"),
                Err(why) => tracing::info!(%why, "nobody to hand the primary's role to"),
            }
        }
        phase.send(Phase::Closing);
        let closed = async {
            while metrics.open.get() > 0 {
                env.sleep(DRAIN_LOOK).await;
            }
        };
        let _ = env.timeout(limits::DRAIN, closed).await;
        for door in &self.doors {
            door.abort();
        }
        node.shutdown().await;
    }
}
