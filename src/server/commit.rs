//! What a client writes: `tpc_begin` to `tpc_finish`.
//!
//! ```text
//!   tpc_begin, storea …   Begun        buffered, or staged; nothing is locked
//!   vote                  Sending      what has to be staged is on its way; then
//!                         Voting       the primary takes the locks, or waits for them
//!     conflicts           Resolving    locks held; storea … and vote again
//!     undoes something    Undoing      locks held; what it becomes is worked out (`undo`)
//!     voted               Voted        locks held
//!   tpc_finish            (finishing)  tid given, in the queue to the log; locks belong to it
//! ```
//!
//! A session has one transaction at a time. It ends with its answer to `tpc_finish`, with `tpc_abort`, with a vote that
//! fails, or with the session.

use std::io;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::ahead::Ahead;
use super::life::Life;
use super::primary::{Baggage, Primary, Verdict};
use super::session::{Answer, Done, End, Session};
use super::transaction::{ENTRY_COST, Record, Transaction, Wish, Written};
use super::undo;
use crate::command::{Base, Content, Outcome, Write};
use crate::config::limits;
use crate::raft::Unknown;
use crate::storage::{Stop, Store, Undone};
use crate::tpc::{self, TxnId};
use crate::zeo::{Call, MessageId, Reply, StoreConflict, tid_of_undo_id};
use crate::zodb::{Conflict, Oid, Refusal, Revision, State, StorageId, Tid, TransactionMeta};

/// Pieces that are read on the task of a client to tell it of a conflict; more are read on a thread that may take its time.
const CONFLICT_PIECES: u64 = 2;

/// The transaction of a session, until its finish.
pub struct Open {
    pub(super) buffer: Transaction,
    pub(super) claim: Claim,
    pub(super) stage: Stage,
    /// What of it is in the log already, if anything is.
    pub(super) ahead: Option<Ahead>,
    /// It has met a conflict.
    resolved: bool,
    /// Dropped with it: what was for it alone ends then.
    life: Life,
}

impl Open {
    /// `wait`, which is dropped as soon as the transaction is aborted or otherwise over.
    pub(super) fn unless_over(&self, wait: impl Future<Output = Done> + Send + 'static) -> BoxFuture<'static, Done> {
        self.life.unless_over(wait).map(|done| done.unwrap_or(Done::Forgotten)).boxed()
    }
}

pub(super) enum Stage {
    Begun,
    /// It votes as soon as all that has to be in the log is there.
    Sending(MessageId),
    Voting,
    Resolving,
    /// As [`Stage::Voted`], but not answered yet.
    Undoing(Vec<(Oid, Base)>),
    /// What each write is based on.
    Voted(Vec<(Oid, Base)>),
}

/// A transaction's number at the primary. When it is dropped, its locks are let go, unless it is being finished.
pub(super) struct Claim {
    pub(super) primary: Arc<Primary>,
    pub(super) txn: TxnId,
    /// Whether it may have locks to let go of.
    holds: bool,
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.holds {
            self.primary.abort(self.txn);
        }
    }
}

/// A finish on its way.
pub struct Finishing {
    id: MessageId,
    tid: Tid,
    stores: u64,
    resolved: bool,
}

impl Session {
    /// The primary, if this client may write.
    pub fn writable(&self) -> Option<Arc<Primary>> {
        if self.seat.read_only { None } else { self.seat.primary.clone() }
    }

    /// Makes a call that belongs to a transaction.
    pub fn write_call(&mut self, id: &MessageId, call: Call) -> Result<Answer, End> {
        self.last_write = self.shared.env.now();
        let buffered = match call {
            Call::TpcBegin { txn, user, description, extension, tid, status } => {
                let (user, description, extension) = (user.to_vec(), description.to_vec(), extension.to_vec());
                return Ok(self.begin(txn, TransactionMeta { status, user, description, extension }, tid));
            }
            Call::Vote(txn) => return self.vote(id, txn),
            Call::TpcFinish(txn) => return self.finish(id, txn),
            Call::TpcAbort(txn) => {
                self.abort(txn);
                return Ok(Answer::Reply(Reply::Nothing));
            }
            Call::StoreA { oid, serial, data, txn } => self.buffer(txn, |buffer| {
                buffer.wish(oid, Wish::Store { base: serial.unwrap_or(Tid::ZERO), data: data.into() });
            }),
            Call::CheckCurrentSerial { oid, serial, txn } => self.buffer(txn, |buffer| buffer.check(oid, serial)),
            Call::DeleteObject { oid, serial, txn } => {
                self.buffer(txn, |buffer| buffer.wish(oid, Wish::Delete { base: serial }))
            }
            Call::RestoreA { oid, data, prev_txn, txn, .. } => {
                let data = data.map(Record::Here);
                self.buffer(txn, |buffer| buffer.wish(oid, Wish::Restore { data, like: prev_txn }))
            }
            Call::UndoA { id, txn } => self.buffer(txn, |buffer| match tid_of_undo_id(&id) {
                Some(tid) => buffer.undo(tid),
                None => buffer.fail(Refusal::NotUndoable("that names no transaction".into())),
            }),
            Call::StoreBlobStart
            | Call::StoreBlobChunk(_)
            | Call::StoreBlobEnd { .. }
            | Call::StoreBlobShared { .. } => self.blob_call(call),
            _ => unreachable!("{} is no call of a transaction", call.name()),
        };
        self.send_ahead();
        Ok(match buffered {
            Ok(()) => Answer::Reply(Reply::Nothing),
            Err(refusal) => Answer::Refused(refusal),
        })
    }

    fn begin(&mut self, txn: u64, meta: TransactionMeta, tid: Option<Tid>) -> Answer {
        let Some(primary) = self.writable() else { return Answer::Refused(Refusal::ReadOnly) };
        match &self.transaction {
            Some(open) if open.buffer.id == txn => return Answer::Reply(Reply::Nothing),
            Some(open) => return Answer::Refused(other(Some(open.buffer.id), txn)),
            None if self.finishing.is_some() => return Answer::Refused(other(None, txn)),
            None => {}
        }
        let claim = Claim { txn: primary.number(), primary, holds: false };
        let buffer = Transaction::new(txn, meta, tid, self.shared.env.wall(), self.shared.budget.clone());
        self.tally.active.up();
        self.transaction =
            Some(Open { buffer, claim, stage: Stage::Begun, ahead: None, resolved: false, life: Life::default() });
        Answer::Reply(Reply::Nothing)
    }

    /// Does something to the open transaction, if it is `txn` and not voted.
    fn buffer(&mut self, txn: u64, change: impl FnOnce(&mut Transaction)) -> Result<(), Refusal> {
        change(self.buffering(txn)?);
        self.tally.stores.count();
        Ok(())
    }

    /// The buffer of the open transaction, if it is `txn` and not voted.
    pub fn buffering(&mut self, txn: u64) -> Result<&mut Transaction, Refusal> {
        let open = self.open(txn)?;
        match open.stage {
            Stage::Begun | Stage::Resolving => Ok(&mut open.buffer),
            Stage::Sending(_) | Stage::Voting | Stage::Undoing(_) | Stage::Voted(_) => {
                Err(Refusal::WrongTransaction(format!("transaction {txn} is being voted")))
            }
        }
    }

    /// A call of the open transaction, one that awaits no answer, has arguments that can't be: its vote will say so.
    /// `false`: there is no vote that could.
    pub(super) fn fails_transaction(&mut self, name: &str, why: &str) -> bool {
        const CALLS: [&str; 6] =
            ["storea", "restorea", "deleteObject", "checkCurrentSerialInTransaction", "undoa", "storeBlobEnd"];
        let Some(open) = self.transaction.as_mut().filter(|_| CALLS.contains(&name)) else { return false };
        let may_vote = matches!(open.stage, Stage::Begun | Stage::Resolving);
        if may_vote {
            open.buffer.fail(Refusal::BadType(format!("{name}: {why}")));
        }
        may_vote
    }

    fn open(&mut self, txn: u64) -> Result<&mut Open, Refusal> {
        let Some(open) = &mut self.transaction else { return Err(other(None, txn)) };
        if open.buffer.id == txn { Ok(open) } else { Err(other(Some(open.buffer.id), txn)) }
    }

    fn vote(&mut self, id: &MessageId, txn: u64) -> Result<Answer, End> {
        let open = match self.open(txn) {
            Ok(open) => open,
            Err(refusal) => return Ok(Answer::Refused(refusal)),
        };
        if !matches!(open.stage, Stage::Begun | Stage::Resolving) {
            return Ok(Answer::Refused(Refusal::WrongTransaction(format!("transaction {txn} is voted already"))));
        }
        if let Some(refusal) = open.buffer.fault().cloned() {
            self.close_transaction(false);
            return Ok(Answer::Refused(refusal));
        }
        open.buffer.end();
        if open.buffer.is_staged() {
            self.begin_vote(id);
        } else {
            open.stage = Stage::Sending(id.clone());
        }
        Ok(Answer::Later)
    }

    /// All that has to be in the log before the vote is there.
    ///
    /// # Panics
    /// If no transaction is open.
    pub(super) fn begin_vote(&mut self, id: &MessageId) {
        let open = self.transaction.as_mut().expect("who asks has looked");
        open.stage = Stage::Voting;
        if open.buffer.undos.is_empty() {
            self.cast_vote(id);
        } else {
            self.look_up_undos(id);
        }
    }

    /// Asks the primary for the locks and the verdict.
    pub(super) fn cast_vote(&mut self, id: &MessageId) {
        let storage = self.seat.storage;
        let open = self.transaction.as_mut().expect("who asks has looked");
        let buffer = &open.buffer;
        let vote = tpc::Vote {
            txn: open.claim.txn,
            storage,
            writes: undo::writes(buffer),
            checks: buffer.checks().collect(),
            brings_tid: buffer.tid,
        };
        open.claim.holds = true;
        let (judged, expiry) = open.claim.primary.vote(vote);
        let (id, txn) = (id.clone(), open.claim.txn);
        self.pending.push(judged.map(move |verdict| Done::Voted(id, txn, verdict.ok())).boxed());
        self.pending.push(expiry.map(move |expired| Done::Expired(expired.is_ok().then_some(txn))).boxed());
    }

    /// The verdict on a vote is here; `None`: there is none, as the transaction is over.
    pub fn voted(&mut self, id: MessageId, txn: TxnId, verdict: Option<Verdict>) -> Result<(), End> {
        // It may have been aborted since, and another begun.
        let asks = |open: &&mut Open| open.claim.txn == txn && matches!(open.stage, Stage::Voting);
        let Some(open) = self.transaction.as_mut().filter(asks) else { return Ok(()) };
        match verdict {
            None => Err(End("vote_lost")),
            Some(Verdict::Voted(bases)) if open.buffer.undos.is_empty() => {
                self.granted(id, bases);
                Ok(())
            }
            Some(Verdict::Voted(bases)) => {
                open.stage = Stage::Undoing(bases);
                self.work_out_undos(id);
                Ok(())
            }
            Some(Verdict::Conflicts(conflicts)) => self.conflicts(id, txn, conflicts),
            Some(Verdict::Failed(refusal)) => {
                open.claim.holds = false;
                self.fail_vote(&id, &refusal)
            }
        }
    }

    /// The transaction may be finished: every write that it will have is known, and stays as it is (`contents_of_vote`). A
    /// pack that is going on sees it first.
    pub(super) fn granted(&mut self, id: MessageId, bases: Vec<(Oid, Base)>) {
        let open = self.transaction.as_ref().expect("who asks has looked");
        match open.claim.primary.packs().watch(self.seat.storage) {
            Some(watch) if watch.is_looking() => self.show_to_pack(id, bases, watch),
            // Or it collects no garbage.
            _ => self.answer_vote(&id, bases),
        }
    }

    /// Answers a vote that is granted.
    pub(super) fn answer_vote(&mut self, id: &MessageId, bases: Vec<(Oid, Base)>) {
        let open = self.transaction.as_mut().expect("who asks has looked");
        open.stage = Stage::Voted(bases);
        // The client has the data of what it sent; it drops from its cache what the undos made of their objects.
        let touched = open.buffer.undos.touched().to_vec();
        self.reply(id, Reply::Oids(touched));
    }

    /// The transaction is over.
    pub(super) fn fail_vote(&mut self, id: &MessageId, refusal: &Refusal) -> Result<(), End> {
        self.tell_news()?;
        self.close_transaction(false);
        self.refuse(id, refusal);
        Ok(())
    }

    fn conflicts(&mut self, id: MessageId, txn: TxnId, conflicts: Vec<Conflict>) -> Result<(), End> {
        self.tell_news()?;
        let newest = conflicts.iter().map(|conflict| conflict.committed).max().unwrap_or_default();
        if newest > self.view.tid() {
            // The store shows a transaction a moment before its news: what is told has to stand behind them.
            let news = self.view.reaches(newest);
            self.pending.push(news.map(move |()| Done::Voted(id, txn, Some(Verdict::Conflicts(conflicts)))).boxed());
            return Ok(());
        }
        let (storage, store) = (self.seat.storage, self.shared.store.clone());
        let open = self.transaction.as_ref().expect("who asks has looked");
        let lie = |conflict: Conflict| {
            let written = open.buffer.written(conflict.oid);
            (conflict, written)
        };
        let lie: Vec<(Conflict, Written)> = conflicts.into_iter().map(lie).collect();
        let cost = lie.iter().map(|(_, written)| ENTRY_COST as u64 + written.length()).sum::<u64>();
        if let Some((first, _)) = lie.first()
            && cost > limits::OBJECT as u64
        {
            // It can't be told in one answer, nor would a client resolve that much: it begins again.
            let refusal = Refusal::Conflict(first.clone());
            self.tally.conflicts.add(lie.len() as u64);
            self.shared.metrics.conflicts.inc();
            return self.fail_vote(&id, &refusal);
        }
        if lie.iter().map(|(_, written)| written.pieces()).sum::<u64>() <= CONFLICT_PIECES {
            return self.conflicts_read(&id, txn, tell(&store, storage, lie, &Stop::default()));
        }
        let told = self.shared.reads.begin(move |stop| tell(&store, storage, lie, stop));
        let told = open.unless_over(told.map(move |told| Done::ConflictsRead(id, txn, told)));
        self.pending.push(told);
        Ok(())
    }

    /// What a vote met is at hand: answers it.
    pub fn conflicts_read(
        &mut self,
        id: &MessageId,
        txn: TxnId,
        told: io::Result<Vec<StoreConflict>>,
    ) -> Result<(), End> {
        let asks = |open: &&mut Open| open.claim.txn == txn && matches!(open.stage, Stage::Voting);
        let Some(open) = self.transaction.as_mut().filter(asks) else { return Ok(()) };
        let told = told?;
        open.stage = Stage::Resolving;
        open.resolved = true;
        self.tally.conflicts.add(told.len() as u64);
        self.shared.metrics.conflicts.inc();
        self.reply(id, Reply::Conflicts(told));
        Ok(())
    }

    /// The transaction took too long to finish.
    pub fn expired(&mut self, txn: Option<TxnId>) -> Result<(), End> {
        let late = |open: &Open| Some(open.claim.txn) == txn;
        if !self.transaction.as_ref().is_some_and(late) {
            return Ok(());
        }
        tracing::warn!(client = %self.name, "closed a client: its transaction was not finished in time");
        Err(End("transaction_timeout"))
    }

    fn finish(&mut self, id: &MessageId, txn: u64) -> Result<Answer, End> {
        let (storage, view) = (self.seat.storage, self.view.tid());
        let Some(open) = self.transaction.as_mut().filter(|open| open.buffer.id == txn) else {
            return Ok(Answer::Reply(Reply::Nothing));
        };
        let Stage::Voted(bases) = &mut open.stage else {
            return Ok(Answer::Refused(Refusal::WrongTransaction(format!("transaction {txn} is not voted"))));
        };
        let bases = std::mem::take(bases);
        let mut writes = contents_of_vote(&open.buffer, &bases);
        for write in &mut writes {
            let Some(Wish::Restore { data, like: Some(like) }) = open.buffer.wished(write.oid) else { continue };
            // What the client says of an older revision is a hint, worth a look: equal data is stored once.
            let is_known = match data {
                None => self.shared.store.is_like(storage, write.oid, *like, view, None)?,
                Some(Record::Here(data)) => self.shared.store.is_like(storage, write.oid, *like, view, Some(data))?,
                Some(Record::Ahead(item)) => {
                    let hash = open.buffer.staged(*item).hash;
                    *like <= view && self.shared.store.content_of(storage, write.oid, *like)? == Some(hash)
                }
            };
            if is_known {
                write.content = Content::SameAs(*like);
            }
        }
        let (own_tid, writes) = (open.buffer.tid, open.buffer.with_repeats(writes));
        self.propose(id, txn, own_tid, writes)
    }

    fn propose(&mut self, id: &MessageId, txn: u64, own_tid: Option<Tid>, writes: Vec<Write>) -> Result<Answer, End> {
        let open = self.transaction.take().expect("who asks has looked");
        let Open { mut buffer, mut claim, mut ahead, resolved, .. } = open;
        if let Some(ahead) = &mut ahead {
            ahead.is_named(&writes);
        }
        let meta = std::mem::take(&mut buffer.meta);
        let (stores, baggage) = (writes.len() as u64, Baggage { reserved: buffer.into_reservation(), ahead });
        let (tid, answer) = match claim.primary.finish(claim.txn, self.seat.storage, own_tid, meta, writes, baggage) {
            Ok(proposed) => proposed,
            Err(Refusal::NotPrimary(_)) => {
                self.ended(false);
                return Err(End("reign_over"));
            }
            Err(refusal) => {
                tracing::warn!(client = %self.name, txn, %refusal, "a finish was refused");
                self.ended(false);
                return Ok(Answer::Refused(refusal));
            }
        };
        // From here on the locks belong to the proposal.
        claim.holds = false;
        self.view.begin_own(tid);
        self.finishing = Some(Finishing { id: id.clone(), tid, stores, resolved });
        self.pending.push(answer.map(|outcome| Done::Finished(outcome.ok())).boxed());
        Ok(Answer::Later)
    }

    /// The outcome of a finish is known, or that it never will be.
    pub fn finished(&mut self, outcome: Option<Result<Outcome, Unknown>>) -> Result<(), End> {
        match outcome {
            Some(Ok(Outcome::Committed(tid))) => {
                let finishing = self.finishing.take().expect("a finish has one outcome");
                assert_eq!(tid, finishing.tid, "a transaction commits with the tid that it was given");
                self.tell_news()?;
                self.view.own_committed();
                self.tell_size();
                self.reply(&finishing.id, Reply::Tid(tid));
                self.shared.metrics.stores.inc_by(finishing.stores);
                if finishing.resolved {
                    self.shared.metrics.conflicts_resolved.inc();
                    self.tally.resolved.count();
                }
                self.ended(true);
                Ok(())
            }
            Some(Ok(Outcome::Refused(refusal))) => {
                let finishing = self.finishing.take().expect("a finish has one outcome");
                tracing::error!(client = %self.name, tid = %finishing.tid, %refusal, "a voted transaction was refused");
                self.view.own_refused();
                self.tell_news()?;
                self.refuse(&finishing.id, &refusal);
                self.ended(false);
                Ok(())
            }
            Some(Ok(Outcome::Stale)) => {
                // It has not committed; the connection is about to end with its reign anyway.
                self.finishing = None;
                self.ended(false);
                Err(End("reign_over"))
            }
            Some(Ok(other)) => unreachable!("no outcome of a commit: {other:?}"),
            // It never got as far as the log.
            None => {
                self.finishing = None;
                self.ended(false);
                Err(End("reign_over"))
            }
            Some(Err(Unknown)) => Err(End("unknown_outcome")),
        }
    }

    fn abort(&mut self, txn: u64) {
        if self.open(txn).is_ok() {
            self.close_transaction(true);
        }
    }

    /// Forgets the open transaction and lets go of its locks. `by_client`: it asked for that.
    fn close_transaction(&mut self, by_client: bool) {
        if self.transaction.take().is_some() {
            self.tally.active.down();
            self.shared.metrics.aborts.inc();
            if by_client {
                self.tally.aborts.count();
            }
        }
    }

    fn ended(&mut self, committed: bool) {
        self.tally.active.down();
        if committed {
            self.tally.commits.count();
            self.shared.metrics.commits.inc();
        } else {
            self.shared.metrics.aborts.inc();
        }
    }

    /// The client is gone, or about to be: forgets what is not being finished.
    pub fn drop_transaction(&mut self) {
        self.close_transaction(false);
    }
}

/// What is told of conflicts: the client resolves them with the data that it had sent.
fn tell(
    store: &Store,
    storage: StorageId,
    conflicts: Vec<(Conflict, Written)>,
    stop: &Stop,
) -> io::Result<Vec<StoreConflict>> {
    let tell = |(Conflict { oid, committed, read }, written)| {
        stop.look()?;
        let data = match written {
            Written::Here(data) => data,
            Written::Ahead(staged) => store.read_staged(storage, &staged)?,
        };
        Ok(StoreConflict { oid, committed, read, data })
    };
    conflicts.into_iter().map(tell).collect()
}

/// The writes of a transaction whose vote is granted, or about to be: what it stores, and what its undos made of their objects.
pub(super) fn contents_of_vote(buffer: &Transaction, bases: &[(Oid, Base)]) -> Vec<Write> {
    let write = |&(oid, base): &(Oid, Base)| match buffer.undos.undone(oid) {
        Some(Undone { content, blob }) => Write { oid, base, content: content.clone(), blob: blob.clone() },
        None => buffer.write(oid, base).expect("a voted transaction is as it was voted"),
    };
    bases.iter().map(write).collect()
}

/// A record as iterators give it.
pub fn iterated(revision: Revision) -> Reply {
    let data = match revision.state {
        State::Data(data) => Some(data),
        State::Absent => None,
    };
    Reply::IteratedRecord { oid: revision.oid, tid: revision.tid, data, data_tid: revision.data_tid }
}

fn other(open: Option<u64>, given: u64) -> Refusal {
    Refusal::WrongTransaction(match open {
        Some(open) => format!("transaction {open} is open, not {given}"),
        None => format!("transaction {given} is not open"),
    })
}
