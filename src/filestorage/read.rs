//! Reads a `Data.fs` from its start, record by record, and trusts none of it: every length, position and repetition is
//! checked before it is used. An error names the file, the byte, and the defect.
//!
//! **Damage that FileStorage would tolerate is refused**, but for what every crash may leave: a transaction at the very
//! end that was voted and not finished (status `c`). It is not read, and [`Reader::unfinished`] tells of it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::faults::of_file;
use super::format::{
    DONE, MAGIC, MAGIC_PYTHON2, PACKED, RECORD, RecordHeader, TRANSACTION, TransactionHeader, UNDONE, UNFINISHED,
};
use crate::config::limits;
use crate::zodb::{Oid, Tid, TransactionMeta};

/// Bytes that are read at a time.
const WINDOW: usize = 1 << 20;
/// The position of the first transaction.
const FIRST: u64 = MAGIC.len() as u64;

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
    /// The data of the record that this transaction wrote, again.
    SameAs(Tid),
}

/// A `Data.fs` that is being read.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    file: File,
    size: u64,
    python2: bool,
    /// The position of the next transaction.
    next: u64,
    last: Tid,
    /// The transaction that is being read: its position, tid, end, and the next record's position.
    open: Option<(u64, Tid, u64, u64)>,
    unfinished: Option<u64>,
    undone: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl Reader {
    /// Opens the file. Transactions that are appended to it later are not read.
    pub fn open(path: &Path) -> io::Result<Reader> {
        let file = File::open(path).map_err(|fault| of_file(path, &fault))?;
        let about = file.metadata().map_err(|fault| of_file(path, &fault))?;
        let mut reader = Reader {
            path: path.to_owned(),
            file,
            size: about.len(),
            python2: false,
            next: FIRST,
            last: Tid::ZERO,
            open: None,
            unfinished: None,
            undone: 0,
            window: Vec::new(),
            window_at: 0,
        };
        if !about.is_file() {
            return Err(of_file(path, &io::Error::new(io::ErrorKind::InvalidInput, "is not a file")));
        }
        if reader.size < FIRST {
            return Err(reader.wrong(0, "the file is too short for a Data.fs"));
        }
        let magic: [u8; 4] = reader.array(0)?;
        reader.python2 = magic == *MAGIC_PYTHON2;
        if magic != *MAGIC && !reader.python2 {
            return Err(reader.wrong(0, format_args!("this is no Data.fs: it begins with {}", magic.escape_ascii())));
        }
        Ok(reader)
    }

    /// Bytes of the file.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes of the file that were read so far.
    pub fn position(&self) -> u64 {
        self.open.map_or(self.next, |(_, _, _, at)| at)
    }

    /// Whether Python 2 wrote it.
    pub fn is_python2(&self) -> bool {
        self.python2
    }

    /// Where an unfinished transaction at the end was left out; known after the last transaction.
    pub fn unfinished(&self) -> Option<u64> {
        self.unfinished
    }

    /// How many transactions were left out so far as they had been undone (status `u`).
    pub fn undone(&self) -> u64 {
        self.undone
    }

    /// An error about this file.
    pub fn wrong(&self, position: u64, what: impl std::fmt::Display) -> io::Error {
        let message = format!("{}: byte {position}: {what}", self.path.display());
        io::Error::new(io::ErrorKind::InvalidData, message)
    }

    /// The next transaction, once all records of the one before were read; `None` at the end.
    pub fn transaction(&mut self) -> io::Result<Option<FileTransaction>> {
        assert!(self.open.is_none(), "a transaction's records are read to their end");
        loop {
            let at = self.next;
            if at == self.size || self.unfinished.is_some() {
                return Ok(None);
            }
            let Some(header) = self.transaction_header(at)? else { return Ok(None) };
            self.next = at + header.length + 8;
            self.last = header.tid;
            if header.status == UNDONE {
                self.undone += 1;
                continue;
            }
            let mut texts = at + TRANSACTION as u64;
            let mut text = |length: u16| -> io::Result<Vec<u8>> {
                let from = texts;
                texts += u64::from(length);
                Ok(self.window(from, usize::from(length))?.to_vec())
            };
            let [user, description, extension] = header.texts;
            let meta = TransactionMeta {
                status: header.status,
                user: text(user)?,
                description: text(description)?,
                extension: text(extension)?,
            };
            self.open = Some((at, header.tid, at + header.length, texts));
            return Ok(Some(FileTransaction { position: at, tid: header.tid, meta }));
        }
    }

    /// The header at `at`, checked, with the length at the transaction's end; `None`: here an unfinished one begins.
    fn transaction_header(&mut self, at: u64) -> io::Result<Option<TransactionHeader>> {
        let left = self.size - at;
        let cut = |reader: &Reader, what: String| {
            let how =
                "the file was cut short, or what follows is damaged. FileStorage would drop everything from here on";
            Err(reader.wrong(at, format_args!("{what}: {how}")))
        };
        if left < TRANSACTION as u64 {
            let rest = self.window(at, left as usize)?;
            if rest.get(16) == Some(&UNFINISHED) {
                self.unfinished = Some(at);
                return Ok(None);
            }
            return cut(self, format!("a transaction begins here, but only {left} bytes are left"));
        }
        let header = TransactionHeader::decode(&self.array(at)?);
        let end = at.checked_add(header.length).and_then(|end| end.checked_add(8));
        if header.status == UNFINISHED {
            if end.is_some_and(|end| end < self.size) {
                let what = "a transaction that was not finished (status c) stands here, but others follow it";
                return Err(self.wrong(at, what));
            }
            self.unfinished = Some(at);
            return Ok(None);
        }
        if ![DONE, PACKED, UNDONE].contains(&header.status) {
            let what = format_args!("a transaction has status {}, which is none", header.status.escape_ascii());
            return Err(self.wrong(at + 16, what));
        }
        if header.length < header.head() {
            let what = format_args!(
                "a transaction of {} bytes can't have a header and texts of {} bytes",
                header.length,
                header.head()
            );
            return Err(self.wrong(at + 8, what));
        }
        let Some(end) = end.filter(|end| *end <= self.size) else {
            let what =
                format!("transaction {} says that it has {} bytes, but {left} are left", header.tid, header.length);
            return cut(self, what);
        };
        if header.tid <= self.last {
            let what = format_args!("transaction {} is not later than the one before it, {}", header.tid, self.last);
            return Err(self.wrong(at, what));
        }
        if header.tid >= Tid::MAX {
            return Err(self.wrong(at, format_args!("{} is too great for a transaction", header.tid)));
        }
        let again = u64::from_be_bytes(self.array(end - 8)?);
        if again != header.length {
            let what = format_args!(
                "transaction {} (byte {at}) has {} bytes, but {again} by the length at its end",
                header.tid, header.length
            );
            return Err(self.wrong(end - 8, what));
        }
        Ok(Some(header))
    }

    /// The next record of the transaction; `None` after its last.
    pub fn record(&mut self) -> io::Result<Option<FileRecord>> {
        let (transaction, tid, end, at) = self.open.expect("records are asked for after their transaction");
        if at == end {
            self.open = None;
            return Ok(None);
        }
        let left = end - at;
        if left <= RECORD as u64 {
            return Err(self.wrong(at, format_args!("transaction {tid} has {left} bytes left, too few for a record")));
        }
        let bytes: [u8; RECORD] = self.window(at, RECORD)?.try_into().expect("a window has the length asked for");
        let header = RecordHeader::decode(&bytes);
        if header.version != 0 {
            let what = format_args!(
                "object {} was stored in a version. ZODB has given versions up, and zrs has none: commit or abort the \
                 versions with the ZODB that wrote the file (3.8 or older), and pack it",
                header.oid
            );
            return Err(self.wrong(at, what));
        }
        if header.transaction != transaction || header.tid != tid {
            let what = format_args!(
                "a record of object {} says that it belongs to transaction {} at byte {}, but it stands in transaction \
                 {tid} at byte {transaction}",
                header.oid, header.tid, header.transaction
            );
            return Err(self.wrong(at, what));
        }
        let body = at + RECORD as u64;
        let length = if header.length == 0 { 8 } else { header.length };
        if length > end - body {
            let what = format_args!(
                "a record of object {} says that it has {length} bytes, but its transaction ends after {}",
                header.oid,
                end - body
            );
            return Err(self.wrong(at + 34, what));
        }
        if header.length > limits::OBJECT as u64 {
            let what = format_args!(
                "object {} has {} bytes, and no client could load it: the most is {} bytes",
                header.oid,
                header.length,
                limits::OBJECT
            );
            return Err(self.wrong(at + 34, what));
        }
        if header.previous >= at {
            let what =
                format_args!("the previous record of object {} can't be at byte {}", header.oid, header.previous);
            return Err(self.wrong(at + 16, what));
        }
        let content = match header.length {
            0 => match u64::from_be_bytes(self.window_array(body)?) {
                0 => FileContent::Absent,
                back => FileContent::SameAs(self.follow(at, header.oid, back)?),
            },
            length => FileContent::Data { position: body, length },
        };
        self.open = Some((transaction, tid, end, body + length));
        Ok(Some(FileRecord { position: at, oid: header.oid, content }))
    }

    /// The transaction of the record at `back`, to which the record at `at` points.
    fn follow(&self, at: u64, oid: Oid, back: u64) -> io::Result<Tid> {
        let body = at + RECORD as u64;
        let astray = || self.wrong(body, format_args!("object {oid} points to byte {back}, where no record of it is"));
        if back < FIRST + TRANSACTION as u64 || back > at.saturating_sub(RECORD as u64) {
            return Err(astray());
        }
        let header = RecordHeader::decode(&self.array(back)?);
        if header.oid != oid || header.version != 0 || header.transaction < FIRST || header.transaction >= back {
            return Err(astray());
        }
        let tid = Tid(u64::from_be_bytes(self.array(header.transaction)?));
        if tid != header.tid { Err(astray()) } else { Ok(tid) }
    }

    /// Part of a record's data: at most `length` bytes from `position` on.
    pub fn data(&mut self, position: u64, length: usize) -> io::Result<Bytes> {
        if length <= WINDOW {
            return Ok(Bytes::copy_from_slice(self.window(position, length)?));
        }
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, position).map_err(|fault| self.unread(position, &fault))?;
        Ok(bytes.into())
    }

    fn unread(&self, position: u64, fault: &io::Error) -> io::Error {
        io::Error::new(fault.kind(), format!("{}: byte {position} can't be read: {fault}", self.path.display()))
    }

    /// `N` bytes from any position.
    fn array<const N: usize>(&self, at: u64) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.file.read_exact_at(&mut bytes, at).map_err(|fault| self.unread(at, &fault))?;
        Ok(bytes)
    }

    fn window_array<const N: usize>(&mut self, at: u64) -> io::Result<[u8; N]> {
        Ok(self.window(at, N)?.try_into().expect("a window has the length asked for"))
    }

    /// `length` bytes from `at`, within the file; fast where reading goes on.
    fn window(&mut self, at: u64, length: usize) -> io::Result<&[u8]> {
        let held = self.window_at..self.window_at + self.window.len() as u64;
        if at < held.start || at + length as u64 > held.end {
            let wanted = length.max(WINDOW).min(usize::try_from(self.size - at).unwrap_or(WINDOW));
            self.window.resize(wanted, 0);
            self.window_at = at;
            let read = self.file.read_exact_at(&mut self.window, at);
            if let Err(fault) = read {
                self.window.clear();
                return Err(self.unread(at, &fault));
            }
        }
        let from = (at - self.window_at) as usize;
        self.window.get(from..from + length).ok_or_else(|| {
            io::Error::new(io::ErrorKind::UnexpectedEof, format!("byte {at} lies past the end of the file"))
        })
    }
}
