//! A storage from its first transaction to its last, as it is stored: for a copy of the whole.

use std::io;

use bytes::Bytes;

use super::store::Store;
use super::value::{self, Stored, TransactionHead};
use super::{history, keys};
use crate::command::Staged;
use crate::engine::Order;
use crate::zodb::{Oid, StorageId, Tid, TransactionMeta};

/// A transaction and the objects that it lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The transaction's id.
    pub tid: Tid,
    /// The transaction's meta data as of its commit. (Whether it was packed since: [`Store::unmarked`].)
    pub meta: TransactionMeta,
    /// The objects that the transaction wrote, in order; some perhaps twice. A pack may have removed some revisions.
    pub oids: Vec<Oid>,
    /// How many of the transaction's revisions are left.
    pub left: u32,
}

/// How a revision is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holding {
    /// The record lies with the revision.
    Data(Bytes),
    /// The record lies in pieces.
    Pieces(Staged),
    /// The object does not exist.
    Absent,
    /// The record is that of this older revision.
    SameAs(Tid),
}

impl From<Stored> for Holding {
    fn from(stored: Stored) -> Holding {
        match stored {
            Stored::Data(data) => Holding::Data(data),
            Stored::Absent => Holding::Absent,
            Stored::SameAs(tid) => Holding::SameAs(tid),
            Stored::Pieces(staged) => Holding::Pieces(staged),
        }
    }
}

impl Store {
    /// The first transaction from `at_least` on, with all objects that it lists.
    pub fn listing(&self, storage: StorageId, at_least: Tid) -> io::Result<Option<Listing>> {
        let (from, until) = (keys::transaction(storage, at_least), keys::storage_end(storage));
        let mut found: Option<Listing> = None;
        for pair in self.engine().range(keys::TRANSACTIONS, &from, &until, Order::Ascending) {
            let (key, value) = pair?;
            let (tid, part) = history::decode_key(&key)?;
            match (&mut found, part) {
                (Some(found), part) if found.tid == tid && part > 0 => {
                    found.oids.extend(value::decode_oids(&key, &value)?);
                }
                (Some(_), _) => break,
                (None, 0) => {
                    let head = TransactionHead::decode(&key, &value)?;
                    found = Some(Listing { tid, meta: head.meta, oids: head.oids, left: head.left });
                }
                (None, _) => {
                    return Err(value::damaged(format_args!("transaction {tid} of storage {storage} has no head")));
                }
            }
        }
        Ok(found)
    }

    /// The tid up to which a copy must give each transaction the status "packed", as their own meta data lacks it.
    ///
    /// `FileStorage` undoes nothing behind a transaction of that status. Where the newest transaction that a pack has
    /// reached (or is reaching) has the status itself, because it was copied from a packed database, the transactions
    /// before it can stay as they were copied: the answer is [`Tid::ZERO`].
    pub fn unmarked(&self, storage: StorageId) -> io::Result<Tid> {
        let floor = self.undo_floor(storage);
        let (from, until) = (keys::transaction(storage, Tid::ZERO), keys::transaction(storage, floor.next()));
        for pair in self.engine().range(keys::TRANSACTIONS, &from, &until, Order::Descending) {
            let (key, value) = pair?;
            let (_, 0) = history::decode_key(&key)? else { continue };
            let says_so = TransactionHead::decode(&key, &value)?.meta.status == value::PACKED;
            return Ok(if says_so { Tid::ZERO } else { floor });
        }
        Ok(Tid::ZERO)
    }

    /// How the revision of exactly `tid` is stored; `None`: there is no such revision (any more).
    pub fn holding(&self, storage: StorageId, oid: Oid, tid: Tid) -> io::Result<Option<Holding>> {
        Ok(self.stored(storage, oid, tid)?.map(Holding::from))
    }

    /// Whether any revision of the storage has a blob.
    pub fn has_blobs(&self, storage: StorageId) -> io::Result<bool> {
        let (from, until) = (storage.0.to_be_bytes(), keys::storage_end(storage));
        self.engine().range(keys::BLOBS, &from, &until, Order::Ascending).next().transpose().map(|pair| pair.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::command::{Change, Content, Outcome};

    #[test]
    fn everything_is_told_from_the_first_transaction_on() {
        let store = store();
        let count = 2 * keys::OIDS_PER_PART as u64 + 3;
        apply(&store, commit(4, (0..count).rev().map(|oid| over(0, oid, data("x"))).collect()));
        apply(&store, commit(5, vec![]));
        apply(&store, commit(7, vec![over(4, 1, Content::Absent), over(4, 2, Content::SameAs(Tid(4)))]));
        let first = store.listing(S, Tid::ZERO).unwrap().unwrap();
        assert_eq!((first.tid, first.left), (Tid(4), count as u32));
        assert_eq!(first.oids, (0..count).rev().map(Oid).collect::<Vec<_>>());
        let second = store.listing(S, Tid(5)).unwrap().unwrap();
        assert_eq!((second.tid, second.oids.len()), (Tid(5), 0));
        let third = store.listing(S, Tid(6)).unwrap().unwrap();
        assert_eq!((third.tid, third.oids), (Tid(7), vec![Oid(1), Oid(2)]));
        assert_eq!(store.listing(S, Tid(8)).unwrap(), None);
        let holding = |oid, tid| store.holding(S, Oid(oid), Tid(tid)).unwrap();
        assert_eq!(holding(1, 4), Some(Holding::Data(Bytes::from_static(b"x"))));
        assert_eq!(holding(1, 7), Some(Holding::Absent));
        assert_eq!(holding(2, 7), Some(Holding::SameAs(Tid(4))));
        assert_eq!(holding(3, 7), None);
        assert!(!store.has_blobs(S).unwrap());
    }

    #[test]
    fn what_is_packed_is_told_where_no_transaction_says_so() {
        let store = store();
        apply(&store, commit(4, vec![over(0, 1, data("x"))]));
        assert_eq!(store.unmarked(S).unwrap(), Tid::ZERO);
        // A transaction that was copied from a packed database.
        let mut copied = commit(5, vec![over(4, 1, data("y"))]);
        let Change::Commit(commit_of) = &mut copied else { panic!("a commit") };
        commit_of.meta.status = value::PACKED;
        apply(&store, copied);
        apply(&store, commit(6, vec![over(5, 1, data("z"))]));
        assert_eq!((store.undo_floor(S), store.unmarked(S).unwrap()), (Tid(5), Tid::ZERO));
        // A pack that has begun, and may never be finished.
        assert_eq!(apply(&store, Change::PackBegin { storage: S, upto: Tid(6) }), Outcome::Done);
        assert_eq!(store.unmarked(S).unwrap(), Tid(6));
    }
}
