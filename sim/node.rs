//! A node of the cluster under test, over all of its lives: a real server on a simulated host.
//!
//! A node is the same `zrs::server::Server` that `zrsd` starts, over the three seams: [`SimNetwork`](crate::network),
//! [`Host`], and the disks of a [`Folder`], which stay when their host crashes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::task::ready;
use std::time::Duration;

use tokio::sync::Notify;
use zrs::config::{Config, Sizes as Parts, limits};
use zrs::env::{Env, World};
use zrs::journal::Sizes;
use zrs::server::{Disks, MembersAsk, Server};

use crate::chance::Chance;
use crate::disk::{Watched, WatchedFiles};
use crate::folder::Folder;
use crate::host::{Host, name};
use crate::moments::{Teller, Traps};
use crate::network::Fabric;

/// The numbers of the nodes that form the cluster.
pub const NODES: [u64; 3] = [1, 2, 3];
/// The port at which every node listens, but for one that has moved.
const PORT: u16 = 8100;
/// The port at which a node listens that has moved.
const OTHER_PORT: u16 = 8101;

/// A node, as it is seen from outside.
pub struct Node {
    pub host: Host,
    /// The data that its next life begins with.
    pub folder: Arc<Mutex<Folder>>,
    pub orders: Orders,
    /// The numbers in the `--peers` of its next life.
    pub peers: Arc<Mutex<Vec<u64>>>,
    /// The nodes that were at their other address when its life began, as its `--peers` has them.
    pub listed: BTreeSet<u64>,
    /// Whether nobody uses the host: it was not started yet, or was put away.
    pub is_idle: bool,
    /// Whether it has lost a folder.
    pub was_wiped: bool,
    /// Whether a process runs that was not told to stop.
    pub up: bool,
    /// Whether a fault has the node for itself: no other one hits it.
    pub is_taken: bool,
    /// How many faults last of which the node may end by itself.
    pub excuses: u32,
    /// Whether one of them hit this life.
    pub is_excused: bool,
    /// When its supervisor starts it again, after it has ended by itself.
    pub starts_at: Option<Duration>,
    /// Why it ended, if it did so by itself.
    pub last_words: Option<String>,
    /// Since when no process runs, as it was killed or lost its power.
    pub down_since: Option<Duration>,
    /// How many times it was killed, lost its power, or was started again.
    pub deaths: u64,
}

/// What operators tell a node.
#[derive(Clone, Default)]
pub struct Orders {
    pub stop: Arc<Notify>,
    pub hand_over: Arc<Notify>,
    /// Wishes for other members, and that there are some.
    pub asks: Arc<Mutex<Vec<Ask>>>,
    pub asked: Arc<Notify>,
}

/// An operator's wish for other members.
#[derive(Clone)]
pub struct Ask {
    pub wish: MembersAsk,
    /// Once it has come; it never does if the node that was asked ends.
    pub answer: Arc<Mutex<Option<Result<String, String>>>>,
}

impl Node {
    pub fn new(seed: u64, id: u64) -> Node {
        Node {
            host: Host::new(seed, &name(id)),
            folder: Arc::default(),
            orders: Orders::default(),
            peers: Arc::new(Mutex::new(NODES.to_vec())),
            listed: BTreeSet::new(),
            is_idle: !NODES.contains(&id),
            was_wiped: false,
            up: NODES.contains(&id),
            is_taken: false,
            excuses: 0,
            is_excused: false,
            starts_at: None,
            last_words: None,
            down_since: None,
            deaths: 0,
        }
    }

    /// The data that the node has now.
    pub fn folder(&self) -> Folder {
        self.folder.lock().unwrap().clone()
    }
}

/// Where clients and peers find a node.
pub fn address(node: u64) -> String {
    address_of(node, false)
}

/// Where peers find a node; the Rust clients do not look there if it has moved.
pub fn address_of(node: u64, has_moved: bool) -> String {
    let port = if has_moved { OTHER_PORT } else { PORT };
    format!("{}:{port}", name(node))
}

/// The settings and sizes that the seed has drawn, for all nodes.
#[derive(Clone, Debug)]
pub struct Shape {
    pub segments: Sizes,
    pub heartbeat: Duration,
    pub election_timeout: Duration,
    pub relay_grace: Duration,
    pub transaction_timeout: Duration,
    pub pack_gc: bool,
    pub sizes: Parts,
    /// How long entries of the log are kept, and how many bytes of them.
    pub log_keep: Duration,
    pub log_size: u64,
    /// Bytes for the objects that are loaded most.
    pub cache_size: u64,
}

impl Shape {
    pub fn of(seed: u64) -> Shape {
        let mut chance = Chance::of(seed, "shape");
        // Segments of the log so small that a run has several.
        let (smallest, largest) = chance.one_of(&[(16 << 10, 64 << 10), (8 << 10, 8 << 10), (32 << 10, 256 << 10)]);
        let (heartbeat, election) = chance.one_of(&[(50, 300), (50, 300), (30, 200), (80, 500)]);
        // As a rule so little that a node that was away for some seconds has to fetch a database.
        let mut logs = Chance::of(seed, "shape of logs");
        let (keep, log_size) = logs.one_of(&[(2, 128 << 10), (1, 32 << 10), (4, 256 << 10), (3_600, 1 << 30)]);
        // As a rule so little that objects come and go.
        let cache_size = Chance::of(seed, "shape of caches").one_of(&[1_500, 4_000, 64 << 20]);
        Shape {
            segments: Sizes { smallest, largest },
            heartbeat: Duration::from_millis(heartbeat),
            election_timeout: Duration::from_millis(election),
            relay_grace: Duration::from_millis(chance.one_of(&[1_000, 200, 20])),
            transaction_timeout: Duration::from_millis(chance.one_of(&[5_000, 5_000, 3_000])),
            pack_gc: !chance.once_in(8),
            // So small that a run meets what lies beyond them.
            sizes: Parts {
                commit_inline: chance.one_of(&[limits::COMMIT_INLINE, 30_000, 2_000]),
                piece: chance.one_of(&[limits::PIECE, 7_000, 900]),
                pack_revisions: chance.one_of(&[limits::PACK_REVISIONS, 10, 2]),
                invalidations: chance.one_of(&[limits::INVALIDATIONS, 100, 20]),
            },
            log_keep: Duration::from_secs(keep),
            log_size,
            cache_size,
        }
    }
}

/// The servers that run, by node.
pub type Running = Arc<Mutex<BTreeMap<u64, Arc<Server>>>>;
/// The nodes that have ended by themselves, and why.
pub type Ended = Arc<Mutex<Vec<(u64, String)>>>;
/// The nodes that have stopped to begin anew with a database that they have fetched.
pub type Again = Arc<Mutex<Vec<u64>>>;

/// The nodes that listen at the other port, from their next lives on.
pub type Moved = Arc<Mutex<BTreeSet<u64>>>;

/// What a node's lives are made of.
#[derive(Clone)]
pub struct Lives {
    pub id: u64,
    pub peers: Arc<Mutex<Vec<u64>>>,
    pub moved: Moved,
    pub shape: Shape,
    pub host: Host,
    pub folder: Arc<Mutex<Folder>>,
    pub orders: Orders,
    pub fabric: Fabric,
    pub traps: Traps,
    pub running: Running,
    pub ended: Ended,
    pub again: Again,
}

impl Lives {
    /// One life of the node, from its start to its end by SIGTERM or by a fault of its own.
    pub async fn live(self) {
        let (id, ended, host) = (self.id, self.ended.clone(), self.host.clone());
        let env = Env::new(host.clone());
        let mut life = Box::pin(env.clone().scope(self.run(env)));
        let life = std::future::poll_fn(|context| {
            ready!(host.turn(context));
            life.as_mut().poll(context)
        });
        let end = life.await;
        if host.is_dead() {
            // (It has died in the middle of this step, and says nothing more.)
            std::future::pending::<()>().await;
        }
        if let Err(why) = end {
            ended.lock().unwrap().push((id, format!("{why:#}")));
        }
    }

    async fn run(self, env: Env) -> anyhow::Result<()> {
        let (id, name) = (self.id, name(self.id));
        let folder = self.folder.lock().unwrap().clone();
        let teller = Teller { node: id, host: self.host, folder, fabric: self.fabric.clone(), traps: self.traps };
        let disks = Disks {
            log: Arc::new(WatchedFiles::open(&teller, format!("{name}/log"))),
            segments: self.shape.segments,
            store: Arc::new(Watched::open(&teller, zrs::storage::TABLES, format!("{name}/store"))?),
            shelf: Arc::new(teller.folder.store.shelf(zrs::storage::TABLES)),
        };
        // (An operator who starts a node gives it the addresses of this moment.)
        let moved = self.moved.lock().unwrap().clone();
        let peers = self.peers.lock().unwrap().clone();
        let peers = peers.into_iter().map(|node| (node, address_of(node, moved.contains(&node)))).collect();
        let config = Config {
            node: id,
            peers,
            listen: Some(format!("0.0.0.0:{}", if moved.contains(&id) { OTHER_PORT } else { PORT })),
            secret: Some(b"known to all simulated nodes".to_vec()),
            heartbeat: self.shape.heartbeat,
            election_timeout: self.shape.election_timeout,
            relay_grace: self.shape.relay_grace,
            log_keep: self.shape.log_keep,
            log_size: self.shape.log_size,
            snapshot_rate: 4 << 20,
            cache_size: self.shape.cache_size,
            transaction_timeout: self.shape.transaction_timeout,
            pack_gc: self.shape.pack_gc,
            sizes: self.shape.sizes,
            ..Config::default()
        };
        let network = Arc::new(self.fabric.of(&name));
        let server = Arc::new(Server::start(Arc::new(config), env.clone(), network, None, disks).await?);
        self.running.lock().unwrap().insert(id, server.clone());
        let mut fault = server.node().fault();
        let mut outdated = server.node().outdated();
        let (stopped, begins_again) = loop {
            tokio::select! {
                biased;
                _ = fault.until(Option::is_some) => break (false, false),
                () = self.orders.stop.notified() => break (true, false),
                _ = outdated.until(Option::is_some) => break (true, true),
                () = self.orders.hand_over.notified() => {
                    let server = server.clone();
                    env.spawn(async move {
                        match server.hand_over(None).await {
                            Ok(to) => tracing::info!("the role was handed over to node {to}"),
                            Err(why) => tracing::info!("the role was not handed over: {why}"),
                        }
                    });
                }
                () = self.orders.asked.notified() => {
                    for Ask { wish, answer } in std::mem::take(&mut *self.orders.asks.lock().unwrap()) {
                        let server = server.clone();
                        env.spawn(async move {
                            let answered = server.change_members(wish).await;
                            *answer.lock().unwrap() = Some(answered);
                        });
                    }
                }
            }
        };
        if stopped {
            server.stop().await;
        }
        if begins_again {
            server.node().take_fetched().await?;
            self.again.lock().unwrap().push(id);
        }
        self.running.lock().unwrap().remove(&id);
        match &*fault.look() {
            Some(why) if !stopped => anyhow::bail!("stopped, as {why}"),
            _ => Ok(()),
        }
    }
}
