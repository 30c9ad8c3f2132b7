//! From a `Data.fs` and its blobs into a store: each transaction becomes the command that would have committed it.
//!
//! **What a file has that a store has not.** An object that is listed twice in a transaction (many files list the
//! record of a blob twice) is listed twice, and stored once. If its two records differ, the last is kept, which
//! FileStorage would load, and a warning counts it. A pointer to a record that is a pointer itself becomes one to the
//! data, which reads the same. A pointer to a record that the store does not have (its transaction was undone, or it is
//! another object's) becomes a copy of what FileStorage would load. Transactions whose ids go back are sorted
//! (`survey`).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::blobs::BlobFolder;
use super::destination::Destination;
use super::faults::of_file;
use super::look::Target;
use super::notes::Notes;
use super::progress::{Overseer, Phase, Progress, stopped};
use super::read::{FileContent, FileRecord, FileTransaction, Reader, Step};
use super::survey::{Missing, Place, is_blob, look_through};
use super::warnings::Warning;
use crate::command::{Base, Blob, Content, Write};
use crate::config::limits;
use crate::storage::{Hashing, Store};
use crate::zodb::{Oid, Tid, TransactionMeta};

/// The description of a transaction that is added at the end.
const ADDED: &[u8] = b"zrsctl import: the last transaction's id in Data.fs";

/// Said of a folder of blobs that lacks its marker.
const UNMARKED: &str = " (The folder has no .layout, a hidden file that a copy may have left behind: so the blobs were \
                        looked for in both layouts, bushy and lawn.)";

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
    /// Whether to import what can be read of a damaged file.
    pub salvage: bool,
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
    /// Damaged places, and what was lost there: the first [`limits::LOST_NAMED`].
    pub lost: Vec<String>,
    /// How many there are.
    pub lost_count: u64,
}

impl Import {
    /// Puts the storage into `store`, which is empty or holds other imports. After an error the store must be thrown
    /// away.
    pub fn run(&self, store: &Store, overseer: Overseer<'_>) -> io::Result<Imported> {
        let mut reader = Reader::open(&self.file, self.salvage)?;
        let blobs = self.blobs.as_deref().map(BlobFolder::open).transpose()?;
        let destination = Destination::new(store, &self.storage)?;
        let refuse = self.missing_blobs == MissingBlobs::Refuse;
        let found = look_through(&mut reader, blobs.as_ref(), refuse, overseer)?;
        if refuse && found.missing.count > 0 {
            return Err(blobs_are_missing(blobs.as_ref(), &found.missing));
        }
        let mut importer = Importer {
            destination,
            reader,
            blobs,
            done: Imported { lost_count: found.notes.lost_count, ..Imported::default() },
            blob_bytes: 0,
            blob_bytes_in_all: found.blob_bytes,
            places: found.order,
            merged: BTreeMap::new(),
            missing: 0,
            shadowed: 0,
            replaced: 0,
            foreign: 0,
            overseer,
        };
        importer.warn_of_the_file(&found.notes);
        importer.done.lost = found.notes.lost;
        match importer.places.take() {
            None => importer.copy()?,
            Some(places) => importer.copy_sorted(places)?,
        }
        importer.finish(found.notes.last_header)
    }
}

fn blobs_are_missing(blobs: Option<&BlobFolder>, missing: &Missing) -> io::Error {
    let named: Vec<String> = missing.first.iter().map(|path| path.display().to_string()).collect();
    let more = match missing.count.saturating_sub(named.len() as u64) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let why = match blobs {
        Some(blobs) => {
            let unmarked = if blobs.is_marked() { "" } else { UNMARKED };
            format!(
                "{} blobs are missing: {}{more}.{unmarked} Is this the whole folder of this Data.fs (blob-dir), and not that \
                 of an older copy? To lose these blobs for good: --missing-blobs ignore",
                missing.count,
                named.join(", ")
            )
        }
        None => "it has blobs: say with --blobs where they are (blob-dir). To lose them for good: --missing-blobs \
                 ignore"
            .into(),
    };
    io::Error::new(io::ErrorKind::NotFound, why)
}

struct Importer<'i> {
    destination: Destination<'i>,
    reader: Reader,
    blobs: Option<BlobFolder>,
    done: Imported,
    /// Bytes of blobs that are copied, and of all.
    blob_bytes: u64,
    blob_bytes_in_all: u64,
    /// All transactions in their new order, if they are sorted.
    places: Option<Vec<Place>>,
    /// The place of the transaction that wrote a revision, where several transactions have become one.
    merged: BTreeMap<(Tid, Oid), u64>,
    missing: u64,
    shadowed: u64,
    replaced: u64,
    foreign: u64,
    overseer: Overseer<'i>,
}

/// A transaction that is being put together.
#[derive(Default)]
struct Pending {
    writes: Vec<Write>,
    /// The index of each object's write, for objects that are listed again.
    first: BTreeMap<Oid, usize>,
    /// Bytes of data in the writes.
    inline: usize,
}

impl Importer<'_> {
    fn warn_of_the_file(&mut self, notes: &Notes) {
        let warnings = &mut self.done.warnings;
        warnings.extend((self.reader.size() == 0).then_some(Warning::Empty));
        warnings.extend(self.reader.is_python2().then_some(Warning::Python2));
        warnings.extend(Warning::of(notes));
        warnings.extend(self.places.is_some().then_some(Warning::Sorted));
    }

    /// Copies the transactions as they come.
    fn copy(&mut self) -> io::Result<()> {
        loop {
            match self.reader.step()? {
                Step::End => return Ok(()),
                Step::Passed => {}
                Step::Transaction(transaction) => {
                    let mut pending = Pending::default();
                    self.collect(&transaction, &mut pending)?;
                    self.commit(transaction, pending)?;
                }
            }
            self.tell()?;
        }
    }

    /// Copies the transactions in the order of their ids; those of one id become one, as of the last of them.
    fn copy_sorted(&mut self, places: Vec<Place>) -> io::Result<()> {
        self.places = Some(places);
        let mut next = 0;
        loop {
            let mut pending = Pending::default();
            let mut last: Option<FileTransaction> = None;
            while let Some(place) = self.places.as_ref().and_then(|places| places.get(next)).copied()
                && last.as_ref().is_none_or(|last| last.tid == place.tid)
            {
                let transaction = self.reader.transaction_at(place.position)?;
                self.collect(&transaction, &mut pending)?;
                last = Some(transaction);
                next += 1;
            }
            let Some(last) = last else { return Ok(()) };
            self.commit(last, pending)?;
            self.tell()?;
        }
    }

    /// Ends the import. `last`: the id with which the file ends.
    fn finish(mut self, last: Tid) -> io::Result<Imported> {
        if last > self.done.last && last < Tid::MAX {
            let meta = TransactionMeta { status: b' ', description: ADDED.to_vec(), ..TransactionMeta::default() };
            self.commit(FileTransaction { position: self.reader.size(), tid: last, meta }, Pending::default())?;
            self.done.warnings.push(Warning::Added(last));
        }
        self.destination.store.rebase()?;
        self.destination.store.flush()?;
        let counted = |count: u64, warning: fn(u64) -> Warning| (count > 0).then(|| warning(count));
        self.done.warnings.extend(counted(self.shadowed, Warning::Shadowed));
        self.done.warnings.extend(counted(self.replaced, Warning::Replaced));
        self.done.warnings.extend(counted(self.foreign, Warning::Foreign));
        self.done.warnings.extend(counted(self.missing, Warning::MissingBlobs));
        Ok(self.done)
    }

    fn tell(&mut self) -> io::Result<()> {
        let progress = Progress {
            phase: Phase::Copying,
            done: self.reader.position() + self.blob_bytes,
            total: self.reader.size() + self.blob_bytes_in_all,
            bytes: self.done.bytes,
        };
        if (self.overseer)(progress) { Ok(()) } else { Err(stopped()) }
    }

    /// Adds the records of a transaction that was just begun.
    fn collect(&mut self, transaction: &FileTransaction, pending: &mut Pending) -> io::Result<()> {
        let FileTransaction { position, tid, .. } = *transaction;
        let is_merged = self.is_merged(tid);
        while let Some(record) = self.reader.record()? {
            self.done.records += 1;
            let oid = record.oid;
            if self.is_shadowed(oid, position)? {
                self.shadowed += 1;
                continue;
            }
            if is_merged {
                self.merged.insert((tid, oid), position);
            }
            let is_blob = is_blob(&mut self.reader, &record)?;
            let (content, of) = self.content(&record, &mut pending.inline)?;
            match pending.first.get(&oid) {
                None => {
                    let blob = self.blob_of(&record, is_blob, of)?;
                    pending.first.insert(oid, pending.writes.len());
                    pending.writes.push(Write { oid, base: Base::Any, content, blob });
                }
                Some(&at) => {
                    let write = &mut pending.writes[at];
                    if !same(&write.content, &content) {
                        self.replaced += 1;
                        write.content = content;
                        if write.blob.is_none() {
                            write.blob = self.blob_of(&record, is_blob, of)?;
                        }
                    }
                    let content = Content::SameAs(tid);
                    pending.writes.push(Write { oid, base: Base::Any, content, blob: None });
                }
            }
        }
        Ok(())
    }

    fn commit(&mut self, transaction: FileTransaction, pending: Pending) -> io::Result<()> {
        let FileTransaction { position, tid, meta } = transaction;
        if let Some(refusal) = self.destination.commit(tid, meta, pending.writes)? {
            return Err(self.reader.wrong(position, format_args!("transaction {tid} can't be: {refusal}")));
        }
        self.done.transactions += 1;
        self.done.last = tid;
        Ok(())
    }

    /// The places of the transactions of this id, if transactions are sorted.
    fn places_of(&self, tid: Tid) -> &[Place] {
        let places = self.places.as_deref().unwrap_or_default();
        let from = places.partition_point(|place| place.tid < tid);
        let count = places[from..].partition_point(|place| place.tid == tid);
        &places[from..from + count]
    }

    fn is_merged(&self, tid: Tid) -> bool {
        self.places_of(tid).len() > 1
    }

    /// Whether the object has a record of a smaller id further on in the file than the transaction at `position`, which
    /// therefore nobody could load.
    fn is_shadowed(&self, oid: Oid, position: u64) -> io::Result<bool> {
        if self.places.is_none() {
            return Ok(false);
        }
        // (Revisions that were not left out lie in the file as in the store: the newest one so far lies last.)
        let Some(current) = self.destination.store.current(self.destination.storage, oid)? else { return Ok(false) };
        let last = match self.places_of(current.tid) {
            [place] => Some(place.position),
            _ => self.merged.get(&(current.tid, oid)).copied(),
        };
        Ok(last.is_some_and(|last| last > position))
    }

    /// The effect of a record on its object; and if it shows a revision of the store again, which one.
    fn content(&mut self, record: &FileRecord, inline: &mut usize) -> io::Result<(Content, Option<Tid>)> {
        match record.content {
            FileContent::Absent => Ok((Content::Absent, None)),
            FileContent::Data { position, length } => Ok((self.data(position, length, inline, false)?, None)),
            FileContent::SameAs(target) if self.has(record.oid, &target)? => {
                Ok((Content::SameAs(target.tid), Some(target.tid)))
            }
            FileContent::SameAs(target) => {
                self.foreign += u64::from(target.oid != record.oid);
                match target.data {
                    None => Ok((Content::Absent, None)),
                    Some((position, length)) => Ok((self.data(position, length, inline, true)?, None)),
                }
            }
        }
    }

    /// Whether the store has the record to which a pointer of the object leads, as the revision that it says to be.
    fn has(&self, oid: Oid, target: &Target) -> io::Result<bool> {
        if target.oid != oid {
            return Ok(false);
        }
        let Some((position, length)) = target.data else {
            return self.destination.store.is_like(self.destination.storage, oid, target.tid, Tid::MAX, None);
        };
        let Some(content) = self.destination.store.content_of(self.destination.storage, oid, target.tid)? else {
            return Ok(false);
        };
        let mut hashing = Hashing::record();
        let (mut at, end) = (position, position + length);
        while at < end {
            let part = self.reader.data_elsewhere(at, limits::PIECE.min((end - at) as usize))?;
            at += part.len() as u64;
            hashing.update(&part);
        }
        Ok(content == hashing.finish())
    }

    /// The data at `position`; in pieces, if they are long or the transaction is large. `elsewhere`: they lie far from
    /// the records that are being read.
    fn data(&mut self, position: u64, length: u64, inline: &mut usize, elsewhere: bool) -> io::Result<Content> {
        let read = |reader: &mut Reader, at: u64, length: usize| match elsewhere {
            true => reader.data_elsewhere(at, length),
            false => reader.data(at, length),
        };
        self.done.bytes += length;
        if length <= limits::PIECE as u64 && *inline + length as usize <= limits::IMPORT {
            *inline += length as usize;
            return Ok(Content::Data(read(&mut self.reader, position, length as usize)?));
        }
        let mut hashing = Hashing::record();
        let first = self.destination.next_piece();
        let (mut at, end) = (position, position + length);
        while at < end {
            let part = read(&mut self.reader, at, limits::PIECE.min((end - at) as usize))?;
            hashing.update(&part);
            at += part.len() as u64;
            self.send(part)?;
        }
        Ok(Content::Staged(self.destination.staged(first, length, &hashing)))
    }

    /// Sends a piece ahead, and tells of the progress if that took a while.
    fn send(&mut self, piece: Bytes) -> io::Result<()> {
        if self.destination.send(piece)? { self.tell() } else { Ok(()) }
    }

    /// The blob of a record, if that is a blob's. `of`: the revision that the record shows again.
    fn blob_of(&mut self, record: &FileRecord, is_blob: bool, of: Option<Tid>) -> io::Result<Option<Blob>> {
        if !is_blob {
            return Ok(None);
        }
        let found = self.blobs.as_ref().map(|blobs| blobs.find(record.oid, record.tid)).transpose()?.flatten();
        let Some((path, length)) = found else {
            self.missing += 1;
            return Ok(None);
        };
        self.done.blobs += 1;
        // (An undo has copied the blob's file; the store need not keep both.)
        let older =
            of.map(|of| self.destination.store.blob(self.destination.storage, record.oid, of)).transpose()?.flatten();
        if let Some((at, older)) = older
            && length == older.length
            && hash_of(&path)? == older.hash
        {
            self.done.bytes += length;
            self.blob_bytes += length;
            return Ok(Some(Blob::SameAs(at)));
        }
        self.stage_blob(&path).map(Some)
    }

    fn stage_blob(&mut self, path: &Path) -> io::Result<Blob> {
        let mut file = File::open(path).map_err(|fault| of_file(path, &fault))?;
        let mut hashing = Hashing::blob();
        let (first, mut length) = (self.destination.next_piece(), 0);
        loop {
            let part = next_part(&mut file, path)?;
            if part.is_empty() {
                break;
            }
            hashing.update(&part);
            length += part.len() as u64;
            self.done.bytes += part.len() as u64;
            self.blob_bytes += part.len() as u64;
            self.send(part)?;
        }
        Ok(Blob::Staged(self.destination.staged(first, length, &hashing)))
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

fn hash_of(path: &Path) -> io::Result<[u8; 32]> {
    let mut file = File::open(path).map_err(|fault| of_file(path, &fault))?;
    let mut hashing = Hashing::blob();
    loop {
        let part = next_part(&mut file, path)?;
        if part.is_empty() {
            return Ok(hashing.finish());
        }
        hashing.update(&part);
    }
}
