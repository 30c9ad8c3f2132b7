//! Reads a `Data.fs` from its start, record by record, and trusts none of it: every length, position and repetition is
//! checked before it is used. An error names the file, the byte, the defect, and the way out.
//!
//! **What FileStorage passes over is passed over** and counted ([`Notes`]); where it would cut the file off, the file
//! ends. Previous positions are not followed at all. What it refuses is an error; but told to *salvage*, the reader
//! keeps the records that can be read, notes what is lost, and goes on behind the damaged place.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::Path;

use bytes::Bytes;

use super::format::{DONE, FIRST, MAGIC, MAGIC_PYTHON2, PACKED, RECORD, RecordHeader, TRANSACTION, TransactionHeader};
use super::look::{Defect, Look, Target, Whole, follow, look};
use super::notes::{EndReason, Notes};
use super::previous::Previous;
use super::source::Source;
use crate::config::limits;
use crate::zodb::{Oid, Tid, TransactionMeta};

/// The head of a transaction; its records follow by [`Reader::record`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileTransaction {
    /// The position of the head in the file.
    pub position: u64,
    /// The transaction's id.
    pub tid: Tid,
    /// The transaction's status and texts.
    pub meta: TransactionMeta,
}

/// A record without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileRecord {
    /// The record's position in the file.
    pub position: u64,
    /// The object.
    pub oid: Oid,
    /// The id of the transaction, as the record has it: the name of the blob's file.
    pub tid: Tid,
    /// The state of the object by this record.
    pub content: FileContent,
}

/// The state of an object by a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileContent {
    /// Data.
    Data {
        /// The position of the first byte.
        position: u64,
        /// The length in bytes.
        length: u64,
    },
    /// The object does not exist any more.
    Absent,
    /// The state by another record, again.
    SameAs(Target),
}

impl FileContent {
    /// Position and length of the data, whether they lie here or with another record.
    pub fn data(&self) -> Option<(u64, u64)> {
        match self {
            FileContent::Data { position, length } => Some((*position, *length)),
            FileContent::Absent => None,
            FileContent::SameAs(target) => target.data,
        }
    }
}

/// The next thing in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A transaction.
    Transaction(FileTransaction),
    /// A stretch of the file that has none, or none that counts.
    Passed,
    /// The end.
    End,
}

/// A `Data.fs` that is being read.
#[derive(Debug)]
pub struct Reader {
    pub(super) source: Source,
    python2: bool,
    pub(super) salvage: bool,
    /// The position of the next transaction.
    pub(super) next: u64,
    /// Bytes that were read.
    read: u64,
    pub(super) open: Option<Open>,
    pub(super) search: Option<Search>,
    /// The transactions that were found behind damaged places.
    pub(super) found: BTreeMap<u64, Option<u64>>,
    pub(super) notes: Notes,
    previous: Option<Previous>,
}

/// The transaction that is being read.
#[derive(Debug)]
pub(super) struct Open {
    pub position: u64,
    /// The next record's place, and that after the last one.
    pub at: u64,
    pub end: u64,
    /// The records' places, where they don't follow each other.
    pub picked: Option<VecDeque<u64>>,
}

/// The search for the transaction behind a place where none can be read.
#[derive(Debug)]
pub(super) struct Search {
    pub at: u64,
    pub from: u64,
    pub why: Why,
}

/// The reason why no transaction can be read at a place.
#[derive(Debug)]
pub(super) enum Why {
    Cut(EndReason),
    Defect(Defect),
}

impl Reader {
    /// Opens the file. Transactions that are appended to it later are not read. `salvage`: whether to go on where the
    /// file is damaged.
    pub fn open(path: &Path, salvage: bool) -> io::Result<Reader> {
        let source = Source::open(path)?;
        let mut reader = Reader {
            source,
            python2: false,
            salvage,
            next: FIRST,
            read: 0,
            open: None,
            search: None,
            found: BTreeMap::new(),
            notes: Notes::default(),
            previous: None,
        };
        reader.previous = Some(Previous::new(reader.size()));
        match reader.size() {
            // (FileStorage makes a file of it.)
            0 => reader.next = 0,
            size if size < FIRST => {
                let what = "the file is too short for a Data.fs. Is it the right file?";
                return Err(reader.wrong(0, what));
            }
            _ => {
                let magic: [u8; 4] = reader.source.array(0)?;
                reader.python2 = magic == *MAGIC_PYTHON2;
                if magic != *MAGIC && !reader.python2 {
                    let what = format_args!(
                        "this is no Data.fs: it begins with {}, and not with FS30 or FS21. Is it the right file, and not \
                         packed by gzip or the like?",
                        magic.escape_ascii()
                    );
                    return Err(reader.wrong(0, what));
                }
            }
        }
        Ok(reader)
    }

    /// Bytes of the file.
    pub fn size(&self) -> u64 {
        self.source.size()
    }

    /// Bytes of the file that were read so far, in whatever order.
    pub fn position(&self) -> u64 {
        self.read + self.open.as_ref().map_or(0, |open| open.at.saturating_sub(open.position))
    }

    /// Whether Python 2 wrote it.
    pub fn is_python2(&self) -> bool {
        self.python2
    }

    /// An error about this file.
    pub fn wrong(&self, position: u64, what: impl std::fmt::Display) -> io::Error {
        self.source.wrong(position, what)
    }

    /// Begins anew, and gives the notes of what was read so far.
    pub fn rewind(&mut self) -> Notes {
        self.next = FIRST.min(self.size());
        (self.read, self.open, self.search, self.previous) = (0, None, None, None);
        std::mem::take(&mut self.notes)
    }

    /// The next transaction, once all records of the one before were read.
    pub fn step(&mut self) -> io::Result<Step> {
        assert!(self.open.is_none(), "a transaction's records are read to their end");
        if let Some(search) = self.search.take() {
            return self.search_on(search);
        }
        let at = self.next;
        match look(&mut self.source, at)? {
            Look::End => Ok(Step::End),
            Look::Whole(whole) => Ok(Step::Transaction(self.enter(at, &whole)?)),
            Look::Undone { tid, next } => {
                self.notes.header(tid);
                self.notes.undone += 1;
                Ok(self.pass(next))
            }
            Look::Cut(why) => self.search_on(Search { at, from: at + 1, why: Why::Cut(why) }),
            Look::Defect(defect) => self.defect(at, defect),
        }
    }

    /// The transaction at `position`, which [`Reader::step`] gave before.
    pub fn transaction_at(&mut self, position: u64) -> io::Result<FileTransaction> {
        assert!(self.open.is_none() && self.search.is_none(), "nothing is being read");
        self.next = position;
        loop {
            match self.step()? {
                Step::Transaction(transaction) if transaction.position == position => return Ok(transaction),
                Step::Passed if self.search.is_some() => {}
                _ => return Err(self.wrong(position, "the file has changed while it was read. Stop its ZEO server")),
            }
        }
    }

    pub(super) fn pass(&mut self, next: u64) -> Step {
        self.read += next.saturating_sub(self.next);
        self.next = next;
        Step::Passed
    }

    fn enter(&mut self, at: u64, whole: &Whole) -> io::Result<FileTransaction> {
        let header = &whole.header;
        let notes = &mut self.notes;
        notes.header(header.tid);
        notes.statuses += u64::from(![DONE, PACKED].contains(&header.status));
        notes.renamed += u64::from(whole.tid != header.tid);
        notes.strangers += whole.strangers;
        notes.zero += u64::from(whole.tid == Tid::ZERO);
        notes.astray += whole.astray;
        notes.versions += whole.versions;
        let meta = self.meta(at, header)?;
        self.next = whole.next;
        self.open = Some(Open { position: at, at: at + header.head(), end: whole.next - 8, picked: None });
        // (No transaction of a store has id zero.)
        Ok(FileTransaction { position: at, tid: whole.tid.max(Tid::ZERO.next()), meta })
    }

    pub(super) fn meta(&mut self, at: u64, header: &TransactionHeader) -> io::Result<TransactionMeta> {
        let mut texts = at + TRANSACTION as u64;
        let mut text = |length: u16| -> io::Result<Vec<u8>> {
            let from = texts;
            texts += u64::from(length);
            Ok(self.source.bytes(from, usize::from(length))?.to_vec())
        };
        let [user, description, extension] = header.texts;
        Ok(TransactionMeta {
            status: header.status,
            user: text(user)?,
            description: text(description)?,
            extension: text(extension)?,
        })
    }

    /// Passes over the records of the transaction.
    pub fn skip(&mut self) {
        if let Some(open) = self.open.take() {
            self.read += self.next - open.position;
        }
    }

    /// The next record of the transaction; `None` after its last.
    pub fn record(&mut self) -> io::Result<Option<FileRecord>> {
        loop {
            let open = self.open.as_mut().expect("records are asked for after their transaction");
            let home = open.position;
            let at = match &mut open.picked {
                Some(picked) => picked.pop_front(),
                None => Some(open.at).filter(|at| *at < open.end),
            };
            let Some(at) = at else {
                self.read += self.next - home;
                self.open = None;
                return Ok(None);
            };
            let header = RecordHeader::decode(&self.source.next_array(at)?);
            let body = at + RECORD as u64;
            open.at = body + header.body();
            if let Some(previous) = &mut self.previous {
                self.notes.previous += u64::from(!previous.agrees(home, at, &header));
            }
            if let Some(content) = self.content(at, body, &header)? {
                return Ok(Some(FileRecord { position: at, oid: header.oid, tid: header.tid, content }));
            }
        }
    }

    /// `None`: the record is lost.
    fn content(&mut self, at: u64, body: u64, header: &RecordHeader) -> io::Result<Option<FileContent>> {
        let oid = header.oid;
        if header.length > limits::OBJECT as u64 {
            let what = format!(
                "object {oid} has {} bytes, and no client could load it: the most is {} bytes. Delete it with FileStorage, \
                 and pack",
                header.length,
                limits::OBJECT
            );
            return self.give_up(at + 34, header, what);
        }
        if header.length > 0 {
            return Ok(Some(FileContent::Data { position: body, length: header.length }));
        }
        let back = u64::from_be_bytes(self.source.next_array(body)?);
        if back == 0 {
            return Ok(Some(FileContent::Absent));
        }
        match follow(&self.source, oid, back)? {
            Some(target) => Ok(Some(FileContent::SameAs(target))),
            None => {
                let what = format!(
                    "object {oid} points to byte {back}, where no record of it is: its data can't be loaded by \
                     FileStorage either"
                );
                self.give_up(body, header, what)
            }
        }
    }

    fn give_up<T>(&mut self, at: u64, header: &RecordHeader, what: String) -> io::Result<Option<T>> {
        if !self.salvage {
            return Err(self.wrong(at, format_args!("{what}. To import all but such records: --salvage")));
        }
        self.notes.lose(format!("byte {at}: {what}. The revision of transaction {} is lost", header.tid));
        Ok(None)
    }

    /// Part of a record's data: at most `length` bytes from `position` on.
    pub fn data(&mut self, position: u64, length: usize) -> io::Result<Bytes> {
        self.source.data(position, length)
    }

    /// The same, of a record that lies far from where reading goes on.
    pub fn data_elsewhere(&self, position: u64, length: usize) -> io::Result<Bytes> {
        self.source.data_elsewhere(position, length)
    }
}
