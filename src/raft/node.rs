//! A node: what the rest of the program knows of consensus.

mod door;
mod upkeep;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use openraft::alias::OneshotReceiverOf;
use openraft::errors::{ClientWriteError, InitializeError, RaftError};
use openraft::impls::ProgressResponder;
use openraft::raft::ClientWriteResult;
use openraft::{Config as RaftConfig, SnapshotPolicy};

use super::base::Base;
use super::formation::{self, Formation};
use super::heard::Heard;
use super::link::{Caller, Target};
use super::log::LogStore;
use super::machine::Machine;
use super::peers::{Peers, Raft, read_index};
use super::reign;
use super::status::NodeStatus;
use super::types::{Members, Place, Proposed, Types};
use super::wire::{Answer, Ask, PeerKey, Stamp, cluster_name};
use crate::command::{Change, Command, Outcome, Reign};
use crate::config::{Config, limits};
use crate::engine::Engine;
use crate::env::{Env, Watch, Watching};
use crate::net::{Network, Tls};
use crate::storage::Store;

pub use door::{Accepted, RelayRefused};

/// A member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its number in `--peers`.
    pub id: u64,
    /// `host:port`, for clients and peers alike.
    pub address: String,
}

/// What this node is at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Not a member of a cluster yet; what it waits for, in words.
    Forming(String),
    /// A member that knows no living primary.
    Candidate,
    /// Another node is primary. `caught_up`: this node has applied what that had committed when it was first heard.
    Secondary {
        /// Who leads.
        primary: Member,
        /// Whether this node has applied everything that the primary had committed when it last said so.
        caught_up: bool,
    },
    /// This node is primary and may commit.
    Primary(Reign),
}

/// What a node is made of.
pub struct Setup {
    /// Which node this is, and its peers and times.
    pub config: Arc<Config>,
    /// Time, chance and threads.
    pub env: Env,
    /// The way to the peers.
    pub network: Arc<dyn Network>,
    /// How to speak TLS with them; `None`: they are spoken to as they are.
    pub tls: Option<Tls>,
    /// The engine of `log/`, opened with [`super::TABLES`].
    pub log: Arc<dyn Engine>,
    /// What commands are applied to.
    pub store: Store,
}

/// A handle to this node's consensus; cheap to clone.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

pub(super) struct Inner {
    config: Arc<Config>,
    caller: Caller,
    store: Store,
    log: LogStore,
    formation: Formation,
    heard: Heard,
    role: Watch<Role>,
    /// The greatest reign of which a proposal came back refused.
    abdicated: Watch<Option<Reign>>,
    fault: Watch<Option<String>>,
    stopping: AtomicBool,
    running: OnceLock<Running>,
}

/// What there is once this node belongs to a cluster.
struct Running {
    raft: Raft,
    peers: Peers,
}

/// A command on its way into the log.
pub struct Proposal {
    answer: Option<OneshotReceiverOf<Types, ClientWriteResult<Types>>>,
    node: Option<(Arc<Inner>, Reign)>,
}

/// Whether the command applies, or ever will, can't be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unknown;

/// The node could not make sure that it has everything that was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotSettled(pub String);

impl Node {
    /// Opens the log and begins to take part: at once where the folder is stamped, else as soon as the cluster has formed.
    pub async fn start(setup: Setup) -> anyhow::Result<Node> {
        let Setup { config, env, network, tls, log, store } = setup;
        let log = LogStore::open(log, env.clone()).await?;
        let incarnation = formation::incarnation(&log, || env.seed()).await?;
        let stamp = formation::read_stamp(&log, config.node, incarnation).await?;
        let caller = Caller {
            env: env.clone(),
            network,
            tls,
            key: PeerKey::of_secret(config.secret.as_deref()),
            node: config.node,
            incarnation,
            patience: config.election_timeout * 2,
        };
        let mut peers = config.peers.clone();
        if peers.is_empty() {
            peers.insert(config.node, config.public_address());
        }
        let formation = Formation {
            caller: caller.clone(),
            log: log.clone(),
            base: Base::checked(&store, stamp.as_ref())?,
            peers,
            stamp: Watch::new(stamp),
            turn: tokio::sync::Mutex::new(()),
            waiting: Watch::new(String::new()),
        };
        let inner = Arc::new(Inner {
            heard: Heard::new(env.clone()),
            config,
            caller,
            store,
            log,
            formation,
            role: Watch::new(Role::Forming(String::new())),
            abdicated: Watch::new(None),
            fault: Watch::new(None),
            stopping: AtomicBool::new(false),
            running: OnceLock::new(),
        });
        inner.warn_of_changed_peers();
        env.spawn(take_part(inner.clone()));
        Ok(Node { inner })
    }

    /// What this node is; changes wake the receiver.
    pub fn role(&self) -> Watching<Role> {
        self.inner.role.watching()
    }

    /// Set when this node can't take part any more (a disk that fails, a command it can't read); the process should end.
    pub fn fault(&self) -> Watching<Option<String>> {
        self.inner.fault.watching()
    }

    /// Puts a change into the queue to the log; calls of one task keep their order. Returns when it stands there.
    pub async fn propose(&self, reign: Reign, change: Change) -> Proposal {
        let Some(running) = self.inner.running.get() else { return Proposal { answer: None, node: None } };
        let command = Command { reign, change };
        let bytes = match &command.change {
            // As for applying it: so many writes take their time.
            Change::Commit(commit) if commit.writes.len() > limits::WRITES_INLINE => {
                self.inner.env().offload(move || command.encode()).await
            }
            _ => command.encode(),
        };
        let mut proposal = submit(&running.raft, bytes).await;
        proposal.node = Some((self.inner.clone(), reign));
        proposal
    }

    /// Returns once this node's store has every commit that was answered, by anybody, before the call.
    pub async fn settle(&self, within: Duration) -> Result<(), NotSettled> {
        let env = self.inner.env();
        let attempt = async {
            loop {
                match self.read_index().await {
                    Ok(place) => {
                        let mut applied = self.inner.store.applied_watch();
                        if applied.until(|applied| *applied > place.index).await.is_ok() {
                            return;
                        }
                    }
                    Err(why) => tracing::trace!("no read index: {why}"),
                }
                env.sleep(self.inner.config.heartbeat).await;
            }
        };
        let late = |_| NotSettled(format!("no primary confirmed within {within:?} what has been committed"));
        env.timeout(within, attempt).await.map_err(late)
    }

    async fn read_index(&self) -> Result<Place, String> {
        let running = self.inner.running.get().ok_or("the cluster has not formed")?;
        let role = self.inner.role();
        match role {
            Role::Primary(_) => read_index(&running.raft, self.inner.config.election_timeout).await,
            Role::Secondary { primary, .. } => {
                let link = running.peers.links(Target { node: primary.id, address: primary.address }).control;
                match link.call(Ask::ReadIndex, self.inner.config.election_timeout).await {
                    Ok(Answer::ReadIndex(index)) => index,
                    Ok(other) => Err(format!("an answer to another question: {other:?}")),
                    Err(fault) => Err(fault.to_string()),
                }
            }
            Role::Forming(_) | Role::Candidate => Err("no primary is known".into()),
        }
    }

    /// Hands the primary's role to node `chosen`, or to the member that has most of the log; gives the new primary.
    pub async fn transfer(&self, chosen: Option<u64>) -> anyhow::Result<u64> {
        let Role::Primary(_) = self.inner.role() else { anyhow::bail!("this node is not the primary") };
        let Some(running) = self.inner.running.get() else { anyhow::bail!("the cluster has not formed") };
        let own = self.inner.config.node;
        let to = match chosen {
            Some(to) if to == own => return Ok(own),
            Some(to) if self.inner.members().iter().any(|member| member.id == to) => to,
            Some(to) => anyhow::bail!("node {to} is no member of this cluster"),
            None => self.most_advanced().ok_or_else(|| anyhow::anyhow!("no other member is known to be there"))?,
        };
        running.raft.trigger().transfer_leader(to).await.map_err(|fatal| anyhow::anyhow!("{fatal}"))?;
        let mut role = self.role();
        let gone = role.until(|role| matches!(role, Role::Secondary { .. }));
        let patience = self.inner.config.election_timeout * 8;
        let gone = self.inner.env().timeout(patience, gone).await;
        match (gone, self.inner.role()) {
            (Ok(_), Role::Secondary { primary, .. }) if primary.id == to => Ok(to),
            // Somebody else was faster. Who only wanted to be relieved is.
            (Ok(_), Role::Secondary { primary, .. }) if chosen.is_none() => Ok(primary.id),
            (Ok(_), Role::Secondary { primary, .. }) => {
                anyhow::bail!("node {} has taken over, not node {to}", primary.id)
            }
            _ => anyhow::bail!("node {to} has not taken over within {patience:?}"),
        }
    }

    fn most_advanced(&self) -> Option<u64> {
        let status = self.status();
        let patience = self.inner.config.election_timeout.as_millis() as u64;
        let others = status.members.iter().filter(|member| member.node != status.node);
        let there = others.filter(|member| member.silence_ms.is_some_and(|silence| silence <= patience));
        there.max_by_key(|member| member.log).map(|member| member.node)
    }

    /// How long ago this node was last sure to be up to date with a primary; zero on the primary itself.
    pub fn lag(&self) -> Option<Duration> {
        match self.inner.role() {
            Role::Primary(_) => Some(Duration::ZERO),
            _ => self.inner.heard.lag(),
        }
    }

    /// A description for people.
    pub fn status(&self) -> NodeStatus {
        self.inner.describe(self.inner.running.get().map(|running| &running.raft))
    }

    /// Stops taking part, and flushes the store.
    pub async fn shutdown(&self) {
        self.inner.stopping.store(true, Ordering::SeqCst);
        if let Some(running) = self.inner.running.get()
            && let Err(fault) = running.raft.shutdown().await
        {
            tracing::warn!("consensus did not stop cleanly: {fault}");
        }
        let store = self.inner.store.clone();
        if let Err(fault) = self.inner.env().offload(move || store.flush()).await {
            tracing::warn!("the store could not be flushed; it will be replayed from the log: {fault}");
        }
    }
}

impl Proposal {
    /// What came of the command. Waits as long as it takes: there is no time after which a proposal has failed.
    pub async fn outcome(self) -> Result<Outcome, Unknown> {
        let Some(answer) = self.answer else { return Err(Unknown) };
        match answer.await {
            Ok(Ok(response)) => Ok(response.data),
            Ok(Err(why)) => {
                let ClientWriteError::ForwardToLeader(_) = &why else { return Err(Unknown) };
                if let Some((node, reign)) = &self.node {
                    node.abdicated.send_if(|ended| {
                        let greater = ended.is_none_or(|ended| ended < *reign);
                        if greater {
                            *ended = Some(*reign);
                        }
                        greater
                    });
                }
                Err(Unknown)
            }
            Err(_) => Err(Unknown),
        }
    }
}

/// Puts an encoded command into openraft's queue.
pub(super) async fn submit(raft: &Raft, command: Bytes) -> Proposal {
    let (responder, answer) = ProgressResponder::complete_only();
    match raft.client_write_ff(Proposed(command), Some(responder)).await {
        Ok(()) => Proposal { answer: Some(answer), node: None },
        Err(fatal) => {
            tracing::debug!("a command was not taken: {fatal}");
            Proposal { answer: None, node: None }
        }
    }
}

/// From the folder to the cluster: waits for the stamp, runs Raft, initialises it if that is this node's part.
async fn take_part(node: Arc<Inner>) {
    if let Err(fault) = node.clone().join().await {
        let why = format!("this node can't take part: {fault:#}");
        tracing::error!("{why}");
        node.fault.send(Some(why));
    }
}

impl Inner {
    async fn join(self: Arc<Inner>) -> anyhow::Result<()> {
        let telling = self.clone();
        let mut waiting = self.formation.waiting.watching();
        let stamped = async {
            let tell = async {
                loop {
                    telling.publish(Role::Forming(waiting.look_now().clone()));
                    if waiting.changed().await.is_err() {
                        std::future::pending::<()>().await;
                    }
                }
            };
            tokio::select! { biased; stamp = self.formation.await_stamp() => stamp, () = tell => unreachable!("tells for ever") }
        };
        let stamp = stamped.await?;
        if self.log.has_voted() && stamp.members.len() > 1 {
            // Before the restart this node may have confirmed a primary's lease. Until that is over it must not help
            // to elect another; openraft has forgotten it.
            self.env().sleep(self.config.election_timeout).await;
        }
        if self.stopping() {
            return Ok(());
        }
        let peers = Peers::new(self.caller.clone(), stamp.cluster);
        let machine = Machine::new(self.store.clone(), &self.log);
        let raft = Raft::new(self.config.node, self.raft_config()?, peers.clone(), self.log.clone(), machine).await?;
        if self.running.set(Running { raft: raft.clone(), peers }).is_err() {
            anyhow::bail!("a node joins once");
        }
        self.publish(Role::Candidate);
        self.caller.env.spawn(reign::rule(self.clone(), raft.clone()));
        self.caller.env.spawn(upkeep::flush_as_the_log_grows(self.clone()));
        self.caller.env.spawn(upkeep::watch_for_faults(self.clone(), raft.clone()));
        self.initialize(&raft, &stamp).await
    }

    /// The founder's last step, until it has succeeded once.
    async fn initialize(&self, raft: &Raft, stamp: &Stamp) -> anyhow::Result<()> {
        if stamp.members.keys().next() != Some(&self.config.node) || raft.is_initialized().await? {
            return Ok(());
        }
        self.formation.stamp_others(stamp).await;
        match raft.initialize(stamp.members.clone()).await {
            Ok(()) => {
                tracing::info!("cluster {} has formed", cluster_name(&stamp.cluster));
                Ok(())
            }
            // Another leader's entries came first: the cluster runs.
            Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(fault) => Err(fault.into()),
        }
    }

    fn raft_config(&self) -> anyhow::Result<Arc<RaftConfig>> {
        let lease = self.config.election_timeout.as_millis() as u64;
        let config = RaftConfig {
            cluster_name: "zrs".into(),
            // Also how long openraft waits for a heartbeat's answer: half a lease, so that a moment without a
            // processor costs no reign. `reign::hold` sends them as often as the configuration says.
            heartbeat_interval: lease / 2,
            // Drawn and waited for when the lease is over.
            election_timeout_min: lease * 3 / 5,
            election_timeout_max: lease,
            enable_pre_vote: Some(true),
            enable_leader_restore: Some(false),
            snapshot_policy: SnapshotPolicy::Never,
            max_payload_entries: limits::APPEND_ENTRIES,
            ..RaftConfig::default()
        };
        Ok(Arc::new(config.validate()?))
    }

    pub fn publish(&self, role: Role) {
        self.role.send_if(|present| {
            let news = *present != role;
            if news {
                tracing::debug!("role: {role:?}");
                *present = role;
            }
            news
        });
    }

    /// Waits for news of Raft, or for a heartbeat's time.
    pub async fn pause(&self, raft: &Raft) {
        let mut metrics = raft.server_metrics();
        // A receiver is given out as it was made: it would take the present for news.
        metrics.look_now();
        let _ = self.env().timeout(self.config.heartbeat, metrics.changed()).await;
    }

    /// Members with their addresses: from the log, or the stamp before the log has any.
    pub fn members(&self) -> Vec<Member> {
        let logged = self.store.membership().and_then(|(_, bytes)| postcard::from_bytes::<Members>(&bytes).ok());
        let seats = match (logged, &*self.formation.stamp.look()) {
            (Some(members), _) => members.seats,
            (None, Some(stamp)) => stamp.members.clone(),
            (None, None) => BTreeMap::new(),
        };
        seats.into_iter().map(|(id, seat)| Member { id, address: seat.address }).collect()
    }

    pub fn cluster(&self) -> Option<String> {
        self.formation.stamp.look().as_ref().map(|stamp| cluster_name(&stamp.cluster))
    }

    pub fn env(&self) -> &Env {
        &self.caller.env
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    pub fn log(&self) -> &LogStore {
        &self.log
    }

    pub fn heard(&self) -> &Heard {
        &self.heard
    }

    pub fn role(&self) -> Role {
        self.role.look().clone()
    }

    pub fn abdicated(&self) -> Watching<Option<Reign>> {
        self.abdicated.watching()
    }

    pub fn fault(&self) -> Option<String> {
        self.fault.look().clone()
    }

    pub fn stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }
}
