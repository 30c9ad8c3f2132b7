//! Writes a `Data.fs` that FileStorage opens.
//!
//! A transaction's length stands before its records, which may be larger than memory: the length is filled in when the
//! transaction ends. In memory is the position of each object's newest record, by which an object's records are linked;
//! FileStorage will hold the same in its index.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::faults::of_file;
use super::format::{MAGIC, RECORD, RecordHeader, TRANSACTION, TransactionHeader, UNFINISHED};
use crate::zodb::{Oid, Tid, TransactionMeta};

/// Bytes that are written at a time.
const BUFFER: usize = 4 << 20;

/// A `Data.fs` that is being written.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    file: File,
    /// The position in the file of the buffer's first byte.
    written: u64,
    buffer: Vec<u8>,
    /// The position of each object's newest record in the transactions that have ended.
    newest: BTreeMap<Oid, u64>,
    open: Option<OpenTransaction>,
}

#[derive(Debug)]
struct OpenTransaction {
    header: TransactionHeader,
    position: u64,
    records: Vec<(Oid, u64)>,
}

impl Writer {
    /// Makes a new file; it must not exist.
    pub fn create(path: &Path) -> io::Result<Writer> {
        let file = File::options().read(true).write(true).create_new(true).open(path);
        let file = file.map_err(|fault| of_file(path, &fault))?;
        let buffer = MAGIC.to_vec();
        Ok(Writer { path: path.to_owned(), file, written: 0, buffer, newest: BTreeMap::new(), open: None })
    }

    /// Bytes of the file so far.
    pub fn position(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Begins a transaction, which must be later than those before it.
    pub fn begin(&mut self, tid: Tid, meta: &TransactionMeta) -> io::Result<()> {
        assert!(self.open.is_none(), "transactions are written one after the other");
        let length = |text: &[u8]| {
            u16::try_from(text.len()).map_err(|_| self.wrong("a description has more bytes than Data.fs has room for"))
        };
        let texts = [length(&meta.user)?, length(&meta.description)?, length(&meta.extension)?];
        let header = TransactionHeader { tid, length: 0, status: meta.status, texts };
        let position = self.position();
        // Until its length is known, the transaction has the status that readers skip.
        self.put(&TransactionHeader { status: UNFINISHED, ..header }.encode())?;
        for text in [&meta.user, &meta.description, &meta.extension] {
            self.put(text)?;
        }
        self.open = Some(OpenTransaction { header, position, records: Vec::new() });
        Ok(())
    }

    /// Begins a record of `length` bytes of data, which follow by [`Writer::data`].
    pub fn record(&mut self, oid: Oid, length: u64) -> io::Result<()> {
        assert!(length > 0, "a record without data would be a pointer");
        self.head(oid, length)
    }

    /// More of a record's data.
    pub fn data(&mut self, part: &[u8]) -> io::Result<()> {
        self.put(part)
    }

    /// Writes a record that says that the object does not exist any more.
    pub fn absent(&mut self, oid: Oid) -> io::Result<()> {
        self.head(oid, 0)?;
        self.put(&[0; 8])
    }

    /// Writes a record that shows the data of the object's record of transaction `tid` again.
    pub fn same_as(&mut self, oid: Oid, tid: Tid) -> io::Result<()> {
        self.flush()?;
        let mut at = self.newest.get(&oid).copied().unwrap_or(0);
        while at != 0 {
            let mut bytes = [0; RECORD];
            self.file.read_exact_at(&mut bytes, at).map_err(|fault| of_file(&self.path, &fault))?;
            let header = RecordHeader::decode(&bytes);
            if header.tid == tid {
                self.head(oid, 0)?;
                return self.put(&at.to_be_bytes());
            }
            at = header.previous;
        }
        Err(self.wrong(&format!("object {oid} is to show the data of transaction {tid} again, which has none of it")))
    }

    /// Ends the transaction.
    pub fn end(&mut self) -> io::Result<()> {
        let OpenTransaction { mut header, position, records } =
            self.open.take().expect("a transaction is ended after it was begun");
        header.length = self.position() - position;
        self.put(&header.length.to_be_bytes())?;
        let bytes = header.encode();
        match position.checked_sub(self.written) {
            Some(at) => self.buffer[at as usize..at as usize + TRANSACTION].copy_from_slice(&bytes),
            None => {
                // (The header went into the buffer by one `put`, so all of it has been written.)
                self.file.write_all_at(&bytes, position).map_err(|fault| of_file(&self.path, &fault))?;
            }
        }
        self.newest.extend(records);
        Ok(())
    }

    /// Writes the buffer, fsyncs, and gives the file's length.
    pub fn finish(mut self) -> io::Result<u64> {
        assert!(self.open.is_none(), "the last transaction has ended");
        self.flush()?;
        self.file.sync_all().map_err(|fault| of_file(&self.path, &fault))?;
        Ok(self.written)
    }

    fn head(&mut self, oid: Oid, length: u64) -> io::Result<()> {
        let at = self.position();
        let open = self.open.as_mut().expect("records stand in transactions");
        open.records.push((oid, at));
        let previous = self.newest.get(&oid).copied().unwrap_or(0);
        let (tid, transaction) = (open.header.tid, open.position);
        self.put(&RecordHeader { oid, tid, previous, transaction, version: 0, length }.encode())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.buffer.len() + bytes.len() > BUFFER {
            self.flush()?;
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.buffer, self.written).map_err(|fault| of_file(&self.path, &fault))?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn wrong(&self, what: &str) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}", self.path.display()))
    }
}
