//! A client's transactions: `tpc_begin` to `tpc_finish`.
//!
//! ```text
//!   tpc_begin, storea …   Begun        buffered, or sent ahead into the log; nothing is locked   buffer, uploads
//!   vote                  Sending      all that goes ahead of the vote is on its way             uploads
//!                         Voting       which objects do its undos touch?                         undo
//!                                      the primary takes the locks, or waits for them            vote
//!     conflicts           Resolving    locks held; storea … and vote again                       conflicts
//!     undoes something    Undoing      locks held; what it becomes is worked out                 undo
//!                                      a pack that is going on sees it                           show
//!     answered            Voted        locks held
//!   tpc_finish            (finishing)  tid given, in the queue to the log; locks belong to it    finish
//! ```
//!
//! A session has one transaction at a time. A transaction ends with the answer to `tpc_finish`, with `tpc_abort`, with
//! a vote that fails, or with the session.
//!
//! [`Commits`] leads a transaction from stage to stage; the work of each stage is in the file that the picture names.
//! The result that a stage has waited for comes back here, and is passed over if its transaction is over by then.

use std::collections::BTreeMap;
use std::io;

use tokio::time::Instant;

use super::desk::{Answer, Desk, End};
use crate::command::{Base, Outcome};
use crate::config::limits;
use crate::raft::Unknown;
use crate::server::counts::Why;
use crate::server::primary::Verdict;
use crate::storage::{Answered, Undone};
use crate::tpc::TxnId;
use crate::zeo::{Call, MessageId, Reply, StoreConflict, tid_of_undo_id};
use crate::zodb::{Conflict, Oid, Refusal, Tid, TransactionMeta};

mod buffer;
mod conflicts;
mod finish;
mod life;
mod open;
#[cfg(test)]
mod scripts;
mod show;
mod staging;
mod undo;
pub mod undos;
mod uploads;
mod vote;
mod wish;

use buffer::Buffer;
use conflicts::Conflicts;
use finish::Finishing;
use open::{OpenTransaction, Stage};
use undos::Touched;
use wish::{Record, Wish};

/// The calls of a transaction that await no answer, as clients name them.
const UNANSWERED: [&str; 6] =
    ["storea", "restorea", "deleteObject", "checkCurrentSerialInTransaction", "undoa", "storeBlobEnd"];

/// The transactions of one client.
pub struct Commits {
    open: Option<OpenTransaction>,
    finishing: Option<Finishing>,
    /// When the client last made a call of a transaction.
    last_call: Instant,
}

impl Commits {
    pub fn new(now: Instant) -> Commits {
        Commits { open: None, finishing: None, last_call: now }
    }

    /// Makes a call that belongs to a transaction.
    pub fn call(&mut self, desk: &mut Desk, id: &MessageId, call: Call) -> Result<Answer, End> {
        self.last_call = desk.env().now();
        let buffered = match call {
            Call::TpcBegin { txn, user, description, extension, tid, status } => {
                let (user, description, extension) = (user.to_vec(), description.to_vec(), extension.to_vec());
                return Ok(self.begin(desk, txn, TransactionMeta { status, user, description, extension }, tid));
            }
            Call::Vote(txn) => return Ok(self.vote(desk, id, txn)),
            Call::TpcFinish(txn) => return self.finish(desk, id, txn),
            Call::TpcAbort(txn) => return Ok(self.abort(desk, txn)),
            Call::StoreA { oid, serial, data, txn } => self.change(desk, txn, |buffer| {
                buffer.wish(oid, Wish::Store { base: serial.unwrap_or(Tid::ZERO), data: data.into() });
            }),
            Call::CheckCurrentSerial { oid, serial, txn } => self.change(desk, txn, |buffer| buffer.check(oid, serial)),
            Call::DeleteObject { oid, serial, txn } => {
                self.change(desk, txn, |buffer| buffer.wish(oid, Wish::Delete { base: serial }))
            }
            Call::RestoreA { oid, data, prev_txn, txn, .. } => {
                let data = data.map(Record::Here);
                self.change(desk, txn, |buffer| buffer.wish(oid, Wish::Restore { data, like: prev_txn }))
            }
            Call::UndoA { id, txn } => self.change(desk, txn, |buffer| match tid_of_undo_id(&id) {
                Some(tid) => buffer.undo(tid),
                None => buffer.fail(Refusal::NotUndoable("that names no transaction".into())),
            }),
            Call::StoreBlobEnd { oid, serial, data, txn } => self.buffering(txn).and_then(|buffer| {
                buffer.end_blob(oid, serial.unwrap_or(Tid::ZERO), data)?;
                desk.tally.stores.count();
                Ok(())
            }),
            Call::StoreBlobShared { txn, .. } => self.buffering(txn).map(|buffer| buffer.fail(uploads::not_shared())),
            // The parts of a blob do not say to which transaction they belong. If their application has aborted it
            // since, they are for nobody.
            Call::StoreBlobStart => self.if_buffering(|buffer| buffer.begin_blob()),
            Call::StoreBlobChunk(chunk) => self.if_buffering(|buffer| buffer.blob_chunk(&chunk)),
            _ => unreachable!("{} is no call of a transaction", call.name()),
        };
        if let Some(open) = &mut self.open {
            if open.ahead.is_some()
                && let Some(why) = desk.shared.node.no_room()
            {
                open.buffer.fail(Refusal::TooLarge(why));
            }
            uploads::send_ahead(desk, open);
        }
        Ok(buffered.map(|()| Reply::Nothing).into())
    }

    /// Whether the open transaction has room for more.
    pub fn has_room(&self) -> bool {
        self.open.as_ref().is_none_or(|open| open.buffer.held() <= limits::STAGING_HIGH_WATER)
    }

    /// When the open transaction expires if its client says no more: set if it has data in the log.
    pub fn expiry(&self) -> Option<Instant> {
        let open = self.open.as_ref().filter(|open| open.ahead.is_some() && open.may_vote());
        open.map(|_| self.last_call + limits::STAGE_EXPIRY)
    }

    /// Whether the outcome of a finish is awaited.
    pub fn is_finishing(&self) -> bool {
        self.finishing.is_some()
    }

    /// A call of the open transaction, one that awaits no answer, has arguments that can't be: the vote will be
    /// refused. `false`: no vote is to come.
    pub fn fails_at_vote(&mut self, name: &str, why: &str) -> bool {
        let Some(open) = self.open.as_mut().filter(|open| UNANSWERED.contains(&name) && open.may_vote()) else {
            return false;
        };
        open.buffer.fail(Refusal::BadType(format!("{name}: {why}")));
        true
    }

    fn begin(&mut self, desk: &Desk, txn: u64, meta: TransactionMeta, tid: Option<Tid>) -> Answer {
        let Some(primary) = desk.writable() else { return Answer::Refused(Refusal::ReadOnly) };
        match &self.open {
            Some(open) if open.buffer.id == txn => return Answer::Reply(Reply::Nothing),
            Some(open) => return Answer::Refused(other(Some(open.buffer.id), txn)),
            None if self.finishing.is_some() => return Answer::Refused(other(None, txn)),
            None => {}
        }
        let sizes = desk.shared.config.sizes;
        let mut buffer = Buffer::new(txn, meta, tid, desk.env().wall(), desk.shared.budget.clone(), sizes);
        // (Stock clients await no answer here: they are told at the vote, and nothing of theirs is kept until then.)
        if let Some(why) = desk.shared.node.no_room() {
            buffer.fail(Refusal::TooLarge(why));
        }
        desk.tally.active.up();
        self.open = Some(OpenTransaction::new(buffer, primary));
        Answer::Reply(Reply::Nothing)
    }

    /// Applies a function to the open transaction, if that is `txn` and not voted.
    fn change(&mut self, desk: &Desk, txn: u64, change: impl FnOnce(&mut Buffer)) -> Result<(), Refusal> {
        change(self.buffering(txn)?);
        desk.tally.stores.count();
        Ok(())
    }

    /// The buffer of the open transaction, if it is `txn` and not voted.
    fn buffering(&mut self, txn: u64) -> Result<&mut Buffer, Refusal> {
        let open = self.named(txn)?;
        if !open.may_vote() {
            return Err(Refusal::WrongTransaction(format!("transaction {txn} is being voted")));
        }
        Ok(&mut open.buffer)
    }

    /// Applies a function to the open transaction, if there is one that is not voted.
    fn if_buffering(&mut self, change: impl FnOnce(&mut Buffer)) -> Result<(), Refusal> {
        if let Some(open) = self.open.as_mut().filter(|open| open.may_vote()) {
            change(&mut open.buffer);
        }
        Ok(())
    }

    /// The open transaction, if its client names it so.
    fn named(&mut self, txn: u64) -> Result<&mut OpenTransaction, Refusal> {
        let Some(open) = &mut self.open else { return Err(other(None, txn)) };
        if open.buffer.id == txn { Ok(open) } else { Err(other(Some(open.buffer.id), txn)) }
    }

    /// The open transaction, if its number is this one: a result may belong to a transaction that was aborted since.
    fn numbered(&mut self, txn: TxnId) -> Option<&mut OpenTransaction> {
        self.open.as_mut().filter(|open| open.claim.txn == txn)
    }

    fn abort(&mut self, desk: &Desk, txn: u64) -> Answer {
        if self.named(txn).is_ok() && self.close(desk) {
            desk.tally.aborts.count();
        }
        Answer::Reply(Reply::Nothing)
    }

    fn vote(&mut self, desk: &mut Desk, id: &MessageId, txn: u64) -> Answer {
        let open = match self.named(txn) {
            Ok(open) => open,
            Err(refusal) => return Answer::Refused(refusal),
        };
        if !open.may_vote() {
            return Answer::Refused(Refusal::WrongTransaction(format!("transaction {txn} is voted already")));
        }
        if let Some(refusal) = open.buffer.fault().cloned() {
            self.close(desk);
            return Answer::Refused(refusal);
        }
        open.buffer.end();
        if open.buffer.is_staged() {
            begin_vote(desk, open, id);
        } else {
            open.stage = Stage::Sending(id.clone());
        }
        Answer::Later
    }

    /// Pieces of `txn` are in the log, the first numbered `first`; `None`: the reign ended before.
    pub fn sent_ahead(&mut self, desk: &mut Desk, txn: TxnId, first: Option<u64>) -> Result<(), End> {
        let first = first.ok_or(End(Why::ReignOver))?;
        // (Pieces of a transaction that is over are being discarded.)
        let Some(open) = self.numbered(txn) else { return Ok(()) };
        open.buffer.landed(first);
        uploads::send_ahead(desk, open);
        if open.buffer.is_staged()
            && let Stage::Sending(id) = &open.stage
        {
            let id = id.clone();
            begin_vote(desk, open, &id);
        }
        Ok(())
    }

    /// The objects that the undos of `txn` touch are known.
    pub fn undos_looked_up(
        &mut self,
        desk: &mut Desk,
        id: &MessageId,
        txn: TxnId,
        found: Answered<Touched>,
    ) -> Result<(), End> {
        let Some(open) = self.numbered(txn) else { return Ok(()) };
        match found? {
            Ok(touched) => open.buffer.touch(touched),
            Err(refusal) => return self.fail_vote(desk, id, &refusal),
        }
        if let Some(refusal) = open.buffer.fault().cloned() {
            return self.fail_vote(desk, id, &refusal);
        }
        vote::cast(desk, open, id);
        Ok(())
    }

    /// The verdict on a vote; `None`: the primary has given none.
    pub fn voted(&mut self, desk: &mut Desk, id: &MessageId, txn: TxnId, verdict: Option<Verdict>) -> Result<(), End> {
        let Some(open) = self.numbered(txn).filter(|open| matches!(open.stage, Stage::Voting)) else { return Ok(()) };
        match verdict {
            None => return Err(End(Why::VoteLost)),
            Some(Verdict::Voted(bases)) if open.buffer.undos.is_empty() => granted(desk, open, id, bases),
            Some(Verdict::Voted(bases)) => {
                open.stage = Stage::Undoing(bases);
                undo::work_out(desk, open, id);
            }
            Some(Verdict::Conflicts(conflicts)) => return self.conflicts(desk, id, txn, conflicts),
            Some(Verdict::Failed(refusal)) => {
                open.claim.holds = false;
                return self.fail_vote(desk, id, &refusal);
            }
        }
        Ok(())
    }

    /// The objects as the undos of `txn` leave them are known.
    pub fn undone(
        &mut self,
        desk: &mut Desk,
        id: &MessageId,
        txn: TxnId,
        undone: Answered<BTreeMap<Oid, Undone>>,
    ) -> Result<(), End> {
        let Some(open) = self.numbered(txn) else { return Ok(()) };
        let Stage::Undoing(bases) = &mut open.stage else { return Ok(()) };
        match undone? {
            Ok(undone) => {
                let bases = std::mem::take(bases);
                open.buffer.undos.set_undone(undone);
                granted(desk, open, id, bases);
                Ok(())
            }
            Err(refusal) => self.fail_vote(desk, id, &refusal),
        }
    }

    /// A pack has seen the references of the granted vote of `txn`.
    pub fn shown(
        &mut self,
        desk: &mut Desk,
        id: &MessageId,
        txn: TxnId,
        bases: Vec<(Oid, Base)>,
        told: Result<(), Refusal>,
    ) -> Result<(), End> {
        let is_granted = |open: &&mut OpenTransaction| matches!(open.stage, Stage::Voting | Stage::Undoing(_));
        let Some(open) = self.numbered(txn).filter(is_granted) else { return Ok(()) };
        match told {
            Ok(()) => {
                vote::answer(desk, open, id, bases);
                Ok(())
            }
            Err(refusal) => {
                tracing::info!(client = %desk.name, %refusal, "a vote failed beside a pack");
                self.fail_vote(desk, id, &refusal)
            }
        }
    }

    fn conflicts(&mut self, desk: &mut Desk, id: &MessageId, txn: TxnId, met: Vec<Conflict>) -> Result<(), End> {
        desk.tell_news()?;
        let Some(open) = self.numbered(txn) else { return Ok(()) };
        match conflicts::read(desk, open, id, met) {
            Conflicts::Later => Ok(()),
            Conflicts::Read(conflicts) => self.conflicts_read(desk, id, txn, conflicts),
            Conflicts::TooMuch(refusal) => self.fail_vote(desk, id, &refusal),
        }
    }

    /// The conflicts that the vote of `txn` met are read.
    pub fn conflicts_read(
        &mut self,
        desk: &mut Desk,
        id: &MessageId,
        txn: TxnId,
        conflicts: io::Result<Vec<StoreConflict>>,
    ) -> Result<(), End> {
        let Some(open) = self.numbered(txn).filter(|open| matches!(open.stage, Stage::Voting)) else { return Ok(()) };
        conflicts::answer(desk, open, id, conflicts?);
        Ok(())
    }

    /// The transaction is over: its vote is refused.
    fn fail_vote(&mut self, desk: &mut Desk, id: &MessageId, refusal: &Refusal) -> Result<(), End> {
        desk.tell_news()?;
        self.close(desk);
        desk.refuse(id, refusal);
        Ok(())
    }

    /// `txn` has held its locks for too long; `None`: a transaction that is over had not.
    pub fn expired(&mut self, desk: &Desk, txn: Option<TxnId>) -> Result<(), End> {
        if txn.and_then(|txn| self.numbered(txn)).is_none() {
            return Ok(());
        }
        tracing::warn!(client = %desk.name, "closed a client: its transaction was not finished in time");
        Err(End(Why::TransactionTimeout))
    }

    fn finish(&mut self, desk: &mut Desk, id: &MessageId, txn: u64) -> Result<Answer, End> {
        let Ok(open) = self.named(txn) else { return Ok(Answer::Reply(Reply::Nothing)) };
        let Stage::Voted(bases) = &mut open.stage else {
            return Ok(Answer::Refused(Refusal::WrongTransaction(format!("transaction {txn} is not voted"))));
        };
        let bases = std::mem::take(bases);
        let writes = finish::writes(desk, &open.buffer, &bases)?;
        let open = self.open.take().expect("the open transaction was looked at above");
        match finish::propose(desk, open, id, writes) {
            Ok(finishing) => {
                self.finishing = Some(finishing);
                Ok(Answer::Later)
            }
            Err(Refusal::NotPrimary(_)) => {
                count_end(desk, false);
                Err(End(Why::ReignOver))
            }
            Err(refusal) => {
                tracing::warn!(client = %desk.name, txn, %refusal, "a finish was refused");
                count_end(desk, false);
                Ok(Answer::Refused(refusal))
            }
        }
    }

    /// The outcome of a finish is known, or will never be. `None`: the finish never got as far as the log.
    pub fn finished(&mut self, desk: &mut Desk, outcome: Option<Result<Outcome, Unknown>>) -> Result<(), End> {
        if let Some(Err(Unknown)) = outcome {
            return Err(End(Why::UnknownOutcome));
        }
        let finishing = self.finishing.take().expect("a finish has one outcome");
        match outcome {
            Some(Ok(Outcome::Committed(tid))) => {
                finish::committed(desk, &finishing, tid)?;
                count_end(desk, true);
                Ok(())
            }
            Some(Ok(Outcome::Refused(refusal))) => {
                finish::refused(desk, &finishing, &refusal)?;
                count_end(desk, false);
                Ok(())
            }
            // The connection is about to end with its reign anyway.
            Some(Ok(Outcome::Stale)) | None => {
                count_end(desk, false);
                Err(End(Why::ReignOver))
            }
            Some(other) => unreachable!("no outcome of a commit: {other:?}"),
        }
    }

    /// Forgets the open transaction and lets go of its locks. `false`: there is none.
    pub fn close(&mut self, desk: &Desk) -> bool {
        let was_open = self.open.take().is_some();
        if was_open {
            count_end(desk, false);
        }
        was_open
    }
}

/// All that goes ahead of the vote is in the log.
fn begin_vote(desk: &mut Desk, open: &mut OpenTransaction, id: &MessageId) {
    open.stage = Stage::Voting;
    if open.buffer.undos.is_empty() {
        vote::cast(desk, open, id);
    } else {
        undo::look_up(desk, open, id);
    }
}

/// The transaction holds its locks and may be finished: every write that it will have is known. A pack that is going
/// on sees it first.
fn granted(desk: &mut Desk, open: &mut OpenTransaction, id: &MessageId, bases: Vec<(Oid, Base)>) {
    match open.claim.primary.packs().watch(desk.storage()) {
        Some(watch) if watch.collects() => show::show(desk, open, id, bases, watch),
        _ => vote::answer(desk, open, id, bases),
    }
}

/// Counts the end of a transaction.
fn count_end(desk: &Desk, committed: bool) {
    desk.tally.active.down();
    if committed {
        desk.tally.commits.count();
        desk.shared.metrics.commits.inc();
    } else {
        desk.shared.metrics.aborts.inc();
    }
}

fn other(open: Option<u64>, given: u64) -> Refusal {
    Refusal::WrongTransaction(match open {
        Some(open) => format!("transaction {open} is open, not {given}"),
        None => format!("transaction {given} is not open"),
    })
}
