//! A client's iterators: over the transactions of a storage, and over the records of one of them.
//!
//! An iterator is two tids and a place between them. It shows the transactions that there were when it was started,
//! and holds on to nothing: it passes over those that a pack removes meanwhile, and over no others. The number of an
//! iterator is never used again by the same client, and is gone at the iterator's end, at `iterator_gc`, and with the
//! connection.

use std::collections::BTreeMap;

use super::desk::{Answer, Desk, End};
use crate::config::limits;
use crate::storage::{Answered, Store};
use crate::zeo::Reply;
use crate::zodb::{Refusal, Revision, State, StorageId, Tid, TransactionMeta};

/// All iterators of one client.
#[derive(Debug, Default)]
pub struct Iterators {
    next: i64,
    open: BTreeMap<i64, Cursor>,
}

/// The place of one iterator.
#[derive(Debug)]
enum Cursor {
    Transactions {
        /// The next transaction has this tid or a later one.
        from: Tid,
        to: Tid,
        /// The transaction that was given last.
        last: Option<Tid>,
    },
    Records {
        tid: Tid,
        /// How many records are still to come; `None`: all.
        left: Option<usize>,
    },
}

impl Iterators {
    /// `iterator_start`
    pub fn start(&mut self, desk: &mut Desk, start: Option<Tid>, stop: Option<Tid>) -> Result<Answer, End> {
        desk.tell_news()?;
        Ok(self.open_transactions(start, stop, desk.view.tid()).map(Reply::Iterator).into())
    }

    /// `iterator_next`: at the end `None`, and the iterator is gone.
    pub fn next(&mut self, desk: &Desk, iterator: i64) -> Result<Answer, End> {
        let found = self.next_transaction(desk.store(), desk.storage(), iterator)?;
        let reply = |found: Option<_>| found.map_or(Reply::Nothing, |(tid, meta)| Reply::Transaction(tid, meta));
        Ok(found.map(reply).into())
    }

    /// `iterator_record_start`
    pub fn start_records(&mut self, iterator: i64, tid: Tid) -> Answer {
        self.open_records(iterator, tid).map(Reply::Iterator).into()
    }

    /// `iterator_record_next`: at the end `None`, and the iterator is gone.
    pub fn next_record(&mut self, desk: &Desk, iterator: i64) -> Result<Answer, End> {
        let found = self.next_revision(desk.store(), desk.storage(), iterator)?;
        Ok(found.map(|found| found.map_or(Reply::Nothing, iterated)).into())
    }

    /// `iterator_gc`; unknown numbers are fine.
    pub fn drop_all(&mut self, iterators: &[i64]) -> Answer {
        for iterator in iterators {
            self.open.remove(iterator);
        }
        Answer::Reply(Reply::Nothing)
    }

    /// Both ends are included, and nothing is younger than `view`.
    fn open_transactions(&mut self, start: Option<Tid>, stop: Option<Tid>, view: Tid) -> Result<i64, Refusal> {
        let from = start.unwrap_or(Tid::ZERO.next());
        let to = stop.map_or(view, |stop| stop.min(view));
        self.open(Cursor::Transactions { from, to, last: None })
    }

    fn next_transaction(
        &mut self,
        store: &Store,
        storage: StorageId,
        iterator: i64,
    ) -> Answered<Option<(Tid, TransactionMeta)>> {
        let Some(Cursor::Transactions { from, to, last }) = self.open.get_mut(&iterator) else {
            return Ok(Err(gone(iterator)));
        };
        let found = if from <= to { store.transaction_at(storage, *from, *to)? } else { None };
        match found {
            Some((tid, meta)) => {
                *from = tid.next();
                *last = Some(tid);
                Ok(Ok(Some((tid, meta))))
            }
            None => {
                self.open.remove(&iterator);
                Ok(Ok(None))
            }
        }
    }

    /// For the records of the transaction that `iterator` gave last.
    fn open_records(&mut self, iterator: i64, tid: Tid) -> Result<i64, Refusal> {
        match self.open.get(&iterator) {
            Some(Cursor::Transactions { last: Some(last), .. }) if *last == tid => {
                self.open(Cursor::Records { tid, left: None })
            }
            Some(Cursor::Transactions { .. }) => {
                Err(Refusal::NoKey(format!("iterator {iterator} has not given transaction {tid} last")))
            }
            _ => Err(gone(iterator)),
        }
    }

    fn next_revision(&mut self, store: &Store, storage: StorageId, iterator: i64) -> Answered<Option<Revision>> {
        let Some(Cursor::Records { tid, left }) = self.open.get_mut(&iterator) else {
            return Ok(Err(gone(iterator)));
        };
        let found = store.record_of_last(storage, *tid, *left)?;
        match found {
            Some((after, record)) => {
                *left = Some(after);
                Ok(Ok(Some(record)))
            }
            None => {
                self.open.remove(&iterator);
                Ok(Ok(None))
            }
        }
    }

    fn open(&mut self, cursor: Cursor) -> Result<i64, Refusal> {
        if self.open.len() >= limits::ITERATORS {
            return Err(Refusal::TooLarge(format!("a client may have {} iterators", limits::ITERATORS)));
        }
        self.next += 1;
        self.open.insert(self.next, cursor);
        Ok(self.next)
    }
}

/// A record as iterators give it.
fn iterated(revision: Revision) -> Reply {
    let data = match revision.state {
        State::Data(data) => Some(data),
        State::Absent => None,
    };
    Reply::IteratedRecord { oid: revision.oid, tid: revision.tid, data, data_tid: revision.data_tid }
}

fn gone(iterator: i64) -> Refusal {
    Refusal::NoKey(format!("there is no iterator {iterator}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::command::{Change, Content, Outcome, PackStep, Write};
    use crate::server::testing::{S, apply, commit, store, write};

    /// The objects that an iterator over records gives, if a pack lists each object once after the first `before`
    /// records.
    fn given(listed: &[u64], before: usize) -> Vec<u64> {
        let store = store();
        let mut written = BTreeSet::new();
        let write = |oid: &u64| match written.insert(*oid) {
            true => write(*oid, "x"),
            false => Write { content: Content::SameAs(Tid(4)), ..write(*oid, "") },
        };
        commit(&store, 4, listed.iter().map(write).collect());
        let mut iterators = Iterators::default();
        let transactions = iterators.open_transactions(None, None, Tid(9)).unwrap();
        iterators.next_transaction(&store, S, transactions).unwrap().unwrap().unwrap();
        let records = iterators.open_records(transactions, Tid(4)).unwrap();
        let mut given = Vec::new();
        loop {
            if given.len() == before {
                apply(&store, Change::PackBegin { storage: S, upto: Tid(4) });
                let step = PackStep { storage: S, objects: vec![], transactions: vec![Tid(4)] };
                assert_eq!(apply(&store, Change::PackStep(step)), Outcome::Done);
                apply(&store, Change::PackEnd { storage: S });
            }
            match iterators.next_revision(&store, S, records).unwrap().unwrap() {
                Some(record) => given.push(record.oid.0),
                None => return given,
            }
        }
    }

    #[test]
    fn a_pack_that_lists_objects_once_hides_no_record() {
        assert_eq!(given(&[1, 2, 1], 0), [2, 1]);
        assert_eq!(given(&[1, 2, 1], 1), [1, 2, 1]);
        assert_eq!(given(&[1, 2, 1], 2), [1, 2, 1]);
        assert_eq!(given(&[1, 2, 1], 3), [1, 2, 1]);
        assert_eq!(given(&[1, 2, 1, 3], 1), [1, 2, 1, 3]);
        // Objects listed twice behind the iterator's place make some come again, but none is left out.
        assert_eq!(given(&[1, 2, 3, 3], 2), [1, 2, 2, 3]);
        assert_eq!(given(&[1, 2, 2, 2, 2], 1), [1, 1, 2]);
    }

    #[test]
    fn a_number_is_never_used_again() {
        let mut iterators = Iterators::default();
        let first = iterators.open_transactions(None, None, Tid(9)).unwrap();
        iterators.drop_all(&[first, 77]);
        assert_ne!(iterators.open_transactions(None, None, Tid(9)).unwrap(), first);
    }

    #[test]
    fn records_are_those_of_the_transaction_given_last() {
        let mut iterators = Iterators::default();
        let iterator = iterators.open_transactions(None, None, Tid(9)).unwrap();
        assert!(matches!(iterators.open_records(iterator, Tid(3)), Err(Refusal::NoKey(_))));
        assert!(matches!(iterators.open_records(iterator + 1, Tid(3)), Err(Refusal::NoKey(_))));
    }

    #[test]
    fn there_may_only_be_so_many() {
        let mut iterators = Iterators::default();
        for _ in 0..limits::ITERATORS {
            iterators.open_transactions(None, None, Tid(9)).unwrap();
        }
        assert!(matches!(iterators.open_transactions(None, None, Tid(9)), Err(Refusal::TooLarge(_))));
    }
}
