//! A client's iterators: over the transactions of a storage, and over the records of one of them.
//!
//! An iterator is two tids and a place between them; it shows what was there when it was started and holds on to nothing: what
//! a pack removes meanwhile it passes over, and nothing else.
//! Its number is never used again by the same client, and is gone at its end, at `iterator_gc`, and with the
//! connection.

use std::collections::BTreeMap;
use std::io;

use crate::config::limits;
use crate::storage::Store;
use crate::zodb::{Refusal, Revision, StorageId, Tid, TransactionMeta};

/// All iterators of one client.
#[derive(Debug, Default)]
pub struct Iterators {
    next: i64,
    open: BTreeMap<i64, Iterator>,
}

#[derive(Debug)]
enum Iterator {
    Transactions {
        /// The next one is here or later.
        from: Tid,
        to: Tid,
        /// What was handed out last.
        last: Option<Tid>,
    },
    Records {
        tid: Tid,
        /// How many are still to come; `None`: all.
        left: Option<usize>,
    },
}

impl Iterators {
    /// `iterator_start`: both ends included, and nothing younger than `view`.
    pub fn start(&mut self, start: Option<Tid>, stop: Option<Tid>, view: Tid) -> Result<i64, Refusal> {
        let from = start.unwrap_or(Tid::ZERO.next());
        let to = stop.map_or(view, |stop| stop.min(view));
        self.open(Iterator::Transactions { from, to, last: None })
    }

    /// `iterator_next`; `None` at the end, where the iterator ends too.
    pub fn next(
        &mut self,
        store: &Store,
        storage: StorageId,
        iterator: i64,
    ) -> io::Result<Result<Option<(Tid, TransactionMeta)>, Refusal>> {
        let Some(Iterator::Transactions { from, to, last }) = self.open.get_mut(&iterator) else {
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

    /// `iterator_record_start`: for the transaction that `iterator` gave last.
    pub fn start_records(&mut self, iterator: i64, tid: Tid) -> Result<i64, Refusal> {
        match self.open.get(&iterator) {
            Some(Iterator::Transactions { last: Some(last), .. }) if *last == tid => {
                self.open(Iterator::Records { tid, left: None })
            }
            Some(Iterator::Transactions { .. }) => {
                Err(Refusal::NoKey(format!("iterator {iterator} has not given transaction {tid} last")))
            }
            _ => Err(gone(iterator)),
        }
    }

    /// `iterator_record_next`; `None` at the end, where the iterator ends too.
    pub fn next_record(
        &mut self,
        store: &Store,
        storage: StorageId,
        iterator: i64,
    ) -> io::Result<Result<Option<Revision>, Refusal>> {
        let Some(Iterator::Records { tid, left }) = self.open.get_mut(&iterator) else {
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

    /// `iterator_gc`; unknown numbers are fine.
    pub fn drop_all(&mut self, iterators: &[i64]) {
        for iterator in iterators {
            self.open.remove(iterator);
        }
    }

    fn open(&mut self, iterator: Iterator) -> Result<i64, Refusal> {
        if self.open.len() >= limits::ITERATORS {
            return Err(Refusal::TooLarge(format!("a client may have {} iterators", limits::ITERATORS)));
        }
        self.next += 1;
        self.open.insert(self.next, iterator);
        Ok(self.next)
    }
}

fn gone(iterator: i64) -> Refusal {
    Refusal::NoKey(format!("there is no iterator {iterator}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use super::*;
    use crate::command::{Base, Change, Command, Commit, Content, Outcome, PackStep, Write};
    use crate::engine::SimDisk;
    use crate::storage::{Position, TABLES};
    use crate::zodb::Oid;

    const S: StorageId = StorageId(1);

    fn apply(store: &Store, change: Change) -> Outcome {
        let at = Position { index: store.applied().index + 1, ..store.applied() };
        store.apply(at, &Command { reign: store.reign(), change }).unwrap()
    }

    /// What an iterator over records gives, if a pack lists each object once after it gave `before` of them.
    fn given(listed: &[u64], before: usize) -> Vec<u64> {
        let store = Store::open(Arc::new(SimDisk::new().open(TABLES).unwrap())).unwrap();
        apply(&store, Change::CreateStorage { name: "1".into() });
        let mut written = BTreeSet::new();
        let write = |oid: &u64| Write {
            oid: Oid(*oid),
            base: Base::Any,
            content: match written.insert(*oid) {
                true => Content::Data(b"x".to_vec().into()),
                false => Content::SameAs(Tid(4)),
            },
            blob: None,
        };
        let writes = listed.iter().map(write).collect();
        let meta = TransactionMeta { status: b' ', ..TransactionMeta::default() };
        let commit = Commit { storage: S, tid: Tid(4), meta, writes };
        assert_eq!(apply(&store, Change::Commit(commit)), Outcome::Committed(Tid(4)));

        let mut iterators = Iterators::default();
        let transactions = iterators.start(None, None, Tid(9)).unwrap();
        iterators.next(&store, S, transactions).unwrap().unwrap().unwrap();
        let records = iterators.start_records(transactions, Tid(4)).unwrap();
        let mut given = Vec::new();
        loop {
            if given.len() == before {
                apply(&store, Change::PackBegin { storage: S, upto: Tid(4) });
                let step = PackStep { storage: S, objects: vec![], transactions: vec![Tid(4)] };
                assert_eq!(apply(&store, Change::PackStep(step)), Outcome::Done);
                apply(&store, Change::PackEnd { storage: S });
            }
            match iterators.next_record(&store, S, records).unwrap().unwrap() {
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
        // What is listed twice behind the place makes some come again, but none is left out.
        assert_eq!(given(&[1, 2, 3, 3], 2), [1, 2, 2, 3]);
        assert_eq!(given(&[1, 2, 2, 2, 2], 1), [1, 1, 2]);
    }

    #[test]
    fn a_number_is_never_used_again() {
        let mut iterators = Iterators::default();
        let first = iterators.start(None, None, Tid(9)).unwrap();
        iterators.drop_all(&[first, 77]);
        assert_ne!(iterators.start(None, None, Tid(9)).unwrap(), first);
    }

    #[test]
    fn records_are_those_of_the_transaction_given_last() {
        let mut iterators = Iterators::default();
        let iterator = iterators.start(None, None, Tid(9)).unwrap();
        assert!(matches!(iterators.start_records(iterator, Tid(3)), Err(Refusal::NoKey(_))));
        assert!(matches!(iterators.start_records(iterator + 1, Tid(3)), Err(Refusal::NoKey(_))));
    }

    #[test]
    fn there_may_only_be_so_many() {
        let mut iterators = Iterators::default();
        for _ in 0..limits::ITERATORS {
            iterators.start(None, None, Tid(9)).unwrap();
        }
        assert!(matches!(iterators.start(None, None, Tid(9)), Err(Refusal::TooLarge(_))));
    }
}
