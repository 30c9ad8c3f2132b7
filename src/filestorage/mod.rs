//! `Data.fs`: what ZODB's FileStorage keeps, read into a node's store and written out of one.
//!
//! **Why** here and not through a client: a site moves in at the speed of the disk, and its history stays as it is:
//! tids, meta data, undone creations and pointers to older data come over as they stand in the file.
//!
//! **Promises.** Whatever FileStorage opens comes in, and answers as FileStorage does; oddities that FileStorage notes
//! in its log are counted. A file that FileStorage refuses is an error that names the byte and the way out, and no
//! store comes of it; told so, the import keeps what can be read of it, and lists what can't. A storage that was
//! imported and is exported again reads the same through FileStorage: transactions, records, tids, meta data, blobs.
//! Memory is bounded by limits and by the number of records of one transaction, not by their bytes; but an export keeps
//! one number for each object (some 30 bytes), to link its records, as FileStorage does in its index, and the import of
//! a file whose transactions have to be sorted 16 bytes for each transaction.
//!
//! **Where to look**: `format` has the file's headers; `source` its bytes; `look` judges what stands at a place, as
//! FileStorage does; `read` and `write` are the file, record by record; `notes` counts what is odd, and `warnings` says
//! it; `previous` and `index` are about FileStorage's own pointers; `repair` gets past damage, with what `salvage`
//! finds; `blobs` is the folder of blobs beside the file; `survey` reads the file through before `import` copies it, by
//! way of `destination`, and `export` is the way back; `folder` makes data folders and opens stopped ones; `progress`
//! tells how far a run has come, and stops it.
//!
//! **Left out.** FileStorage's index file, which it makes anew when it opens the file. The previous positions in
//! records: the import has no use for them, and the export works them out. Records of versions, which ZODB has given
//! up.

mod blobs;
mod destination;
mod export;
mod faults;
#[cfg(feature = "rocksdb")]
mod folder;
mod format;
mod import;
mod index;
mod look;
mod notes;
mod previous;
mod progress;
mod read;
mod repair;
mod salvage;
mod source;
mod survey;
mod warnings;
mod write;

pub use blobs::is_blob_record;
pub use export::{Export, Exported};
#[cfg(feature = "rocksdb")]
pub use folder::{create, open_stopped};
pub use import::{Import, Imported, MissingBlobs};
pub use look::Target;
pub use notes::{Cut, EndReason, Notes};
pub use progress::{Overseer, Phase, Progress};
pub use read::{FileContent, FileRecord, FileTransaction, Reader, Step};
pub use warnings::Warning;
pub use write::Writer;
