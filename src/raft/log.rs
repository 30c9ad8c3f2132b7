//! The Raft log: entries, the vote, the stamp and the incarnation, over a [`Journal`].
//!
//! **One writer.** Every change of the log (entries, a vote, a truncation) is a [`LogEdit`] in one queue. The log's
//! own thread takes all edits that wait, writes them, syncs once, and calls back into Raft itself; so the more edits
//! wait, the more share an fsync. `append` returns before the disk has moved: entries are readable at once, from the
//! tail in memory, and durable when openraft's callback is called.
//!
//! **Promises.** Everything that can be read after [`LogStore::open`] is durable. Edits become durable in the order of
//! their calls. `truncate_after` and `save_vote` are durable on return. [`LogStore::durable`] is the watermark that
//! apply waits for: everything up to it is fsynced here; after a failed write or sync it becomes a fault for good,
//! and every later call fails.
//!
//! **On disk.** Entries are laid out in `edits`. Slots: `vote` ([`Ballot`]), `stamp` (`stamp::Stamp`), `incarnation`,
//! `origin`, `fetched` and those of `memory`, each in postcard.
//!
//! **Purging** is asked for by `node::shorten`, and by a database that was fetched ([`LogStore::begin_after`]).

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, ControlFlow, RangeBounds};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::{Stream, TryStreamExt, stream};
use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, mpsc, oneshot};

use super::edits::{LogEdit, Written, place_of, record, write};
use super::tail::{Tail, entry_size};
use super::types::{Ballot, Entry, LogPosition, Place, Types, Vote};
use crate::config::limits;
use crate::env::{Env, Watch, Watching};
use crate::journal::{self, Fault, Files, Journal, Reader, Sizes, Values};
use crate::storage::Store;

pub(super) const VOTE: &str = "vote";

/// How many entries, from the first on, are fsynced (the next index), or why no more ever will be.
pub type Durable = Result<u64, String>;

/// A handle to the log of this node; cheap to clone.
#[derive(Clone)]
pub struct LogStore {
    shared: Arc<SharedLog>,
    edits: mpsc::Sender<LogEdit>,
}

struct SharedLog {
    reader: Reader,
    env: Env,
    values: Mutex<Values>,
    /// Wakes the task that prepares the journal's next segment.
    begun: Notify,
    tail: Mutex<Tail>,
    durable: Watch<Durable>,
    /// The last entry that is to be purged, once nothing needs it any more.
    going: Mutex<Option<Place>>,
    appended: AtomicU64,
    syncs: AtomicU64,
}

impl LogStore {
    /// Opens the log and begins its writer.
    pub async fn open(files: Arc<dyn Files>, sizes: Sizes, env: Env) -> io::Result<LogStore> {
        let id = env.seed();
        let place = files.place();
        let opened = env.offload(move || Journal::open(files, sizes, id)).await;
        let journal = opened.map_err(|fault| refusal(fault, &place))?;
        if let Some(cut) = journal.cut() {
            tracing::info!(
                "the end of the log was torn by a crash before it was synced: erased {} bytes of {} from byte {}, entry \
                 {}; nothing of it was acknowledged",
                cut.bytes,
                cut.file,
                cut.offset,
                cut.entry
            );
        }
        let reader = journal.reader();
        let purged = journal.purged().and_then(place_of);
        let last = match journal.last() {
            last if Some(last) == journal.purged().map(|(number, _)| number) => purged,
            0 => None,
            last => reader.read(last, last + 1, 1)?.first().and_then(|entry| place_of((entry.number, entry.term))),
        };
        let vote: Option<Ballot> = value(journal.values(), VOTE)?;
        let term = vote.map_or(0, |vote| vote.term);
        if let Some(last) = last.filter(|last| last.term > term) {
            let why = format!("its last entry is of term {}, and the newest vote of term {term}", last.term);
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("the log in {place} lost its vote: {why}")));
        }
        let tail = Tail {
            vote: vote.map(Vote::from),
            purged: purged.map(LogPosition::from),
            last: last.map(LogPosition::from),
            ..Tail::default()
        };
        let (edits, queue) = mpsc::channel(limits::LOG_QUEUE);
        let shared = Arc::new(SharedLog {
            reader,
            env: env.clone(),
            values: Mutex::new(journal.values().clone()),
            begun: Notify::new(),
            durable: Watch::new(Ok(journal.last())),
            tail: Mutex::new(tail),
            going: Mutex::new(purged),
            appended: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
        });
        shared.begun.notify_one();
        env.spawn(prepare(shared.clone()));
        let mut journal = journal;
        let telling = shared.clone();
        env.worker(
            "zrs-log",
            limits::LOG_QUEUE,
            queue,
            move |edits| write(&mut journal, edits),
            move |w| telling.tell(w),
        )?;
        Ok(LogStore { shared, edits })
    }

    /// The watermark: how much of the log is fsynced on this node.
    pub fn durable(&self) -> Watching<Durable> {
        self.shared.durable.watching()
    }

    /// Bytes appended since the start.
    pub fn appended_bytes(&self) -> u64 {
        self.shared.appended.load(Ordering::Relaxed)
    }

    /// fsyncs since the start.
    pub fn syncs(&self) -> u64 {
        self.shared.syncs.load(Ordering::Relaxed)
    }

    /// A value that was set.
    pub fn value<T: DeserializeOwned>(&self, name: &'static str) -> io::Result<Option<T>> {
        value(&self.shared.values(), name)
    }

    /// Sets a value; durable on return.
    pub async fn set_value<T: Serialize>(&self, name: &'static str, value: &T) -> io::Result<()> {
        let bytes = postcard::to_stdvec(value).expect("values of the log are plain data");
        self.edit(|done| LogEdit::Value { name, value: bytes.clone(), done }).await?;
        self.shared.values().insert(name.to_owned(), bytes);
        Ok(())
    }

    async fn edit(&self, make: impl FnOnce(oneshot::Sender<io::Result<()>>) -> LogEdit) -> io::Result<()> {
        let (done, answer) = oneshot::channel();
        self.edits.send(make(done)).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    /// Entries from `start` to before `end`; at most `bytes` of them, but one at least if there is one.
    ///
    /// The tail may drop entries while the disk is read, so each read is followed by another look at the tail.
    async fn read(&self, start: u64, end: u64, bytes: usize) -> io::Result<Vec<Entry>> {
        let (mut entries, mut next, mut left) = (Vec::new(), start, bytes);
        loop {
            let cached_from = {
                let tail = self.shared.tail();
                let end = end.min(tail.last.map_or(0, |last| last.index + 1));
                let cached_from = tail.first_cached().min(end);
                if next >= cached_from {
                    entries.extend(tail.cached(next, end, left));
                    return Ok(entries);
                }
                cached_from
            };
            let reader = self.shared.reader.clone();
            let reading = move || reader.read(next + 1, cached_from + 1, left);
            let on_disk = self.shared.env.offload(reading).await?;
            let size: usize = on_disk.iter().map(|entry| entry.payload.len()).sum();
            let Some(last) = on_disk.last() else { return Ok(entries) };
            next = last.number;
            for entry in on_disk {
                entries.push(record(entry)?.into_entry()?);
            }
            if next < cached_from || size >= left {
                return Ok(entries);
            }
            left -= size;
        }
    }

    /// An error if `store` can't be the one that this log was applied to.
    ///
    /// openraft, given a store that is ahead of its log, would throw the log away.
    pub async fn agrees_with(&self, store: &Store) -> io::Result<()> {
        let (first, last) = {
            let tail = self.shared.tail();
            (tail.purged.map_or(0, |purged| purged.index + 1), tail.last.map_or(0, |last| last.index + 1))
        };
        let Some(applied) = Place::of(store.applied()) else {
            let why = format!("the database is empty, and the log begins with entry {}", first + 1);
            return if first == 0 { Ok(()) } else { Err(torn_apart(&why)) };
        };
        let entries = applied.index + 1;
        if entries > last {
            let why = format!("the database has applied {entries} entries, and the log ends with entry {last}");
            return Err(torn_apart(&why));
        }
        if entries < first {
            let why =
                format!("the database has applied {entries} entries, and the log begins with entry {}", first + 1);
            return Err(torn_apart(&why));
        }
        let there = self.read(applied.index, entries, 1).await?;
        match there.first().map(|entry| entry.log_id.leader_id.term) {
            Some(term) if term != applied.term => {
                let (mine, its) = (applied.term, term);
                Err(torn_apart(&format!(
                    "entry {entries} was applied in term {mine}, and the log has it of term {its}"
                )))
            }
            // (An entry that was purged was applied.)
            _ => Ok(()),
        }
    }

    /// Whether the vote is on disk, and the entry at `place` (if one is named) with all before it. Looks at memory
    /// only: also `false` for an old entry that only the disk knows.
    pub fn holds(&self, vote: &Vote, place: Option<Place>) -> bool {
        if !self.shared.tail().holds(vote, place) {
            return false;
        }
        let Some(place) = place else { return true };
        let durable = self.shared.durable.look();
        matches!(&*durable, Ok(entries) if place.index < *entries)
    }

    /// How many entries are fsynced now, and the newest vote that is. (Read in this order, so that the entries are
    /// never fewer than they were when that vote became the newest.)
    pub fn durable_now(&self) -> io::Result<(u64, Option<Ballot>)> {
        let entries = self.shared.durable.look().clone().map_err(io::Error::other)?;
        let vote = self.shared.tail().vote.as_ref().map(Ballot::from);
        Ok((entries, vote))
    }

    /// The newest term that this node has heard of.
    pub fn term(&self) -> u64 {
        self.shared.tail().vote.as_ref().map_or(0, |vote| Ballot::from(vote).term)
    }

    /// The last entry that was purged.
    pub fn purged(&self) -> Option<Place> {
        self.shared.tail().purged.map(Place::from)
    }

    /// The last entry that was purged, or is about to be.
    pub fn going(&self) -> Option<Place> {
        *self.shared.going()
    }

    /// Notes that the log's first `entries` entries are about to be purged: from now on a node that lacks some of them
    /// can get them by a copy of the database only.
    pub async fn let_go(&self, entries: u64) -> io::Result<()> {
        let last = match entries.checked_sub(1) {
            Some(index) => self.read(index, entries, 1).await?.first().map(|entry| Place::from(entry.log_id)),
            None => None,
        };
        self.shared.raise_going(last);
        Ok(())
    }

    /// Bytes of the files that hold entries.
    pub fn size(&self) -> u64 {
        self.shared.reader.size()
    }

    /// How many of the log's first entries could go for its files to take no more than `bytes`, or as near to that as
    /// whole files allow.
    pub fn beyond(&self, bytes: u64) -> u64 {
        self.shared.reader.beyond(bytes)
    }

    /// How many of the log's first entries lie in files without any entry behind the first `entries`.
    pub fn whole_files(&self, entries: u64) -> u64 {
        self.shared.reader.whole(entries)
    }

    /// Has the log begin behind `place`, the last entry that a fetched database has applied. What follows that entry
    /// here stays; anything else goes.
    pub async fn begin_after(&self, place: Place) -> io::Result<()> {
        let mut log = self.clone();
        let last = self.shared.tail().last;
        if last.is_some_and(|last| last.index >= place.index) {
            let there = self.read(place.index, place.index + 1, 1).await?;
            let follows = there.first().is_some_and(|entry| entry.log_id.leader_id.term == place.term);
            let purged = self.purged().is_some_and(|purged| purged.index >= place.index);
            if purged {
                return Ok(());
            }
            if !follows {
                let before = match place.index.checked_sub(1) {
                    Some(index) => self.read(index, index + 1, 1).await?.first().map(|entry| entry.log_id),
                    None => None,
                };
                let before = before.or(self.shared.tail().purged);
                log.truncate_after(before).await?;
            }
        }
        self.forget(place.into());
        self.edit(|done| LogEdit::Purge { place, done }).await
    }

    /// Has the log in memory begin behind `upto`.
    fn forget(&self, upto: LogPosition) {
        self.shared.raise_going(Some(upto.into()));
        let mut tail = self.shared.tail();
        tail.purged = Some(upto);
        // (The log may end before.)
        if tail.last.is_none_or(|last| last.index < upto.index) {
            tail.last = Some(upto);
        }
        while tail.entries.front().is_some_and(|e| e.log_id.index <= upto.index) {
            let dropped = tail.entries.pop_front().map_or(0, |e| entry_size(&e));
            tail.bytes -= dropped;
        }
    }

    /// Whether this node has ever voted.
    pub fn has_voted(&self) -> bool {
        self.shared.tail().vote.is_some()
    }
}

impl SharedLog {
    fn values(&self) -> MutexGuard<'_, Values> {
        self.values.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn going(&self) -> MutexGuard<'_, Option<Place>> {
        self.going.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn raise_going(&self, last: Option<Place>) {
        let mut going = self.going();
        if going.map(|going| going.index) < last.map(|last| last.index) {
            *going = last;
        }
    }

    /// Tells the callers of a group what became of it.
    fn tell(&self, written: Written) -> ControlFlow<()> {
        let Written { edits, result, entries, bytes } = written;
        self.syncs.fetch_add(1, Ordering::Relaxed);
        match result {
            Ok(()) => {
                self.appended.fetch_add(bytes, Ordering::Relaxed);
                if let Some(entries) = entries {
                    self.durable.send(Ok(entries));
                    self.tail().shrink(entries);
                }
                edits.into_iter().for_each(|edit| edit.done(Ok(())));
                if self.reader.wants_next() {
                    self.begun.notify_one();
                }
                ControlFlow::Continue(())
            }
            Err(fault) => {
                let why = format!("the Raft log can't be written: {fault}");
                tracing::error!("{why}");
                self.durable.send(Err(why.clone()));
                edits.into_iter().for_each(|edit| edit.done(Err(io::Error::other(why.clone()))));
                ControlFlow::Break(())
            }
        }
    }

    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// A range of indices as its first and the one past its last.
fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(&i) => i,
        Bound::Excluded(&i) => i + 1,
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(&i) => i + 1,
        Bound::Excluded(&i) => i,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let (start, end) = bounds(&range);
        self.read(start, end, usize::MAX).await
    }

    /// The entries to apply, read in parts: a node may have all of its log to apply.
    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = bounds(&range);
        let part = move |(log, at): (LogStore, u64)| async move {
            if at >= end {
                return Ok(None);
            }
            let entries = log.read(at, end, limits::APPEND_BYTES).await?;
            let Some(last) = entries.last() else { return io::Result::Ok(None) };
            let next = last.log_id.index + 1;
            Ok(Some((stream::iter(entries.into_iter().map(Ok)), (log, next))))
        };
        Box::pin(stream::try_unfold((self.clone(), start), part).try_flatten())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.shared.tail().vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        self.read(start, end, limits::APPEND_BYTES).await
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let tail = self.shared.tail();
        Ok(LogState { last_purged_log_id: tail.purged, last_log_id: tail.last.or(tail.purged) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.set_value(VOTE, &Ballot::from(vote)).await?;
        self.shared.tail().vote = Some(*vote);
        Ok(())
    }

    async fn append<I>(&mut self, entries: I, flushed: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        {
            let mut tail = self.shared.tail();
            for entry in &entries {
                tail.push(entry.clone());
            }
        }
        self.edits.send(LogEdit::Append(entries, flushed)).await.map_err(|_| stopped())
    }

    async fn truncate_after(&mut self, last: Option<LogPosition>) -> Result<(), io::Error> {
        let entries = last.map_or(0, |last| last.index + 1);
        {
            let mut tail = self.shared.tail();
            while tail.entries.back().is_some_and(|e| e.log_id.index >= entries) {
                let dropped = tail.entries.pop_back().map_or(0, |e| entry_size(&e));
                tail.bytes -= dropped;
            }
            tail.last = last;
        }
        self.edit(|done| LogEdit::Truncate { entries, done }).await
    }

    /// Does not wait for the disk: openraft's core does nothing else meanwhile, and on a slow disk a primary would lose
    /// its lease. After a crash before the disk has moved, the entries are still there, and are purged again.
    async fn purge(&mut self, upto: LogPosition) -> Result<(), io::Error> {
        self.forget(upto);
        let (done, _) = oneshot::channel();
        self.edits.send(LogEdit::Purge { place: upto.into(), done }).await.map_err(|_| stopped())
    }
}

/// Reads a value of the slots.
pub(super) fn value<T: DeserializeOwned>(values: &Values, name: &str) -> io::Result<Option<T>> {
    let damaged = |why| io::Error::new(io::ErrorKind::InvalidData, format!("the log's {name} can't be read: {why}"));
    values.get(name).map(|bytes| postcard::from_bytes(bytes).map_err(damaged)).transpose()
}

/// Makes the segment that the journal will use next, each time it has begun one; ends with the log.
async fn prepare(log: Arc<SharedLog>) {
    loop {
        let reader = log.reader.clone();
        // (A full disk is no fault yet: the append that needs the segment tries again, and says so.)
        if let Err(fault) = log.env.offload(move || reader.prepare()).await {
            tracing::warn!("the log's next segment can't be prepared: {fault}");
        }
        log.begun.notified().await;
    }
}

/// How many entries the log in `files` has that `store` has not applied; `None` if there are none, or no log.
///
/// Some of them may never have been committed; the log alone can't tell.
pub fn unapplied(files: Arc<dyn Files>, store: &Store) -> io::Result<Option<u64>> {
    let place = files.place();
    let found = journal::inspect(files).map_err(|fault| refusal(fault, &place))?;
    let entries = found.and_then(|found| found.last).map_or(0, |(number, _)| number);
    Ok(entries.checked_sub(store.applied().index).filter(|behind| *behind > 0))
}

fn torn_apart(why: &str) -> io::Error {
    let advice = "one of log/ and store/ was exchanged, or put back from an older copy; nothing was thrown away. Put both \
                  back as they were together, or let the node begin with an empty folder";
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the log and the database do not belong together: {why}: {advice}"),
    )
}

fn refusal(fault: Fault, place: &str) -> io::Error {
    match fault {
        Fault::Disk(error) => io::Error::new(error.kind(), format!("the log in {place}: {error}")),
        Fault::Damage(damage) => {
            let advice = "Entries that this node had acknowledged may be lost, so it takes no part: it would vote for a \
                          past without them. Nothing was changed. If its disk is sound, the other nodes have these \
                          entries; keep this folder until they do, and then let the node begin with an empty one";
            io::Error::new(io::ErrorKind::InvalidData, format!("{damage} (in {place}). {advice}"))
        }
    }
}

fn stopped() -> io::Error {
    io::Error::other("the log's writer has stopped")
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
