//! From a `Data.fs` and its blobs into a store: each transaction becomes the command that would have committed it.
//!
//! Commands are applied at positions of the import's own, one after the other; [`Store::rebase`] ends that, and a
//! cluster's log begins on top. Large data goes ahead of its transaction in pieces, as in a running cluster: all blobs,
//! records longer than a piece, and the records of a transaction beyond its first [`limits::IMPORT`] bytes. The same
//! file gives the same store on every host, to the byte of its digests.
//!
//! **What a file has that a store has not.** An object that is listed twice in a transaction (many files list the
//! record of a blob twice) is listed twice, and stored once. If its two records differ, the last is kept, which
//! FileStorage would load, and a warning counts it. A pointer to a record that is a pointer itself becomes one to the
//! data, which reads the same.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::blobs::{BlobFolder, is_blob_record};
use super::faults::of_file;
use super::progress::{Overseer, Progress, stopped};
use super::read::{FileContent, FileRecord, FileTransaction, Reader};
use crate::command::{Base, Blob, Change, Command, Commit, Content, Outcome, Span, Staged, Write};
use crate::config::limits;
use crate::storage::{Hashing, Position, Store};
use crate::zodb::{Oid, StorageId, Tid};

/// Records up to this length are checked for being a blob's; those have some thirty bytes.
const BLOB_RECORD: u64 = 4096;
/// Missing blobs that are named one by one.
const NAMED: usize = 5;

/// The policy for blobs whose files are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingBlobs {
    /// Import nothing; the error names the blobs.
    Refuse,
    /// Leave the blobs out; a warning says how many.
    Ignore,
}

/// The files to import, and the storage to make of them.
#[derive(Clone, Debug)]
pub struct Import {
    /// The `Data.fs`.
    pub file: PathBuf,
    /// The folder of the blobs.
    pub blobs: Option<PathBuf>,
    /// The storage's name, which clients ask for.
    pub storage: String,
    /// The policy for blobs whose files are missing.
    pub missing_blobs: MissingBlobs,
}

/// The import in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// How many transactions.
    pub transactions: u64,
    /// How many records they list.
    pub records: u64,
    /// How many blobs.
    pub blobs: u64,
    /// Bytes of records and blobs.
    pub bytes: u64,
    /// The last transaction.
    pub last: Tid,
    /// Oddities of the file that an operator should know of.
    pub warnings: Vec<Warning>,
}

/// An oddity of a file that does not stop its import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// The file ends with a transaction that was voted and not finished, from this byte on; it is left out.
    Unfinished(u64),
    /// So many transactions of status `u` (undone in place, by an old FileStorage) are left out.
    Undone(u64),
    /// So many records were replaced by a later one of the same transaction.
    Replaced(u64),
    /// So many blobs are missing.
    MissingBlobs(u64),
    /// Python 2 wrote the file.
    Python2,
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Warning::Unfinished(at) => write!(
                f,
                "the transaction that begins at byte {at}, the last, was never finished (status c); it is left out, as \
                 FileStorage would do"
            ),
            Warning::Undone(count) => write!(f, "{count} transactions of status u (undone) are left out"),
            Warning::Replaced(count) => {
                write!(
                    f,
                    "{count} records are left out, as the same transaction has other data of their objects further on"
                )
            }
            Warning::MissingBlobs(count) => write!(f, "{count} blobs are missing; opening one of them is an error"),
            Warning::Python2 => write!(
                f,
                "the file was written by Python 2; clients with Python 3 need it converted by zodbupdate, before the \
                 import or after it"
            ),
        }
    }
}

impl Import {
    /// Puts the storage into `store`, which is empty or holds other imports. After an error the store must be thrown
    /// away.
    pub fn run(&self, store: &Store, overseer: Overseer<'_>) -> io::Result<Imported> {
        let reader = Reader::open(&self.file)?;
        let blobs = self.blobs.as_deref().map(BlobFolder::open).transpose()?;
        if store.applied() != Position::default() {
            return Err(io::Error::other("the database belongs to the log of a node already"));
        }
        if store.storage(&self.storage).is_some() {
            let why = format!(
                "there is a storage {:?} already; to add another one, give its name with --storage",
                self.storage
            );
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
        }
        let mut importer = Importer {
            store,
            reader,
            blobs,
            missing_blobs: self.missing_blobs,
            storage: StorageId::default(),
            done: Imported::default(),
            next_piece: 0,
            ahead: Vec::new(),
            ahead_bytes: 0,
            missing: Vec::new(),
            missing_count: 0,
            replaced: 0,
            overseer,
        };
        match importer.apply(Change::CreateStorage { name: self.storage.clone() })? {
            Outcome::Storage(storage) => importer.storage = storage,
            Outcome::Refused(refusal) => {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, refusal.to_string()));
            }
            other => unreachable!("{other:?} is no answer to the creation of a storage"),
        }
        importer.next_piece = store.summary(importer.storage).next_piece;
        while let Some(transaction) = importer.reader.transaction()? {
            importer.transaction(transaction)?;
            importer.tell()?;
        }
        importer.finish()
    }
}

/// Whether a record is a blob's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A blob's record.
    Blob,
    /// A blob's record if the object's record of this transaction is one.
    SameAs(Tid),
    /// Not a blob's record.
    Other,
}

struct Importer<'i> {
    store: &'i Store,
    reader: Reader,
    blobs: Option<BlobFolder>,
    missing_blobs: MissingBlobs,
    storage: StorageId,
    done: Imported,
    /// The number that the next piece will get.
    next_piece: u64,
    /// Pieces that are numbered and not applied yet.
    ahead: Vec<Bytes>,
    ahead_bytes: usize,
    /// The first few blobs that are missing.
    missing: Vec<PathBuf>,
    missing_count: u64,
    replaced: u64,
    overseer: Overseer<'i>,
}

impl Importer<'_> {
    fn finish(mut self) -> io::Result<Imported> {
        if self.missing_count > 0 && self.missing_blobs == MissingBlobs::Refuse {
            return Err(self.blobs_are_missing());
        }
        self.store.rebase()?;
        self.store.flush()?;
        let counted = |count: u64, warning: fn(u64) -> Warning| (count > 0).then(|| warning(count));
        self.done.warnings.extend(self.reader.is_python2().then_some(Warning::Python2));
        self.done.warnings.extend(self.reader.unfinished().map(Warning::Unfinished));
        self.done.warnings.extend(counted(self.reader.undone(), Warning::Undone));
        self.done.warnings.extend(counted(self.replaced, Warning::Replaced));
        self.done.warnings.extend(counted(self.missing_count, Warning::MissingBlobs));
        Ok(self.done)
    }

    fn blobs_are_missing(&self) -> io::Error {
        let named: Vec<String> = self.missing.iter().map(|path| path.display().to_string()).collect();
        let more = match self.missing_count.saturating_sub(named.len() as u64) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let why = match &self.blobs {
            Some(_) => format!(
                "{} blobs are missing: {}{more}. Is this the folder of this Data.fs? To leave them out: --missing-blobs ignore",
                self.missing_count,
                named.join(", ")
            ),
            None => "it has blobs: say with --blobs where they are. To leave them out: --missing-blobs ignore".into(),
        };
        io::Error::new(io::ErrorKind::NotFound, why)
    }

    fn apply(&mut self, change: Change) -> io::Result<Outcome> {
        let at = self.store.applied();
        let at = Position { index: at.index + 1, term: at.term };
        self.store.apply(at, &Command { reign: self.store.reign(), change })
    }

    fn tell(&mut self) -> io::Result<()> {
        let progress = Progress { done: self.reader.position(), total: self.reader.size(), bytes: self.done.bytes };
        if (self.overseer)(progress) { Ok(()) } else { Err(stopped()) }
    }

    fn transaction(&mut self, transaction: FileTransaction) -> io::Result<()> {
        let FileTransaction { position, tid, meta } = transaction;
        let mut writes: Vec<Write> = Vec::new();
        // The index of each object's write, for objects that are listed again.
        let mut first: BTreeMap<Oid, usize> = BTreeMap::new();
        let mut inline = 0;
        while let Some(record) = self.reader.record()? {
            self.done.records += 1;
            let (content, kind) = self.content(&record, &mut inline)?;
            match first.get(&record.oid) {
                None => {
                    let blob = self.blob_of(&record, tid, kind)?;
                    first.insert(record.oid, writes.len());
                    writes.push(Write { oid: record.oid, base: Base::Any, content, blob });
                }
                Some(&at) => {
                    let again = content == Content::SameAs(tid) || same(&writes[at].content, &content);
                    if !again {
                        self.replaced += 1;
                        if writes[at].blob.is_none() {
                            writes[at].blob = self.blob_of(&record, tid, kind)?;
                        }
                        writes[at].content = content;
                    }
                    let content = Content::SameAs(tid);
                    writes.push(Write { oid: record.oid, base: Base::Any, content, blob: None });
                }
            }
        }
        self.send_ahead()?;
        let commit = Commit { storage: self.storage, tid, meta, writes };
        match self.apply(Change::Commit(commit))? {
            Outcome::Committed(_) => {}
            Outcome::Refused(refusal) => {
                return Err(self.reader.wrong(position, format_args!("transaction {tid} can't be: {refusal}")));
            }
            other => unreachable!("{other:?} is no answer to a commit"),
        }
        self.done.transactions += 1;
        self.done.last = tid;
        Ok(())
    }

    fn content(&mut self, record: &FileRecord, inline: &mut usize) -> io::Result<(Content, Kind)> {
        let (position, length) = match record.content {
            FileContent::Absent => return Ok((Content::Absent, Kind::Other)),
            FileContent::SameAs(tid) => return Ok((Content::SameAs(tid), Kind::SameAs(tid))),
            FileContent::Data { position, length } => (position, length),
        };
        self.done.bytes += length;
        let mut kind = Kind::Other;
        if length <= limits::PIECE as u64 {
            let data = self.reader.data(position, length as usize)?;
            if length <= BLOB_RECORD && is_blob_record(&data) {
                kind = Kind::Blob;
            }
            if *inline + data.len() <= limits::IMPORT {
                *inline += data.len();
                return Ok((Content::Data(data), kind));
            }
        }
        let mut hashing = Hashing::record();
        let first = self.next_piece;
        let mut at = position;
        let end = position + length;
        while at < end {
            let part = self.reader.data(at, limits::PIECE.min((end - at) as usize))?;
            hashing.update(&part);
            at += part.len() as u64;
            self.send(part)?;
        }
        Ok((Content::Staged(self.staged(first, length, &hashing)), kind))
    }

    fn staged(&self, first: u64, length: u64, hashing: &Hashing) -> Staged {
        let count = u32::try_from(self.next_piece - first).expect("as many pieces would have four petabytes");
        let pieces = if count == 0 { Vec::new() } else { vec![Span { first, count }] };
        Staged { pieces, length, hash: hashing.finish() }
    }

    /// Numbers a piece; when many wait, applies them.
    fn send(&mut self, piece: Bytes) -> io::Result<()> {
        self.ahead_bytes += piece.len();
        self.ahead.push(piece);
        self.next_piece += 1;
        if self.ahead_bytes >= limits::IMPORT || self.ahead.len() == limits::STAGE_PIECES {
            self.send_ahead()?;
            self.tell()?;
        }
        Ok(())
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

    /// The blob of a record, if that is a blob's.
    fn blob_of(&mut self, record: &FileRecord, tid: Tid, kind: Kind) -> io::Result<Option<Blob>> {
        let older = match kind {
            Kind::Other => return Ok(None),
            Kind::Blob => None,
            // (An undo has copied the blob's file; the store need not keep both.)
            Kind::SameAs(of) => self.store.blob(self.storage, record.oid, of)?,
        };
        let found = match &self.blobs {
            Some(blobs) => blobs.find(record.oid, tid)?,
            None => None,
        };
        let Some(mut file) = found else {
            // (A record that shows older data is a blob's if that older one has a blob.)
            if kind == Kind::Blob || older.is_some() {
                self.note_missing(record.oid, tid)?;
            }
            return Ok(None);
        };
        let path = self.blobs.as_ref().map(|blobs| blobs.path_of(record.oid, tid)).unwrap_or_default();
        self.done.blobs += 1;
        if let Some((at, older)) = older
            && file.metadata().map_err(|fault| of_file(&path, &fault))?.len() == older.length
            && hash_of(&mut file, &path)? == older.hash
        {
            self.done.bytes += older.length;
            return Ok(Some(Blob::SameAs(at)));
        }
        self.stage_blob(&path).map(Some)
    }

    fn stage_blob(&mut self, path: &Path) -> io::Result<Blob> {
        let mut file = File::open(path).map_err(|fault| of_file(path, &fault))?;
        let mut hashing = Hashing::blob();
        let (first, mut length) = (self.next_piece, 0);
        let staging = self.missing_count == 0 || self.missing_blobs == MissingBlobs::Ignore;
        loop {
            let part = next_part(&mut file, path)?;
            if part.is_empty() || !staging {
                break;
            }
            hashing.update(&part);
            length += part.len() as u64;
            self.done.bytes += part.len() as u64;
            self.send(part)?;
        }
        Ok(Blob::Staged(self.staged(first, length, &hashing)))
    }

    fn note_missing(&mut self, oid: Oid, tid: Tid) -> io::Result<()> {
        self.missing_count += 1;
        if self.missing_blobs == MissingBlobs::Refuse {
            // Where a folder was given, the import reads on to count all missing blobs, for the error.
            let Some(blobs) = &self.blobs else { return Err(self.blobs_are_missing()) };
            if self.missing.len() < NAMED {
                self.missing.push(blobs.path_of(oid, tid));
            }
        }
        Ok(())
    }
}

/// Whether two records of one object in one transaction hold the same.
fn same(one: &Content, other: &Content) -> bool {
    let hash = |content: &Content| match content {
        Content::Data(data) => {
            let mut hashing = Hashing::record();
            hashing.update(data);
            Some(hashing.finish())
        }
        Content::Staged(staged) => Some(staged.hash),
        Content::Absent | Content::SameAs(_) => None,
    };
    one == other || hash(one).is_some_and(|one| hash(other) == Some(one))
}

/// The next piece of a blob; empty at its end.
fn next_part(file: &mut File, path: &Path) -> io::Result<Bytes> {
    let mut part = Vec::with_capacity(limits::PIECE.min(64 << 10));
    file.by_ref().take(limits::PIECE as u64).read_to_end(&mut part).map_err(|fault| of_file(path, &fault))?;
    Ok(part.into())
}

fn hash_of(file: &mut File, path: &Path) -> io::Result<[u8; 32]> {
    let mut hashing = Hashing::blob();
    loop {
        let part = next_part(file, path)?;
        if part.is_empty() {
            return Ok(hashing.finish());
        }
        hashing.update(&part);
    }
}
