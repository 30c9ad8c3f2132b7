//! A node: the handle by which the rest of the program uses consensus.

mod checkup;
mod compare;
mod door;
mod election;
mod errands;
mod heirs;
mod inner;
mod join;
mod presence;
mod proposal;
mod reign;
mod shorten;
mod status;
mod steward;
mod succession;
mod upkeep;
mod welcome;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::addresses::Addresses;
use super::admission;
use super::base::LogBase;
use super::catch_up::{self, CatchUp, Parts};
use super::checkpoints::Checkpoints;
use super::errand::{Brought, Errand, Report};
use super::fitness::{Cause, Fitness};
use super::formation::{self, Formation};
use super::heard::Heard;
use super::hello::PeerKey;
use super::link::{Caller, Connection, Newest, Target};
use super::log::LogStore;
use super::members::MembersAsk;
use super::memory::Memory;
use super::obituary::{Obituary, Will};
use super::origin;
use super::types::Place;
use super::wire::{Answer, Ask, RelayRequest};
use crate::command::{Change, Command, OLDEST_FORMAT, Reign};
use crate::config::{Config, limits};
use crate::engine::Shelf;
use crate::env::{Env, Watch, Watching};
use crate::journal::{Files, Sizes};
use crate::net::{Credentials, FrameReader, FrameWriter, Network, Tls};
use crate::storage::{Position, Store};
use inner::Inner;
use proposal::submit;

pub use door::{Accepted, RelayRefused};
pub use inner::{Member, Role};
pub use proposal::{Proposal, Unknown};
pub use status::{MemberStatus, NodeStatus};

/// The parts that a node is made of.
pub struct Setup {
    /// The settings: this node's number, its peers and times.
    pub config: Arc<Config>,
    /// Time, chance and threads.
    pub env: Env,
    /// The way to the peers.
    pub network: Arc<dyn Network>,
    /// How to speak TLS with peers; `None`: without TLS.
    pub tls: Option<Tls>,
    /// The files of `log/`.
    pub log: Arc<dyn Files>,
    /// The sizes of the log's segments.
    pub segments: Sizes,
    /// The store that commands are applied to.
    pub store: Store,
    /// Where the errands of peers go.
    pub errands: mpsc::Sender<Brought>,
    /// Where copies of the store are kept, for other nodes and from them.
    pub shelf: Arc<dyn Shelf>,
}

/// A handle to this node's consensus; cheap to clone.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

/// The node could not make sure that its store has every commit that was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotCaughtUp(pub String);

fn nobody() -> anyhow::Error {
    anyhow::anyhow!("no other member is there, up to date and fit to lead")
}

impl Node {
    /// Opens the log and begins to take part: at once if the folder is stamped, else as soon as the cluster has formed.
    pub async fn start(setup: Setup) -> anyhow::Result<Node> {
        let Setup { config, env, network, tls, log: files, segments, store, errands, shelf } = setup;
        let log = LogStore::open(files.clone(), segments, env.clone()).await?;
        admission::settle(&log, &store).await?;
        let left = catch_up::finish(&log, &store, &env, shelf.clone()).await?;
        log.agrees_with(&store).await?;
        let copied = origin::check(&log, &*files).await?.map(|odd| origin::copied(config.node, &odd));
        let incarnation = formation::incarnation(&log, || env.seed()).await?;
        let memory = Memory::open(log.clone(), env.clone(), copied).await?;
        let stamp = formation::read_stamp(&log, config.node, incarnation)?;
        // Everything that keeps a reign alive runs there: Raft itself, the links, and what answers the peers.
        let own = env.on_own_thread("zrs-raft")?;
        let caller = Caller {
            env: own.clone(),
            network,
            tls,
            key: PeerKey::of_secret(config.secret.as_deref()),
            node: config.node,
            incarnation,
            memory,
            seat: Watch::new(None),
            addresses: Addresses::listed(&config.peers),
            newest: Newest::of(config.pretend_newer),
            patience: config.election_timeout * 2,
        };
        let mut peers = config.peers.clone();
        if peers.is_empty() {
            peers.insert(config.node, config.public_address());
        }
        let formation = Formation {
            caller: caller.clone(),
            log: log.clone(),
            base: LogBase::checked(&store, stamp.as_ref())?,
            peers,
            stamp: Watch::new(stamp),
            admitted: Watch::new(false),
            turn: tokio::sync::Mutex::new(()),
            waiting: Watch::new(String::new()),
        };
        let work = env.here();
        let checkpoints =
            Checkpoints::new(work.clone(), store.clone(), log.clone(), shelf.clone(), config.snapshot_rate);
        let parts = Parts {
            env: work.clone(),
            caller: caller.clone(),
            store: store.clone(),
            log: log.clone(),
            shelf,
            files: files.clone(),
            reserve: config.disk_reserve,
        };
        let inner = Arc::new(Inner {
            // (What a store holds when it is opened is on disk.)
            flushed: Watch::new(store.applied()),
            checkpoints,
            catch_up: Arc::new(CatchUp::new(parts, left)),
            heard: Heard::new(env.clone()),
            fitness: Fitness::new(env.clone()),
            errands,
            format: AtomicU8::new(OLDEST_FORMAT),
            files,
            work,
            config,
            caller,
            store,
            log,
            formation,
            role: Watch::new(Role::Forming(String::new())),
            abdicated: Watch::new(None),
            ended: Watch::new(None),
            fault: Watch::new(None),
            stopping: Watch::new(false),
            waits: Watch::new(Vec::new()),
            alarms: Watch::new(Vec::new()),
            reigns: Mutex::default(),
            rostering: tokio::sync::Mutex::default(),
            running: OnceLock::new(),
        });
        join::warn_of_changed_peers(&inner);
        own.spawn(join::take_part(inner.clone()));
        Ok(Node { inner })
    }

    /// This node's role; changes wake the receiver.
    pub fn role(&self) -> Watching<Role> {
        self.inner.role.watching()
    }

    /// Set when this node can't take part any more (its disk fails, it can't read a command); the process should end.
    pub fn fault(&self) -> Watching<Option<String>> {
        self.inner.fault.watching()
    }

    /// Set when this node should stop, as it has fetched a database that takes the place of its own: after
    /// [`Node::shutdown`] and [`Node::take_fetched`] it is to be started again.
    pub fn outdated(&self) -> Watching<Option<Position>> {
        self.inner.catch_up.ready()
    }

    /// Has the database that was fetched take the place of this node's at the next opening. For a node that was shut
    /// down.
    pub async fn take_fetched(&self) -> io::Result<bool> {
        self.inner.catch_up.take().await
    }

    /// Puts a change into the queue to the log; calls of one task keep their order. Returns when the change is queued.
    pub async fn propose(&self, reign: Reign, change: Change) -> Proposal {
        let Some(running) = self.inner.running.get() else { return Proposal::untaken() };
        let command = Command { reign, change };
        let format = self.inner.format.load(Ordering::Relaxed);
        let bytes = match &command.change {
            // Encoding so many writes takes long enough to delay this thread's other tasks.
            Change::Commit(commit) if commit.writes.len() > limits::WRITES_INLINE => {
                self.inner.env().offload(move || command.encode(format)).await
            }
            _ => command.encode(format),
        };
        submit(&running.raft, bytes).await.in_reign(self.inner.clone(), reign)
    }

    /// Returns once this node's store has every commit that any node answered before the call.
    pub async fn catch_up(&self, within: Duration) -> Result<(), NotCaughtUp> {
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
        let late = |_| NotCaughtUp(format!("no primary confirmed within {within:?} what has been committed"));
        env.timeout(within, attempt).await.map_err(late)
    }

    async fn read_index(&self) -> Result<Place, String> {
        let running = self.inner.running.get().ok_or("the cluster has not formed")?;
        let role = self.inner.role();
        match role {
            Role::Primary(_) => running.lease.read_index(&running.raft).await,
            Role::Secondary { primary, .. } => {
                let link = running.peers.links(Target::from(primary)).control;
                match link.call(Ask::ReadIndex, self.inner.config.election_timeout).await {
                    Ok(Answer::ReadIndex(index)) => index,
                    Ok(other) => Err(format!("an answer to another question: {other:?}")),
                    Err(fault) => Err(fault.to_string()),
                }
            }
            Role::Forming(_) | Role::Candidate | Role::Excluded(_) => Err("no primary is known".into()),
        }
    }

    /// Hands the primary's role to node `chosen`, or to the member with most of the log; gives the new primary's id.
    pub async fn transfer(&self, chosen: Option<u64>) -> anyhow::Result<u64> {
        let Role::Primary(reign) = self.inner.role() else { anyhow::bail!("this node is not the primary") };
        let Some(running) = self.inner.running.get() else { anyhow::bail!("the cluster has not formed") };
        let own = self.inner.config.node;
        let to = match chosen {
            Some(to) if to == own => return Ok(own),
            Some(to) => to,
            None => heirs::most_advanced(&self.inner).ok_or_else(nobody)?,
        };
        let Some(Member { incarnation, .. }) = self.inner.member(to) else { anyhow::bail!(self.inner.no_member(to)) };
        running.raft.trigger().transfer_leader(incarnation).await.map_err(|fatal| anyhow::anyhow!("{fatal}"))?;
        // From here on this node has no lease, and is not to wait until consensus says so: that may take long, if the
        // disk is slow with the vote for the next primary.
        self.inner.abdicate(reign);
        let mut role = self.role();
        let gone = role.until(|role| matches!(role, Role::Secondary { .. }));
        let patience = self.inner.config.election_timeout * 8;
        let gone = self.inner.env().timeout(patience, gone).await;
        match (gone, self.inner.role()) {
            (Ok(_), Role::Secondary { primary, .. }) if primary.id == to => Ok(to),
            // Another node was faster; without a chosen one, any other primary will do.
            (Ok(_), Role::Secondary { primary, .. }) if chosen.is_none() => Ok(primary.id),
            (Ok(_), Role::Secondary { primary, .. }) => {
                anyhow::bail!("node {} has taken over, not node {to}", primary.id)
            }
            _ => anyhow::bail!("node {to} has not taken over within {patience:?}"),
        }
    }

    /// An error if node `to`, or without a `to` every other node, would not take over soon: all writing would wait for
    /// it in vain. Waits for a lease at most, as a primary that has just begun has heard nobody yet.
    pub async fn await_successor(&self, to: Option<u64>) -> anyhow::Result<()> {
        let Config { election_timeout, heartbeat, node, .. } = &*self.inner.config;
        if to == Some(*node) {
            return Ok(());
        }
        if let Some(to) = to.filter(|to| self.inner.member(*to).is_none()) {
            anyhow::bail!(self.inner.no_member(to));
        }
        let able = || match to {
            Some(to) => heirs::can_take_over(&self.inner, to),
            None => heirs::most_advanced(&self.inner).map(drop).ok_or_else(nobody),
        };
        let waiting = async {
            while self.inner.voters() > 1 && able().is_err() {
                self.inner.env().sleep(*heartbeat).await;
            }
        };
        let _ = self.inner.env().timeout(*election_timeout, waiting).await;
        able()
    }

    /// Notes that the database could not be read: this node does not lead any more while another one can.
    pub fn report_damage(&self) {
        let why = "a record of its database could not be read (the log says which); replace its disk, or start it again \
                   if the disk is sound";
        self.inner.fitness.set(Cause::Database, Some(why.into()));
    }

    /// Why this node should not lead.
    pub fn unfit(&self) -> Option<String> {
        self.inner.fitness.unfit()
    }

    /// On the primary: why nothing more is to be written.
    pub fn no_room(&self) -> Option<String> {
        self.inner.fitness.no_room_to_commit()
    }

    /// The member with most of the log of those that have said lately that they are fit to lead.
    pub fn fit_successor(&self) -> Option<u64> {
        heirs::fit(&self.inner)
    }

    /// Whether enough members have answered lately for an election to succeed.
    pub fn reaches_majority(&self) -> bool {
        let voters =
            self.inner.members().into_iter().filter(|member| member.votes && member.id != self.inner.config.node);
        let seen = voters.filter(|member| self.inner.fitness.is_seen(member.id)).count();
        seen + 1 > self.inner.voters() / 2
    }

    /// How long ago this node was last sure to be up to date with a primary; zero on the primary itself.
    pub fn lag(&self) -> Option<Duration> {
        self.inner.lag()
    }

    /// A description for people.
    pub fn status(&self) -> NodeStatus {
        status::describe(&self.inner, self.inner.running.get().map(|running| &running.raft))
    }

    /// Takes over a connection whose first frame began with `P1`; returns when it has ended or is a client's.
    /// `credentials`: what the peer has shown, where TLS is spoken. `unproven`: dropped as soon as the peer has proved
    /// its membership.
    pub async fn accept_peer(
        &self,
        first: Bytes,
        reader: FrameReader,
        writer: FrameWriter,
        peer: &str,
        credentials: Option<&Credentials>,
        unproven: impl Send,
    ) -> Accepted {
        let connection = Connection { reader, writer };
        door::accept(&self.inner, first, connection, peer, credentials, unproven).await
    }

    /// Takes in the word that a primary's process has ended, which came from `peer`; an error if that is to count for
    /// nothing.
    pub async fn accept_obituary(
        &self,
        frame: &[u8],
        peer: &str,
        credentials: Option<&Credentials>,
    ) -> Result<(), String> {
        door::accept_obituary(&self.inner, frame, peer, credentials).await
    }

    /// The same for a frame whose sender is known: the simulation has no witnesses of its own.
    pub fn believe(&self, frame: &[u8]) -> io::Result<()> {
        door::believe(&self.inner, Obituary::read(frame, &self.inner.caller.key)?);
        Ok(())
    }

    /// What this node's witness is to do once this process has ended; nothing while it is not primary.
    pub fn will(&self) -> Option<Will> {
        door::will(&self.inner)
    }

    /// On the primary: grants an operator's wish for other members. Gives what is going to happen, or why nothing is.
    pub async fn change_members(&self, ask: &MembersAsk) -> Result<String, String> {
        steward::change(&self.inner, ask).await
    }

    /// The IP addresses of each member, by its address, and by that in `--peers`; none for a name that can't be looked
    /// up.
    pub async fn hosts(&self) -> BTreeMap<String, Vec<IpAddr>> {
        door::hosts(&self.inner).await
    }

    /// Sends node `to` an errand. The error says why there is no report: whether the errand is done is not known then.
    pub async fn send(&self, to: u64, errand: Errand, within: Duration) -> Result<Report, String> {
        errands::send(&self.inner, to, errand, within).await
    }

    /// Hands a client over to the primary of the moment, and says which node that is.
    pub async fn open_relay(&self, request: RelayRequest) -> Result<(u64, FrameReader, FrameWriter), RelayRefused> {
        door::open_relay(&self.inner, request).await
    }

    /// Ends all that runs for this node, though it may have a fault: it says nothing more to anybody.
    pub async fn abandon(&self) {
        self.inner.stopping.send(true);
        self.inner.env().end_own_thread().await;
    }

    /// Stops taking part, and flushes the store.
    pub async fn shutdown(&self) {
        self.inner.stopping.send(true);
        if let Some(running) = self.inner.running.get() {
            if let Err(fault) = running.raft.shutdown().await {
                tracing::warn!("consensus did not stop cleanly: {fault}");
            }
            // (So that the flush has all of it: who exports from a folder wants no entry of the log left.)
            let applying = running.applying.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(applying) = applying {
                let _ = self.inner.env().timeout(limits::DRAIN, applying).await;
            }
        }
        upkeep::keep_memory(&self.inner).await;
        let store = self.inner.store.clone();
        if let Err(fault) = self.inner.env().offload(move || store.flush()).await {
            tracing::warn!("the store could not be flushed; it will be replayed from the log: {fault}");
        }
        self.abandon().await;
    }
}
