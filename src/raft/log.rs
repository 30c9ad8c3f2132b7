//! The Raft log on disk: entries, the vote, the stamp and the incarnation.
//!
//! **One writer.** Every change of the log (entries, a vote, a truncation) is a [`LogEdit`] in one queue. The writer
//! takes all edits that wait, writes them as one batch, syncs once, and then tells their callers; so the more edits
//! wait, the more share an fsync. `append` returns before the disk has moved: entries are readable at once, from the
//! tail in memory, and durable when openraft's callback is called.
//!
//! **Promises.** [`LogStore::open`] syncs before it reads, so that everything read is durable. Edits become durable in
//! the order of their calls. `truncate_after` and `save_vote` are durable on return. [`LogStore::durable`] is the
//! watermark that apply waits for: everything up to it is fsynced here; after a failed write or sync it
//! becomes a fault for good, and every later call fails.
//!
//! **On disk** (all numbers big-endian): table `entries`: index (8) -> crc32c of the rest (4), postcard of [`Record`].
//! Table `meta`: `vote` -> [`Ballot`], `purged` -> [`Place`], `stamp` -> `stamp::Stamp`, `incarnation` -> `u64`; each
//! crc32c (4) and postcard.
//!
//! **Left out.** Purging works, but nothing asks for it yet: nodes keep their whole log until snapshots exist.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::{Stream, TryStreamExt, stream};
use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot};

use super::types::{Ballot, Entry, LogPosition, Place, Record, Types, Vote};
use crate::config::limits;
use crate::engine::{Batch, Engine, Order, Table};
use crate::env::{Env, Watch, Watching};
use crate::storage::Store;

pub(super) const ENTRIES: Table = Table { index: 0, name: "entries", large_values: true, cached: false };
const META: Table = Table { index: 1, name: "meta", large_values: false, cached: true };
/// The tables of `log/`.
pub const TABLES: &[Table] = &[ENTRIES, META];

pub(super) const VOTE: &[u8] = b"vote";
pub(super) const PURGED: &[u8] = b"purged";

/// How many entries, from the first on, are fsynced (the next index), or why no more ever will be.
pub type Durable = Result<u64, String>;

/// A handle to the log of this node; cheap to clone.
#[derive(Clone)]
pub struct LogStore {
    shared: Arc<SharedLog>,
    edits: mpsc::Sender<LogEdit>,
}

struct SharedLog {
    engine: Arc<dyn Engine>,
    env: Env,
    tail: Mutex<Tail>,
    durable: Watch<Durable>,
    appended: AtomicU64,
    syncs: AtomicU64,
}

/// The part of the log that is in memory.
#[derive(Default)]
struct Tail {
    vote: Option<Vote>,
    purged: Option<LogPosition>,
    last: Option<LogPosition>,
    /// The newest entries, without gaps up to `last`; every entry that is not on disk yet is among them.
    entries: VecDeque<Entry>,
    bytes: usize,
}

enum LogEdit {
    Append(Vec<Entry>, IOFlushed<Types>),
    Truncate { from: u64, done: oneshot::Sender<io::Result<()>> },
    Purge { place: Place, done: oneshot::Sender<io::Result<()>> },
    Meta { key: &'static [u8], value: Vec<u8>, done: oneshot::Sender<io::Result<()>> },
}

impl LogStore {
    /// Opens the log and begins its writer.
    pub async fn open(engine: Arc<dyn Engine>, env: Env) -> io::Result<LogStore> {
        let reading = engine.clone();
        let tail = env.offload(move || read_tail(&*reading)).await?;
        let upto = tail.last.map_or(0, |last| last.index + 1);
        let (edits, queue) = mpsc::channel(limits::LOG_QUEUE);
        let shared = Arc::new(SharedLog {
            engine,
            env: env.clone(),
            tail: Mutex::new(tail),
            durable: Watch::new(Ok(upto)),
            appended: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
        });
        env.spawn(write_edits(shared.clone(), queue));
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

    /// A value of the `meta` table.
    pub async fn meta<T: DeserializeOwned>(&self, key: &'static [u8]) -> io::Result<Option<T>> {
        read_meta(&*self.shared.engine, key)
    }

    /// Sets a value of the `meta` table; durable on return.
    pub async fn set_meta<T: Serialize>(&self, key: &'static [u8], value: &T) -> io::Result<()> {
        let value = sealed(value);
        self.edit(|done| LogEdit::Meta { key, value, done }).await
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
            let engine = self.shared.engine.clone();
            let reading = move || read_entries(&*engine, next, cached_from, left);
            let on_disk = self.shared.env.offload(reading).await?;
            let size: usize = on_disk.iter().map(Record::size).sum();
            let Some(last) = on_disk.last() else { return Ok(entries) };
            next = last.place.index + 1;
            for record in on_disk {
                entries.push(record.into_entry()?);
            }
            if next < cached_from || size >= left {
                return Ok(entries);
            }
            left -= size;
        }
    }

    /// Whether this node has ever voted.
    pub fn has_voted(&self) -> bool {
        self.shared.tail().vote.is_some()
    }
}

impl SharedLog {
    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Tail {
    /// The index of the first entry in memory; one past the last if there is none.
    fn first_cached(&self) -> u64 {
        self.entries.front().map_or_else(|| self.last.map_or(0, |last| last.index + 1), |e| e.log_id.index)
    }

    fn cached(&self, start: u64, end: u64, bytes: usize) -> Vec<Entry> {
        let first = self.first_cached();
        let mut size = 0;
        let mut entries = Vec::new();
        if start < first {
            return entries;
        }
        for index in start..end {
            let Some(entry) = self.entries.get((index - first) as usize) else { break };
            size += entry_size(entry);
            if size > bytes && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
        }
        entries
    }

    fn push(&mut self, entry: Entry) {
        if let Some(last) = self.last {
            assert_eq!(entry.log_id.index, last.index + 1, "log entries come without gaps");
        }
        self.last = Some(entry.log_id);
        self.bytes += entry_size(&entry);
        self.entries.push_back(entry);
    }

    /// Drops the oldest entries that are on disk, while there are too many bytes in memory.
    fn shrink(&mut self, durable: u64) {
        while self.bytes > limits::LOG_TAIL_BYTES {
            match self.entries.front() {
                Some(entry) if entry.log_id.index < durable => {
                    self.bytes -= entry_size(entry);
                    self.entries.pop_front();
                }
                _ => break,
            }
        }
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

fn entry_size(entry: &Entry) -> usize {
    Record::from(entry).size()
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
        let value = sealed(&Ballot::from(vote));
        self.edit(|done| LogEdit::Meta { key: VOTE, value, done }).await?;
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
        let from = last.map_or(0, |last| last.index + 1);
        {
            let mut tail = self.shared.tail();
            while tail.entries.back().is_some_and(|e| e.log_id.index >= from) {
                let dropped = tail.entries.pop_back().map_or(0, |e| entry_size(&e));
                tail.bytes -= dropped;
            }
            tail.last = last;
        }
        self.edit(|done| LogEdit::Truncate { from, done }).await
    }

    async fn purge(&mut self, upto: LogPosition) -> Result<(), io::Error> {
        {
            let mut tail = self.shared.tail();
            tail.purged = Some(upto);
            while tail.entries.front().is_some_and(|e| e.log_id.index <= upto.index) {
                let dropped = tail.entries.pop_front().map_or(0, |e| entry_size(&e));
                tail.bytes -= dropped;
            }
        }
        self.edit(|done| LogEdit::Purge { place: upto.into(), done }).await
    }
}

/// The writer: takes all edits that wait, writes and syncs them in one go, and tells their callers.
async fn write_edits(shared: Arc<SharedLog>, mut queue: mpsc::Receiver<LogEdit>) {
    let mut group = Vec::new();
    while queue.recv_many(&mut group, limits::LOG_QUEUE).await > 0 {
        let edits = std::mem::take(&mut group);
        let engine = shared.engine.clone();
        let writing = move || {
            let (batch, upto) = batch_of(&edits);
            let size = batch_size(&edits);
            let written = engine.write(batch).and_then(|()| engine.sync());
            (edits, upto, size, written)
        };
        let (edits, upto, size, written) = shared.env.offload(writing).await;
        shared.syncs.fetch_add(1, Ordering::Relaxed);
        match written {
            Ok(()) => {
                shared.appended.fetch_add(size, Ordering::Relaxed);
                if let Some(upto) = upto {
                    shared.durable.send(Ok(upto));
                    shared.tail().shrink(upto);
                }
                edits.into_iter().for_each(|edit| tell(edit, Ok(())));
            }
            Err(fault) => {
                let why = format!("the Raft log can't be written: {fault}");
                tracing::error!("{why}");
                shared.durable.send(Err(why.clone()));
                edits.into_iter().for_each(|edit| tell(edit, Err(io::Error::other(why.clone()))));
                return;
            }
        }
    }
}

/// The edits as one batch, and the log's next index after them if they change it.
fn batch_of(edits: &[LogEdit]) -> (Batch, Option<u64>) {
    let mut batch = Batch::new();
    let mut upto = None;
    for edit in edits {
        match edit {
            LogEdit::Append(entries, _) => {
                for entry in entries {
                    batch.put(ENTRIES, entry.log_id.index.to_be_bytes(), sealed(&Record::from(entry)));
                    upto = Some(entry.log_id.index + 1);
                }
            }
            LogEdit::Truncate { from, .. } => {
                batch.delete_range(ENTRIES, from.to_be_bytes(), [0xff; 9]);
                upto = Some(*from);
            }
            LogEdit::Purge { place, .. } => {
                batch.put(META, PURGED, sealed(place));
                batch.delete_range(ENTRIES, [0; 8], (place.index + 1).to_be_bytes());
            }
            LogEdit::Meta { key, value, .. } => batch.put(META, *key, value.clone()),
        }
    }
    (batch, upto)
}

fn batch_size(edits: &[LogEdit]) -> u64 {
    let size = |edit: &LogEdit| match edit {
        LogEdit::Append(entries, _) => entries.iter().map(entry_size).sum::<usize>(),
        LogEdit::Truncate { .. } | LogEdit::Purge { .. } | LogEdit::Meta { .. } => 0,
    };
    edits.iter().map(size).sum::<usize>() as u64
}

fn tell(edit: LogEdit, result: io::Result<()>) {
    match edit {
        LogEdit::Append(_, flushed) => flushed.io_completed(result),
        LogEdit::Truncate { done, .. } | LogEdit::Purge { done, .. } | LogEdit::Meta { done, .. } => {
            let _ = done.send(result);
        }
    }
}

fn read_tail(engine: &dyn Engine) -> io::Result<Tail> {
    engine.sync()?;
    let vote = read_meta::<Ballot>(engine, VOTE)?.map(Vote::from);
    let purged = read_meta::<Place>(engine, PURGED)?.map(LogPosition::from);
    let last = match engine.range(ENTRIES, &[], &[0xff; 9], Order::Descending).next() {
        Some(pair) => {
            let (key, value) = pair?;
            Some(unsealed::<Record>(&value, &format!("log entry {key:02x?}"))?.place.into())
        }
        None => None,
    };
    Ok(Tail { vote, purged, last, ..Tail::default() })
}

/// How many entries the log in `engine` has that `store` has not applied; `None` if there are none. The engine must
/// have been opened with [`TABLES`].
///
/// Some of them may never have been committed; the log alone can't tell.
pub fn unapplied(engine: &dyn Engine, store: &Store) -> io::Result<Option<u64>> {
    let entries = read_tail(engine)?.last.map_or(0, |last| last.index + 1);
    Ok(entries.checked_sub(store.applied().index).filter(|behind| *behind > 0))
}

fn read_entries(engine: &dyn Engine, start: u64, end: u64, bytes: usize) -> io::Result<Vec<Record>> {
    let mut records: Vec<Record> = Vec::new();
    let mut size = 0;
    for pair in engine.range(ENTRIES, &start.to_be_bytes(), &end.to_be_bytes(), Order::Ascending) {
        let (key, value) = pair?;
        let record: Record = unsealed(&value, &format!("log entry {key:02x?}"))?;
        size += record.size();
        if size > bytes && !records.is_empty() {
            break;
        }
        records.push(record);
    }
    Ok(records)
}

pub(super) fn read_meta<T: DeserializeOwned>(engine: &dyn Engine, key: &'static [u8]) -> io::Result<Option<T>> {
    match engine.get(META, key)? {
        Some(value) => unsealed(&value, &String::from_utf8_lossy(key)).map(Some),
        None => Ok(None),
    }
}

/// crc32c of the rest (4 bytes, big-endian), then postcard.
pub(super) fn sealed<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = postcard::to_io(value, vec![0; 4]).expect("log values have no maps of unknown length");
    let crc = crc32c::crc32c(&bytes[4..]);
    bytes[..4].copy_from_slice(&crc.to_be_bytes());
    bytes
}

pub(super) fn unsealed<T: DeserializeOwned>(bytes: &[u8], what: &str) -> io::Result<T> {
    let broken = |why: &str| io::Error::new(io::ErrorKind::InvalidData, format!("the log's {what} is damaged: {why}"));
    let (crc, body) = bytes.split_at_checked(4).ok_or_else(|| broken("too short"))?;
    if crc32c::crc32c(body).to_be_bytes() != crc {
        return Err(broken("its checksum does not match"));
    }
    postcard::from_bytes(body).map_err(|e| broken(&e.to_string()))
}

fn stopped() -> io::Error {
    io::Error::other("the log's writer has stopped")
}
