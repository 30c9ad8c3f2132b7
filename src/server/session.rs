//! One client that is served here: one task, from its register to its end.
//!
//! The task alone reads the client's calls, moves its [`View`] and writes to it, so that what the client gets is one
//! ordered stream: invalidations, answers, and the answer to its own finish at its own tid. It takes all calls that have
//! arrived, answers them, and then writes once; so a client that sends many loads at a time costs one read and one write
//! for all of them.
//!
//! **Loads are read on this task**, a thread of the runtime, and not offloaded: what is read lies in the block cache as a
//! rule, a hand-over to another thread and back costs more than such a read, and an answer that is made at once never
//! has to hold the view back. A slow disk delays the clients that share the thread for one read.
//!
//! **What is answered later** stands in `pending`. While a vote or a finish waits, the client's other calls go on. A ping,
//! or object ids that have to be reserved first, are answered in their turn: the next call is read after them.
//!
//! **Bounds.** Past [`limits::OUTPUT_HIGH_WATER`] of unsent answers no more calls are read; past [`limits::OUTPUT`], or when
//! the client takes nothing for [`limits::OUTPUT_STALL`], its connection is closed.
//!
//! The calls are in `calls` (reading), `commit` (writing) and `undo` (both).

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use super::accept::{Door, Incoming, unreadable};
use super::commit::{Finishing, Open};
use super::downloads::Downloads;
use super::introduction::is_fresh;
use super::iterators::Iterators;
use super::metrics::Present;
use super::primary::{Primary, Verdict};
use super::register::Client;
use super::status::{Connected, Tally};
use super::undo::Touched;
use super::view::View;
use super::{Phase, Shared};
use crate::command::{Base, Outcome};
use crate::config::limits;
use crate::env::Watching;
use crate::net::{FrameFault, FrameWriter};
use crate::raft::Unknown;
use crate::storage::Undone;
use crate::tpc::TxnId;
use crate::zeo::{
    BadFrame, Encoding, MessageId, Push, Reply, StoreConflict, UndoItem, decode_request, encode_push,
    encode_push_parts, encode_refusal, encode_reply_parts,
};
use crate::zodb::{Oid, Refusal, StorageId};

/// How long a session that has to close may still wait for the outcome of a finish, and its client for the answer.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How often a session at the port for readers looks whether this node is still fresh enough.
const LOOK: Duration = Duration::from_secs(1);

/// What a client was granted.
pub struct Seat {
    pub storage: StorageId,
    pub name: String,
    pub read_only: bool,
    /// The reign in which it may write; the session ends with it.
    pub primary: Option<Arc<Primary>>,
    pub door: Door,
    /// The elections since it was refused to write, which it would rather: it is closed at the next one, as it would not ask
    /// again by itself.
    pub primary_again: Option<Watching<u64>>,
}

/// One registered client.
pub struct Session {
    pub shared: Arc<Shared>,
    pub seat: Seat,
    pub encoding: Encoding,
    /// Who it is, for logs: its address, and the label it gave itself.
    pub name: String,
    pub view: View,
    pub tally: Arc<Tally>,
    pub transaction: Option<Open>,
    pub finishing: Option<Finishing>,
    pub iterators: Iterators,
    pub downloads: Downloads,
    pub pending: FuturesUnordered<BoxFuture<'static, Done>>,
    /// When the client last said something of a transaction.
    pub last_write: Instant,
    /// Searches of the undo log that are under way.
    pub searches: usize,
    /// Lives while a pack that the client asked for is going on.
    pub packing: Weak<()>,
    /// One of the pending answers has to come before that of the next call.
    in_order: bool,
    pub writer: FrameWriter,
}

/// Something that was waited for.
pub enum Done {
    /// `None`: the transaction ended before.
    Voted(MessageId, TxnId, Option<Verdict>),
    /// The transaction took too long; `None`: it did not, and is over.
    Expired(Option<TxnId>),
    /// `None`: it never got as far as the log.
    Finished(Option<Result<Outcome, Unknown>>),
    Pinged(MessageId, Result<(), &'static str>),
    Oids(MessageId, Option<Vec<Oid>>),
    /// The error: nobody can say what has become of it.
    Packed(MessageId, Result<Result<(), Refusal>, &'static str>),
    /// The number of the first piece; `None`: the reign is over.
    SentAhead(TxnId, Option<u64>),
    /// Of the first blob in line.
    Piece(io::Result<Bytes>),
    UndosLookedUp(MessageId, TxnId, io::Result<Result<Touched, Refusal>>),
    Undone(MessageId, TxnId, io::Result<Result<BTreeMap<Oid, Undone>, Refusal>>),
    Searched(MessageId, io::Result<Vec<UndoItem>>),
    /// The transaction that it was for is over.
    Forgotten,
    /// What a vote met in conflict.
    ConflictsRead(MessageId, TxnId, io::Result<Vec<StoreConflict>>),
    /// A pack has seen what a granted vote refers to.
    Shown(MessageId, TxnId, Vec<(Oid, Base)>, Result<(), Refusal>),
}

/// What comes of a call.
pub enum Answer {
    Reply(Reply),
    Refused(Refusal),
    /// It comes later, or never.
    Later,
}

/// Why a session ends, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End(pub &'static str);

impl From<io::Error> for End {
    fn from(fault: io::Error) -> End {
        tracing::error!(%fault, "the database could not be read");
        End("fault")
    }
}

/// Serves a client to its end. `register` is the call that is answered first.
pub async fn serve(shared: Arc<Shared>, client: Client, mut seat: Seat, register: MessageId) {
    let Client { encoding, peer, mut incoming, writer, .. } = client;
    incoming.reader.set_limit(limits::FRAME);
    let _present = Present::new(&shared.metrics.sessions);
    let tally = shared.tallies.of(seat.storage);
    let _connected = Connected::new(&tally);
    tracing::info!(client = %peer, storage = %seat.name, read_only = seat.read_only, "registered");
    let view = View::open(&shared.store, seat.storage);
    let doom = doom(shared.clone(), &mut seat);
    let last_write = shared.env.now();
    let mut session = Session {
        shared,
        seat,
        encoding,
        name: peer,
        view,
        tally,
        transaction: None,
        finishing: None,
        iterators: Iterators::default(),
        downloads: Downloads::default(),
        pending: FuturesUnordered::new(),
        last_write,
        searches: 0,
        packing: Weak::new(),
        in_order: false,
        writer,
    };
    let last = session.view.tid();
    session.reply(&register, Reply::Tid(last));
    let end = match session.run(&mut incoming, doom).await {
        Ok(never) => match never {},
        Err(end) => end,
    };
    session.farewell(end).await;
}

/// Returns when a session has to end though its client did nothing wrong: says why.
fn doom(shared: Arc<Shared>, seat: &mut Seat) -> BoxFuture<'static, &'static str> {
    let mut phase = shared.phase.watching();
    let mut ended = seat.primary.as_ref().map(|primary| primary.ended());
    let (mut primary_again, reading) = (seat.primary_again.take(), seat.door == Door::Reading);
    Box::pin(async move {
        let reign_over = async {
            match &mut ended {
                Some(ended) => drop(ended.until(|ended| *ended).await),
                None => std::future::pending().await,
            }
        };
        let mut reign_over = std::pin::pin!(reign_over);
        let primary_again = async {
            match &mut primary_again {
                Some(elections) => drop(elections.changed().await),
                None => std::future::pending().await,
            }
        };
        let mut primary_again = std::pin::pin!(primary_again);
        loop {
            tokio::select! { biased;
                _ = phase.until(|phase| *phase == Phase::Closing) => return "stopping",
                () = &mut reign_over => return "reign_over",
                () = &mut primary_again => return "primary_again",
                () = shared.env.sleep(LOOK), if reading => {
                    if !is_fresh(&shared) {
                        return "not_fresh";
                    }
                }
            }
        }
    })
}

enum Never {}

impl Session {
    async fn run(&mut self, incoming: &mut Incoming, mut doom: BoxFuture<'static, &'static str>) -> Result<Never, End> {
        let env = self.shared.env.clone();
        // Since when the client has taken nothing of what waits for it.
        let mut stuck = None;
        let mut packs = self.shared.store.feed(self.seat.storage).packs();
        loop {
            // Who is slow to read is told later, and then perhaps more at a time.
            if self.writer.queued() <= limits::OUTPUT_HIGH_WATER {
                self.tell_news()?;
            }
            let mut calls = 0;
            while calls < limits::CALLS && self.may_read() {
                match incoming.buffered() {
                    Ok(Some(frame)) => self.frame(&frame)?,
                    Ok(None) => break,
                    Err(fault) => return self.unreadable(&fault),
                }
                calls += 1;
            }
            self.go_on_sending();
            let queued = self.writer.queued();
            if queued > limits::OUTPUT {
                return Err(End("too_slow"));
            }
            let since = *if queued == 0 { stuck.insert(env.now()) } else { stuck.get_or_insert_with(|| env.now()) };
            let (may_read, expiry) = (self.may_read(), self.expiry());
            tokio::select! { biased;
                why = &mut doom => return Err(End(why)),
                Some(done) = self.pending.next(), if !self.pending.is_empty() => self.done(done)?,
                written = self.writer.write_some(), if queued > 0 => {
                    if let Err(fault) = written {
                        tracing::debug!(client = %self.name, %fault, "a connection broke");
                        return Err(End("broken"));
                    }
                    self.shared.metrics.sent.inc_by((queued - self.writer.queued()) as u64);
                    stuck = None;
                }
                () = self.view.changed() => {}
                Ok(()) = packs.changed() => self.tell_size(),
                frame = incoming.next(), if may_read => match frame {
                    Ok(Some(frame)) => self.frame(&frame)?,
                    Ok(None) => return Err(End("gone")),
                    Err(fault) => return self.unreadable(&fault),
                },
                () = env.sleep_until(since + limits::OUTPUT_STALL), if queued > 0 => return Err(End("stalled")),
                () = env.sleep_until(expiry.unwrap_or(since)), if expiry.is_some() => return Err(End("stage_expired")),
            }
        }
    }

    /// Whether another call may be taken.
    fn may_read(&self) -> bool {
        !self.in_order
            && self.searches < limits::UNDO_SEARCHES
            && self.writer.queued() <= limits::OUTPUT_HIGH_WATER
            && self.pending.len() + self.downloads.len() < limits::CALLS
            && self.has_room()
    }

    /// Waits for something whose answer comes before those of all later calls: they are not read until then.
    pub fn wait_in_order(&mut self, wait: BoxFuture<'static, Done>) {
        self.in_order = true;
        self.pending.push(wait);
    }

    fn unreadable<T>(&self, fault: &FrameFault) -> Result<T, End> {
        unreadable(&self.shared, &self.name, fault);
        Err(End(if matches!(fault, FrameFault::Io(_)) { "broken" } else { "unreadable" }))
    }

    /// Moves the view on and queues the invalidations for it.
    pub fn tell_news(&mut self) -> Result<(), End> {
        for news in self.view.news(&self.shared.store)?.ok_or(End("too_far_behind"))? {
            self.push(&Push::Invalidate { tid: news.tid(), oids: news.oids() });
        }
        Ok(())
    }

    pub fn push(&mut self, push: &Push<'_>) {
        self.writer.push(&encode_push(self.encoding, push));
    }

    /// The same for one with much in it, which is not copied.
    pub fn push_large(&mut self, push: &Push<'_>) {
        let frame = encode_push_parts(self.encoding, push);
        self.writer.push_large(&frame.head, frame.body, &frame.tail);
    }

    pub fn reply(&mut self, id: &MessageId, reply: Reply) {
        let frame = encode_reply_parts(self.encoding, id, &reply);
        self.writer.push_large(&frame.head, frame.body, &frame.tail);
    }

    pub fn refuse(&mut self, id: &MessageId, refusal: &Refusal) {
        self.writer.push(&encode_refusal(self.encoding, id, refusal));
    }

    fn frame(&mut self, frame: &Bytes) -> Result<(), End> {
        self.shared.metrics.received.inc_by(frame.len() as u64);
        let request = match decode_request(self.encoding, frame) {
            Ok(request) => request,
            Err(bad) => return self.bad_frame(bad),
        };
        let asynchronous = request.asynchronous;
        match self.call(&request.id, request.call)? {
            Answer::Reply(_) | Answer::Later if asynchronous => {}
            Answer::Refused(refusal) if asynchronous => {
                tracing::warn!(client = %self.name, %refusal, "closed a client: it made a call that is refused and awaits no answer");
                return Err(End("async_refused"));
            }
            Answer::Reply(reply) => self.reply(&request.id, reply),
            Answer::Refused(refusal) => self.refuse(&request.id, &refusal),
            Answer::Later => {}
        }
        Ok(())
    }

    fn bad_frame(&mut self, bad: BadFrame) -> Result<(), End> {
        let (kind, why) = match bad {
            BadFrame::BadArguments { id, name, why, asynchronous: false } => {
                self.shared.metrics.bad_frame("bad_arguments");
                self.refuse(&id, &Refusal::BadType(format!("{name}: {why}")));
                return Ok(());
            }
            BadFrame::BadArguments { name, why, .. } if self.fails_transaction(name, &why) => {
                self.shared.metrics.bad_frame("bad_arguments");
                return Ok(());
            }
            BadFrame::BadArguments { name, why, .. } => ("bad_arguments", format!("{name}: {why}")),
            BadFrame::UnknownCall(name) => ("unknown_call", name),
            BadFrame::Undecodable(why) => ("undecodable", why),
        };
        self.shared.metrics.bad_frame(kind);
        tracing::warn!(client = %self.name, kind, why, "closed a client: its frame is no call");
        Err(End("bad_frame"))
    }

    fn done(&mut self, done: Done) -> Result<(), End> {
        if matches!(done, Done::Pinged(..) | Done::Oids(..)) {
            self.in_order = false;
        }
        match done {
            Done::Voted(id, txn, verdict) => self.voted(id, txn, verdict),
            Done::Expired(txn) => self.expired(txn),
            Done::Finished(outcome) => self.finished(outcome),
            Done::SentAhead(txn, first) => self.sent_ahead(txn, first),
            Done::Piece(piece) => self.piece_read(piece),
            Done::Pinged(id, Ok(())) => {
                self.tell_news()?;
                self.reply(&id, Reply::Nothing);
                Ok(())
            }
            Done::Pinged(_, Err(why)) => Err(End(why)),
            Done::Oids(id, Some(oids)) => {
                self.reply(&id, Reply::Oids(oids));
                Ok(())
            }
            Done::Oids(_, None) => Err(End("reign_over")),
            Done::Packed(id, outcome) => self.packed(&id, outcome),
            Done::UndosLookedUp(id, txn, found) => self.undos_looked_up(id, txn, found),
            Done::Undone(id, txn, undone) => self.undone(id, txn, undone),
            Done::Searched(id, found) => self.searched(&id, found),
            Done::ConflictsRead(id, txn, told) => self.conflicts_read(&id, txn, told),
            Done::Forgotten => Ok(()),
            Done::Shown(id, txn, bases, told) => self.shown(id, txn, bases, told),
        }
    }

    /// Answers what has committed, if that is soon known, and closes.
    async fn farewell(mut self, end: End) {
        let env = self.shared.env.clone();
        // Others may have its locks from now on.
        self.drop_transaction();
        if end != End("gone") && end != End("broken") {
            let last_words = async {
                while self.finishing.is_some() {
                    match self.pending.next().await {
                        Some(done @ Done::Finished(_)) => self.done(done)?,
                        Some(_) => {}
                        None => break,
                    }
                }
                Ok::<(), End>(())
            };
            let _ = env.timeout(LAST_WORDS, last_words).await;
            let _ = env.timeout(LAST_WORDS, self.writer.flush()).await;
            self.shared.metrics.closed(end.0);
        }
        if self.finishing.is_some() {
            self.tally.active.down();
            self.shared.metrics.unknown_outcomes.inc();
            tracing::warn!(client = %self.name, "a client is gone without knowing whether its transaction has committed");
        }
        tracing::info!(client = %self.name, storage = %self.seat.name, why = end.0, "closed");
    }
}
