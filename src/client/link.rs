//! The task that has the connection: it finds the server, keeps the cache coherent, and makes all calls.
//!
//! It alone reads what the server says, frame by frame, and does with each what has to be done before it looks at the next:
//! an invalidation ends revisions in the cache, an answer to a load is put there, the answer to the own finish moves the
//! view to its tid. As the server tells everything in order, the cache is never ahead of nor behind what was told.
//!
//! Calls of all clients go out as they come, many at a time, and their answers go to who asked. When the connection
//! ends, whoever waits is told so (by a dropped sender) and asks again once there is another; all but a finish that was sent, whose
//! outcome nobody here can know.
//!
//! **A dead connection** is one by which nothing was heard for [`super::Options::silence`] though something was asked: after
//! half of that it is asked for the last transaction. It need not be closed by the other end, which may have vanished.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::cache::Loaded;
use super::commit::{Commit, Ended, Running, Step};
use super::find::{self, FIRST_ID, Found};
use super::{Shared, Up};
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

/// Whom an answer goes to. A dropped sender: the connection was lost, ask again.
pub type Answer<T> = oneshot::Sender<Result<T, Refusal>>;

/// A call that changes nothing.
pub enum Ask {
    /// `None`: all revisions are younger.
    Load {
        oid: Oid,
        before: Tid,
        answer: Answer<Option<Loaded>>,
    },
    Other {
        call: Call,
        answer: Answer<Reply>,
    },
}

/// A call that was sent.
struct Waiting {
    call: Call,
    whom: Whom,
}

/// Whom its answer is for.
enum Whom {
    Load {
        oid: Oid,
        answer: Answer<Option<Loaded>>,
    },
    Other(Answer<Reply>),
    /// Nobody: it was asked to hear something.
    Nobody,
    /// The commit that runs.
    Vote,
    Finish,
}

/// Why a connection ends.
struct Lost {
    why: String,
    /// It was our own patience with a commit that ended.
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

/// What the task was given to do.
pub struct Link {
    pub shared: Arc<Shared>,
    pub asks: mpsc::Receiver<Ask>,
    pub commits: mpsc::Receiver<Commit>,
}

impl Link {
    /// Connects, serves, and connects again, until there is no client any more.
    pub async fn run(mut self) {
        let env = self.shared.env.clone();
        let (mut txns, mut generation, mut began) = (0, 0, None::<Instant>);
        loop {
            // A connection that ends as soon as it is there must not make this a busy loop.
            let in_haste = began.is_some_and(|began| env.now() < began + find::pause(&self.shared, 3));
            let Some((found, view)) = self.establish(in_haste).await else { return };
            generation += 1;
            began = Some(env.now());
            tracing::info!(address = found.address, %view, storage = self.shared.options.storage, "connected");
            let address = found.address.clone();
            self.shared.up.send(Some(Up { address: address.clone(), generation }));
            self.shared.news.send(view);
            let mut connection = Connection::new(&self.shared, found, txns);
            let end = connection.serve(&mut self.asks, &mut self.commits).await;
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

    /// Finds a server and brings the cache up to date. Meanwhile nobody's call is made. `None`: there is no client any more.
    async fn establish(&mut self, in_haste: bool) -> Option<(Found, Tid)> {
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
                ask = self.asks.recv() => drop(ask?),
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
    running: Option<Running>,
    /// The number of the last transaction.
    txns: u64,
}

impl<'a> Connection<'a> {
    fn new(shared: &'a Shared, found: Found, txns: u64) -> Connection<'a> {
        let Found { reader, writer, heard, .. } = found;
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

    /// Returns `Ok` when there is no client any more.
    async fn serve(
        &mut self,
        asks: &mut mpsc::Receiver<Ask>,
        commits: &mut mpsc::Receiver<Commit>,
    ) -> Result<(), Lost> {
        let env = self.shared.env.clone();
        let silence = self.shared.options.silence;
        // When something was heard last, how much in all, and whether it was asked since.
        let (mut heard_at, mut heard, mut probed) = (env.now(), 0, false);
        loop {
            while let Some(frame) = self.reader.buffered()? {
                self.frame(&frame)?;
            }
            while self.has_room() {
                let Ok(ask) = asks.try_recv() else { break };
                self.ask(ask);
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
                        // It takes much that we send: it is there.
                        heard_at = env.now();
                    }
                }
                frame = self.reader.next() => match frame? {
                    Some(frame) => self.frame(&frame)?,
                    None => return Err(lost("closed by the server")),
                },
                ask = asks.recv(), if has_room => match ask {
                    Some(ask) => self.ask(ask),
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
                    self.call(Call::LastTransaction, Whom::Nobody);
                    probed = true;
                }
            }
        }
    }

    /// Tells who waits for what will not come.
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

    fn call(&mut self, call: Call, whom: Whom) {
        self.writer.push(&encode_call(Encoding::Msgpack, self.next_id, false, &call));
        self.waiting.insert(self.next_id, Waiting { call, whom });
        self.next_id += 1;
    }

    fn ask(&mut self, ask: Ask) {
        match ask {
            Ask::Load { oid, before, answer } if !answer.is_closed() => {
                self.call(Call::LoadBefore { oid, tid: before }, Whom::Load { oid, answer });
            }
            Ask::Other { call, answer } if !answer.is_closed() => self.call(call, Whom::Other(answer)),
            // Who asked has gone.
            Ask::Load { .. } | Ask::Other { .. } => {}
        }
    }

    fn begin(&mut self, commit: Commit) {
        self.txns += 1;
        self.running = Some(Running::new(self.shared, commit, self.txns));
    }

    /// Sends what comes next of a commit, as much as there is room for.
    fn feed(&mut self) {
        while self.writer.queued() < OUTPUT {
            let Some(step) = self.running.as_mut().and_then(|running| running.next(self.shared)) else { return };
            match step {
                Step::Tell(call) => self.tell(&call),
                Step::Vote(call) => self.call(call, Whom::Vote),
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
                let Some(Waiting { call, whom }) = self.waiting.remove(&id) else {
                    return Err(lost("an answer to nothing"));
                };
                match Reply::read(&call, &value, frame) {
                    Some(reply) => self.replied(whom, reply),
                    None => Err(odd()),
                }
            }
            Ok(FromServer::Error { id: MessageId::Int(id), error }) => {
                let Some(Waiting { whom, .. }) = self.waiting.remove(&id) else {
                    return Err(lost("an answer to nothing"));
                };
                self.refused(whom, &error);
                Ok(())
            }
            Ok(_) => Err(lost("an answer to nothing")),
            Err(bad) => Err(lost(format!("what is no message: {bad:?}"))),
        }
    }

    fn replied(&mut self, whom: Whom, reply: Reply) -> Result<(), Lost> {
        match whom {
            Whom::Nobody => {}
            Whom::Load { oid, answer } => {
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
            Whom::Other(answer) => drop(answer.send(Ok(reply))),
            Whom::Vote => {
                let running = self.running.as_mut().expect("a vote belongs to the commit that runs");
                match reply {
                    Reply::Oids(_) => {
                        let finish = running.voted(self.shared);
                        self.call(finish, Whom::Finish);
                    }
                    Reply::Conflicts(conflicts) => {
                        let abort = running.abort();
                        self.tell(&abort);
                        self.ended(Err(Ended::Conflict(conflicts.into_iter().map(conflict).collect())));
                    }
                    _ => return Err(odd()),
                }
            }
            Whom::Finish => {
                let Reply::Tid(tid) = reply else { return Err(odd()) };
                self.finished(tid)?;
            }
        }
        Ok(())
    }

    /// The own transaction stands at its place among the others.
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

    fn refused(&mut self, whom: Whom, error: &RemoteError) {
        let refusal =
            error.refusal().unwrap_or_else(|| Refusal::BadValue(format!("{}: {:?}", error.class, error.data)));
        match whom {
            Whom::Nobody => {}
            Whom::Load { answer, .. } => drop(answer.send(Err(refusal))),
            Whom::Other(answer) => drop(answer.send(Err(refusal))),
            // With this the server has forgotten the transaction.
            Whom::Vote | Whom::Finish => self.ended(Err(match refusal {
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

const _: () = assert!(IN_FLIGHT <= limits::CALLS, "more than the server answers at a time would only wait there");
