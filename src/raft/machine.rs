//! The bridge from Raft to the store: committed entries in, outcomes out.
//!
//! The meaning of each command stands in `storage::apply`. Here is only the order: an entry is applied once it is
//! fsynced in this node's own log (a commit needs a majority, not this node), so that the store never outruns the log
//! that it is replayed from.
//!
//! **Snapshots** are what openraft calls the state that stands for the entries which were purged. Here they have no
//! data: a node that needs one fetches a checkpoint of the database by itself (`catch_up`). What openraft wants to know
//! of them is up to where the log may be purged (the *built* one: what the store has flushed), and from where on a
//! leader can send entries to a node that has got one (the *current* one: the last entry that was purged, or is about
//! to be).

use std::io;
use std::sync::Arc;

use futures_util::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::log::{Durable, LogStore};
use super::types::{Incarnation, LogPosition, Members, Place, Proposed, Seat, StoredMembership, Types};
use crate::command::{Change, Command, Outcome};
use crate::config::limits;
use crate::env::{Env, Watch, Watching};
use crate::storage::{Position, Store};

type SnapshotMeta = openraft::alias::SnapshotMetaOf<Types>;
pub type Snapshot = openraft::alias::SnapshotOf<Types, NoData>;

/// Raft, with zrs's types and state machine.
pub type Raft = openraft::Raft<Types, StateMachine>;

/// openraft's state machine: it hands what was committed to the [`Applier`], in order, and does not wait for it. So
/// openraft's own idea of what was applied runs ahead; what counts is the store's.
pub struct StateMachine {
    store: Store,
    log: LogStore,
    flushed: Watch<Position>,
    durable: Watching<Durable>,
    applier: mpsc::Sender<Job>,
    /// Room for what waits, in KiB.
    room: Arc<Semaphore>,
    failed: Watch<Option<String>>,
}

/// A committed entry that waits, and its room.
struct Job {
    entry: EntryResponder<Types>,
    _room: OwnedSemaphorePermit,
}

/// The task that applies entries. Applying takes processor time and may wait for the disk, so it does not run on the
/// thread that keeps reigns alive.
struct Applier {
    store: Store,
    env: Env,
    /// The newest command format that this node knows.
    format: u8,
    /// Why an entry could not be applied: nothing is applied any more then.
    failed: Watch<Option<String>>,
}

impl StateMachine {
    /// The machine of `store`, of which everything up to `flushed` is on disk, and the task of `env` in which entries
    /// are applied: it ends after the machine is dropped, with all applied. `failed` is set when an entry can't be.
    pub fn new(
        store: Store,
        log: &LogStore,
        flushed: Watch<Position>,
        env: &Env,
        format: u8,
        failed: Watch<Option<String>>,
    ) -> (StateMachine, JoinHandle<()>) {
        let (applier, jobs) = mpsc::channel(limits::APPLY_KIB as usize);
        let applying = Applier { store: store.clone(), env: env.clone(), format, failed: failed.clone() }.run(jobs);
        let room = Arc::new(Semaphore::new(limits::APPLY_KIB as usize));
        let (durable, log) = (log.durable(), log.clone());
        (StateMachine { store, log, flushed, durable, applier, room, failed }, env.spawn(applying))
    }

    /// The members as they were set by the last entry that was applied.
    fn membership(&self) -> io::Result<StoredMembership> {
        let Some((at, bytes)) = self.store.membership() else { return Ok(StoredMembership::default()) };
        let damaged =
            |why| io::Error::new(io::ErrorKind::InvalidData, format!("the stored membership is damaged: {why}"));
        let members: Members = postcard::from_bytes(&bytes).map_err(damaged)?;
        Ok(StoredMembership::new(Place::of(at).map(LogPosition::from), members.into_membership()?))
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

    async fn hand_over(&self, entry: EntryResponder<Types>) -> io::Result<()> {
        let size = match &entry.0.payload {
            EntryPayload::Normal(Proposed(bytes)) => bytes.len() as u32 / 1024 + 1,
            EntryPayload::Blank | EntryPayload::Membership(_) => 1,
        };
        // (An entry larger than the room has all of it to itself.)
        let room = self.room.clone().acquire_many_owned(size.min(limits::APPLY_KIB)).await;
        let room = room.map_err(|_| self.fault())?;
        // (There is a place: each entry in the queue has a KiB of the room at least.)
        self.applier.try_send(Job { entry, _room: room }).map_err(|_| self.fault())
    }

    fn fault(&self) -> io::Error {
        io::Error::other(self.failed.look().clone().unwrap_or("the task that applies entries has ended".into()))
    }
}

impl Applier {
    /// Applies what comes. After a failure nothing more is taken, and the node ends.
    async fn run(self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(Job { entry: (entry, responder), _room }) = jobs.recv().await {
            let at = Position::from(Place::from(entry.log_id));
            match self.apply_one(at, entry.payload).await {
                Ok(outcome) => {
                    if let Some(responder) = responder {
                        responder.send(outcome);
                    }
                }
                Err(fault) => {
                    let why = format!("entry {} can't be applied: {fault}", at.index);
                    tracing::error!("this node stops, as {why}");
                    self.failed.send(Some(why));
                    return;
                }
            }
        }
    }

    async fn apply_one(&self, at: Position, payload: EntryPayload<Proposed, Incarnation, Seat>) -> io::Result<Outcome> {
        match payload {
            EntryPayload::Blank => self.store.pass(at).map(|()| Outcome::Done),
            EntryPayload::Normal(Proposed(bytes)) => {
                let large = bytes.len() > limits::APPLY_INLINE;
                let (store, format) = (self.store.clone(), self.format);
                let decode =
                    move || Command::decode(&bytes, format).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e));
                // Decoding a large command takes long enough to delay this thread's other tasks.
                if large {
                    return self.env.offload(move || store.apply(at, &decode()?)).await;
                }
                let command = decode()?;
                match takes_long(&command.change) {
                    true => self.env.offload(move || store.apply(at, &command)).await,
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

/// Whether a change of few bytes takes so long that other tasks should not wait for it.
fn takes_long(change: &Change) -> bool {
    match change {
        // They remove many keys, or look for some.
        Change::PackStep(_) | Change::Discard { .. } | Change::Barrier | Change::DropStorage { .. } => true,
        Change::Stage { pieces, .. } => pieces.len() > limits::WRITES_INLINE,
        Change::CreateStorage { .. }
        | Change::ReserveOids { .. }
        | Change::Commit(_)
        | Change::Roster { .. }
        | Change::PackBegin { .. }
        | Change::PackEnd { .. } => false,
    }
}

impl RaftStateMachine<Types> for StateMachine {
    type SnapshotData = NoData;
    type SnapshotBuilder = Built;

    async fn applied_state(&mut self) -> Result<(Option<LogPosition>, StoredMembership), io::Error> {
        let applied = Place::of(self.store.applied()).map(LogPosition::from);
        Ok((applied, self.membership()?))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(committed) = entries.try_next().await? {
            self.await_durable(committed.0.log_id.index + 1).await?;
            self.hand_over(committed).await?;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Built {
        let last_log_id = Place::of(*self.flushed.look()).map(LogPosition::from);
        Built(SnapshotMeta { last_log_id, last_membership: self.membership().unwrap_or_default() })
    }

    async fn install_snapshot(&mut self, _meta: &SnapshotMeta, _snapshot: NoData) -> Result<(), io::Error> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "databases are fetched, and not installed by consensus"))
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        // (Also of what is only about to be purged: openraft sends no entries of that any more.)
        let Some(going) = self.log.going() else { return Ok(None) };
        let meta = SnapshotMeta { last_log_id: Some(going.into()), last_membership: self.membership()? };
        Ok(Some(Snapshot { meta, snapshot: NoData }))
    }
}

/// Stands where openraft wants snapshot data.
#[derive(Debug)]
pub struct NoData;

/// What can be said of a snapshot that was just built.
#[derive(Debug)]
pub struct Built(SnapshotMeta);

impl RaftSnapshotBuilder<Types> for Built {
    type SnapshotData = NoData;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        Ok(Snapshot { meta: self.0.clone(), snapshot: NoData })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zodb::StorageId;

    #[test]
    fn what_removes_many_keys_goes_to_a_thread_of_its_own() {
        let storage = StorageId(1);
        assert!(takes_long(&Change::DropStorage { name: "typo".into() }));
        assert!(takes_long(&Change::Discard { storage, pieces: vec![] }));
        assert!(!takes_long(&Change::CreateStorage { name: "main".into() }));
        assert!(!takes_long(&Change::Stage { storage, pieces: vec![] }));
    }
}
