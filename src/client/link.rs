//! The task that has the connection: it finds the server, keeps the cache coherent, and makes all calls.
//!
//! This task alone reads the server's frames, and carries out each one before it looks at the next: an invalidation
//! ends revisions in the cache, the answer to a load is put there, the answer to a finish of this client moves the view
//! to the new tid. As the server sends everything in order, the cache always stands exactly at the last frame that was
//! read.
//!
//! Queries of all handles go out as they come, many at a time, and their answers go back to the callers. When the
//! connection ends, its callers learn that by a dropped sender, and ask again on the next connection. A finish that was
//! sent is not repeated: its outcome can't be known here.
//!
//! **A dead connection** is one on which no byte came for [`super::Options::silence`] though a call was unanswered:
//! after half of that time the task asks for the last transaction. The other end may have vanished without closing it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::cache::Loaded;
use super::commit::{Ended, NextCall, QueuedCommit, RunningCommit};
use super::find::{self, FIRST_ID, Registered};
use super::shared::{Shared, Up};
use crate::config::limits;
use crate::net::{FrameFault, FrameReader, FrameWriter};
use crate::zeo::{
    Call, Encoding, FromServer, MessageId, Pushed, RemoteError, Reply, StoreConflict, decode_message, encode_call,
};
use crate::zodb::{Conflict, Oid, Refusal, Tid};

/// Calls that may be unanswered at a time.
const IN_FLIGHT: usize = 256;
/// Bytes that may wait to be sent before more calls are taken.
const OUTPUT: usize = 1 << 20;

/// The caller that waits for an answer. A dropped sender tells it that the connection was lost: ask again.
pub type Asker<T> = oneshot::Sender<Result<T, Refusal>>;

/// A call that changes nothing.
pub enum Query {
    /// A revision older than `before`; `None`: all are younger.
    Load {
        oid: Oid,
        before: Tid,
        answer: Asker<Option<Loaded>>,
    },
    Other {
        call: Call,
        answer: Asker<Reply>,
    },
}

/// A call that was sent.
struct Waiting {
    call: Call,
    recipient: Recipient,
}

/// Where the answer to a call goes.
enum Recipient {
    Load {
        oid: Oid,
        answer: Asker<Option<Loaded>>,
    },
    Other(Asker<Reply>),
    /// Nowhere: any answer shows that the server is there.
    Nobody,
    /// To the running commit, as its vote.
    Vote,
    /// To the running commit, as its finish.
    Finish,
}

/// Why a connection ends.
struct Lost {
    why: String,
    /// Whether a step of a commit took too long.
    too_long: bool,
}

fn lost(why: impl Into<String>) -> Lost {
    Lost { why: why.into(), too_long: false }
}

impl From<FrameFault> for Lost {
    fn from(fault: FrameFault) -> Lost {
        lost(fault.to_string())
    }
}

/// The task of the connection, and the queues that it serves.
pub struct Link {
    pub shared: Arc<Shared>,
    pub queries: mpsc::Receiver<Query>,
    pub commits: mpsc::Receiver<QueuedCommit>,
}

impl Link {
    /// Connects, serves, and connects again, until the last handle is dropped.
    pub async fn run(mut self) {
        let env = self.shared.env.clone();
        let (mut txns, mut generation, mut began) = (0, 0, None::<Instant>);
        loop {
            // (A server that closes each connection at once must not make this a busy loop.)
            let in_haste = began.is_some_and(|began| env.now() < began + find::pause(&self.shared, 3));
            let Some((found, view)) = self.establish(in_haste).await else { return };
            generation += 1;
            began = Some(env.now());
            tracing::info!(address = found.address, %view, storage = self.shared.options.storage, "connected");
            let address = found.address.clone();
            self.shared.up.send(Some(Up { address: address.clone(), generation }));
            self.shared.news.send(view);
            let mut connection = Connection::new(&self.shared, found, txns);
            let end = connection.serve(&mut self.queries, &mut self.commits).await;
            txns = connection.txns;
            self.shared.up.send(None);
            match end {
                Ok(()) => return,
                Err(Lost { why, too_long }) => {
                    connection.end(too_long);
                    tracing::info!(address, why, "the connection was lost");
                }
            }
        }
    }

    /// Finds a server and brings the cache up to date. Queries and commits that come meanwhile are sent back to their
    /// callers. `None`: the last handle was dropped.
    async fn establish(&mut self, in_haste: bool) -> Option<(Registered, Tid)> {
        let shared = self.shared.clone();
        let establishing = async {
            let mut times = u32::from(in_haste);
            loop {
                if times > 0 {
                    shared.env.sleep(find::pause(&shared, times)).await;
                }
                let mut found = find::find(&shared).await;
                match find::verify(&shared, &mut found).await {
                    Ok(view) => return (found, view),
                    Err(missed) => find::note(&shared, &found.address, missed),
                }
                times += 1;
            }
        };
        let mut establishing = std::pin::pin!(establishing);
        loop {
            tokio::select! { biased;
                established = &mut establishing => return Some(established),
                query = self.queries.recv() => drop(query?),
                commit = self.commits.recv() => commit?.end(Err(Ended::Cut)),
            }
        }
    }
}

struct Connection<'a> {
    shared: &'a Shared,
    reader: FrameReader,
    writer: FrameWriter,
    heard: Arc<std::sync::atomic::AtomicU64>,
    next_id: i64,
    waiting: BTreeMap<i64, Waiting>,
    running: Option<RunningCommit>,
    /// The number of the last transaction that was begun.
    txns: u64,
}

impl<'a> Connection<'a> {
    fn new(shared: &'a Shared, found: Registered, txns: u64) -> Connection<'a> {
        let Registered { reader, writer, heard, .. } = found;
        let mut connection = Connection {
            shared,
            reader,
            writer,
            heard,
            next_id: FIRST_ID,
            waiting: BTreeMap::new(),
            running: None,
            txns,
        };
        if !shared.options.label.is_empty() {
            connection.tell(&Call::SetClientLabel(shared.options.label.clone()));
        }
        connection
    }

    /// Serves until the connection is lost, or (`Ok`) the last handle is dropped.
    async fn serve(
        &mut self,
        queries: &mut mpsc::Receiver<Query>,
        commits: &mut mpsc::Receiver<QueuedCommit>,
    ) -> Result<(), Lost> {
        let env = self.shared.env.clone();
        let silence = self.shared.options.silence;
        // When bytes last came, how many in all, and whether the server was asked for a sign of life since.
        let (mut heard_at, mut heard, mut probed) = (env.now(), 0, false);
        loop {
            while let Some(frame) = self.reader.buffered()? {
                self.frame(&frame)?;
            }
            while self.has_room() {
                let Ok(query) = queries.try_recv() else { break };
                self.ask(query);
            }
            self.feed();
            let heard_now = self.heard.load(Relaxed);
            if heard_now != heard {
                (heard_at, heard, probed) = (env.now(), heard_now, false);
            }
            let (has_room, queued) = (self.has_room(), self.writer.queued());
            let look_at = heard_at + if probed { silence } else { silence / 2 };
            let deadline = self.running.as_ref().map(|running| running.deadline);
            tokio::select! { biased;
                written = self.writer.write_some(), if queued > 0 => {
                    written.map_err(|fault| lost(fault.to_string()))?;
                    if queued > OUTPUT / 4 {
                        // (A server that takes this much is alive.)
                        heard_at = env.now();
                    }
                }
                frame = self.reader.next() => match frame? {
                    Some(frame) => self.frame(&frame)?,
                    None => return Err(lost("closed by the server")),
                },
                query = queries.recv(), if has_room => match query {
                    Some(query) => self.ask(query),
                    None => return Ok(()),
                },
                commit = commits.recv(), if self.running.is_none() => match commit {
                    Some(commit) => self.begin(commit),
                    None => return Ok(()),
                },
                () = env.sleep_until(deadline.unwrap_or(look_at)), if deadline.is_some() => {
                    if deadline.is_some_and(|deadline| env.now() >= deadline) {
                        return Err(Lost { why: "a commit took too long".to_owned(), too_long: true });
                    }
                }
                () = env.sleep_until(look_at) => {
                    if self.heard.load(Relaxed) != heard || env.now() < look_at {
                        continue;
                    }
                    if probed {
                        return Err(lost("nothing was heard for too long"));
                    }
                    self.call(Call::LastTransaction, Recipient::Nobody);
                    probed = true;
                }
            }
        }
    }

    /// Ends the running commit; all other callers learn of the end by their dropped senders.
    fn end(self, too_long: bool) {
        if let Some(running) = self.running {
            running.cut_off(too_long);
        }
    }

    fn has_room(&self) -> bool {
        self.waiting.len() < IN_FLIGHT && self.writer.queued() < OUTPUT
    }

    fn tell(&mut self, call: &Call) {
        self.writer.push(&encode_call(Encoding::Msgpack, 0, true, call));
    }

    fn call(&mut self, call: Call, recipient: Recipient) {
        self.writer.push(&encode_call(Encoding::Msgpack, self.next_id, false, &call));
        self.waiting.insert(self.next_id, Waiting { call, recipient });
        self.next_id += 1;
    }

    fn ask(&mut self, query: Query) {
        match query {
            Query::Load { oid, before, answer } if !answer.is_closed() => {
                self.call(Call::LoadBefore { oid, tid: before }, Recipient::Load { oid, answer });
            }
            Query::Other { call, answer } if !answer.is_closed() => self.call(call, Recipient::Other(answer)),
            // The caller has gone.
            Query::Load { .. } | Query::Other { .. } => {}
        }
    }

    fn begin(&mut self, commit: QueuedCommit) {
        self.txns += 1;
        self.running = Some(RunningCommit::new(self.shared, commit, self.txns));
    }

    /// Sends the next calls of the running commit, while there is room for them.
    fn feed(&mut self) {
        while self.writer.queued() < OUTPUT {
            let Some(step) = self.running.as_mut().and_then(|running| running.next(self.shared)) else { return };
            match step {
                NextCall::Tell(call) => self.tell(&call),
                NextCall::Vote(call) => self.call(call, Recipient::Vote),
            }
        }
    }

    fn frame(&mut self, frame: &Bytes) -> Result<(), Lost> {
        match decode_message(Encoding::Msgpack, frame) {
            Ok(FromServer::Push(Pushed::Invalidate { tid, oids })) => {
                if !self.shared.cache().invalidate(tid, &oids) {
                    return Err(lost(format!("an invalidation at {tid} came out of turn")));
                }
                self.shared.news.send(tid);
                Ok(())
            }
            Ok(FromServer::Push(_)) => Ok(()),
            Ok(FromServer::Reply { id: MessageId::Int(id), value }) => {
                let Some(Waiting { call, recipient }) = self.waiting.remove(&id) else {
                    return Err(lost("an answer to no call of this client"));
                };
                match Reply::read(&call, &value, frame) {
                    Some(reply) => self.replied(recipient, reply),
                    None => Err(odd()),
                }
            }
            Ok(FromServer::Error { id: MessageId::Int(id), error }) => {
                let Some(Waiting { recipient, .. }) = self.waiting.remove(&id) else {
                    return Err(lost("an answer to no call of this client"));
                };
                self.refused(recipient, &error);
                Ok(())
            }
            Ok(_) => Err(lost("an answer to no call of this client")),
            Err(bad) => Err(lost(format!("a frame that is no message: {bad:?}"))),
        }
    }

    fn replied(&mut self, recipient: Recipient, reply: Reply) -> Result<(), Lost> {
        match recipient {
            Recipient::Nobody => {}
            Recipient::Load { oid, answer } => {
                let loaded = match reply {
                    Reply::Nothing => None,
                    Reply::Loaded { data, tid, end } => Some(Loaded { data, tid, end }),
                    _ => return Err(odd()),
                };
                if let Some(loaded) = &loaded {
                    self.shared.cache().keep(oid, loaded.tid, loaded.end, &loaded.data);
                }
                let _ = answer.send(Ok(loaded));
            }
            Recipient::Other(answer) => drop(answer.send(Ok(reply))),
            Recipient::Vote => {
                let running = self.running.as_mut().expect("a vote belongs to the commit that runs");
                match reply {
                    Reply::Oids(_) => {
                        let finish = running.voted(self.shared);
                        self.call(finish, Recipient::Finish);
                    }
                    Reply::Conflicts(conflicts) => {
                        let abort = running.abort();
                        self.tell(&abort);
                        self.ended(Err(Ended::Conflict(conflicts.into_iter().map(conflict).collect())));
                    }
                    _ => return Err(odd()),
                }
            }
            Recipient::Finish => {
                let Reply::Tid(tid) = reply else { return Err(odd()) };
                self.finished(tid)?;
            }
        }
        Ok(())
    }

    /// The running commit has committed at `tid`: its writes go into the cache, and the view moves there.
    fn finished(&mut self, tid: Tid) -> Result<(), Lost> {
        let running = self.running.as_ref().expect("a finish belongs to the commit that runs");
        {
            let mut cache = self.shared.cache();
            if !cache.invalidate(tid, &running.oids()) {
                return Err(lost(format!("a finish at {tid} was answered out of turn")));
            }
            for (oid, data) in running.written() {
                cache.keep(oid, tid, None, data);
            }
        }
        self.shared.news.send(tid);
        self.ended(Ok(tid));
        Ok(())
    }

    fn refused(&mut self, recipient: Recipient, error: &RemoteError) {
        let refusal =
            error.refusal().unwrap_or_else(|| Refusal::BadValue(format!("{}: {:?}", error.class, error.data)));
        match recipient {
            Recipient::Nobody => {}
            Recipient::Load { answer, .. } => drop(answer.send(Err(refusal))),
            Recipient::Other(answer) => drop(answer.send(Err(refusal))),
            // (After an error the server has forgotten the transaction.)
            Recipient::Vote | Recipient::Finish => self.ended(Err(match refusal {
                Refusal::Conflict(conflict) | Refusal::ReadConflict(conflict) => Ended::Conflict(vec![conflict]),
                refusal => Ended::Refused(refusal),
            })),
        }
    }

    fn ended(&mut self, how: Result<Tid, Ended>) {
        if let Some(running) = self.running.take() {
            running.end(how);
        }
    }
}

fn odd() -> Lost {
    lost("an answer of another shape")
}

fn conflict(StoreConflict { oid, committed, read, .. }: StoreConflict) -> Conflict {
    Conflict { oid, committed, read }
}

const _: () =
    assert!(IN_FLIGHT <= limits::CALLS, "calls beyond those that a server answers at a time would only wait there");
