//! The cluster under test: real servers on turmoil's hosts.
//!
//! A node is the same `zrs::server::Server` that `zrsd` starts, over the three seams: [`SimNetwork`](crate::network),
//! [`Host`], and [`SimDisk`]s, which stay when their host crashes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use turmoil::Sim;
use zrs::config::Config;
use zrs::engine::SimDisk;
use zrs::env::Env;
use zrs::server::{Disks, Server};

use crate::chance::Chance;
use crate::disk::Watched;
use crate::network::Fabric;
use crate::trace;
use crate::world::Host;

/// The nodes' numbers.
pub const NODES: [u64; 3] = [1, 2, 3];
/// How many clients there are; they are numbered from 0.
pub const CLIENTS: usize = 4;
/// The one that only reads.
pub const READER: usize = 3;
const PORT: u16 = 8100;

/// What runs, by node.
type Running = Arc<Mutex<BTreeMap<u64, Arc<Server>>>>;

/// Three nodes, and what survives them.
pub struct Cluster {
    pub fabric: Fabric,
    nodes: BTreeMap<u64, Node>,
    running: Running,
    faults: Arc<Mutex<Vec<String>>>,
    chance: Chance,
}

struct Node {
    host: Host,
    log: SimDisk,
    store: SimDisk,
    stop: Arc<Notify>,
    up: bool,
}

/// How a node goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// `kill -9`: the kernel closes its connections; nothing that was written is lost.
    Killed,
    /// The plug: nobody says a word, and the disks lose what was not synced.
    Power,
}

/// Its name in the network.
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

/// The names of all others, clients too.
pub fn all_others(node: u64) -> Vec<String> {
    other_nodes(node).into_iter().chain((0..CLIENTS).map(client_name)).collect()
}

/// Where clients and peers find it.
pub fn address(node: u64) -> String {
    format!("{}:{PORT}", name(node))
}

impl Cluster {
    /// Registers the nodes with `sim`; they start with its first step.
    pub fn new(sim: &mut Sim<'_>, seed: u64) -> Cluster {
        let mut cluster = Cluster {
            fabric: Fabric::default(),
            nodes: BTreeMap::new(),
            running: Running::default(),
            faults: Arc::default(),
            chance: Chance::of(seed, "disks"),
        };
        for id in NODES {
            let node = Node {
                host: Host::new(seed, &name(id)),
                log: SimDisk::new(),
                store: SimDisk::new(),
                stop: Arc::default(),
                up: true,
            };
            cluster.register(sim, id, &node);
            cluster.nodes.insert(id, node);
        }
        cluster
    }

    fn register(&self, sim: &mut Sim<'_>, id: u64, node: &Node) {
        let (host, log, store, stop) = (node.host.clone(), node.log.clone(), node.store.clone(), node.stop.clone());
        let (fabric, running, faults) = (self.fabric.clone(), self.running.clone(), self.faults.clone());
        sim.host(name(id), move || {
            let disks = (log.clone(), store.clone());
            let (host, fabric, stop) = (host.clone(), fabric.clone(), stop.clone());
            let (running, faults) = (running.clone(), faults.clone());
            async move {
                let env = Env::new(host);
                if let Err(why) = env.clone().scope(run(id, env, fabric, disks, stop, running)).await {
                    faults.lock().unwrap().push(format!("node {id}: {why:#}"));
                }
                Ok(())
            }
        });
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

    /// What nodes stopped for by themselves.
    pub fn faults(&self) -> Vec<String> {
        self.faults.lock().unwrap().clone()
    }

    pub fn crash(&mut self, sim: &mut Sim<'_>, node: u64, death: Death) {
        trace::event(&name(node), "crash", format!("{death:?}").as_bytes());
        if death == Death::Power {
            all_others(node).iter().for_each(|other| sim.partition(name(node), other.as_str()));
        }
        self.running.lock().unwrap().remove(&node);
        sim.crash(name(node));
        self.fabric.refuse(&name(node), death == Death::Killed);
        let state = self.nodes.get_mut(&node).unwrap();
        // (A killed program's writes are with the kernel: of those to the store, all are there after the restart.)
        for disk in [&state.log, &state.store] {
            disk.crash(if death == Death::Power { self.chance.number() } else { 1 });
        }
        state.up = false;
    }

    /// SIGTERM: the node hands over and ends by itself. It counts as down at once.
    pub fn stop(&mut self, node: u64) {
        trace::event(&name(node), "stop", &[]);
        self.nodes[&node].stop.notify_one();
        self.nodes.get_mut(&node).unwrap().up = false;
    }

    /// Whether a stopping node has ended.
    pub fn has_stopped(&self, node: u64) -> bool {
        !self.nodes[&node].up && !self.running.lock().unwrap().contains_key(&node)
    }

    /// Starts a node again that crashed or stopped.
    pub fn restart(&mut self, sim: &mut Sim<'_>, node: u64) {
        trace::event(&name(node), "restart", &[]);
        all_others(node).iter().for_each(|other| sim.repair(name(node), other.as_str()));
        self.running.lock().unwrap().remove(&node);
        let state = self.nodes.get_mut(&node).unwrap();
        sim.crash(name(node));
        for disk in [&state.log, &state.store] {
            disk.crash(1);
        }
        state.up = true;
        self.fabric.refuse(&name(node), false);
        // Who still waits for an answer from before is told that there is nobody of that time.
        self.fabric.lose(&name(node));
        sim.bounce(name(node));
    }

    /// Sets a node's wall clock.
    pub fn step_clock(&self, node: u64, millis: i64) {
        trace::event(&name(node), "clock", &millis.to_be_bytes());
        self.nodes[&node].host.step_clock(millis);
    }
}

/// One life of a node.
async fn run(
    id: u64,
    env: Env,
    fabric: Fabric,
    (log, store): (SimDisk, SimDisk),
    stop: Arc<Notify>,
    running: Running,
) -> anyhow::Result<()> {
    let disks = Disks {
        log: Arc::new(Watched::open(&log, zrs::raft::TABLES, format!("{}/log", name(id)))?),
        store: Arc::new(Watched::open(&store, zrs::storage::TABLES, format!("{}/store", name(id)))?),
    };
    let config = Config {
        node: id,
        peers: NODES.into_iter().map(|id| (id, address(id))).collect(),
        listen: Some(format!("0.0.0.0:{PORT}")),
        secret: Some(b"known to all simulated nodes".to_vec()),
        transaction_timeout: Duration::from_secs(5),
        ..Config::default()
    };
    let network = Arc::new(fabric.of(&name(id)));
    let server = Arc::new(Server::start(Arc::new(config), env, network, None, disks).await?);
    running.lock().unwrap().insert(id, server.clone());
    let mut fault = server.node().fault();
    let stopped = tokio::select! {
        biased;
        _ = fault.until(Option::is_some) => false,
        () = stop.notified() => true,
    };
    if stopped {
        server.stop().await;
    }
    running.lock().unwrap().remove(&id);
    match &*fault.look() {
        Some(why) if !stopped => anyhow::bail!("stopped, as {why}"),
        _ => Ok(()),
    }
}
