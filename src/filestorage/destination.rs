//! The way of an import into a store: the commands that would have committed what it reads.
//!
//! Commands are applied at positions of the import's own, one after the other; [`Store::rebase`] ends that, and a
//! cluster's log begins on top. Large data goes ahead of its transaction in pieces, as in a running cluster: all blobs,
//! records longer than a piece, and the records of a transaction beyond its first [`limits::IMPORT`] bytes. The same
//! file gives the same store on every host, to the byte of its digests.

use std::io;

use bytes::Bytes;

use crate::command::{Change, Command, Commit, Outcome, Span, Staged, Write};
use crate::config::limits;
use crate::storage::{Hashing, Position, Store};
use crate::zodb::{Refusal, StorageId, Tid, TransactionMeta};

/// A store into which a storage is imported.
pub struct Destination<'s> {
    pub store: &'s Store,
    pub storage: StorageId,
    /// The number that the next piece will get.
    next_piece: u64,
    /// Pieces that are numbered and not applied yet.
    ahead: Vec<Bytes>,
    ahead_bytes: usize,
}

impl<'s> Destination<'s> {
    /// Makes the storage.
    pub fn new(store: &'s Store, name: &str) -> io::Result<Destination<'s>> {
        if store.applied() != Position::default() {
            let why = "the database belongs to the log of a node already: import into a new data folder";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
        }
        if store.storage(name).is_some() {
            let why = format!("there is a storage {name:?} already; to add another one, give its name with --storage");
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
        }
        let mut made =
            Destination { store, storage: StorageId::default(), next_piece: 0, ahead: Vec::new(), ahead_bytes: 0 };
        match made.apply(Change::CreateStorage { name: name.to_owned() })? {
            Outcome::Storage(storage) => made.storage = storage,
            Outcome::Refused(refusal) => {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, refusal.to_string()));
            }
            other => unreachable!("{other:?} is no answer to the creation of a storage"),
        }
        made.next_piece = store.summary(made.storage).next_piece;
        Ok(made)
    }

    fn apply(&mut self, change: Change) -> io::Result<Outcome> {
        let at = self.store.applied();
        let at = Position { index: at.index + 1, term: at.term };
        self.store.apply(at, &Command { reign: self.store.reign(), change })
    }

    /// Commits a transaction. If it can't be: why.
    pub fn commit(&mut self, tid: Tid, meta: TransactionMeta, writes: Vec<Write>) -> io::Result<Option<Refusal>> {
        self.send_ahead()?;
        match self.apply(Change::Commit(Commit { storage: self.storage, tid, meta, writes }))? {
            Outcome::Committed(_) => Ok(None),
            Outcome::Refused(refusal) => Ok(Some(refusal)),
            other => unreachable!("{other:?} is no answer to a commit"),
        }
    }

    /// The number that the next piece will get.
    pub fn next_piece(&self) -> u64 {
        self.next_piece
    }

    /// Data that were sent in pieces, from number `first` to the last one.
    pub fn staged(&self, first: u64, length: u64, hashing: &Hashing) -> Staged {
        let count = u32::try_from(self.next_piece - first).expect("as many pieces would have four petabytes");
        let pieces = if count == 0 { Vec::new() } else { vec![Span { first, count }] };
        Staged { pieces, length, hash: hashing.finish() }
    }

    /// Numbers a piece; when many wait, applies them, and answers that it did.
    pub fn send(&mut self, piece: Bytes) -> io::Result<bool> {
        self.ahead_bytes += piece.len();
        self.ahead.push(piece);
        self.next_piece += 1;
        let many = self.ahead_bytes >= limits::IMPORT || self.ahead.len() == limits::STAGE_PIECES;
        if many {
            self.send_ahead()?;
        }
        Ok(many)
    }

    fn send_ahead(&mut self) -> io::Result<()> {
        if self.ahead.is_empty() {
            return Ok(());
        }
        self.ahead_bytes = 0;
        let pieces = std::mem::take(&mut self.ahead);
        let expected = self.next_piece - pieces.len() as u64;
        let outcome = self.apply(Change::Stage { storage: self.storage, pieces })?;
        assert_eq!(outcome, Outcome::Staged(expected), "pieces are numbered in a row");
        Ok(())
    }
}
