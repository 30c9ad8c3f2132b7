//! `Data.fs`: what ZODB's FileStorage keeps, read into a node's store and written out of one.
//!
//! **Why** here and not through a client: a site moves in at the speed of the disk, and nothing of its history is told
//! anew. Tids, meta data, undone creations and pointers to older data come over as they stand in the file.
//!
//! **Promises.** A file that is cut short or damaged is an error that names the byte, and no store comes of it. What was
//! imported and is exported again reads the same through FileStorage: transactions, records, tids, meta data, blobs.
//! Memory is bounded by limits and by the number of records of one transaction, not by their bytes; but an export keeps one
//! number for each object (some 30 bytes), to link its records: as FileStorage does for its index, when it opens the file.
//!
//! **Where to look**: `format` has the file's headers; `read` and `write` are the file, record by record; `blobs` is the
//! folder of blobs beside it; `import` and `export` are the ways from one to the other; `folder` makes a data folder.
//!
//! **Left out.** FileStorage's index file, which it makes anew when it opens the file. The previous positions in records:
//! nothing is read by them here, and export works them out. Records of versions, which ZODB has given up.

mod blobs;
mod export;
#[cfg(feature = "rocksdb")]
mod folder;
mod format;
mod import;
mod read;
mod write;

pub use blobs::is_blob_record;
pub use export::{Export, Exported};
#[cfg(feature = "rocksdb")]
pub use folder::{create, open_stopped};
pub use import::{Import, Imported, MissingBlobs, Warning};
pub use read::{Content, Reader, Record, Transaction};
pub use write::Writer;

use std::io;
use std::path::Path;

/// How far an import or export has come; the argument of those who watch one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Of the file, or of the transactions.
    pub done: u64,
    /// All of that.
    pub total: u64,
    /// Bytes copied, of records and blobs.
    pub bytes: u64,
}

/// Whether to go on.
pub type Watch<'w> = &'w mut dyn FnMut(Progress) -> bool;

/// The error of somebody who was told not to go on.
fn stopped() -> io::Error {
    io::Error::new(io::ErrorKind::Interrupted, "stopped")
}

/// An error that says which file it is about.
fn of_file(path: &Path, fault: &io::Error) -> io::Error {
    io::Error::new(fault.kind(), format!("{}: {fault}", path.display()))
}
