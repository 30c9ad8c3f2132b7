//! The cluster under test: real servers on turmoil's hosts, and what can be done to them from outside.
//!
//! Everything done to a node goes into the trace and into the run's story.
//!
//! A node that ends by itself has failed the run, unless a fault of its disks excuses it ([`Cluster::excuse`]): then
//! its supervisor starts it again a while later, as systemd would.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use turmoil::Sim;
use zrs::server::Server;

use crate::chance::Chance;
use crate::checks::short_logs;
use crate::folder::Folder;
use crate::links::Links;
use crate::moments::{Deed, Traps};
use crate::network::Fabric;
use crate::node::{Again, Ended, Lives, Moved, Node, Running, Shape};
use crate::seats::Books;
use crate::witnesses::{self, Witnesses};
use crate::{seen, trace};

pub use crate::folder::Death;
pub use crate::host::name;
pub use crate::node::{NODES, address};

/// The numbers of all hosts that may become nodes, in runs in which members come and go.
pub const HOSTS: [u64; 5] = [1, 2, 3, 4, 5];
/// How many Rust clients there are; they are numbered from 0.
pub const CLIENTS: usize = 4;
/// How many clients there are in all: those that speak the protocol themselves have the numbers after the others.
pub const EVERY_CLIENT: usize = CLIENTS + 4;
/// The client that only reads.
pub const READER: usize = 3;

/// The hosts of a run: the nodes, their disks and clocks, and the network to all clients.
pub struct Cluster {
    pub fabric: Fabric,
    pub traps: Traps,
    pub books: Books,
    hosts: &'static [u64],
    sim: Sim<'static>,
    links: Links,
    nodes: BTreeMap<u64, Node>,
    running: Running,
    witnesses: Witnesses,
    ended: Ended,
    again: Again,
    moved: Moved,
    /// What has happened to nodes in this step, and what was done to them since.
    news: Vec<News>,
    coming: Vec<News>,
    /// The primary of the last step.
    last_primary: Option<u64>,
    /// Since when it leads.
    pub leads_since: Duration,
    /// Whether all faults are to end.
    is_over: bool,
    failures: Vec<String>,
    chance: Chance,
    supervisor: Chance,
}

/// Something that has happened to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    Restarted(u64),
    /// The node was told to hand the primary's role over, or to stop.
    HandsOver(u64),
    /// The node has become primary.
    Leads(u64),
    /// The node is primary no more, and no other one is.
    LeadsNoMore(u64),
    /// The node votes from now on, as the primary has applied.
    Votes(u64),
}

/// The ways of a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ways {
    Both,
    /// Nothing that the host sends arrives.
    Out,
    /// Nothing arrives at the host.
    In,
}

/// A client's name in the network.
pub fn client_name(client: usize) -> String {
    format!("c{client}")
}

impl Cluster {
    /// Registers the nodes with `sim`; they start with its first step. (Of `hosts`, those that form the cluster.)
    pub fn new(sim: Sim<'static>, seed: u64, hosts: &'static [u64]) -> Cluster {
        let mut cluster = Cluster {
            fabric: Fabric::default(),
            traps: Traps::default(),
            books: Books::default(),
            hosts,
            sim,
            links: Links::new(seed),
            witnesses: Witnesses::new(seed),
            nodes: BTreeMap::new(),
            running: Running::default(),
            ended: Ended::default(),
            again: Again::default(),
            moved: Moved::default(),
            news: Vec::new(),
            coming: Vec::new(),
            last_primary: None,
            leads_since: Duration::ZERO,
            is_over: false,
            failures: Vec::new(),
            chance: Chance::of(seed, "disks"),
            supervisor: Chance::of(seed, "supervisor"),
        };
        let shape = Shape::of(seed);
        for id in hosts {
            let node = Node::new(seed, *id);
            cluster.register(*id, &node, shape.clone());
            if node.is_idle {
                cluster.sim.crash(name(*id));
                cluster.fabric.refuse(&name(*id), true);
            }
            cluster.nodes.insert(*id, node);
        }
        cluster
    }

    fn register(&mut self, id: u64, node: &Node, shape: Shape) {
        let lives = Lives {
            id,
            peers: node.peers.clone(),
            moved: self.moved.clone(),
            shape,
            host: node.host.clone(),
            folder: node.folder.clone(),
            orders: node.orders.clone(),
            fabric: self.fabric.clone(),
            traps: self.traps.clone(),
            running: self.running.clone(),
            ended: self.ended.clone(),
            again: self.again.clone(),
        };
        self.sim.host(name(id), move || lives.clone().live().map(Ok));
    }

    /// Registers a client's host, which runs `work`.
    pub fn add_client(&mut self, client: usize, work: impl Future<Output = turmoil::Result> + 'static) {
        self.sim.client(client_name(client), work);
    }

    /// Lets all hosts run for a millisecond.
    pub fn step(&mut self) -> Result<(), String> {
        trace::step(self.sim.elapsed());
        self.links.deliver(&self.sim);
        self.news = std::mem::take(&mut self.coming);
        self.sim.step().map_err(|fault| format!("a host has failed: {fault}"))?;
        for (node, deed) in self.traps.hit() {
            match deed {
                Deed::Die(death, _) => self.crash(node, death),
                Deed::Fail => self.node_mut(node).is_excused = true,
                Deed::StandStill | Deed::PowerLater => {}
            }
        }
        self.deliver_obituaries();
        self.look_after_the_ended();
        self.look_after_the_outdated();
        let primary = self.primary();
        if primary != self.last_primary {
            match (primary, self.last_primary) {
                (Some(node), _) => {
                    self.news.push(News::Leads(node));
                    if let Some(will) = self.server(node).and_then(|server| server.node().will()) {
                        self.witnesses.tell(node, will.frame);
                    }
                }
                (None, Some(node)) => self.news.push(News::LeadsNoMore(node)),
                (None, None) => {}
            }
            self.last_primary = primary;
            self.leads_since = self.elapsed();
        }
        let voting = self.new_voters();
        self.news.extend(voting.into_iter().map(News::Votes));
        if self.is_over {
            self.tidy_hosts();
        }
        self.failures.pop().map_or(Ok(()), Err)
    }

    fn end_of_a_process(&mut self, node: u64) {
        let others = self.hosts.iter().copied().filter(|other| *other != node);
        self.witnesses.saw_the_end(self.sim.elapsed(), node, others);
    }

    fn deliver_obituaries(&mut self) {
        for (from, to, frame) in self.witnesses.arrived(self.sim.elapsed()) {
            let server = self.servers().remove(&to).filter(|_| !self.is_cut(&name(from), &name(to)));
            if server.is_some_and(|server| server.node().believe(&frame).is_ok()) {
                seen::check(witnesses::HEARD, 1);
                tell(to, "obituary", &frame, &format!("hears that a process of n{from} has ended"));
            }
        }
    }

    /// Notes the nodes that have ended by themselves, and starts those again that may have.
    fn look_after_the_ended(&mut self) {
        let ended = std::mem::take(&mut *self.ended.lock().unwrap());
        for (node, why) in ended {
            let pause = self.supervisor.millis(100..2_000);
            let due = self.elapsed() + pause;
            let state = self.node_mut(node);
            if state.excuses == 0 && !state.is_excused {
                self.failures.push(format!("node {node}: {why}"));
                continue;
            }
            // (One that was told to stop is started again by whoever told it so.)
            state.starts_at = (state.up && !state.is_taken).then_some(due);
            state.up = false;
            state.last_words = Some(why.clone());
            tell(node, "end", &[], &format!("ends by itself: {why}"));
            self.end_of_a_process(node);
            self.fabric.refuse(&name(node), true);
            self.fabric.lose(&name(node));
        }
        for node in self.nodes() {
            let due = self.nodes[&node].starts_at;
            if due.is_some_and(|due| due <= self.elapsed() || self.is_over) {
                self.restart(node);
            }
        }
    }

    /// Starts the nodes again that have stopped to begin anew with a database that they have fetched.
    fn look_after_the_outdated(&mut self) {
        let again = std::mem::take(&mut *self.again.lock().unwrap());
        for node in again {
            // (One that has been killed or stopped meanwhile stays so.)
            if std::mem::replace(&mut self.node_mut(node).up, false) {
                seen::check(short_logs::FETCHED, 1);
                tell(node, "fetched", &[], "has fetched a database");
                self.restart(node);
            }
        }
    }

    /// What has happened in this step.
    pub fn news(&self) -> &[News] {
        &self.news
    }

    /// The virtual time since the run began.
    pub fn elapsed(&self) -> Duration {
        self.sim.elapsed()
    }

    /// Says that all faults are to end.
    pub fn end_faults(&mut self) {
        self.is_over = true;
    }

    /// Whether all faults are to end.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// The run has failed, as a fault found out.
    pub fn fail(&mut self, why: String) {
        self.failures.push(why);
    }

    /// The servers that run. Those that stand still are left out, and those of nodes that a fault has for itself.
    pub fn servers(&self) -> BTreeMap<u64, Arc<Server>> {
        let mut servers = self.running.lock().unwrap().clone();
        servers.retain(|node, _| !self.nodes[node].host.stands_still() && !self.nodes[node].is_taken);
        servers
    }

    /// The server of a node, if it runs.
    pub fn server(&self, node: u64) -> Option<Arc<Server>> {
        self.running.lock().unwrap().get(&node).cloned()
    }

    /// The node that leads, and clients may write at. (Of two that believe so, the one of the later reign.)
    pub fn primary(&self) -> Option<u64> {
        let leads = |server: &Server| server.is_primary().then(|| server.store().reign());
        self.servers().iter().filter_map(|(id, server)| leads(server).map(|reign| (reign, *id))).max().map(|(_, id)| id)
    }

    /// Whether a node runs that was not told to stop, and a fault may hit it.
    pub fn is_up(&self, node: u64) -> bool {
        self.nodes[&node].up && !self.nodes[&node].is_taken
    }

    /// All hosts that are nodes, or may become some.
    pub fn hosts(&self) -> &'static [u64] {
        self.hosts
    }

    /// The nodes that are at another address than they were at first.
    pub fn moved(&self) -> BTreeSet<u64> {
        self.moved.lock().unwrap().clone()
    }

    /// Whether a node is at another address than it was at first.
    pub fn has_moved(&self, node: u64) -> bool {
        self.moved.lock().unwrap().contains(&node)
    }

    /// Has a node's next life listen at the other address, or at the one that it had at first.
    pub fn note_moved(&self, node: u64, moves: bool) {
        let mut moved = self.moved.lock().unwrap();
        if moves {
            moved.insert(node)
        } else {
            moved.remove(&node)
        };
    }

    pub fn node(&self, node: u64) -> &Node {
        &self.nodes[&node]
    }

    pub fn node_mut(&mut self, node: u64) -> &mut Node {
        self.nodes.get_mut(&node).expect("every node is there from the beginning")
    }

    /// From now on a node may end by itself, and is then started again.
    pub fn excuse(&mut self, node: u64) {
        let state = self.node_mut(node);
        state.excuses += 1;
        state.is_excused = true;
    }

    /// Ends a [`Cluster::excuse`]: in its next lives the node may not end by itself. (In this one it may: a node
    /// notices late that its disk has failed.)
    pub fn excuse_no_more(&mut self, node: u64) {
        self.node_mut(node).excuses -= 1;
    }

    /// Ends a node at once.
    pub fn crash(&mut self, node: u64, death: Death) {
        let (text, power_lost) = match death {
            Death::Killed => ("is killed", false),
            Death::PowerLost => ("loses its power", true),
        };
        tell(node, "crash", &[power_lost as u8], text);
        if power_lost {
            let others = self.all_others(node);
            self.links.power(&self.sim, &name(node), false, &others);
        }
        self.running.lock().unwrap().remove(&node);
        if power_lost {
            self.witnesses.forget(node);
        } else {
            self.end_of_a_process(node);
        }
        self.sim.crash(name(node));
        self.fabric.refuse(&name(node), !power_lost);
        let chance = if power_lost { self.chance.number() } else { 0 };
        let now = self.elapsed();
        let state = self.node_mut(node);
        state.down_since.get_or_insert(now);
        state.folder().crash(death, chance);
        state.host.revive();
        (state.up, state.starts_at) = (false, None);
        state.deaths += 1;
        self.fabric.silence(&name(node), false);
    }

    /// SIGTERM: the node hands over and ends by itself. It counts as down at once.
    pub fn stop(&mut self, node: u64) {
        tell(node, "stop", &[], "is stopped");
        let state = self.node_mut(node);
        state.orders.stop.notify_one();
        state.up = false;
        self.coming.push(News::HandsOver(node));
    }

    /// Tells a node to hand the primary's role over.
    pub fn hand_over(&mut self, node: u64) {
        tell(node, "hand over", &[], "is told to hand the role over");
        self.node(node).orders.hand_over.notify_one();
        self.coming.push(News::HandsOver(node));
    }

    /// Whether a stopping node has ended.
    pub fn has_stopped(&self, node: u64) -> bool {
        !self.nodes[&node].up && !self.running.lock().unwrap().contains_key(&node)
    }

    /// Starts a node that is down; one that runs already goes on.
    pub fn restart(&mut self, node: u64) {
        if self.nodes[&node].up {
            return;
        }
        tell(node, "restart", &[], "restarts");
        let others = self.all_others(node);
        self.links.power(&self.sim, &name(node), true, &others);
        self.running.lock().unwrap().remove(&node);
        self.end_of_a_process(node);
        self.node_mut(node).listed = self.moved();
        // (A node that has not stopped by itself is killed.)
        self.sim.crash(name(node));
        let state = self.node_mut(node);
        // Orders that came before the node was ready for them ended with its process.
        let _ = (state.orders.stop.notified().now_or_never(), state.orders.hand_over.notified().now_or_never());
        state.orders.asks.lock().unwrap().clear();
        state.folder().crash(Death::Killed, 0);
        state.host.revive();
        (state.up, state.starts_at, state.last_words, state.down_since) = (true, None, None, None);
        state.is_excused = state.excuses > 0;
        state.deaths += 1;
        self.fabric.refuse(&name(node), false);
        // Connections from before are unknown to the new kernel, which resets them.
        self.fabric.lose(&name(node));
        self.sim.bounce(name(node));
        self.coming.push(News::Restarted(node));
    }

    /// Gives a node that is down another folder to start from, and gives the one that it had.
    pub fn put_folder(&mut self, node: u64, folder: Folder, text: &str) -> Folder {
        tell(node, "folder", &[], text);
        std::mem::replace(&mut *self.node(node).folder.lock().unwrap(), folder)
    }

    /// Holds back what goes between a host and others, in these ways.
    pub fn cut(&mut self, host: &str, from: &[String], ways: Ways) {
        let others = from.join(" ");
        let text = match ways {
            Ways::Both => format!("is cut off from {others}"),
            Ways::Out => format!("does not reach {others}"),
            Ways::In => format!("is not reached by {others}"),
        };
        tell_of(host, "cut", format!("{others} {ways:?}").as_bytes(), &text);
        self.change_cut(host, from, ways, Links::cut);
    }

    /// Ends a [`Cluster::cut`].
    pub fn heal(&mut self, host: &str, from: &[String], ways: Ways) {
        let others = from.join(" ");
        let text = match ways {
            Ways::Both | Ways::Out => format!("reaches {others} again"),
            Ways::In => format!("is reached by {others} again"),
        };
        tell_of(host, "heal", format!("{others} {ways:?}").as_bytes(), &text);
        self.change_cut(host, from, ways, Links::heal);
    }

    /// Whether a cut lies on the way between two hosts, whichever way.
    pub fn is_cut(&self, one: &str, other: &str) -> bool {
        self.links.is_cut(one, other) || self.links.is_cut(other, one)
    }

    fn change_cut(&mut self, host: &str, from: &[String], ways: Ways, change: fn(&mut Links, &Sim<'_>, &str, &str)) {
        for other in from {
            let both = [(host, other.as_str(), ways != Ways::In), (other.as_str(), host, ways != Ways::Out)];
            for (from, to, _) in both.into_iter().filter(|(.., wanted)| *wanted) {
                change(&mut self.links, &self.sim, from, to);
                self.fabric.cut(from, to, self.links.is_cut(from, to));
            }
        }
    }

    /// Resets all connections between a host and others.
    pub fn reset(&self, host: &str, others: &[String]) {
        tell_of(
            host,
            "reset",
            others.join(" ").as_bytes(),
            &format!("has its connections to {} reset", others.join(" ")),
        );
        others.iter().for_each(|other| self.fabric.reset_between(host, other));
    }
}

/// Writes down what is done to a node.
pub fn tell(node: u64, kind: &str, bytes: &[u8], text: &str) {
    tell_of(&name(node), kind, bytes, text);
}

fn tell_of(host: &str, kind: &str, bytes: &[u8], text: &str) {
    trace::event(host, kind, bytes);
    seen::tell(&format!("{host} {text}"));
}
