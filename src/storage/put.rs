//! Puts what apply has decided into a batch, as keys and values. Nothing is decided here.

use super::keys::{self, OIDS_PER_PART};
use super::summary::Summary;
use super::value::{self, Current, Stored, TransactionHead};
use crate::command::{Commit, Content, Write};
use crate::engine::Batch;
use crate::zodb::{Oid, StorageId, Tid};

/// Bytes of a transaction's header in a `Data.fs` (`ZODB.FileStorage.format`).
const TRANSACTION_HEADER: u64 = 23;

pub(super) fn put_summary(batch: &mut Batch, storage: StorageId, summary: &Summary) {
    let key = keys::summary(storage);
    batch.put(keys::META, key, value::seal(&key, value::SUMMARY, &summary.to_bytes()));
}

pub(super) fn put_revision(batch: &mut Batch, commit: &Commit, write: &Write, stored: &Stored) {
    let link = match write.content {
        Content::SameAs(tid) => Some(tid),
        _ => None,
    };
    let key = keys::revision(commit.storage, write.oid, commit.tid);
    batch.put(keys::REVISIONS, key, stored.encode_linked(&key, link));
    let key = keys::object(commit.storage, write.oid);
    let current = Current { tid: commit.tid, absent: *stored == Stored::Absent };
    batch.put(keys::OBJECTS, key, current.encode(&key));
}

/// Puts the transaction with the objects that it lists. `records`: the bytes of its records in a `Data.fs`; `left`: how
/// many revisions it has.
pub(super) fn put_transaction(batch: &mut Batch, commit: &Commit, records: u64, oids: &[Oid], left: usize) {
    let left = u32::try_from(left).expect("a transaction has no more revisions than it lists objects");
    let count = u32::try_from(oids.len()).expect("a transaction of more objects is refused");
    let texts = value::texts(&commit.meta).iter().map(|text| text.len() as u64).sum::<u64>();
    let length = TRANSACTION_HEADER + texts + records;
    let head = TransactionHead { meta: commit.meta.clone(), length, count, left, oids: Vec::new() };
    put_listed(batch, commit.storage, commit.tid, head, oids);
}

/// Puts `head` with the objects that it lists, in as many parts as they take.
pub(super) fn put_listed(batch: &mut Batch, storage: StorageId, tid: Tid, mut head: TransactionHead, oids: &[Oid]) {
    head.oids = oids[..oids.len().min(OIDS_PER_PART)].to_vec();
    let key = keys::transaction(storage, tid);
    batch.put(keys::TRANSACTIONS, key, head.encode(&key));
    for (part, oids) in (0u32..).zip(oids.chunks(OIDS_PER_PART)).skip(1) {
        let key = keys::transaction_part(storage, tid, part);
        batch.put(keys::TRANSACTIONS, key, value::encode_oids(&key, oids));
    }
}
