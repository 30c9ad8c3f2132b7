//! Revisions and transactions as they are stored, for people who debug (`zrsctl dump`).
//!
//! A damaged value is shown as such beside the whole ones, and does not end the reading: damage to one record is best
//! seen between its neighbours. All other reads of the store end at the first fault.

use std::io;

use super::store::Store;
use super::value::{Stored, TransactionHead};
use super::walk::Holding;
use super::{history, keys, value};
use crate::command::Staged;
use crate::engine::Order;
use crate::zodb::{Oid, StorageId, Tid, TransactionMeta};

/// A revision, as its value and that of its blob say.
#[derive(Debug)]
pub struct InspectedRevision {
    /// The transaction that wrote the revision.
    pub tid: Tid,
    /// The kind of the value (`keys`).
    pub kind: u8,
    /// The CRC-32C that stands in the value.
    pub checksum: u32,
    /// How the revision is stored, or what is wrong with the value.
    pub holding: io::Result<Holding>,
    /// The older revision that this one was made to show again.
    pub link: Option<Tid>,
    /// The revision with which the blob lies, and the blob's pieces; `None`: there is no blob.
    pub blob: io::Result<Option<(Tid, Staged)>>,
}

/// A transaction, as its value says.
#[derive(Debug)]
pub struct InspectedTransaction {
    /// The transaction's id.
    pub tid: Tid,
    /// The CRC-32C that stands in the value.
    pub checksum: u32,
    /// The rest of the value, or what is wrong with the value.
    pub head: io::Result<InspectedHead>,
}

/// The head of a transaction, without the oids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InspectedHead {
    /// The transaction's meta data, as committed.
    pub meta: TransactionMeta,
    /// Bytes that the transaction takes (or would take) in a `Data.fs`.
    pub length: u64,
    /// How many objects the transaction lists.
    pub count: u32,
    /// How many of the transaction's revisions are left.
    pub left: u32,
}

impl Store {
    /// All revisions of an object, newest first.
    pub fn inspect_revisions(
        &self,
        storage: StorageId,
        oid: Oid,
    ) -> impl Iterator<Item = io::Result<InspectedRevision>> + '_ {
        let (from, until) = (keys::revision(storage, oid, Tid::MAX), keys::revision(storage, oid, Tid::ZERO));
        let pairs = self.engine().range(keys::REVISIONS, &from, &until, Order::Ascending);
        pairs.map(move |pair| pair.and_then(|(key, value)| self.inspected(storage, oid, &key, value)))
    }

    /// The revision of exactly `tid`; `None`: there is none (any more).
    pub fn inspect_revision(&self, storage: StorageId, oid: Oid, tid: Tid) -> io::Result<Option<InspectedRevision>> {
        let key = keys::revision(storage, oid, tid);
        let value = self.engine().get(keys::REVISIONS, &key)?;
        value.map(|value| self.inspected(storage, oid, &key, value)).transpose()
    }

    fn inspected(&self, storage: StorageId, oid: Oid, key: &[u8], value: Vec<u8>) -> io::Result<InspectedRevision> {
        let (_, _, tid) =
            keys::decode_revision(key).ok_or_else(|| value::damaged("a revision's key is not 20 bytes"))?;
        let (kind, checksum, link) =
            (value.first().copied().unwrap_or_default(), checksum(&value), Stored::link(&value));
        let holding = Stored::decode(key, value).map(Holding::from);
        let link = link.filter(|_| holding.is_ok());
        Ok(InspectedRevision { tid, kind, checksum, holding, link, blob: self.blob(storage, oid, tid) })
    }

    /// The transactions up to and with `upto`, newest first.
    pub fn inspect_transactions(
        &self,
        storage: StorageId,
        upto: Tid,
    ) -> impl Iterator<Item = io::Result<InspectedTransaction>> + '_ {
        let (from, until) = (keys::transaction(storage, Tid::ZERO), keys::transaction(storage, upto.next()));
        let pairs = self.engine().range(keys::TRANSACTIONS, &from, &until, Order::Descending);
        pairs.filter_map(|pair| {
            let inspected = pair.and_then(|(key, value)| {
                let (tid, 0) = history::decode_key(&key)? else { return Ok(None) };
                let head = TransactionHead::decode(&key, &value).map(InspectedHead::from);
                Ok(Some(InspectedTransaction { tid, checksum: checksum(&value), head }))
            });
            inspected.transpose()
        })
    }
}

impl From<TransactionHead> for InspectedHead {
    fn from(head: TransactionHead) -> InspectedHead {
        InspectedHead { meta: head.meta, length: head.length, count: head.count, left: head.left }
    }
}

/// The checksum that stands in a sealed value; 0 where it is too short for one.
fn checksum(value: &[u8]) -> u32 {
    let bytes = value.get(1..).and_then(|rest| rest.first_chunk::<4>());
    bytes.map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::TABLES;
    use super::super::testing::*;
    use super::*;
    use crate::command::Content;
    use crate::engine::SimDisk;

    #[test]
    fn a_damaged_revision_is_shown_between_its_neighbours() {
        let disk = SimDisk::new();
        let store = Store::open(Arc::new(disk.open(TABLES).unwrap())).unwrap();
        apply(&store, create("1"));
        apply(&store, commit(4, vec![over(0, 1, data("four"))]));
        apply(&store, commit(7, vec![over(4, 1, data("seven"))]));
        apply(&store, commit(9, vec![over(7, 1, Content::SameAs(Tid(4))), over(0, 2, data("two"))]));
        let damaged = keys::revision(S, Oid(1), Tid(7));
        assert!(disk.damage(keys::REVISIONS, &damaged, 60));
        let found: Vec<InspectedRevision> = store.inspect_revisions(S, Oid(1)).map(Result::unwrap).collect();
        assert_eq!(found.iter().map(|revision| revision.tid.0).collect::<Vec<_>>(), [9, 7, 4]);
        assert_eq!(found[0].holding.as_ref().unwrap(), &Holding::SameAs(Tid(4)));
        assert_eq!((found[0].kind, found[0].link), (0x03, Some(Tid(4))));
        let why = found[1].holding.as_ref().unwrap_err().to_string();
        assert!(why.contains("object 0000000000000001, transaction 0000000000000007: its checksum is"), "{why}");
        assert_eq!(found[2].holding.as_ref().unwrap(), &Holding::Data("four".into()));
        let crc = crc32c::crc32c_append(crc32c::crc32c(&keys::revision(S, Oid(1), Tid(4))), b"\x01four");
        assert_eq!((found[2].checksum, found[2].blob.as_ref().unwrap()), (crc, &None));
        assert!(store.inspect_revision(S, Oid(1), Tid(5)).unwrap().is_none());
        assert!(store.inspect_revision(S, Oid(1), Tid(7)).unwrap().unwrap().holding.is_err());
    }

    #[test]
    fn transactions_are_told_from_the_newest_back_without_their_parts() {
        let disk = SimDisk::new();
        let store = Store::open(Arc::new(disk.open(TABLES).unwrap())).unwrap();
        apply(&store, create("1"));
        let count = 2 * keys::OIDS_PER_PART as u64 + 3;
        apply(&store, commit(4, vec![over(0, count, data("x"))]));
        apply(&store, commit(5, (0..count).map(|oid| over(0, oid, data("x"))).collect()));
        apply(&store, commit(7, vec![over(5, 1, data("y"))]));
        assert!(disk.damage(keys::TRANSACTIONS, &keys::transaction(S, Tid(4)), 60));
        let tids = |upto| -> Vec<(u64, Option<u32>)> {
            let found = store.inspect_transactions(S, Tid(upto)).map(Result::unwrap);
            found.map(|found| (found.tid.0, found.head.ok().map(|head| head.count))).collect()
        };
        assert_eq!(tids(9), [(7, Some(1)), (5, Some(count as u32)), (4, None)]);
        assert_eq!(tids(6)[0].0, 5);
        assert_eq!(tids(3), []);
    }
}
