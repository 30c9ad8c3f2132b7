//! Catching up by a checkpoint, seen from the node that is behind.
//!
//! The leader's log does not go back to where this node's ends. So the leader asks, again and again, whether this node
//! has caught up ([`CatchUp::asked`]); with the first question this node begins to fetch a checkpoint. A question after
//! a failure begins anew, with what is there already.
//!
//! The source is the member whose checkpoint was begun; else another one that is not the leader, which has enough to
//! do; else the leader; one that has sent what it could not read comes last. All members are told once a second how far
//! this node is, as the log of the one that leads then has to go on from there.
//!
//! A database that is whole does not take the place of the present one under everybody's feet: the node stops in an
//! orderly way, and begins again with the new one ([`CatchUp::ready`]). The steps, and a crash after each:
//!
//! | step | after a crash |
//! |---|---|
//! | fetch | goes on where it was, or is begun anew |
//! | note the position in `log/` ([`FETCHED`]) | the next start has the old database, and forgets the note |
//! | stop Raft, the server, the store | the same |
//! | [`Incoming::take`]: **the point** | the next start has the new database |
//! | the log begins behind the position (`LogStore::begin_after`) | done again |
//! | forget the note | |
//!
//! To Raft this is a restart: the node keeps its vote and every entry that follows the position. Nothing that it has
//! acknowledged is lost: what is committed up to the position is in the database, and an entry of this node's log that
//! differs from what the database was made of was never committed. Its vote is of no earlier term than that of whoever
//! committed the position ([`Offer::term`]), so that no member misses entries that the node had under a newer vote.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio::time::Instant;

use super::admission;
use super::fetch::{Offered, follow, read_begun};
use super::hello::Purpose;
use super::link::{Caller, Connection, Target};
use super::log::LogStore;
use super::pace::Pace;
use super::stamp::ClusterId;
use super::telling::Telling;
use super::types::{Incarnation, Place};
use super::wire::{Admission, CatchUpAnswer, Fetched, Offer};
use crate::config::limits;
use crate::engine::{Incoming, Shelf};
use crate::env::{Env, Watch, Watching};
use crate::journal::Files;
use crate::storage::{Position, Store};

/// The log's slot for the position of a database that is to take the place of the present one.
const FETCHED: &str = "fetched";

/// How this node catches up by another one's checkpoint.
pub struct CatchUp {
    parts: Parts,
    state: Watch<State>,
    /// The leader that last asked.
    leader: Mutex<Option<Target>>,
    /// Since when the source of what was begun can't be reached.
    cut: Mutex<Option<Instant>>,
    /// Who has sent what it could not read, or this node could not.
    shunned: Mutex<Option<Incarnation>>,
    ready: Watch<Option<Position>>,
    /// Why the last attempt failed.
    trouble: Mutex<Option<String>>,
    /// How many entries a database has applied that lies on the disk and is not whole.
    left: Mutex<Option<u64>>,
}

/// The parts of a node that catching up works with.
pub struct Parts {
    /// Where fetching runs: not on the thread that Raft has for itself.
    pub env: Env,
    pub caller: Caller,
    pub store: Store,
    pub log: LogStore,
    pub shelf: Arc<dyn Shelf>,
    /// Tells how much of the disk is free.
    pub files: Arc<dyn Files>,
    /// Bytes of the disk that stay free.
    pub reserve: u64,
}

/// How far the fetching is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Idle,
    Fetching(Progress),
    /// The database is whole, and this node stops in order to begin again with it.
    Ready(Progress),
}

/// A database that is being fetched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// The node that it comes from.
    pub from: u64,
    /// How many entries of the log it has applied; 0: not known yet.
    pub entries: u64,
    /// Bytes that are here.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
    /// Bytes in a second.
    pub rate: u64,
}

impl Progress {
    fn fetched(&self) -> Fetched {
        Fetched { entries: self.entries, done: self.done, total: self.total }
    }
}

impl CatchUp {
    /// `left`: how many entries a database has applied that an earlier start has not fetched to the end.
    pub fn new(parts: Parts, left: Option<u64>) -> CatchUp {
        let (state, ready) = (Watch::new(State::Idle), Watch::new(None));
        let (leader, cut, shunned, trouble) = Default::default();
        CatchUp { parts, state, leader, cut, shunned, ready, trouble, left: Mutex::new(left) }
    }

    /// Set when this node should stop, and begin again with the database that it has fetched.
    pub fn ready(&self) -> Watching<Option<Position>> {
        self.ready.watching()
    }

    /// How far the fetching is; `None`: nothing is fetched.
    pub fn progress(&self) -> Option<Progress> {
        match self.state.look().clone() {
            State::Idle => None,
            State::Fetching(progress) | State::Ready(progress) => Some(progress),
        }
    }

    /// Why this node does not get the database that it needs.
    pub fn trouble(&self) -> Option<String> {
        lock(&self.trouble).as_ref().map(|why| format!("this node is behind and can't fetch a database: {why}"))
    }

    /// Answers a leader that needs this node to have applied so many entries, and can't send them one by one.
    /// `members`: where a database may come from.
    pub fn asked(
        self: &Arc<Self>,
        leader: &Target,
        members: impl FnOnce() -> Vec<Target>,
        cluster: ClusterId,
        entries: u64,
    ) -> CatchUpAnswer {
        let applied = self.parts.store.applied().index;
        if applied >= entries {
            *lock(&self.trouble) = None;
            return CatchUpAnswer::Applied { entries: applied };
        }
        *lock(&self.leader) = Some(leader.clone());
        let begins = self.state.send_if(|state| {
            let begins = *state == State::Idle;
            if begins {
                *state = State::Fetching(Progress { from: leader.node, ..Progress::default() });
            }
            begins
        });
        if begins {
            if lock(&self.trouble).is_none() {
                let (node, first) = (leader.node, applied + 1);
                tracing::info!("the log of node {node} does not go back to entry {first}: fetching a database");
            }
            self.parts.env.spawn(self.clone().fetch_or_tell(members(), cluster, entries));
        }
        CatchUpAnswer::Fetching
    }

    /// For a node that was let in to a cluster with an empty folder: fetches the database to begin with. Then this node
    /// is [`CatchUp::ready`] to begin again.
    pub async fn fetch_first(&self, admission: Admission) -> io::Result<()> {
        let (cluster, entries) = (admission.stamp.cluster, admission.entries);
        let members = admission.stamp.members.iter();
        let members: Vec<Target> = members
            .map(|(folder, seat)| Target { node: seat.node, incarnation: Some(*folder), address: seat.address.clone() })
            .collect();
        let leader = members.iter().find(|member| member.incarnation == Some(admission.source));
        let leader = leader.ok_or_else(|| io::Error::other("the member that let this node in is none itself"))?;
        self.state.send(State::Fetching(Progress { from: leader.node, ..Progress::default() }));
        *lock(&self.leader) = Some(leader.clone());
        let noted = match self.fetch_from_any(members, cluster, entries).await {
            Ok(offer) => self.note_first(admission, offer).await,
            Err(why) => Err(why),
        };
        match noted {
            Ok(position) => {
                self.is_ready(position);
                Ok(())
            }
            Err(why) => {
                self.state.send(State::Idle);
                Err(why)
            }
        }
    }

    async fn note_first(&self, admission: Admission, offer: Offer) -> io::Result<Position> {
        admission::note(&self.parts.log, admission, &offer).await?;
        self.parts.log.set_value(FETCHED, &Some(offer.place)).await?;
        Ok(offer.place.into())
    }

    fn is_ready(&self, position: Position) {
        let progress = self.progress().unwrap_or_default();
        tracing::info!("fetched the database of node {}, with {} entries applied", progress.from, position.index);
        *lock(&self.trouble) = None;
        self.state.send(State::Ready(progress));
        self.ready.send(Some(position));
    }

    async fn fetch_or_tell(self: Arc<Self>, members: Vec<Target>, cluster: ClusterId, entries: u64) {
        match self.try_to_fetch(members, cluster, entries).await {
            // (The log may have come along after all.)
            Ok(position) if self.parts.store.applied().index >= position.index => {
                *lock(&self.trouble) = None;
                self.state.send(State::Idle);
            }
            Ok(position) => self.is_ready(position),
            Err(why) => {
                let why = why.to_string();
                let news = lock(&self.trouble).replace(why.clone()).as_ref() != Some(&why);
                if news {
                    tracing::warn!("fetching a database was cut off: {why}");
                }
                // (A leader asks every second: a disk without room is not to be asked as often.)
                self.parts.env.sleep(limits::FETCH_AGAIN).await;
                self.state.send(State::Idle);
            }
        }
    }

    async fn try_to_fetch(&self, members: Vec<Target>, cluster: ClusterId, entries: u64) -> io::Result<Position> {
        let log = &self.parts.log;
        let offer = self.fetch_from_any(members, cluster, entries).await?;
        if log.term() < offer.term {
            let why = format!("this node has not heard yet of term {}, in which it was made", offer.term);
            return Err(io::Error::other(why));
        }
        log.set_value(FETCHED, &Some(offer.place)).await?;
        Ok(offer.place.into())
    }

    /// Fetches from the first member that offers a database with at least `entries` entries applied.
    async fn fetch_from_any(&self, members: Vec<Target>, cluster: ClusterId, entries: u64) -> io::Result<Offer> {
        let Parts { env, shelf, .. } = &self.parts;
        let shelf = shelf.clone();
        let incoming = env.offload(move || shelf.incoming()).await?;
        let begun = read_begun(env, &incoming).await?.map(|begun| begun.source);
        let members = self.in_order(members, begun);
        let mut why = io::Error::other("no other member is known");
        for source in &members {
            match self.ask(source, &incoming, cluster, entries).await {
                Ok((offered, follows)) => {
                    *lock(&self.cut) = None;
                    let fetched = self.fetch(source, offered, &members, follows, cluster).await;
                    if fetched.as_ref().is_err_and(is_of_the_source) {
                        *lock(&self.shunned) = source.incarnation;
                    }
                    return fetched;
                }
                Err(refused) => {
                    tracing::debug!("node {} offers no database: {refused}", source.node);
                    why = io::Error::new(refused.kind(), format!("node {}: {refused}", source.node));
                    if begun == Some(source.node) && is_cut(&refused) && self.may_come_back() {
                        return Err(why);
                    }
                }
            }
        }
        Err(why)
    }

    /// Whether the source of what was begun is to be waited for, now that it can't be reached.
    fn may_come_back(&self) -> bool {
        let now = self.parts.env.now();
        now < *lock(&self.cut).get_or_insert(now) + limits::FETCH_CUT
    }

    /// Those to ask for a database, in this order.
    fn in_order(&self, mut members: Vec<Target>, begun: Option<u64>) -> Vec<Target> {
        let (leader, shunned) = (lock(&self.leader).clone(), *lock(&self.shunned));
        if let Some(leader) = &leader {
            // (This node may not know it as a member yet.)
            members.retain(|member| member.incarnation != leader.incarnation);
            members.push(leader.clone());
        }
        let leads = |member: &Target| leader.as_ref() == Some(member);
        let is_shunned = |member: &Target| shunned.is_some() && member.incarnation == shunned;
        members.retain(|member| member.incarnation != Some(self.parts.caller.incarnation));
        members.sort_by_key(|member| (is_shunned(member), Some(member.node) != begun, leads(member), member.node));
        members
    }

    /// Asks a member for its database, and the leader, where that is another one, to keep what follows in its log: the
    /// connection to it.
    async fn ask(
        &self,
        source: &Target,
        incoming: &Arc<dyn Incoming>,
        cluster: ClusterId,
        entries: u64,
    ) -> io::Result<(Offered, Option<(Target, Connection)>)> {
        let Parts { env, caller, .. } = &self.parts;
        // (In this order: a checkpoint is not to be made in vain, and what follows it must not go meanwhile.)
        let leader = lock(&self.leader).clone().filter(|leader| leader.node != source.node);
        let mut follows = match leader {
            Some(leader) => Some((self.keeps(&leader, cluster, entries).await?, leader)),
            None => None,
        };
        let connection = caller.reach(source, Some(cluster), Purpose::Fetch).await?;
        let offered = Offered::ask(env, incoming, source.node, connection, entries).await?;
        let Some((mut connection, leader)) = follows.take() else { return Ok((offered, None)) };
        match follow(env, &mut connection, offered.offer().fetched(0)).await {
            Ok(true) => Ok((offered, Some((leader, connection)))),
            Ok(false) => {
                Err(io::Error::other(format!("the log of node {} does not go back to its database", leader.node)))
            }
            Err(why) => Err(io::Error::other(format!("node {}: {why}", leader.node))),
        }
    }

    /// Has the leader keep all of its log that follows `entries` entries, or all that it has.
    async fn keeps(&self, leader: &Target, cluster: ClusterId, entries: u64) -> io::Result<Connection> {
        let Parts { env, caller, .. } = &self.parts;
        let asked = async {
            let mut connection = caller.reach(leader, Some(cluster), Purpose::Fetch).await?;
            follow(env, &mut connection, Fetched { entries, ..Fetched::default() }).await?;
            io::Result::Ok(connection)
        };
        asked.await.map_err(|why| io::Error::other(format!("node {}, which leads: {why}", leader.node)))
    }

    async fn fetch(
        &self,
        source: &Target,
        offered: Offered,
        members: &[Target],
        follows: Option<(Target, Connection)>,
        cluster: ClusterId,
    ) -> io::Result<Offer> {
        let Parts { env, caller, .. } = &self.parts;
        let begins = Progress { from: source.node, ..Progress::default() };
        let Fetched { entries, total, .. } = offered.offer().fetched(0);
        *lock(&self.left) = Some(entries);
        let pace = Mutex::new(None);
        let note = |done: u64| {
            let rate = lock(&pace).get_or_insert_with(|| Pace::begin(env, done)).rate(env, done);
            self.state.send(State::Fetching(Progress { entries, done, total, rate, ..begins.clone() }));
        };
        note(0);
        *lock(&pace) = None;
        let fetched = || self.progress().unwrap_or_default().fetched();
        let leader = || lock(&self.leader).as_ref().and_then(|leader| leader.incarnation);
        let telling = Telling { env, caller, cluster, fetched, leader };
        tokio::select! {
            biased;
            fetched = offered.fetch(|bytes| self.has_room(bytes), note) => fetched,
            in_vain = telling.tell(members, follows) => Err(in_vain),
        }
    }

    /// An error if the disk has no room for so many bytes more, beyond what is to stay free.
    fn has_room(&self, bytes: u64) -> io::Result<()> {
        let Parts { files, reserve, .. } = &self.parts;
        let wanted = bytes.saturating_add(*reserve);
        match files.free()? {
            Some(free) if free < wanted => {
                let (wanted, free, reserve) = (wanted.div_ceil(1 << 20), free >> 20, reserve >> 20);
                let why = format!(
                    "it takes {wanted} MiB of the disk beside the present one ({reserve} of them stay free by \
                     --disk-reserve), and {free} are free at {}: make room",
                    files.place()
                );
                Err(io::Error::new(io::ErrorKind::StorageFull, why))
            }
            _ => Ok(()),
        }
    }

    /// Takes what was fetched as this node's database, from the next opening on; `false`: the present one has got as
    /// far by itself. Nothing may be applied any more.
    pub async fn take(&self) -> io::Result<bool> {
        let Some(position) = *self.ready.look() else { return Ok(false) };
        let Parts { env, store, shelf, .. } = &self.parts;
        let (shelf, newer) = (shelf.clone(), store.applied().index < position.index);
        env.offload(move || {
            let incoming = shelf.incoming()?;
            if newer { incoming.take() } else { incoming.discard() }
        })
        .await?;
        Ok(newer)
    }

    /// Throws away what was begun and not fetched to the end, once this node has got as far without it.
    pub async fn tidy(&self) {
        let Parts { env, store, shelf, .. } = &self.parts;
        let applied = store.applied().index;
        let is_over = *self.state.look() == State::Idle && lock(&self.left).is_some_and(|entries| entries <= applied);
        if !is_over {
            return;
        }
        let (shelf, left) = (shelf.clone(), lock(&self.left).take());
        *lock(&self.trouble) = None;
        if let Err(why) = env.offload(move || shelf.incoming()?.discard()).await {
            tracing::warn!("what was fetched of another node's database can't be removed: {why}");
            *lock(&self.left) = left;
        }
    }
}

/// After a start: if `store` is one that was fetched, has the log begin behind it. How many entries a database has
/// applied that was not fetched to the end, if there is one.
pub async fn finish(log: &LogStore, store: &Store, env: &Env, shelf: Arc<dyn Shelf>) -> io::Result<Option<u64>> {
    if let Some(place) = log.value::<Option<Place>>(FETCHED)?.flatten() {
        if store.applied().index > place.index {
            log.begin_after(place).await?;
            tracing::info!("the log begins behind entry {}, which a fetched database has applied", place.index + 1);
        }
        log.set_value(FETCHED, &None::<Place>).await?;
    }
    let incoming = env.offload(move || shelf.incoming()).await?;
    let left = read_begun(env, &incoming).await?.map(|begun| begun.offer.place.index + 1);
    if left.is_none() {
        // (A removal that was cut off has left files without an offer.)
        env.offload(move || incoming.discard()).await?;
    }
    Ok(left)
}

/// Whether it is the source that has failed, or what it has sent.
fn is_of_the_source(why: &io::Error) -> bool {
    matches!(why.kind(), io::ErrorKind::InvalidData | io::ErrorKind::Other)
}

/// Whether a source can't be reached, and may have what it offered all the same. (One that refuses connections has
/// ended, and its checkpoints with it; the others have answered.)
fn is_cut(why: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, NotConnected, Other, PermissionDenied};
    !matches!(why.kind(), ConnectionRefused | NotConnected | Other | PermissionDenied)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
