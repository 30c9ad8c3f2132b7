//! `Data.fs`: what ZODB's FileStorage keeps, read into a node's store and written out of one.
//!
//! **Why** here and not through a client: a site moves in at the speed of the disk, and its history stays as it is:
//! tids, meta data, undone creations and pointers to older data come over as they stand in the file.
//!
//! **Promises.** A file that is cut short or damaged is an error that names the byte, and no store comes of it. A
//! storage that was imported and is exported again reads the same through FileStorage: transactions, records, tids,
//! meta data, blobs. Memory is bounded by limits and by the number of records of one transaction, not by their bytes;
//! but an export keeps one number for each object (some 30 bytes), to link its records, as FileStorage does in its
//! index.
//!
//! **Where to look**: `format` has the file's headers; `read` and `write` are the file, record by record; `blobs` is
//! the folder of blobs beside it; `import` and `export` are the ways from one to the other; `folder` makes data folders
//! and opens stopped ones; `progress` tells how far a run has come, and stops it.
//!
//! **Left out.** FileStorage's index file, which it makes anew when it opens the file. The previous positions in
//! records: the import has no use for them, and the export works them out. Records of versions, which ZODB has given
//! up.

mod blobs;
mod export;
mod faults;
#[cfg(feature = "rocksdb")]
mod folder;
mod format;
mod import;
mod progress;
mod read;
mod write;

pub use blobs::is_blob_record;
pub use export::{Export, Exported};
#[cfg(feature = "rocksdb")]
pub use folder::{create, open_stopped};
pub use import::{Import, Imported, MissingBlobs, Warning};
pub use progress::{Overseer, Progress};
pub use read::{FileContent, FileRecord, FileTransaction, Reader};
pub use write::Writer;
