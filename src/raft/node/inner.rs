//! The state that the parts of a node share: the node's settings, log, store and present role.
//!
//! Data, and the short ways to look at it. Everything else in this folder works on an [`Inner`] and lies above it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::command::{OLDEST_FORMAT, Reign};
use crate::config::Config;
use crate::env::{Env, Watch};
use crate::journal::Files;
use crate::raft::catch_up::CatchUp;
use crate::raft::checkpoints::Checkpoints;
use crate::raft::errand::Brought;
use crate::raft::fitness::Fitness;
use crate::raft::formation::Formation;
use crate::raft::heard::Heard;
use crate::raft::lease::Lease;
use crate::raft::link::{Caller, Target};
use crate::raft::log::LogStore;
use crate::raft::machine::Raft;
use crate::raft::members::Wait;
use crate::raft::peers::Peers;
use crate::raft::stamp::cluster_name;
use crate::raft::types::{Ballot, Incarnation, Members, Seat};
use crate::storage::{Position, Store};

/// A part of what a node is told that is no member.
pub const NO_MEMBER: &str = "is no member of this cluster";

/// A member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The member's number in `--peers`.
    pub id: u64,
    /// Names the member's data folder.
    pub incarnation: Incarnation,
    /// `host:port`, for clients and peers alike.
    pub address: String,
    /// Whether it is a voter, and not an observer.
    pub votes: bool,
}

impl From<Member> for Target {
    fn from(member: Member) -> Target {
        Target { node: member.id, incarnation: Some(member.incarnation), address: member.address }
    }
}

/// The present role of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Not a member of a cluster yet; the text says what this node waits for.
    Forming(String),
    /// A member that knows no living primary.
    Candidate,
    /// A node that takes no part any more, as its data folder lacks what it once had, or may; the text says why.
    Excluded(String),
    /// Another node is primary.
    Secondary {
        /// The node that leads.
        primary: Member,
        /// Whether this node has once applied everything that this primary had said it had committed.
        caught_up: bool,
    },
    /// This node is primary and may commit.
    Primary(Reign),
}

/// One node, as its handles and its tasks share it.
pub struct Inner {
    pub config: Arc<Config>,
    /// Where entries are applied: not on the thread of `caller`, which Raft has for itself.
    pub work: Env,
    pub caller: Caller,
    pub store: Store,
    pub log: LogStore,
    /// The files of the log.
    pub files: Arc<dyn Files>,
    pub fitness: Fitness,
    /// Where the errands of peers go.
    pub errands: mpsc::Sender<Brought>,
    /// Up to where the store is on disk.
    pub flushed: Watch<Position>,
    /// The checkpoints that others fetch.
    pub checkpoints: Checkpoints,
    /// How this node catches up by another one's.
    pub catch_up: Arc<CatchUp>,
    /// The command format to propose in.
    pub format: AtomicU8,
    pub formation: Formation,
    pub heard: Heard,
    pub role: Watch<Role>,
    /// The greatest reign of which a proposal came back refused, or whose role is handed over.
    pub abdicated: Watch<Option<Reign>>,
    /// The ballot of the latest term by which a node led whose process has ended, as its witness says.
    pub ended: Watch<Option<Ballot>>,
    /// Why this node can't take part any more.
    pub fault: Watch<Option<String>>,
    pub stopping: Watch<bool>,
    /// On the primary: what a change of the members waits for, in words.
    pub waits: Watch<Vec<Wait>>,
    /// What differs between this node's database and those of others, in words.
    pub alarms: Watch<Vec<String>>,
    /// The reign of this node, as far as the steward knows of it.
    pub reigns: Mutex<Option<Reigning>>,
    /// Held while the roster is changed; when the node of each number last came with another folder.
    pub rostering: tokio::sync::Mutex<BTreeMap<u64, Instant>>,
    /// Set once, when this node belongs to a cluster.
    pub running: OnceLock<Running>,
}

/// What the steward of a reign keeps in mind.
#[derive(Clone, Copy)]
pub struct Reigning {
    pub reign: Reign,
    pub since: Instant,
    /// The index of the entry that made the members what they are, and since when the steward knows of it.
    pub entry: u64,
    pub settled: Instant,
}

/// The parts that only a node of a cluster has.
pub struct Running {
    pub raft: Raft,
    pub peers: Peers,
    pub lease: Lease,
    /// The task that applies entries; taken by whoever waits for its end.
    pub applying: Mutex<Option<JoinHandle<()>>>,
}

impl Inner {
    /// Sets this node's role, unless it is excluded; watchers of the role wake if the role has changed.
    pub fn publish(&self, role: Role) {
        self.role.send_if(|present| {
            let news = *present != role && !matches!(present, Role::Excluded(_));
            if news {
                tracing::debug!("role: {role:?}");
                *present = role;
            }
            news
        });
    }

    /// Has the reign end, if this node has it.
    pub fn abdicate(&self, reign: Reign) {
        self.abdicated.send_if(|ended| {
            let greater = ended.is_none_or(|ended| ended < reign);
            if greater {
                *ended = Some(reign);
            }
            greater
        });
    }

    /// Waits for news of Raft, or for a heartbeat's time.
    pub async fn pause(&self, raft: &Raft) {
        let mut metrics = raft.server_metrics();
        // openraft gives out copies of a receiver that has seen only the first value: the present one is no news.
        metrics.look_now();
        if let Ok(Err(_)) = self.env().timeout(self.config.heartbeat, metrics.changed()).await {
            // Raft has stopped, and has no more news: whoever pauses in a loop must not take a whole processor for it.
            self.env().sleep(self.config.heartbeat).await;
        }
    }

    /// The members by their numbers: as the log has them, or the stamp before the log has any; none while the cluster
    /// forms.
    pub fn members(&self) -> Vec<Member> {
        let stamped = || {
            let seats = self.formation.stamp.look().as_ref()?.members.clone();
            Some(Members { voters: vec![seats.keys().copied().collect()], seats })
        };
        let Members { voters, seats } = self.logged_members().or_else(stamped).unwrap_or_default();
        let member = |(incarnation, Seat { node, address })| {
            let votes = voters.iter().any(|voters| voters.contains(&incarnation));
            Member { id: node, incarnation, address, votes }
        };
        let mut members: Vec<Member> = seats.into_iter().map(member).collect();
        members.sort_by_key(|member| member.id);
        members
    }

    /// The members of the last membership entry in the log, committed or not. (Before Raft runs, of the last that was
    /// applied.)
    fn logged_members(&self) -> Option<Members> {
        let members = match self.running.get() {
            Some(running) => Members::from(running.raft.metrics().look().membership_config.membership()),
            None => postcard::from_bytes(&self.store.membership()?.1).ok()?,
        };
        Some(members).filter(|members| !members.seats.is_empty())
    }

    /// How many members vote.
    pub fn voters(&self) -> usize {
        self.members().iter().filter(|member| member.votes).count()
    }

    /// The member with this number.
    pub fn member(&self, id: u64) -> Option<Member> {
        self.members().into_iter().find(|member| member.id == id)
    }

    /// Why nothing can be asked of node `id`: the members are others.
    pub fn no_member(&self, id: u64) -> String {
        let members: Vec<String> = self.members().iter().map(|member| member.id.to_string()).collect();
        format!("node {id} is no member of this cluster; its members are {}", members.join(", "))
    }

    /// The member with this data folder.
    pub fn member_of(&self, incarnation: Incarnation) -> Option<Member> {
        self.members().into_iter().find(|member| member.incarnation == incarnation)
    }

    /// Whether this node is a cluster of one, or is about to be.
    pub fn is_alone(&self) -> bool {
        self.addresses().len() < 2
    }

    /// Sets the format to propose in.
    pub fn choose_format(&self) -> u8 {
        let format = self.common_format();
        self.format.store(format, Ordering::Relaxed);
        format
    }

    /// The newest command format that every member knows. A member that this node has never met may know only the
    /// oldest.
    pub fn common_format(&self) -> u8 {
        self.format_of(|_| true)
    }

    /// The newest command format that all members know that fit.
    pub fn format_of(&self, fits: impl Fn(&Member) -> bool) -> u8 {
        let own = self.caller.incarnation;
        let others = self.members().into_iter().filter(|member| member.incarnation != own && fits(member));
        let known = others.map(|member| self.caller.memory.format_of(member.incarnation));
        let oldest = known.map(|format| format.unwrap_or(OLDEST_FORMAT)).min();
        oldest.unwrap_or(self.caller.newest.format).clamp(OLDEST_FORMAT, self.caller.newest.format)
    }

    /// Whether all members that fit know commands up to `format`. `Err`: what to do about one that does not.
    pub fn all_read(&self, format: u8, fits: impl Fn(&Member) -> bool) -> Result<(), String> {
        let own = self.caller.incarnation;
        for member in self.members().into_iter().filter(|member| member.incarnation != own && fits(member)) {
            match self.caller.memory.format_of(member.incarnation) {
                Some(known) if known >= format => {}
                Some(known) => {
                    return Err(format!(
                        "the zrsd of node {} is too old for that (it knows commands up to format {known}): update it",
                        member.id
                    ));
                }
                None => {
                    return Err(format!(
                        "this node has not met node {} yet, and does not know whether its zrsd is new enough for that: \
                         start it, or wait until it can be reached",
                        member.id
                    ));
                }
            }
        }
        Ok(())
    }

    /// The addresses of all nodes that may be peers, by number: the members', or those in `--peers` before the cluster
    /// has formed.
    pub fn addresses(&self) -> BTreeMap<u64, String> {
        match &self.members()[..] {
            [] => self.formation.peers.clone(),
            members => members.iter().map(|member| (member.id, member.address.clone())).collect(),
        }
    }

    /// The addresses of all nodes that may come while the cluster forms, or to join it, by number:
    /// [`Inner::addresses`], and those of the nodes that are wanted as members.
    pub fn expected(&self) -> BTreeMap<u64, String> {
        let wanted = self.store.roster().1.nodes.into_iter().map(|(node, wish)| (node, wish.address));
        wanted.chain(self.addresses()).collect()
    }

    /// The cluster's id in hexadecimal; `None` while this node belongs to none.
    pub fn cluster(&self) -> Option<String> {
        self.formation.stamp.look().as_ref().map(|stamp| cluster_name(&stamp.cluster))
    }

    /// How long ago this node was last sure to be up to date with a primary; zero on the primary itself.
    pub fn lag(&self) -> Option<Duration> {
        match self.role() {
            Role::Primary(_) => Some(Duration::ZERO),
            _ => self.heard.lag(),
        }
    }

    pub fn env(&self) -> &Env {
        &self.caller.env
    }

    pub fn role(&self) -> Role {
        self.role.look().clone()
    }

    pub fn fault(&self) -> Option<String> {
        self.fault.look().clone()
    }

    /// Why this node takes no part any more, though it runs: its data folder lacks what it once had, or may.
    pub fn excluded(&self) -> Option<String> {
        self.caller.memory.excluded().look().clone()
    }

    /// Whether the tasks of a member are to end.
    pub fn stopping(&self) -> bool {
        *self.stopping.look() || self.caller.memory.excluded().look().is_some()
    }
}
