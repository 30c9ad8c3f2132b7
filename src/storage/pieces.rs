//! Pieces: data that comes through the log ahead of its transaction. Large records, the records of large transactions
//! and all blobs come so.
//!
//! Apply numbers the pieces as they come, and keeps each once. A piece is *unclaimed* until a commit names it; then
//! the revision says where its data lies, and the data is never copied again. Unclaimed pieces go with the next
//! barrier, as the transactions of a reign end with the reign, or earlier by a `Discard`.

use std::io;
use std::sync::atomic::Ordering::Relaxed;

use bytes::{Bytes, BytesMut};

use super::decision::{Decision, Next, no_storage};
use super::put::put_summary;
use super::store::Store;
use super::value::{self, StoredBlob};
use super::{digest, keys};
use crate::command::{Blob, Commit, Outcome, Span, Staged, Write};
use crate::config::limits;
use crate::engine::{Batch, Order, Table};
use crate::zodb::{Oid, Refusal, StorageId, Tid};

impl Store {
    pub(super) fn stage(&self, storage: StorageId, pieces: &[Bytes]) -> Decision {
        let Some(mut summary) = self.summary_of(storage) else { return Decision::refuse(no_storage(storage)) };
        if let Some(piece) = pieces.iter().find(|piece| piece.is_empty() || piece.len() > limits::PIECE) {
            let why = format!("a piece has 1 to {} bytes, not {}", limits::PIECE, piece.len());
            return Decision::refuse(Refusal::BadValue(why));
        }
        if pieces.len() > limits::STAGE_PIECES {
            let why = format!("a command brings {} pieces, not {}", limits::STAGE_PIECES, pieces.len());
            return Decision::refuse(Refusal::BadValue(why));
        }
        let first = summary.next_piece;
        let mut batch = Batch::new();
        for (number, piece) in (first..).zip(pieces) {
            let key = keys::piece(storage, number);
            batch.put(keys::PIECES, key, value::seal(&key, value::PIECE, piece));
            batch.put(keys::UNCLAIMED, key, value::seal(&key, value::UNCLAIMED, &[]));
        }
        summary.next_piece += pieces.len() as u64;
        put_summary(&mut batch, storage, &summary);
        Decision { outcome: Outcome::Staged(first), batch, next: Next::Summed(storage, summary) }
    }

    pub(super) fn discard(&self, storage: StorageId, pieces: &[Span]) -> io::Result<Decision> {
        if self.summary_of(storage).is_none() {
            return Ok(Decision::refuse(no_storage(storage)));
        }
        let mut batch = Batch::new();
        for span in pieces {
            let end = span.first.saturating_add(span.count.into());
            self.drop_unclaimed(&keys::piece(storage, span.first), &keys::piece(storage, end), &mut batch)?;
        }
        Ok(Decision { outcome: Outcome::Done, batch, next: Next::Same })
    }

    /// Removes all unclaimed pieces, from one key of `unclaimed` to another.
    pub(super) fn drop_unclaimed(&self, from: &[u8], until: &[u8], batch: &mut Batch) -> io::Result<()> {
        let mut run: Option<Run> = None;
        let mut remove = |run: Run| {
            self.inner.garbage.fetch_add((run.end - run.first) * limits::PIECE as u64, Relaxed);
            run.delete(&[keys::PIECES, keys::UNCLAIMED], batch);
        };
        for pair in self.engine().range(keys::UNCLAIMED, from, until, Order::Ascending) {
            let (key, _) = pair?;
            let (storage, piece) =
                keys::decode_piece(&key).ok_or_else(|| value::damaged("a piece's key is not 12 bytes"))?;
            match &mut run {
                Some(run) if run.storage == storage && run.end == piece => run.end += 1,
                _ => {
                    run.replace(Run { storage, first: piece, end: piece + 1 }).map(&mut remove);
                }
            }
        }
        run.map(remove);
        Ok(())
    }

    /// Claims the pieces that `commit` names; `None`: some are not there, or belong to a revision already.
    pub(super) fn claim(&self, commit: &Commit, batch: &mut Batch) -> io::Result<Option<()>> {
        let storage = commit.storage;
        let mut spans: Vec<Span> =
            commit.writes.iter().flat_map(Write::staged).flat_map(|s| &s.pieces).copied().collect();
        spans.sort_unstable();
        // A large transaction's pieces are numbered in a row as a rule: one range read checks each run of them.
        let mut runs: Vec<Run> = Vec::new();
        for span in spans {
            let end = span.first.saturating_add(span.count.into());
            match runs.last_mut() {
                _ if span.count == 0 => return Ok(None),
                Some(last) if span.first < last.end => return Ok(None),
                Some(last) if span.first == last.end => last.end = end,
                _ => runs.push(Run { storage, first: span.first, end }),
            }
        }
        for run in runs {
            let (from, until) = run.keys();
            let mut found = 0;
            for pair in self.engine().range(keys::UNCLAIMED, &from, &until, Order::Ascending) {
                pair?;
                found += 1;
            }
            if found != run.end - run.first {
                return Ok(None);
            }
            run.delete(&[keys::UNCLAIMED], batch);
        }
        Ok(Some(()))
    }

    /// How many pieces are unclaimed, counted up to `most`.
    pub fn count_unclaimed(&self, storage: StorageId, most: usize) -> io::Result<u64> {
        let (from, until) = (storage.0.to_be_bytes(), keys::storage_end(storage));
        let mut count = 0;
        for pair in self.engine().range(keys::UNCLAIMED, &from, &until, Order::Ascending).take(most) {
            pair?;
            count += 1;
        }
        Ok(count)
    }

    /// The data of `staged`: its pieces, put together.
    pub fn read_staged(&self, storage: StorageId, staged: &Staged) -> io::Result<Bytes> {
        let numbers = || staged.pieces.iter().flat_map(|span| (span.first..).take(span.count as usize));
        let mut numbers = numbers().peekable();
        let mut whole = BytesMut::new();
        while let Some(number) = numbers.next() {
            let piece = self.piece(storage, number)?;
            if whole.is_empty() && numbers.peek().is_none() {
                return Ok(piece);
            }
            if whole.is_empty() {
                whole.reserve(usize::try_from(staged.length).unwrap_or(0).min(limits::OBJECT));
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }

    /// One piece.
    pub fn piece(&self, storage: StorageId, number: u64) -> io::Result<Bytes> {
        let key = keys::piece(storage, number);
        let value = self.engine().get(keys::PIECES, &key)?;
        let value =
            value.ok_or_else(|| value::damaged(format_args!("storage {storage}: piece {number} is not there")))?;
        value::body(&key, value::PIECE, &value)?;
        Ok(value::into_body(value))
    }

    /// The blob of revision `tid`: the revision that it came with, and its pieces. `None`: the revision has no blob.
    pub fn blob(&self, storage: StorageId, oid: Oid, tid: Tid) -> io::Result<Option<(Tid, Staged)>> {
        self.steady(|| self.find_blob(storage, oid, tid))
    }

    /// The blob's value as it is stored with revision `tid`: its pieces, or a pointer.
    pub(super) fn stored_blob(&self, storage: StorageId, oid: Oid, tid: Tid) -> io::Result<Option<StoredBlob>> {
        let key = keys::revision(storage, oid, tid);
        let value = self.engine().get(keys::BLOBS, &key)?;
        value.map(|value| StoredBlob::decode(&key, &value)).transpose()
    }

    pub(super) fn find_blob(&self, storage: StorageId, oid: Oid, tid: Tid) -> io::Result<Option<(Tid, Staged)>> {
        let stored = |tid| self.stored_blob(storage, oid, tid);
        match stored(tid)? {
            None => Ok(None),
            Some(StoredBlob::Pieces(staged)) => Ok(Some((tid, staged))),
            Some(StoredBlob::SameAs(at)) => match stored(at)? {
                Some(StoredBlob::Pieces(staged)) => Ok(Some((at, staged))),
                _ => Err(value::damaged(format_args!(
                    "storage {storage}, object {oid}, transaction {tid}: its blob is not with transaction {at}"
                ))),
            },
        }
    }

    /// How the blob of a write is stored, and its hash. `Err`: the write is to show an older blob again that does not
    /// exist.
    pub(super) fn resolve_blob(
        &self,
        storage: StorageId,
        write: &Write,
    ) -> io::Result<Result<Option<(StoredBlob, digest::Digest)>, ()>> {
        Ok(match &write.blob {
            None => Ok(None),
            Some(Blob::Staged(staged)) => Ok(Some((StoredBlob::Pieces(staged.clone()), staged.hash))),
            Some(Blob::SameAs(tid)) => match self.find_blob(storage, write.oid, *tid)? {
                Some((at, staged)) => Ok(Some((StoredBlob::SameAs(at), staged.hash))),
                None => Err(()),
            },
        })
    }
}

/// Pieces of one storage, numbered in a row from `first` up to but without `end`.
struct Run {
    storage: StorageId,
    first: u64,
    end: u64,
}

impl Run {
    /// The longest run whose keys are deleted one by one: a deleted range slows down every read of the table near it
    /// until it is compacted.
    const FEW: u64 = 16;

    fn keys(&self) -> ([u8; 12], [u8; 12]) {
        (keys::piece(self.storage, self.first), keys::piece(self.storage, self.end))
    }

    fn delete(&self, tables: &[Table], batch: &mut Batch) {
        let (from, until) = self.keys();
        for table in tables {
            if self.end - self.first > Run::FEW {
                batch.delete_range(*table, from, until);
            } else {
                (self.first..self.end).for_each(|piece| batch.delete(*table, keys::piece(self.storage, piece)));
            }
        }
    }
}
