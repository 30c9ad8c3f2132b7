//! Recounts a storage's summary from the tables.
//!
//! Data in pieces is read where it lies, and its length and hash are compared with those in the revision. Every piece
//! must belong to one revision, or be listed as unclaimed.

use std::fmt::Display;
use std::io;
use std::sync::atomic::Ordering::SeqCst;

use super::digest::{self, Digest, Hashing};
use super::keys;
use super::store::Store;
use super::summary::Summary;
use super::value::{self, Stored, StoredBlob, TransactionHead};
use crate::command::Staged;
use crate::engine::Order;
use crate::zodb::{Oid, StorageId, Tid};

/// The content of the tables, counted; to be compared with the [`Summary`] of the same moment.
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
    /// Whether each transaction has as many revisions as its head says are left.
    pub left: bool,
    /// Pieces of records and blobs, unclaimed ones included.
    pub pieces: u64,
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
    /// Reads every revision of `storage`, and gives the count with the summary as it was at the beginning.
    ///
    /// Apply goes on meanwhile. A damaged record, blob or piece ends the count with a fault that names it; a pack that
    /// removes something meanwhile ends it with a fault of the kind `Interrupted`.
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
        let (summary, revisions, transactions, blobs, pieces, unclaimed) = {
            // Nothing is applied while the iterators are made, so all are of the same moment.
            let _turn = self.writing();
            let range = |table| self.engine().range(table, &from, &until, Order::Ascending);
            let (revisions, transactions) = (range(keys::REVISIONS), range(keys::TRANSACTIONS));
            let (blobs, pieces, unclaimed) = (range(keys::BLOBS), range(keys::PIECES), range(keys::UNCLAIMED));
            (self.summary(storage), revisions, transactions, blobs, pieces, unclaimed)
        };
        let mut found = Recount { objects: 0, bytes: 0, transactions: 0, present: [0; 32], left: true, pieces: 0 };
        // One sum over the revisions, one over what the heads of the transactions say: equal if each head is right.
        let (mut there, mut said) = (0u64, 0u64);
        let mut owned = 0;
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
            let content = self.content_hash(storage, oid, tid, &stored)?;
            if let Stored::Pieces(staged) = &stored {
                let still = || Ok(self.engine().get(keys::REVISIONS, &key)?.is_some());
                let what = format_args!("storage {storage}, object {oid}, transaction {tid}");
                owned += self.check_staged(storage, staged, Hashing::record(), &what, still)?;
            }
            let blob = self.blob(storage, oid, tid)?;
            let content = digest::with_blob(content, blob.as_ref().map(|(_, staged)| &staged.hash));
            found.present = digest::add(&found.present, &digest::revision(oid, tid, &content));
        }
        for pair in blobs {
            let (key, value) = pair?;
            let (_, oid, tid) =
                keys::decode_revision(&key).ok_or_else(|| value::damaged("a blob's key is not 20 bytes"))?;
            if let StoredBlob::Pieces(staged) = StoredBlob::decode(&key, &value)? {
                let there = || Ok(self.engine().get(keys::BLOBS, &key)?.is_some());
                let what = format_args!("storage {storage}, blob of object {oid}, transaction {tid}");
                owned += self.check_staged(storage, &staged, Hashing::blob(), &what, there)?;
            }
        }
        for pair in unclaimed {
            let (key, value) = pair?;
            value::body(&key, value::UNCLAIMED, &value)?;
            owned += 1;
        }
        for pair in pieces {
            let (key, value) = pair?;
            value::body(&key, value::PIECE, &value)?;
            found.pieces += 1;
        }
        if found.pieces != owned {
            return Err(value::damaged(format_args!(
                "storage {storage}: there are {} pieces of records and blobs, but the revisions and the list of \
                 unclaimed pieces tell of {owned}",
                found.pieces
            )));
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

    /// Reads a record or blob in pieces, compares its length and hash with `staged`, and gives the number of pieces.
    /// `what` names the record or blob in faults; `there` says whether the revision still exists.
    fn check_staged(
        &self,
        storage: StorageId,
        staged: &Staged,
        mut hashing: Hashing,
        what: &dyn Display,
        there: impl Fn() -> io::Result<bool>,
    ) -> io::Result<u64> {
        let (mut count, mut length) = (0, 0);
        for number in staged.pieces.iter().flat_map(|span| (span.first..).take(span.count as usize)) {
            let piece = match self.piece(storage, number) {
                Ok(piece) => piece,
                Err(_) if !there()? => {
                    return Err(io::Error::new(io::ErrorKind::Interrupted, format!("{what} was packed meanwhile")));
                }
                Err(fault) => return Err(value::damaged(format_args!("{what}: {fault}"))),
            };
            hashing.update(&piece);
            length += piece.len() as u64;
            count += 1;
        }
        if length != staged.length || hashing.finish() != staged.hash {
            let why = "its pieces do not make up what was committed";
            return Err(value::damaged(format_args!("{what}: {why} ({length} bytes of {})", staged.length)));
        }
        Ok(count)
    }
}

/// A number for a transaction that (nearly certainly) no other transaction has.
fn weight(tid: Tid) -> u64 {
    let hash: Digest = blake3::hash(&tid.to_bytes()).into();
    u64::from_be_bytes(std::array::from_fn(|n| hash[n]))
}
