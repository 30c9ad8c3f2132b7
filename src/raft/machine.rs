//! The bridge from Raft to the store: committed entries in, outcomes out.
//!
//! The meaning of each command stands in `storage::apply`. Here is only the order: an entry is applied once it is
//! fsynced in this node's own log (a commit needs a majority, not this node), so that the store never outruns the log
//! that it is replayed from.
//!
//! **Left out.** Snapshots: a follower that needs one is told that there is none. As no log is purged, none is needed.

use std::io;

use futures_util::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};

use super::log::{Durable, LogStore};
use super::types::{Incarnation, LogPosition, Members, Place, Proposed, Seat, StoredMembership, Types};
use crate::command::{Change, Command, Outcome};
use crate::config::limits;
use crate::env::{Env, Watching};
use crate::storage::{Position, Store};

type SnapshotMeta = openraft::alias::SnapshotMetaOf<Types>;
pub type Snapshot = openraft::alias::SnapshotOf<Types, NoSnapshot>;

/// openraft's state machine: the store, and the watermark of the log.
pub struct StateMachine {
    store: Store,
    durable: Watching<Durable>,
}

impl StateMachine {
    pub fn new(store: Store, log: &LogStore) -> StateMachine {
        StateMachine { store, durable: log.durable() }
    }

    /// Waits until the log's first `entries` entries are fsynced.
    async fn await_durable(&mut self, entries: u64) -> io::Result<()> {
        let waited = self.durable.until(|durable| !matches!(durable, Ok(upto) if *upto < entries)).await;
        match (waited, &*self.durable.look()) {
            (_, Err(why)) => Err(io::Error::other(why.clone())),
            (Err(_), Ok(_)) => Err(io::Error::other("the log was closed")),
            (Ok(()), Ok(_)) => Ok(()),
        }
    }

    async fn apply_one(&self, at: Position, payload: EntryPayload<Proposed, Incarnation, Seat>) -> io::Result<Outcome> {
        match payload {
            EntryPayload::Blank => self.store.pass(at).map(|()| Outcome::Done),
            EntryPayload::Normal(Proposed(bytes)) => {
                let large = bytes.len() > limits::APPLY_INLINE;
                let store = self.store.clone();
                let decode = move || {
                    Command::decode(&bytes).map_err(|e| {
                        let why = format!("log entry {} can't be applied: {e}", at.index);
                        io::Error::new(io::ErrorKind::InvalidData, why)
                    })
                };
                // Decoding a large command takes long enough to delay this thread's heartbeats.
                if large {
                    return Env::current().offload(move || store.apply(at, &decode()?)).await;
                }
                let command = decode()?;
                let takes_long = match &command.change {
                    // Commands of few bytes that remove many keys.
                    Change::PackStep(_) | Change::Discard { .. } | Change::Barrier => true,
                    Change::Stage { pieces, .. } => pieces.len() > limits::WRITES_INLINE,
                    _ => false,
                };
                match takes_long {
                    true => Env::current().offload(move || store.apply(at, &command)).await,
                    false => store.apply(at, &command),
                }
            }
            EntryPayload::Membership(membership) => {
                let members = Members::from(&membership);
                let bytes = postcard::to_stdvec(&members).expect("members are plain data");
                self.store.set_membership(at, &bytes).map(|()| Outcome::Done)
            }
        }
    }
}

impl RaftStateMachine<Types> for StateMachine {
    type SnapshotData = NoSnapshot;
    type SnapshotBuilder = NoSnapshot;

    async fn applied_state(&mut self) -> Result<(Option<LogPosition>, StoredMembership), io::Error> {
        let applied = Place::of(self.store.applied()).map(LogPosition::from);
        let membership = match self.store.membership() {
            Some((at, bytes)) => {
                let members: Members = postcard::from_bytes(&bytes).map_err(|e| {
                    io::Error::new(io::ErrorKind::InvalidData, format!("the stored membership is damaged: {e}"))
                })?;
                StoredMembership::new(Place::of(at).map(LogPosition::from), members.into_membership()?)
            }
            None => StoredMembership::default(),
        };
        Ok((applied, membership))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let at = Position::from(Place::from(entry.log_id));
            self.await_durable(entry.log_id.index + 1).await?;
            let outcome = self.apply_one(at, entry.payload).await.inspect_err(|fault| {
                tracing::error!("this node stops, as entry {} can't be applied: {fault}", entry.log_id.index);
            })?;
            if let Some(responder) = responder {
                responder.send(outcome);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> NoSnapshot {
        NoSnapshot
    }

    async fn install_snapshot(&mut self, _meta: &SnapshotMeta, _snapshot: NoSnapshot) -> Result<(), io::Error> {
        Err(no_snapshots())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        Ok(None)
    }
}

/// Stands where openraft wants snapshot data.
#[derive(Debug)]
pub struct NoSnapshot;

impl RaftSnapshotBuilder<Types> for NoSnapshot {
    type SnapshotData = NoSnapshot;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        Err(no_snapshots())
    }
}

fn no_snapshots() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "this version of zrsd has no snapshots; nodes keep their whole log")
}
