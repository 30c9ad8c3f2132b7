//! Undo: what a transaction undoes, and the log of what can be undone.
//!
//! ```text
//!   undoa …      the transactions are noted, in order
//!   vote         which objects do they touch?        read, on a thread that may take its time
//!                the locks of those and of the stores; whatever is current is what the undo goes by
//!                what do they become?                read under the locks (`storage::undo`)
//!                the vote is answered with the objects, or the transaction is over
//! ```
//!
//! What is committed between the two readings does no harm: the objects of a transaction never change, and all else
//! is read under the locks. The session goes on with other calls meanwhile; a timeout, an abort or the client's end free the
//! locks, and the result of a reading that is still under way is thrown away.
//!
//! **Left out**: merging. An undo that would need the application's classes fails; the client is told which objects
//! stand in the way.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use futures_util::FutureExt;

use super::commit::Stage;
use super::session::{Answer, Done, End, Session};
use super::transaction::Transaction;
use crate::command::Base;
use crate::config::limits;
use crate::storage::{Own, Store, UndoEntry, Undone};
use crate::tpc::TxnId;
use crate::zeo::{MessageId, Reply, UndoItem, Value};
use crate::zodb::{Oid, Refusal, StorageId, Tid};

/// What a transaction undoes.
#[derive(Debug, Default)]
pub struct Undos {
    /// Which transactions, in order.
    tids: Vec<Tid>,
    /// For objects that were stored after the first of them: how many came before the last store.
    stored: BTreeMap<Oid, usize>,
    /// The objects of those transactions, each once.
    touched: Vec<Oid>,
    /// What they become, but for those that are stored afterwards.
    undone: BTreeMap<Oid, Undone>,
}

impl Undos {
    /// Adds one.
    pub fn push(&mut self, tid: Tid) {
        self.tids.push(tid);
    }

    /// Whether nothing is undone.
    pub fn is_empty(&self) -> bool {
        self.tids.is_empty()
    }

    /// Which transactions are undone, in order.
    pub fn tids(&self) -> &[Tid] {
        &self.tids
    }

    /// `oid` is stored: after all undos that there are by now.
    pub fn stored(&mut self, oid: Oid) {
        if !self.tids.is_empty() {
            self.stored.insert(oid, self.tids.len());
        }
    }

    /// Notes which objects the undos touch.
    pub fn touch(&mut self, oids: Vec<Oid>) {
        self.touched = oids;
    }

    /// The objects that the undos touch.
    pub fn touched(&self) -> &[Oid] {
        &self.touched
    }

    /// What an object becomes by the undos.
    pub fn undone(&self, oid: Oid) -> Option<&Undone> {
        self.undone.get(&oid)
    }
}

/// What the transaction itself makes of the objects that its undos touch.
fn own(buffer: &Transaction) -> BTreeMap<Oid, Own> {
    let own = |oid: &Oid| {
        let content = buffer.write(*oid, Base::Any)?.content;
        Some((*oid, Own { undos: buffer.undos.stored.get(oid).copied().unwrap_or(0), content }))
    };
    buffer.undos.touched.iter().filter_map(own).collect()
}

/// The objects that undoing `tids` touches, in order, each once.
fn touched(store: &Store, storage: StorageId, tids: &[Tid]) -> io::Result<Result<Vec<Oid>, Refusal>> {
    let (mut oids, mut seen, mut records) = (Vec::new(), BTreeSet::new(), 0);
    for &tid in tids {
        let more = match store.undoable(storage, tid)? {
            Ok(more) => more,
            Err(refusal) => return Ok(Err(refusal)),
        };
        records += more.len();
        if records > limits::TRANSACTION_LOCKS {
            let why = format!("a transaction may undo {} records", limits::TRANSACTION_LOCKS);
            return Ok(Err(Refusal::TooLarge(why)));
        }
        oids.extend(more.into_iter().filter(|oid| seen.insert(*oid)));
    }
    Ok(Ok(oids))
}

impl Session {
    /// A vote is to be cast for a transaction that undoes others: looks up which objects that touches.
    pub(super) fn look_up_undos(&mut self, id: &MessageId) {
        let open = self.transaction.as_ref().expect("who asks has looked");
        let (txn, tids) = (open.claim.txn, open.buffer.undos.tids().to_vec());
        let (id, env, store, storage) =
            (id.clone(), self.shared.env.clone(), self.shared.store.clone(), self.seat.storage);
        let found = async move {
            let found = env.offload(move || touched(&store, storage, &tids)).await;
            Done::UndosLookedUp(id, txn, found)
        };
        self.pending.push(found.boxed());
    }

    /// It is known which objects the undos touch: casts the vote.
    pub fn undos_looked_up(
        &mut self,
        id: MessageId,
        txn: TxnId,
        found: io::Result<Result<Vec<Oid>, Refusal>>,
    ) -> Result<(), End> {
        let Some(open) = self.transaction.as_mut().filter(|open| open.claim.txn == txn) else { return Ok(()) };
        match found? {
            Ok(oids) => open.buffer.touch(oids),
            Err(refusal) => return self.fail_vote(&id, &refusal),
        }
        if let Some(refusal) = open.buffer.fault().cloned() {
            return self.fail_vote(&id, &refusal);
        }
        self.cast_vote(&id);
        Ok(())
    }

    /// The locks are held: works out what the undos make of their objects.
    pub(super) fn work_out_undos(&mut self, id: MessageId) {
        let open = self.transaction.as_ref().expect("who asks has looked");
        let (txn, tids, own) = (open.claim.txn, open.buffer.undos.tids().to_vec(), own(&open.buffer));
        let (env, store, storage) = (self.shared.env.clone(), self.shared.store.clone(), self.seat.storage);
        let undone = async move {
            let undone = env.offload(move || store.undo(storage, &tids, &own)).await;
            Done::Undone(id, txn, undone)
        };
        self.pending.push(undone.boxed());
    }

    /// It is known what the undos make of their objects: answers the vote.
    pub fn undone(
        &mut self,
        id: MessageId,
        txn: TxnId,
        undone: io::Result<Result<BTreeMap<Oid, Undone>, Refusal>>,
    ) -> Result<(), End> {
        let Some(open) = self.transaction.as_mut().filter(|open| open.claim.txn == txn) else { return Ok(()) };
        let Stage::Undoing(bases) = &mut open.stage else { return Ok(()) };
        match undone? {
            Ok(undone) => {
                let bases = std::mem::take(bases);
                open.buffer.undos.undone = undone;
                self.granted(id, bases);
                Ok(())
            }
            Err(refusal) => self.fail_vote(&id, &refusal),
        }
    }

    /// `undoLog`, and `undoInfo`, whose specification every entry has to match.
    pub(super) fn undo_log(
        &mut self,
        id: &MessageId,
        first: i64,
        last: i64,
        specification: Vec<(String, Value<'static>)>,
    ) -> Result<Answer, End> {
        self.tell_news()?;
        // As `FileStorage.undoLog` says it: at most `-last` from `first` on.
        let last = if last < 0 { first.saturating_sub(last) } else { last };
        let (id, env, store) = (id.clone(), self.shared.env.clone(), self.shared.store.clone());
        let (storage, view) = (self.seat.storage, self.view.tid());
        let item = |entry: UndoEntry| UndoItem { tid: entry.tid, meta: entry.meta, size: entry.size };
        let search = move || {
            let wanted = |entry: &UndoEntry| specification.is_empty() || item(entry.clone()).matches(&specification);
            let found = store.undo_log(storage, view, first, last, wanted)?;
            Ok(found.into_iter().map(item).collect())
        };
        self.searches += 1;
        let found = async move { Done::Searched(id, env.offload(search).await) };
        self.pending.push(found.boxed());
        Ok(Answer::Later)
    }

    /// A search of the undo log is over.
    pub fn searched(&mut self, id: &MessageId, found: io::Result<Vec<UndoItem>>) -> Result<(), End> {
        self.searches -= 1;
        self.reply(id, Reply::UndoLog(found?));
        Ok(())
    }
}
