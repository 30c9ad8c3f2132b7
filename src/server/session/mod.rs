//! The session of one client that is served here: one task, from its register to its end.
//!
//! The task alone reads the client's calls, moves its [view] and writes to it, so that what the client gets is one
//! ordered stream: invalidations, answers, and the answer to its own finish at its own tid. The task takes all calls
//! that have arrived, answers them, and then writes once; so a client that sends many loads at a time costs one read
//! and one write for all of them.
//!
//! **Loads are read on this task**, a thread of the runtime, and not offloaded: the record lies in memory as a
//! rule, a hand-over to another thread and back costs more than such a read, and an answer that is made at once never
//! has to hold the view back. A slow disk delays the clients that share the thread for one read.
//!
//! **News wait for company.** A client that was written to a moment ago is told of others' transactions before its next
//! answer, or after [`limits::NEWS_REST`]; after [`limits::NEWS_WITH_FINISH`] at the latest while its own finish is
//! under way. So a client costs one write for all that happens in a millisecond, and one that has been quiet for longer
//! is told at once. The view stays where it is meanwhile.
//!
//! **Answers that come later** stand in `pending`. While a vote or a finish waits, the client's other calls go on. A
//! ping, or object ids that have to be reserved first, are answered in their turn: the next call is read after them.
//!
//! **Bounds.** Past [`limits::OUTPUT_HIGH_WATER`] of unsent answers no more calls are read; past [`limits::OUTPUT`],
//! or when the client takes nothing for [`limits::OUTPUT_STALL`], its connection is closed; as it is when the client
//! begins a frame, and sends nothing more of it for [`limits::FRAME_STALL`].
//!
//! **Here.** [`Session::call`] has every call, a line each. All of them work on the [desk]; calls that only read are in
//! `reading`, those that write in `commit`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;

use super::client::{Client, Door, Incoming, unreadable};
use super::counts::{Connected, Present, Why};
use super::shared::{Phase, Shared};
use crate::config::limits;
use crate::env::Alarm;
use crate::net::{FrameFault, FrameWriter, Share, lingering_close};
use crate::zeo::{BadFrame, Call, MessageId, Reply, decode_request};
use crate::zodb::Refusal;

mod commit;
mod desk;
mod downloads;
mod iterators;
mod pack_call;
mod reading;
#[cfg(test)]
mod scripts;
mod undo_log;
mod view;

pub use desk::Seat;

use commit::Commits;
use desk::{Answer, Desk, Done, End};
use downloads::Downloads;
use iterators::Iterators;
use pack_call::PackCall;
use undo_log::UndoLog;
use view::View;

/// How often a session at the port for readers looks whether this node is still fresh enough.
const LOOK: Duration = Duration::from_secs(1);

/// One registered client.
struct Session {
    desk: Desk,
    commits: Commits,
    iterators: Iterators,
    downloads: Downloads,
    undo_log: UndoLog,
    packing: PackCall,
}

/// Serves a client to its end. `register` is the call that is answered first.
pub async fn serve(shared: Arc<Shared>, client: Client, mut seat: Seat, register: MessageId) {
    let Client { encoding, peer, mut incoming, writer, .. } = client;
    incoming.reader.set_limit(limits::FRAME);
    let (input, output) = (Arc::new(shared.input.share()), Arc::new(shared.output.share()));
    incoming.reader.count_in(input.clone());
    let _present = Present::new(&shared.metrics.sessions);
    let tally = shared.tallies.of(seat.storage);
    let _connected = Connected::new(&tally);
    tracing::info!(client = %peer, storage = %seat.name, read_only = seat.read_only, "registered");
    let view = View::open(&shared.store, seat.storage);
    let doom = doom(shared.clone(), &mut seat, [input, output.clone()]);
    let commits = Commits::new(shared.env.now());
    let pending = FuturesUnordered::new();
    let (in_order, held_ping, draft, name) = (false, None, Vec::new(), peer);
    let desk = Desk { shared, seat, encoding, name, view, tally, pending, in_order, held_ping, writer, draft, output };
    let mut session = Session {
        desk,
        commits,
        iterators: Iterators::default(),
        downloads: Downloads::default(),
        undo_log: UndoLog::default(),
        packing: PackCall::default(),
    };
    let last = session.desk.view.tid();
    session.desk.reply(&register, Reply::Tid(last));
    let end = match session.run(&mut incoming, doom).await {
        Ok(never) => match never {},
        Err(end) => end,
    };
    let (env, speaks) = (session.desk.env().clone(), end.0.leaves_last_words());
    let writer = session.farewell(end).await;
    if speaks {
        lingering_close(&env, writer.into_writer(), incoming.reader.into_parts().0).await;
    }
}

/// Returns when a session has to end though its client did nothing wrong; gives the reason.
fn doom(shared: Arc<Shared>, seat: &mut Seat, memory: [Arc<Share>; 2]) -> BoxFuture<'static, Why> {
    let mut phase = shared.phase.watching();
    let mut dropped = shared.store.feed(seat.storage).dropped();
    let mut ended = seat.primary.as_ref().map(|primary| primary.ended());
    let (mut elections, reading) = (seat.closes_at_next_election.take(), seat.door == Door::Reading);
    Box::pin(async move {
        let reign_over = async {
            match &mut ended {
                Some(ended) => drop(ended.until(|ended| *ended).await),
                None => std::future::pending().await,
            }
        };
        let mut reign_over = std::pin::pin!(reign_over);
        let next_election = async {
            match &mut elections {
                Some(elections) => drop(elections.changed().await),
                None => std::future::pending().await,
            }
        };
        let mut next_election = std::pin::pin!(next_election);
        loop {
            tokio::select! { biased;
                _ = phase.until(|phase| *phase == Phase::Closing) => return Why::Stopping,
                () = &mut reign_over => return Why::ReignOver,
                () = &mut next_election => return Why::PrimaryAgain,
                () = memory[0].over() => return Why::CrowdedOut,
                () = memory[1].over() => return Why::CrowdedOut,
                Ok(()) = dropped.until(|dropped| *dropped) => return Why::StorageDropped,
                () = shared.env.sleep(LOOK), if reading => {
                    if !shared.is_fresh() {
                        return Why::NotFresh;
                    }
                }
            }
        }
    })
}

enum Never {}

impl Session {
    async fn run(&mut self, incoming: &mut Incoming, mut doom: BoxFuture<'static, Why>) -> Result<Never, End> {
        let env = self.desk.env().clone();
        // The moment since which the client has taken nothing of its queued output.
        let mut stuck = None;
        // When the client was last sent something.
        let mut sent = None;
        let mut alarm = Alarm::default();
        // When to look whether a frame has stalled, and what was seen of it the last time.
        let mut look = std::pin::pin!(env.sleep(limits::FRAME_STALL));
        let mut seen = None;
        let mut packs = self.desk.store().feed(self.desk.storage()).packs();
        loop {
            let mut calls = 0;
            while calls < limits::CALLS && self.may_read() {
                match incoming.buffered() {
                    Ok(Some(frame)) => self.frame(&frame)?,
                    Ok(None) => break,
                    Err(fault) => return self.unreadable(&fault),
                }
                calls += 1;
            }
            self.downloads.go_on(&mut self.desk);
            let rest = if self.commits.is_finishing() { limits::NEWS_WITH_FINISH } else { limits::NEWS_REST };
            let news_wait = sent.map(|sent| sent + rest).filter(|until| self.desk.view.lags() && env.now() < *until);
            let tells = news_wait.is_none() || self.desk.writer.queued() > 0;
            // Skip news while the client's output is backed up; the next news then tell more at a time.
            if tells && self.desk.has_output_room() {
                self.desk.tell_news()?;
            }
            let news_wait = news_wait.filter(|_| !tells);
            let queued = self.desk.writer.queued();
            if queued > limits::OUTPUT {
                return Err(End(Why::TooSlow));
            }
            self.desk.count_output();
            let since = *if queued == 0 { stuck.insert(env.now()) } else { stuck.get_or_insert_with(|| env.now()) };
            let (may_read, expiry) = (self.may_read(), self.commits.expiry());
            let desk = &mut self.desk;
            tokio::select! { biased;
                why = &mut doom => return Err(End(why)),
                Some(done) = desk.pending.next(), if !desk.pending.is_empty() => self.done(done)?,
                written = desk.writer.write_some(), if queued > 0 => {
                    if let Err(fault) = written {
                        tracing::debug!(client = %desk.name, %fault, "a connection broke");
                        return Err(End(Why::Broken));
                    }
                    desk.shared.metrics.sent.inc_by((queued - desk.writer.queued()) as u64);
                    desk.output.progress();
                    stuck = None;
                    sent = Some(env.now());
                }
                () = desk.view.changed(), if news_wait.is_none() => {}
                () = env.wake(&mut alarm, news_wait.unwrap_or(since)), if news_wait.is_some() => {}
                Ok(()) = packs.changed() => desk.tell_size(),
                frame = incoming.next(), if may_read => match frame {
                    Ok(Some(frame)) => {
                        // What was answered to others before this call was sent is seen by it.
                        desk.tell_news()?;
                        self.frame(&frame)?;
                    }
                    Ok(None) => return Err(End(Why::Gone)),
                    Err(fault) => return self.unreadable(&fault),
                },
                () = &mut look => {
                    let unfinished = incoming.unfinished().filter(|_| may_read);
                    if unfinished.is_some() && unfinished == seen {
                        return Err(End(Why::HalfFrame));
                    }
                    seen = unfinished;
                    look.set(env.sleep(limits::FRAME_STALL));
                }
                () = env.sleep_until(since + limits::OUTPUT_STALL), if queued > 0 => return Err(End(Why::Stalled)),
                () = env.sleep_until(expiry.unwrap_or(since)), if expiry.is_some() => {
                    return Err(End(Why::StageExpired));
                }
            }
        }
    }

    /// Whether another call may be taken.
    fn may_read(&self) -> bool {
        !self.desk.in_order
            && self.undo_log.has_room()
            && self.desk.has_output_room()
            && self.desk.pending.len() + self.downloads.len() < limits::CALLS
            && self.commits.has_room()
    }

    fn unreadable<T>(&self, fault: &FrameFault) -> Result<T, End> {
        unreadable(&self.desk.shared, &self.desk.name, fault);
        Err(End(if matches!(fault, FrameFault::Io(_)) { Why::Broken } else { Why::Unreadable }))
    }

    fn frame(&mut self, frame: &Bytes) -> Result<(), End> {
        self.desk.shared.metrics.received.inc_by(frame.len() as u64);
        let request = match decode_request(self.desk.encoding, frame) {
            Ok(request) => request,
            Err(bad) => return self.bad_frame(bad),
        };
        let asynchronous = request.asynchronous;
        match self.call(&request.id, request.call)? {
            Answer::Reply(_) | Answer::Later if asynchronous => {}
            Answer::Refused(refusal) if asynchronous => {
                let client = &self.desk.name;
                tracing::warn!(%client, %refusal, "closed a client: it made a call that is refused and awaits no answer");
                return Err(End(Why::AsyncRefused));
            }
            Answer::Reply(reply) => self.desk.reply(&request.id, reply),
            Answer::Refused(refusal) => self.desk.refuse(&request.id, &refusal),
            Answer::Later => {}
        }
        Ok(())
    }

    fn bad_frame(&mut self, bad: BadFrame) -> Result<(), End> {
        let desk = &mut self.desk;
        let (kind, why) = match bad {
            BadFrame::BadArguments { id, name, why, asynchronous: false } => {
                desk.shared.metrics.bad_frame("bad_arguments");
                desk.refuse(&id, &Refusal::BadType(format!("{name}: {why}")));
                return Ok(());
            }
            BadFrame::BadArguments { name, why, .. } if self.commits.fails_at_vote(name, &why) => {
                desk.shared.metrics.bad_frame("bad_arguments");
                return Ok(());
            }
            BadFrame::BadArguments { name, why, .. } => ("bad_arguments", format!("{name}: {why}")),
            BadFrame::UnknownCall(name) => ("unknown_call", name),
            BadFrame::Undecodable(why) => ("undecodable", why),
        };
        desk.shared.metrics.bad_frame(kind);
        tracing::warn!(client = %desk.name, kind, why, "closed a client: its frame is no call");
        Err(End(Why::BadFrame))
    }

    /// Makes one call.
    ///
    /// Loads are answered at the view as it was when they arrived. Every other call that could tell something newer
    /// moves the view first, so that nothing is told before its invalidation.
    fn call(&mut self, id: &MessageId, call: Call) -> Result<Answer, End> {
        let Session { desk, commits, iterators, downloads, undo_log, packing } = self;
        match call {
            Call::KeepAlive => Ok(Answer::Later),
            Call::Register { .. } => Err(End(Why::RegisteredTwice)),
            Call::LoadBefore { oid, tid } => reading::load_before(desk, oid, tid),
            Call::LoadSerial { oid, tid } => reading::load_serial(desk, oid, tid),
            Call::GetTid(oid) => reading::get_tid(desk, oid),
            Call::LastTransaction => reading::last_transaction(desk),
            Call::GetInvalidations(since) => reading::get_invalidations(desk, since),
            Call::GetInfo => Ok(reading::info(desk)),
            Call::History { oid, size } => reading::history(desk, oid, size),
            Call::RecordIternext(next) => reading::record_iternext(desk, next),
            Call::ServerStatus => reading::server_status(desk),
            Call::SetClientLabel(label) => Ok(reading::label(desk, &label)),
            Call::Ping => reading::ping(desk, id),
            Call::NewOids(count) => Ok(reading::new_oids(desk, id, count)),
            Call::NewOid => Ok(reading::new_oid()),
            Call::IteratorStart { start, stop } => iterators.start(desk, start, stop),
            Call::IteratorNext(iterator) => iterators.next(desk, iterator),
            Call::IteratorRecordStart { iterator, tid } => Ok(iterators.start_records(iterator, tid)),
            Call::IteratorRecordNext(iterator) => iterators.next_record(desk, iterator),
            Call::IteratorGc(numbers) => Ok(iterators.drop_all(&numbers)),
            Call::TpcBegin { .. }
            | Call::StoreA { .. }
            | Call::CheckCurrentSerial { .. }
            | Call::DeleteObject { .. }
            | Call::RestoreA { .. }
            | Call::UndoA { .. }
            | Call::StoreBlobStart
            | Call::StoreBlobChunk(_)
            | Call::StoreBlobEnd { .. }
            | Call::StoreBlobShared { .. }
            | Call::Vote(_)
            | Call::TpcFinish(_)
            | Call::TpcAbort(_) => commits.call(desk, id, call),
            Call::SendBlob { oid, serial } => downloads.send_blob(desk, id, oid, serial),
            Call::UndoLog { first, last } => undo_log.search(desk, id, first, last, Vec::new()),
            Call::UndoInfo { first, last, specification } => undo_log.search(desk, id, first, last, specification),
            Call::Pack { time, wait } => Ok(packing.pack(desk, id, time, wait)),
        }
    }

    /// Goes on with the result of a wait.
    fn done(&mut self, done: Done) -> Result<(), End> {
        let Session { desk, commits, downloads, undo_log, packing, .. } = self;
        match done {
            Done::SentAhead(txn, first) => commits.sent_ahead(desk, txn, first),
            Done::UndosLookedUp(id, txn, found) => commits.undos_looked_up(desk, &id, txn, found),
            Done::Voted(id, txn, verdict) => commits.voted(desk, &id, txn, verdict),
            Done::Undone(id, txn, undone) => commits.undone(desk, &id, txn, undone),
            Done::ConflictsRead(id, txn, told) => commits.conflicts_read(desk, &id, txn, told),
            Done::Shown(id, txn, bases, told) => commits.shown(desk, &id, txn, bases, told),
            Done::Expired(txn) => commits.expired(desk, txn),
            Done::Finished(outcome) => commits.finished(desk, outcome),
            Done::Forgotten => Ok(()),
            Done::Pinged(id, caught_up) => reading::pinged(desk, id, caught_up),
            Done::Oids(id, oids) => reading::oids(desk, &id, oids),
            Done::Piece(piece) => downloads.piece_read(desk, piece),
            Done::UndoLogSearched(id, found) => undo_log.searched(desk, &id, found),
            Done::Packed(id, outcome) => packing.packed(desk, &id, outcome),
        }
    }

    /// Answers a finish whose outcome comes soon, and lets go of everything but the connection.
    async fn farewell(mut self, end: End) -> FrameWriter {
        let env = self.desk.env().clone();
        // Other transactions may have this session's locks from now on.
        self.commits.close(&self.desk);
        let End(why) = end;
        if why == Why::Fault {
            self.desk.shared.node.report_damage();
        }
        if why.leaves_last_words() {
            let last_words = async {
                while self.commits.is_finishing() {
                    match self.desk.pending.next().await {
                        Some(done @ Done::Finished(_)) => self.done(done)?,
                        Some(_) => {}
                        None => break,
                    }
                }
                Ok::<(), End>(())
            };
            let _ = env.timeout(limits::LAST_ANSWERS, last_words).await;
            let _ = env.timeout(limits::LAST_WORDS, self.desk.writer.flush()).await;
        }
        if !why.is_the_clients() {
            self.desk.shared.metrics.closed(why);
        }
        let Desk { shared, seat, name, tally, .. } = &self.desk;
        if self.commits.is_finishing() {
            tally.active.down();
            shared.metrics.unknown_outcomes.inc();
            tracing::warn!(client = %name, "a client is gone without knowing whether its transaction has committed");
        }
        tracing::info!(client = %name, storage = %seat.name, %why, "closed");
        self.desk.writer
    }
}
