//! The cluster under test: real servers on turmoil's hosts, and what can be done to them from outside.
//!
//! A node is the same `zrs::server::Server` that `zrsd` starts, over the three seams: [`SimNetwork`](crate::network),
//! [`Host`], and [`SimDisk`]s, which stay when their host crashes.
//!
//! Everything done to a node goes into the trace and into the run's story.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::Notify;
use turmoil::Sim;
use zrs::config::Config;
use zrs::engine::SimDisk;
use zrs::env::Env;
use zrs::journal::{SimFiles, Sizes};
use zrs::server::{Disks, Server};

use crate::chance::Chance;
use crate::checks::short_logs;
use crate::disk::{Watched, WatchedFiles};
use crate::host::Host;
use crate::links::Links;
use crate::network::Fabric;
use crate::{seen, trace};

/// The nodes' numbers.
pub const NODES: [u64; 3] = [1, 2, 3];
/// How many Rust clients there are; they are numbered from 0.
pub const CLIENTS: usize = 4;
/// How many clients there are in all: those that speak the protocol themselves have the numbers after the others.
pub const EVERY_CLIENT: usize = CLIENTS + 4;
/// The client that only reads.
pub const READER: usize = 3;
const PORT: u16 = 8100;

/// The servers that run, by node.
type Running = Arc<Mutex<BTreeMap<u64, Arc<Server>>>>;

/// The hosts of a run: three nodes, their disks and clocks, and the network to all clients.
pub struct Cluster {
    pub fabric: Fabric,
    sim: Sim<'static>,
    links: Links,
    nodes: BTreeMap<u64, Node>,
    running: Running,
    ended: Arc<Mutex<Vec<String>>>,
    /// The nodes that have stopped in order to begin again with a database that they have fetched.
    again: Arc<Mutex<Vec<u64>>>,
    chance: Chance,
}

struct Node {
    host: Host,
    log: SimFiles,
    store: SimDisk,
    stop: Arc<Notify>,
    up: bool,
}

/// How a node goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// `kill -9`: the kernel closes its connections; nothing that was written is lost.
    Killed,
    /// A lost power supply: its connections fall silent, and its disks lose unsynced writes.
    PowerLost,
}

/// Segments of the log so small that a run has several.
const SEGMENTS: Sizes = Sizes { smallest: 16 << 10, largest: 64 << 10 };

/// A node's name in the network.
pub fn name(node: u64) -> String {
    format!("n{node}")
}

/// A client's name in the network.
pub fn client_name(client: usize) -> String {
    format!("c{client}")
}

/// The other nodes' names.
pub fn other_nodes(node: u64) -> Vec<String> {
    NODES.into_iter().filter(|other| *other != node).map(name).collect()
}

/// The names of all other hosts, the clients' too.
pub fn all_others(node: u64) -> Vec<String> {
    other_nodes(node).into_iter().chain((0..EVERY_CLIENT).map(client_name)).collect()
}

/// Where clients and peers find a node.
pub fn address(node: u64) -> String {
    format!("{}:{PORT}", name(node))
}

impl Cluster {
    /// Registers the nodes with `sim`; they start with its first step.
    pub fn new(sim: Sim<'static>, seed: u64) -> Cluster {
        let mut cluster = Cluster {
            fabric: Fabric::default(),
            sim,
            links: Links::default(),
            nodes: BTreeMap::new(),
            running: Running::default(),
            ended: Arc::default(),
            again: Arc::default(),
            chance: Chance::of(seed, "disks"),
        };
        for id in NODES {
            let node = Node {
                host: Host::new(seed, &name(id)),
                log: SimFiles::new(),
                store: SimDisk::new(),
                stop: Arc::default(),
                up: true,
            };
            cluster.register(id, &node);
            cluster.nodes.insert(id, node);
        }
        cluster
    }

    fn register(&mut self, id: u64, node: &Node) {
        let (host, log, store, stop) = (node.host.clone(), node.log.clone(), node.store.clone(), node.stop.clone());
        let (fabric, running, ended) = (self.fabric.clone(), self.running.clone(), self.ended.clone());
        let again = self.again.clone();
        self.sim.host(name(id), move || {
            let disks = (log.clone(), store.clone());
            let (host, fabric, stop) = (host.clone(), fabric.clone(), stop.clone());
            let (running, ended, again) = (running.clone(), ended.clone(), again.clone());
            async move {
                let env = Env::new(host);
                if let Err(why) = env.clone().scope(run(id, env, fabric, disks, stop, (running, again))).await {
                    ended.lock().unwrap().push(format!("node {id}: {why:#}"));
                }
                Ok(())
            }
        });
    }

    /// Registers a client's host, which runs `work`.
    pub fn add_client(&mut self, client: usize, work: impl Future<Output = turmoil::Result> + 'static) {
        self.sim.client(client_name(client), work);
    }

    /// Lets all hosts run for a millisecond.
    pub fn step(&mut self) -> Result<(), String> {
        trace::step(self.sim.elapsed());
        let again = std::mem::take(&mut *self.again.lock().unwrap());
        for node in again {
            // (One that has been killed or stopped meanwhile stays so.)
            if !self.is_up(node) {
                continue;
            }
            seen::check(short_logs::FETCHED, 1);
            seen::tell(&format!("{} has fetched a database", name(node)));
            self.restart(node);
        }
        self.sim.step().map(|_| ()).map_err(|fault| format!("a host has failed: {fault}"))
    }

    /// The virtual time since the run began.
    pub fn elapsed(&self) -> Duration {
        self.sim.elapsed()
    }

    /// The servers that run.
    pub fn servers(&self) -> BTreeMap<u64, Arc<Server>> {
        self.running.lock().unwrap().clone()
    }

    /// The node that leads, and clients may write at. (Of two that believe so, the one of the later reign.)
    pub fn primary(&self) -> Option<u64> {
        let leads = |server: &Server| server.is_primary().then(|| server.store().reign());
        self.servers().iter().filter_map(|(id, server)| leads(server).map(|reign| (reign, *id))).max().map(|(_, id)| id)
    }

    pub fn is_up(&self, node: u64) -> bool {
        self.nodes[&node].up
    }

    /// The nodes that ended by themselves, without having been told to, and why.
    pub fn ended_by_themselves(&self) -> Vec<String> {
        self.ended.lock().unwrap().clone()
    }

    /// Ends a node at once.
    pub fn crash(&mut self, node: u64, death: Death) {
        let (text, power_lost) = match death {
            Death::Killed => ("is killed", false),
            Death::PowerLost => ("loses its power", true),
        };
        tell(node, "crash", &[power_lost as u8], text);
        if power_lost {
            self.links.power(&self.sim, &name(node), false, &all_others(node));
        }
        self.running.lock().unwrap().remove(&node);
        self.sim.crash(name(node));
        self.fabric.refuse(&name(node), !power_lost);
        let state = self.nodes.get_mut(&node).expect("every node is there from the beginning");
        // (What a killed program has written is with the kernel: after the restart all of it is there.)
        let mut chance = || if power_lost { self.chance.number() } else { 1 };
        state.log.crash(chance());
        state.store.crash(chance());
        state.up = false;
    }

    /// SIGTERM: the node hands over and ends by itself. It counts as down at once.
    pub fn stop(&mut self, node: u64) {
        tell(node, "stop", &[], "is stopped");
        let state = self.nodes.get_mut(&node).expect("every node is there from the beginning");
        state.stop.notify_one();
        state.up = false;
    }

    /// Whether a stopping node has ended.
    pub fn has_stopped(&self, node: u64) -> bool {
        !self.nodes[&node].up && !self.running.lock().unwrap().contains_key(&node)
    }

    /// Starts a node that is down.
    pub fn restart(&mut self, node: u64) {
        tell(node, "restart", &[], "restarts");
        self.links.power(&self.sim, &name(node), true, &all_others(node));
        self.running.lock().unwrap().remove(&node);
        let state = self.nodes.get_mut(&node).expect("every node is there from the beginning");
        // A SIGTERM that came before the node was ready for it ends with its process.
        let _ = state.stop.notified().now_or_never();
        // (A node that has not stopped by itself is killed.)
        self.sim.crash(name(node));
        state.log.crash(1);
        state.store.crash(1);
        state.up = true;
        self.fabric.refuse(&name(node), false);
        // Connections from before are unknown to the new kernel, which resets them.
        self.fabric.lose(&name(node));
        self.sim.bounce(name(node));
    }

    /// Holds back everything between a node and other hosts.
    pub fn cut(&mut self, node: u64, from: &[String]) {
        tell(node, "cut", from.join(" ").as_bytes(), &format!("is cut off from {}", from.join(" ")));
        from.iter().for_each(|other| self.links.cut(&self.sim, &name(node), other));
    }

    /// Ends a [`Cluster::cut`].
    pub fn heal(&mut self, node: u64, from: &[String]) {
        tell(node, "heal", from.join(" ").as_bytes(), &format!("reaches {} again", from.join(" ")));
        from.iter().for_each(|other| self.links.heal(&self.sim, &name(node), other));
    }

    /// Sets a node's wall clock by so many milliseconds, ahead or back.
    pub fn step_clock(&self, node: u64, millis: i64) {
        tell(node, "clock", &millis.to_be_bytes(), &format!("has its clock set by {millis} ms"));
        self.nodes[&node].host.step_clock(millis);
    }
}

fn tell(node: u64, kind: &str, bytes: &[u8], text: &str) {
    trace::event(&name(node), kind, bytes);
    seen::tell(&format!("{} {text}", name(node)));
}

/// One life of a node, from its start to its end by SIGTERM or by a fault of its own.
async fn run(
    id: u64,
    env: Env,
    fabric: Fabric,
    (log, store): (SimFiles, SimDisk),
    stop: Arc<Notify>,
    (running, again): (Running, Arc<Mutex<Vec<u64>>>),
) -> anyhow::Result<()> {
    let disks = Disks {
        log: Arc::new(WatchedFiles::open(&log, format!("{}/log", name(id)))),
        segments: SEGMENTS,
        store: Arc::new(Watched::open(&store, zrs::storage::TABLES, format!("{}/store", name(id)))?),
        shelf: Arc::new(store.shelf(zrs::storage::TABLES)),
    };
    let config = Config {
        node: id,
        peers: NODES.into_iter().map(|id| (id, address(id))).collect(),
        listen: Some(format!("0.0.0.0:{PORT}")),
        secret: Some(b"known to all simulated nodes".to_vec()),
        // So little that whoever was away for some seconds needs a checkpoint.
        log_keep: Duration::from_secs(2),
        log_size: 128 << 10,
        snapshot_rate: 4 << 20,
        transaction_timeout: Duration::from_secs(5),
        ..Config::default()
    };
    let network = Arc::new(fabric.of(&name(id)));
    let server = Arc::new(Server::start(Arc::new(config), env, network, None, disks).await?);
    running.lock().unwrap().insert(id, server.clone());
    let mut fault = server.node().fault();
    let mut outdated = server.node().outdated();
    let (stopped, begins_again) = tokio::select! {
        biased;
        _ = fault.until(Option::is_some) => (false, false),
        () = stop.notified() => (true, false),
        _ = outdated.until(Option::is_some) => (true, true),
    };
    if stopped {
        server.stop().await;
    }
    if begins_again {
        server.node().take_fetched().await?;
        again.lock().unwrap().push(id);
    }
    running.lock().unwrap().remove(&id);
    match &*fault.look() {
        Some(why) if !stopped => anyhow::bail!("stopped, as {why}"),
        _ => Ok(()),
    }
}
