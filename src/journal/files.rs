//! The seam to the disk: a folder of files, with exactly the promises that a journal needs.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A folder of files, without folders in it. All calls may block for the disk.
pub trait Files: Send + Sync + 'static {
    /// The names of all files, in no order.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Opens a file that is there.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if there is no such file.
    fn open(&self, name: &str) -> io::Result<Arc<dyn OpenFile>>;

    /// Makes a file of `size` zeros, which are synced; one of that name that is there is replaced. Its name is durable
    /// after [`Files::sync`].
    fn create(&self, name: &str, size: u64) -> io::Result<Arc<dyn OpenFile>>;

    /// Gives a file another name; a file that has it already is replaced. Durable after [`Files::sync`].
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file; whoever has it open can go on reading. Durable after [`Files::sync`].
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes durable which files there are, under which names.
    fn sync(&self) -> io::Result<()>;

    /// What a copy of the file `name` would not have.
    fn identity(&self, name: &str) -> io::Result<Identity>;

    /// Bytes that may still be written to the disk of the folder; `None`: unknown.
    fn free(&self) -> io::Result<Option<u64>>;

    /// For people: where the folder is.
    fn place(&self) -> String;
}

/// What belongs to a file and stays behind when it is copied. What is not known is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The machine's id.
    pub machine: String,
    /// Names the time since the machine was started last: as long as it is the same, so is the machine.
    pub boot: String,
    /// The file's number in its file system.
    pub inode: u64,
    /// When the file was made, since 1970.
    pub born: Option<Duration>,
}

/// An open file. Its size never changes.
pub trait OpenFile: Send + Sync + 'static {
    /// Its size in bytes.
    fn size(&self) -> io::Result<u64>;

    /// Fills `buffer` from `offset` on; an error if the file ends before.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Writes `bytes` at `offset`, inside of the file: readable at once, durable after [`OpenFile::sync`]. After a
    /// crash before that, any part of the bytes may be there.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Returns once everything written to this file before the call survives a crash.
    fn sync(&self) -> io::Result<()>;

    /// All was synced, and the file, which has the name `name` now, will hardly be used for a while: what it costs the
    /// process to have it open can be given back until then.
    fn rest(&self, _name: &str) {}
}
