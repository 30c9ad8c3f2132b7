//! Counting again what the summary says, from the tables.
//!
//! Data in pieces is read where it lies, and its length and hash are compared with what the revision says of them. Every piece
//! must belong to one revision, or to none and be listed as such.

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
    /// Pieces of records and blobs, those that belong to nobody (yet) included.
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
    /// Reads every revision of `storage`, and gives what it found with the summary as it was when it began.
    ///
    /// Apply goes on meanwhile. A record, blob or piece that is damaged ends it with a fault that names it; a pack that
    /// removes something meanwhile, with one of the kind `Interrupted`.
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
            // Nobody writes while the iterators are made, so all are of the same moment.
            let _turn = self.writing();
            let range = |table| self.engine().range(table, &from, &until, Order::Ascending);
            let (revisions, transactions) = (range(keys::REVISIONS), range(keys::TRANSACTIONS));
            let (blobs, pieces, unclaimed) = (range(keys::BLOBS), range(keys::PIECES), range(keys::UNCLAIMED));
            (self.summary(storage), revisions, transactions, blobs, pieces, unclaimed)
        };
        let mut found = Recount { objects: 0, bytes: 0, transactions: 0, present: [0; 32], left: true, pieces: 0 };
        // One sum over the revisions, one over what the transactions say: equal if each of them is right.
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
                "storage {storage}: there are {} pieces of records and blobs, but the revisions, and what waits for its \
                 transaction, tell of {owned}",
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

    /// Reads what lies in pieces and compares it with what is said of it; gives how many pieces those are. `there`: whether
    /// it still is.
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

/// A number for a transaction that is unlike all others'.
fn weight(tid: Tid) -> u64 {
    let hash: Digest = blake3::hash(&tid.to_bytes()).into();
    u64::from_be_bytes(std::array::from_fn(|n| hash[n]))
}
