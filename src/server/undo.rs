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
//! locks, and a reading that is still under way stops.
//!
//! **Left out**: merging. An undo that would need the application's classes fails; the client is told which objects
//! stand in the way.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use futures_util::FutureExt;

use super::commit::Stage;
use super::session::{Answer, Done, End, Session};
use super::transaction::{ENTRY_COST, Transaction};
use crate::command::Base;
use crate::config::limits;
use crate::storage::{OwnWrite, Stop, Store, UndoEntry, Undone};
use crate::tpc::{Read, TxnId};
use crate::zeo::{MessageId, Reply, UndoItem, Value};
use crate::zodb::{Oid, Refusal, StorageId, Tid};

/// Objects that one transaction may undo: each costs it an entry.
const UNDONE: usize = limits::TRANSACTION_BYTES / ENTRY_COST;

/// What a transaction undoes.
#[derive(Debug, Default)]
pub struct Undos {
    /// Which transactions, in order.
    tids: Vec<Tid>,
    /// How many objects had been stored when each was asked for.
    after: Vec<usize>,
    /// For objects that were stored after the first of them: how many came before the last store.
    stored: BTreeMap<Oid, usize>,
    /// The objects of those transactions.
    touched: Touched,
    /// What they become, but for those that are stored afterwards.
    undone: BTreeMap<Oid, Undone>,
}

/// The objects of the undone transactions, in order, each once.
#[derive(Debug, Default)]
pub struct Touched {
    oids: Vec<Oid>,
    /// Where those of each transaction end that are in none of the earlier ones.
    ends: Vec<usize>,
}

impl Undos {
    /// Adds one, after so many objects were stored.
    pub fn push(&mut self, tid: Tid, stored: usize) {
        self.tids.push(tid);
        self.after.push(stored);
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
    pub fn touch(&mut self, touched: Touched) {
        self.touched = touched;
    }

    /// The objects that the undos touch.
    pub fn touched(&self) -> &[Oid] {
        &self.touched.oids
    }

    /// What an object becomes by the undos.
    pub fn undone(&self, oid: Oid) -> Option<&Undone> {
        self.undone.get(&oid)
    }
}

/// All that a transaction writes, in the order in which it was asked for: what its undos touch stands where they came.
pub(super) fn writes(buffer: &Transaction) -> Vec<(Oid, Read)> {
    let Undos { after, touched, .. } = &buffer.undos;
    let mut wishes = buffer.wishes().map(|(oid, wish)| (oid, wish.read())).fuse();
    let mut writes = Vec::new();
    let (mut stored, mut from) = (0, 0);
    for (&after, &end) in after.iter().zip(&touched.ends) {
        writes.extend(wishes.by_ref().take(after - stored));
        let undone = touched.oids[from..end].iter().filter(|oid| buffer.wished(**oid).is_none());
        writes.extend(undone.map(|oid| (*oid, Read::Current)));
        (stored, from) = (after, end);
    }
    writes.extend(wishes);
    writes
}

/// What the transaction itself makes of the objects that its undos touch.
fn own(buffer: &Transaction) -> BTreeMap<Oid, OwnWrite> {
    let own = |oid: &Oid| {
        let content = buffer.write(*oid, Base::Any)?.content;
        Some((*oid, OwnWrite { undos: buffer.undos.stored.get(oid).copied().unwrap_or(0), content }))
    };
    buffer.undos.touched().iter().filter_map(own).collect()
}

/// The objects that undoing `tids` touches.
fn touched(store: &Store, storage: StorageId, tids: &[Tid], stop: &Stop) -> io::Result<Result<Touched, Refusal>> {
    let (mut touched, mut seen, mut records) = (Touched::default(), BTreeSet::new(), 0);
    for &tid in tids {
        stop.look()?;
        // More would not fit into the transaction that undoes: they need not even be read.
        let more = match store.undoable(storage, tid, UNDONE, stop)? {
            Ok(more) => more,
            Err(refusal) => return Ok(Err(refusal)),
        };
        records += more.len();
        touched.oids.extend(more.into_iter().filter(|oid| seen.insert(*oid)));
        if records > limits::TRANSACTION_LOCKS || touched.oids.len() > UNDONE {
            let why = format!("a transaction may undo {} records of {UNDONE} objects", limits::TRANSACTION_LOCKS);
            return Ok(Err(Refusal::TooLarge(why)));
        }
        touched.ends.push(touched.oids.len());
    }
    Ok(Ok(touched))
}

impl Session {
    /// A vote is to be cast for a transaction that undoes others: looks up which objects that touches.
    pub(super) fn look_up_undos(&mut self, id: &MessageId) {
        let open = self.transaction.as_ref().expect("who asks has looked");
        let (txn, tids) = (open.claim.txn, open.buffer.undos.tids().to_vec());
        let (id, store, storage) = (id.clone(), self.shared.store.clone(), self.seat.storage);
        let found = self.shared.reads.begin(move |stop| touched(&store, storage, &tids, stop));
        let found = open.unless_over(found.map(move |found| Done::UndosLookedUp(id, txn, found)));
        self.pending.push(found);
    }

    /// It is known which objects the undos touch: casts the vote.
    pub fn undos_looked_up(
        &mut self,
        id: MessageId,
        txn: TxnId,
        found: io::Result<Result<Touched, Refusal>>,
    ) -> Result<(), End> {
        let Some(open) = self.transaction.as_mut().filter(|open| open.claim.txn == txn) else { return Ok(()) };
        match found? {
            Ok(touched) => open.buffer.touch(touched),
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
        let (store, storage) = (self.shared.store.clone(), self.seat.storage);
        let undone = self.shared.reads.begin(move |stop| store.undo(storage, &tids, &own, stop));
        let undone = open.unless_over(undone.map(move |undone| Done::Undone(id, txn, undone)));
        self.pending.push(undone);
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
        let (id, store) = (id.clone(), self.shared.store.clone());
        let (storage, view) = (self.seat.storage, self.view.tid());
        let item = |entry: UndoEntry| UndoItem { tid: entry.tid, meta: entry.meta, size: entry.size };
        let search = move |stop: &Stop| {
            let wanted = |entry: &UndoEntry| specification.is_empty() || item(entry.clone()).matches(&specification);
            let found = store.undo_log(storage, view, first, last, stop, wanted)?;
            Ok(found.into_iter().map(item).collect())
        };
        self.searches += 1;
        let found = self.shared.reads.begin(search).map(move |found| Done::Searched(id, found));
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::budget::Budget;
    use super::super::transaction::Wish;
    use super::*;
    use crate::zodb::TransactionMeta;

    #[test]
    fn what_is_undone_is_written_where_the_undo_came() {
        let wall = Duration::from_secs(1_789_209_000);
        let mut buffer = Transaction::new(1, TransactionMeta::default(), None, wall, Budget::default());
        let delete = |buffer: &mut Transaction, oid| buffer.wish(Oid(oid), Wish::Delete { base: Tid(1) });
        buffer.undo(Tid(7));
        delete(&mut buffer, 20);
        buffer.undo(Tid(8));
        buffer.undo(Tid(9));
        delete(&mut buffer, 21);
        delete(&mut buffer, 3);
        let oids = [1, 2, 3, 4].map(Oid).to_vec();
        buffer.touch(Touched { oids, ends: vec![2, 2, 4] });
        let writes = writes(&buffer);
        assert_eq!(writes.iter().map(|(oid, _)| oid.0).collect::<Vec<_>>(), [1, 2, 20, 4, 21, 3]);
        assert_eq!((writes[0].1, writes[5].1), (Read::Current, Read::Existing(Tid(1))));
        assert_eq!(own(&buffer).into_iter().map(|(oid, own)| (oid.0, own.undos)).collect::<Vec<_>>(), [(3, 3)]);
    }
}
