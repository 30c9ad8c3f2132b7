//! The server: clients come in, each sees one ordered stream, and one node commits.
//!
//! # What it is
//!
//! ```text
//!   door ──────────────► session ────────────► primary ──────► raft
//!   accept, tls,         reading               tpc, tids,        │
//!   greeting, register   commit                the queue         ▼
//!     │                    ▲                     ▲            storage
//!     └► relay             └── view ◄── news ────┼───────────────┘
//!        (another node)                          pack
//! ```
//!
//! From the ground up; each room uses only those before it (`tests/tidy` holds that):
//!
//! | room | what it is for |
//! |---|---|
//! | `counts` | what is counted, and the reasons for closing a connection |
//! | `bounds` | memory, long reads, sockets and complaints: the bounds that all clients share |
//! | `primary` | locks, verdicts, tids, object ids, the queue to the log: what lives for one reign |
//! | `standing`, `shared`, `client` | who is primary, seen from here; what connections share; a client that came in |
//! | `status` | how node and storages are, for operators, monitors and clients |
//! | `pack` | packs, from the request to the last step |
//! | `session` | one task for each client that is served here. It alone writes to its client and moves its view |
//! | `door` | one task for each connection, until its client is seated, relayed or sent away |
//! | `follow`, `hand_over` | follows the node's role: begins and ends the reigns; hands the role over |
//! | `errands` | what operators ask of the cluster, done by the primary |
//!
//! # What it promises
//!
//! A client with any one live address of a cluster that has a quorum gets to the primary; all that it gets from there
//! is one ordered stream; every answered commit is on the disks of a majority. Each module says which part of that is
//! its own. Everything here is bounded by [`crate::config::limits`], and every wait has a deadline or an owner.
//! `docs/architecture.md` is the map.
//!
//! # What is left out
//!
//! Blobs on a disk that is shared with clients: they are refused in plain words.

use std::sync::Arc;

use anyhow::Context;
use tokio::task::JoinHandle;

use crate::config::{Config, limits};
use crate::engine::{Engine, Shelf};
use crate::env::{Env, Watch};
use crate::journal::{Files, Sizes};
use crate::net::{Network, Pool, Tls};
use crate::raft::{self, Errand, Node, Setup};
use crate::storage::Store;

mod bounds;
mod client;
mod counts;
mod door;
mod errands;
mod follow;
mod hand_over;
mod pack;
mod primary;
mod session;
mod shared;
mod standing;
mod status;
#[cfg(test)]
mod testing;

pub use crate::raft::MembersAsk;
pub use counts::{Metrics, Why};
pub use status::{Status, StorageStatus};

use bounds::{Budget, Complaints, LongReads, Reserve};
use client::Door;
use counts::Tallies;
use door::accept;
use shared::{Phase, Shared};
use standing::Standing;

/// What a node keeps its data on.
pub struct Disks {
    /// For the Raft log and the vote.
    pub log: Arc<dyn Files>,
    /// The sizes of the log's segments.
    pub segments: Sizes,
    /// For the database.
    pub store: Arc<dyn Engine>,
    /// For copies of it, for other nodes and from them.
    pub shelf: Arc<dyn Shelf>,
}

/// A running node.
pub struct Server {
    shared: Arc<Shared>,
    address: String,
    read_address: Option<String>,
    doors: Vec<JoinHandle<()>>,
}

impl Server {
    /// Opens the database, binds the addresses, joins (or forms) the cluster, and lets clients in.
    pub async fn start(
        config: Arc<Config>,
        env: Env,
        network: Arc<dyn Network>,
        tls: Option<Tls>,
        disks: Disks,
    ) -> anyhow::Result<Server> {
        let (engine, cache) = (disks.store, config.cache_size);
        let store =
            env.offload(move || Store::open_with_cache(engine, cache)).await.context("the database can't be opened")?;
        let address = config.address();
        let listener = network.listen(&address).await.with_context(|| config.origin_of_address())?;
        let address = listener.address();
        let reading = match &config.read_listen {
            Some(at) => Some(network.listen(at).await.context("--read-listen")?),
            None => None,
        };
        let read_address = reading.as_ref().map(|listener| listener.address());
        let (errands, brought) = raft::errands();
        let setup = Setup {
            config: config.clone(),
            env: env.clone(),
            network,
            tls: tls.clone(),
            log: disks.log,
            segments: disks.segments,
            store: store.clone(),
            errands,
            shelf: disks.shelf,
        };
        let node = Node::start(setup).await?;
        let reserve = Reserve::new(config.open_files);
        let shared = Arc::new(Shared {
            tallies: Tallies::new(&env),
            config,
            env: env.clone(),
            tls,
            node,
            metrics: Metrics::of(&store),
            store,
            complaints: Complaints::new(env.clone()),
            budget: Budget::default(),
            reserve,
            input: Pool::new(&env, limits::INPUT_SUM),
            output: Pool::new(&env, limits::OUTPUT_SUM),
            long_reads: LongReads::new(&env, limits::LONG_READS),
            piece_reads: LongReads::new(&env, limits::PIECE_READS),
            standing: Watch::new(Standing::Forming),
            elections: Watch::new(0),
            phase: Watch::new(Phase::Open),
        });
        env.spawn(follow::follow(shared.clone()));
        env.spawn(hand_over::while_unfit(shared.clone()));
        env.spawn(errands::serve(shared.clone(), brought));
        env.spawn(look_up_members(shared.clone()));
        let mut doors = vec![env.spawn(accept::serve(shared.clone(), listener, Door::Main))];
        if let Some(listener) = reading {
            doors.push(env.spawn(accept::serve(shared.clone(), listener, Door::Reading)));
        }
        Ok(Server { shared, address, read_address, doors })
    }

    /// The address for clients and peers, as it was bound.
    pub fn address(&self) -> String {
        self.address.clone()
    }

    /// The address for readers, which are served this node's own state, as it was bound.
    pub fn read_address(&self) -> Option<String> {
        self.read_address.clone()
    }

    /// This node's part in the cluster.
    pub fn node(&self) -> &Node {
        &self.shared.node
    }

    /// The database.
    pub fn store(&self) -> &Store {
        &self.shared.store
    }

    /// The counters.
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// The configuration that the server was started with.
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// The status of this node and its storages.
    pub fn status(&self) -> Status {
        status::of_node(&self.shared)
    }

    /// Whether this node leads, and clients may write here: what `/primary` answers.
    pub fn is_primary(&self) -> bool {
        matches!(*self.shared.standing.look(), Standing::Leading(_))
    }

    /// Whether this node is a cluster of one.
    pub fn is_alone(&self) -> bool {
        self.node().status().members.len() < 2
    }

    /// Hands the primary's role to node `to`, or to the most advanced one, once the voted transactions are finished:
    /// gives the new primary. An error says why nothing has changed.
    pub async fn hand_over(&self, to: Option<u64>) -> anyhow::Result<u64> {
        hand_over::hand_over(&self.shared, to).await
    }

    /// Has the primary, this node or another one, hand its role to node `to`, or to the most advanced one: what was
    /// done, or why nothing was, in words.
    pub async fn transfer(&self, to: Option<u64>) -> Result<String, String> {
        errands::run(&self.shared, Errand::Transfer { to }).await
    }

    /// Has the primary, this node or another one, drop an empty storage: what was done, or why nothing was, in words.
    pub async fn drop_storage(&self, name: &str) -> Result<String, String> {
        errands::run(&self.shared, Errand::DropStorage { name: name.to_owned() }).await
    }

    /// Has the primary, this node or another one, grant a wish for other members: what is going to happen, or why
    /// nothing is, in words.
    pub async fn change_members(&self, wish: MembersAsk) -> Result<String, String> {
        let words = errands::run(&self.shared, Errand::Members(wish)).await?;
        // (Whoever asks this node for its status next sees what is still to be done.)
        let _ = self.shared.node.catch_up(limits::PRIMARY_AWAITED).await;
        Ok(words)
    }

    /// Lets no client in any more, finishes the voted transactions, hands the primary's role over, closes everything.
    pub async fn stop(&self) {
        let Shared { env, phase, node, metrics, .. } = &*self.shared;
        phase.send(Phase::Draining);
        if self.is_primary() {
            match hand_over::finish_and_hand_over(&self.shared, None).await {
                Ok(to) => tracing::info!(to, "handed the primary's role over"),
                Err(_) if self.is_alone() => {}
                Err(why) => tracing::info!(%why, "no member to hand the primary's role to"),
            }
        }
        phase.send(Phase::Closing);
        let closed = async {
            while metrics.open.get() > 0 {
                env.sleep(limits::DRAIN_LOOK).await;
            }
        };
        let _ = env.timeout(limits::DRAIN, closed).await;
        for door in &self.doors {
            door.abort();
        }
        node.shutdown().await;
    }
}

/// Looks up the members' addresses, until the server closes.
async fn look_up_members(shared: Arc<Shared>) {
    let mut phase = shared.phase.watching();
    tokio::select! { biased;
        _ = phase.until(|phase| *phase == Phase::Closing) => {}
        () = shared.reserve.follow(&shared.node, &shared.env) => {}
    }
}
