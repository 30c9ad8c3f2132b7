//! Whole databases: checkpoints that other nodes fetch, and the database that is being fetched.
//!
//! A *checkpoint* is a database as it was at one moment, as files that never change. An *incoming* database is such
//! files on their way: it becomes the node's own by [`Incoming::take`], in one step, the next time the node's database
//! is opened. The [`Shelf`] keeps both beside the database, in the same file system, so that neither is ever copied.
//!
//! **Promises.** A checkpoint costs links, no copies, and is gone when its handle is dropped (or at the next start). Of
//! an incoming database the files that were finished survive a crash; the rest does not. After a crash around `take`
//! the node has its old database or the new one, whole.

use std::io;
use std::sync::Arc;

use super::contract::Engine;

/// A file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShelfFile {
    /// Its name, without any folder.
    pub name: String,
    /// Its bytes.
    pub size: u64,
}

/// Where checkpoints and the incoming database are kept. All calls may block for the disk.
pub trait Shelf: Send + Sync + 'static {
    /// A checkpoint of `engine`, the node's own database, under a name that is used once.
    fn checkpoint(&self, engine: &dyn Engine, name: &str) -> io::Result<Arc<dyn Checkpoint>>;

    /// The database that is being fetched, empty if there is none yet.
    fn incoming(&self) -> io::Result<Arc<dyn Incoming>>;
}

/// A database as it was at one moment.
pub trait Checkpoint: Send + Sync + 'static {
    /// Its files.
    fn files(&self) -> Vec<ShelfFile>;

    /// `length` bytes of a file from `offset` on; an error if there are fewer.
    fn read(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>>;

    /// Opens it to read it.
    fn open(&self) -> io::Result<Arc<dyn Engine>>;
}

/// A database on its way.
pub trait Incoming: Send + Sync + 'static {
    /// The offer that it was begun with; `None`: it is empty.
    fn offer(&self) -> io::Result<Option<Vec<u8>>>;

    /// Throws away what there is, and begins with this offer; durable on return.
    fn begin(&self, offer: &[u8]) -> io::Result<()>;

    /// The files that are whole.
    fn whole(&self) -> io::Result<Vec<ShelfFile>>;

    /// Writes a part of a file that is not whole yet; a part at offset 0 begins it anew.
    fn write(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// The file is whole; durable on return.
    fn finish(&self, name: &str) -> io::Result<()>;

    /// Opens it to read it, once all its files are whole.
    fn open(&self) -> io::Result<Arc<dyn Engine>>;

    /// From the next opening on, this is the node's database; durable on return.
    fn take(&self) -> io::Result<()>;

    /// Throws it away.
    fn discard(&self) -> io::Result<()>;
}
