//! Catching up by a checkpoint, seen from the node that is behind.
//!
//! The leader's log does not go back to where this node's ends. So the leader asks, again and again, whether this node
//! has caught up ([`CatchUp::asked`]); with the first question this node begins to fetch a checkpoint from there, and
//! later ones are answered with how far it is. A question after a failure begins anew, with what is there already.
//!
//! A database that is whole does not take the place of the present one under everybody's feet: the node stops in an
//! orderly way, and begins again with the new one ([`CatchUp::ready`]). The steps, and a crash after each:
//!
//! | step | after a crash |
//! |---|---|
//! | fetch | goes on where it was, or is begun anew |
//! | note the position in `log/` ([`FETCHED`]) | the next start finds the old database behind it, and forgets the note |
//! | stop Raft, the server, the store | the same |
//! | `Incoming::take`: **the point** | the next start has the new database |
//! | the log begins behind the position (`LogStore::begin_after`) | done again |
//! | forget the note | |
//!
//! To Raft this is a restart: the node keeps its vote and every entry that follows the position. Nothing that it has
//! acknowledged is lost, as entries up to the position are committed, and are in the database.

use std::io;
use std::sync::Arc;

use super::fetch::{Offer, fetch};
use super::link::{Caller, Target};
use super::log::LogStore;
use super::stamp::ClusterId;
use super::types::Place;
use super::wire::{CatchUpAnswer, Purpose};
use crate::engine::Shelf;
use crate::env::{Env, Watch, Watching};
use crate::storage::{Position, Store};

/// The log's slot for the position of a database that is to take the place of the present one.
pub(super) const FETCHED: &str = "fetched";

pub struct CatchUp {
    env: Env,
    caller: Caller,
    store: Store,
    log: LogStore,
    shelf: Arc<dyn Shelf>,
    state: Watch<State>,
    ready: Watch<Option<Position>>,
}

/// How far the fetching is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum State {
    #[default]
    Idle,
    Fetching(Progress),
    /// The database is whole, and this node stops in order to begin again with it.
    Ready(Progress),
}

/// What is being fetched.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Progress {
    /// The node that it comes from.
    pub from: u64,
    /// How many entries of the log it has applied; 0: not known yet.
    pub entries: u64,
    /// Bytes that are here.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
}

impl CatchUp {
    pub fn new(env: Env, caller: Caller, store: Store, log: LogStore, shelf: Arc<dyn Shelf>) -> CatchUp {
        CatchUp { env, caller, store, log, shelf, state: Watch::new(State::Idle), ready: Watch::new(None) }
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

    /// Answers a leader that needs this node to have applied so many entries, and can't send them one by one.
    pub fn asked(self: &Arc<Self>, leader: Target, cluster: ClusterId, entries: u64) -> CatchUpAnswer {
        let applied = self.store.applied().index;
        if applied >= entries {
            return CatchUpAnswer::Applied { entries: applied };
        }
        let mut begins = false;
        self.state.send_if(|state| {
            begins = *state == State::Idle;
            if begins {
                *state = State::Fetching(Progress { from: leader.node, ..Progress::default() });
            }
            begins
        });
        if begins {
            tracing::info!(
                "the log of node {} does not go back to entry {}: fetching its database",
                leader.node,
                applied + 1
            );
            self.env.spawn(self.clone().fetch_from(leader, cluster, entries));
        }
        let Progress { done, total, .. } = self.progress().unwrap_or_default();
        CatchUpAnswer::Fetching { done, total }
    }

    async fn fetch_from(self: Arc<Self>, source: Target, cluster: ClusterId, entries: u64) {
        let node = source.node;
        match self.try_to_fetch(source, cluster, entries).await {
            Ok(position) => {
                tracing::info!("fetched the database of node {node}, with {} entries applied", position.index);
                self.state.send_if(|state| {
                    *state = State::Ready(self.progress_of(state));
                    true
                });
                self.ready.send(Some(position));
            }
            Err(why) => {
                tracing::warn!("fetching the database of node {node} was cut off: {why}");
                self.state.send(State::Idle);
            }
        }
    }

    fn progress_of(&self, state: &State) -> Progress {
        match state {
            State::Idle => Progress::default(),
            State::Fetching(progress) | State::Ready(progress) => progress.clone(),
        }
    }

    async fn try_to_fetch(&self, source: Target, cluster: ClusterId, entries: u64) -> io::Result<Position> {
        let shelf = self.shelf.clone();
        let incoming = self.env.offload(move || shelf.incoming()).await?;
        let connection = self.caller.connect(&source, Some(cluster), Purpose::Fetch).await?;
        let tell = |offer: &Offer, done: u64| {
            let (from, entries, total) = (source.node, offer.place.index + 1, offer.bytes());
            self.state.send(State::Fetching(Progress { from, entries, done, total }));
        };
        let position = fetch(&self.env, incoming, connection, entries, tell).await?;
        let place = Place::of(position).ok_or_else(|| io::Error::other("the database is empty"))?;
        // (What was committed in a term was committed by a leader that this node has to know of.)
        if self.log.term() < place.term {
            return Err(io::Error::other("this node has not heard yet of the term that it is of"));
        }
        self.log.set_value(FETCHED, &Some(place)).await?;
        Ok(position)
    }

    /// Takes what was fetched as this node's database, from the next opening on; `false`: the present one has got as far
    /// by itself. Nothing may be applied any more.
    pub async fn take(&self) -> io::Result<bool> {
        let Some(position) = *self.ready.look() else { return Ok(false) };
        let (shelf, newer) = (self.shelf.clone(), self.store.applied().index < position.index);
        self.env
            .offload(move || {
                let incoming = shelf.incoming()?;
                if newer { incoming.take() } else { incoming.discard() }
            })
            .await?;
        Ok(newer)
    }
}

/// After a start: if `store` is one that was fetched, has the log begin behind it.
pub async fn finish(log: &LogStore, store: &Store) -> io::Result<()> {
    let Some(place) = log.value::<Option<Place>>(FETCHED)?.flatten() else { return Ok(()) };
    if store.applied() >= Position::from(place) {
        log.begin_after(place).await?;
        tracing::info!("this node goes on with a database that it has fetched, behind entry {}", place.index + 1);
    }
    log.set_value(FETCHED, &None::<Place>).await
}
