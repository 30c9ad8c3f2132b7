//! Counting again what the summary says, from the tables.

use std::io;
use std::sync::atomic::Ordering::SeqCst;

use super::digest::{self, Digest};
use super::value::{self, Stored, TransactionHead};
use super::{Store, Summary, keys};
use crate::engine::Order;
use crate::zodb::{Oid, StorageId, Tid};

/// What the tables hold, counted; to be compared with the [`Summary`] of the same moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recount {
    /// As [`Summary::objects`].
    pub objects: u64,
    /// As [`Summary::bytes`].
    pub bytes: u64,
    /// As [`Summary::transactions`].
    pub transactions: u64,
    /// As [`Summary::present`].
    pub present: Digest,
    /// Whether each transaction has as many revisions as it says are left of it.
    pub left: bool,
}

impl Recount {
    /// Whether the summary says the same.
    pub fn agrees(&self, summary: &Summary) -> bool {
        self.objects == summary.objects
            && self.bytes == summary.bytes
            && self.transactions == summary.transactions
            && self.present == summary.present
            && self.left
    }
}

impl Store {
    /// Reads every revision of `storage`, and gives what it found with the summary as it was when it began.
    ///
    /// Apply goes on meanwhile. A record that is damaged ends it with a fault that names the record; a pack that removes
    /// something meanwhile, with one of the kind `Interrupted`.
    ///
    /// # Panics
    /// If `storage` is none of [`Store::storages`].
    pub fn recount(&self, storage: StorageId) -> io::Result<(Summary, Recount)> {
        let before = self.inner.removals.load(SeqCst);
        let counted = self.count(storage);
        if self.inner.removals.load(SeqCst) != before {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "a pack has removed something meanwhile"));
        }
        counted
    }

    fn count(&self, storage: StorageId) -> io::Result<(Summary, Recount)> {
        let (from, until) = (storage.0.to_be_bytes(), keys::storage_end(storage));
        let (summary, revisions, transactions) = {
            // Nobody writes while the iterators are made, so all three are of the same moment.
            let _turn = self.inner.writing.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            let range = |table| self.engine().range(table, &from, &until, Order::Ascending);
            (self.summary(storage), range(keys::REVISIONS), range(keys::TRANSACTIONS))
        };
        let mut found = Recount { objects: 0, bytes: 0, transactions: 0, present: [0; 32], left: true };
        // One sum over the revisions, one over what the transactions say: equal if each of them is right.
        let (mut there, mut said) = (0u64, 0u64);
        let mut last: Option<Oid> = None;
        for pair in revisions {
            let (key, value) = pair?;
            let (_, oid, tid) =
                keys::decode_revision(&key).ok_or_else(|| value::damaged("a revision's key is not 20 bytes"))?;
            let stored = Stored::decode(&key, value)?;
            there = there.wrapping_add(weight(tid));
            found.objects += u64::from(last != Some(oid));
            last = Some(oid);
            found.bytes += stored.length();
            let shown = self.follow(storage, oid, tid, stored)?;
            let content = digest::content(shown.as_ref().map(|(data, _)| &data[..]));
            let blob = self.blob(storage, oid, tid)?;
            let content = digest::with_blob(content, blob.as_ref().map(|(_, staged)| &staged.hash));
            found.present = digest::add(&found.present, &digest::revision(oid, tid, &content));
        }
        for pair in transactions {
            let (key, value) = pair?;
            match keys::decode_transaction(&key) {
                Some((_, tid, 0)) => {
                    found.transactions += 1;
                    let left = u64::from(TransactionHead::decode(&key, &value)?.left);
                    said = said.wrapping_add(left.wrapping_mul(weight(tid)));
                }
                Some(_) => {}
                None => return Err(value::damaged("a transaction's key is neither 12 nor 16 bytes")),
            }
        }
        found.left = there == said;
        Ok((summary, found))
    }
}

/// A number for a transaction that is unlike all others'.
fn weight(tid: Tid) -> u64 {
    let hash: Digest = blake3::hash(&tid.to_bytes()).into();
    u64::from_be_bytes(std::array::from_fn(|n| hash[n]))
}
