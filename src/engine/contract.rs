//! The contract between an engine and its owner: tables, batches, and the [`Engine`] trait, whose promises stand in the
//! documentation of [`crate::engine`].

use std::io;
use std::path::Path;

/// A table of an engine. The engine's owner lists its tables (`storage::keys`, `raft::log`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Table {
    /// The table's place in the list that the engine was opened with.
    pub index: usize,
    /// The table's name on disk (a column family).
    pub name: &'static str,
    /// Whether large values lie apart from the keys (key-value separation).
    pub large_values: bool,
    /// Whether large values are kept in memory after a read; of no use for values that are read once, in order.
    pub cached: bool,
}

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);
/// Pairs in the order asked for; an error ends the iteration.
pub type Pairs<'a> = Box<dyn Iterator<Item = io::Result<Pair>> + Send + 'a>;

/// The direction in which a range is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// By growing keys.
    Ascending,
    /// By shrinking keys.
    Descending,
}

/// Writes that belong together, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// A later edit of a key prevails over an earlier one.
    pub edits: Vec<Edit>,
}

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Sets a key's value.
    Put(Table, Vec<u8>, Vec<u8>),
    /// Removes a key, which need not be there.
    Delete(Table, Vec<u8>),
    /// Removes all keys from the first (included) to the second (excluded); none if the second is not the greater one.
    DeleteRange(Table, Vec<u8>, Vec<u8>),
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Batch {
        Batch::default()
    }

    /// Adds [`Edit::Put`].
    pub fn put(&mut self, table: Table, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.edits.push(Edit::Put(table, key.into(), value.into()));
    }

    /// Adds [`Edit::Delete`].
    pub fn delete(&mut self, table: Table, key: impl Into<Vec<u8>>) {
        self.edits.push(Edit::Delete(table, key.into()));
    }

    /// Adds [`Edit::DeleteRange`].
    pub fn delete_range(&mut self, table: Table, from: impl Into<Vec<u8>>, until: impl Into<Vec<u8>>) {
        self.edits.push(Edit::DeleteRange(table, from.into(), until.into()));
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.edits.is_empty()
    }
}

/// Ordered bytes on disk; see the module for what is promised. All calls may block for the disk.
pub trait Engine: Send + Sync + 'static {
    /// The value of `key`.
    fn get(&self, table: Table, key: &[u8]) -> io::Result<Option<Vec<u8>>>;

    /// The first pair of `from <= key < until`.
    fn first(&self, table: Table, from: &[u8], until: &[u8]) -> io::Result<Option<Pair>>;

    /// The pairs of `from <= key < until`.
    fn range<'a>(&'a self, table: Table, from: &[u8], until: &[u8], order: Order) -> Pairs<'a>;

    /// Makes `batch` readable; durable only after the next `sync`.
    fn write(&self, batch: Batch) -> io::Result<()>;

    /// Returns once everything written before the call survives a crash.
    fn sync(&self) -> io::Result<()>;

    /// A copy of the present state in `folder`, which must not exist yet (hard links where the disk can).
    fn checkpoint(&self, folder: &Path) -> io::Result<()>;

    /// Gives the disk the space of all that was removed, sooner than the engine does by itself. Reads and writes go on
    /// meanwhile. Takes long; between two steps it asks whether to `go_on`.
    ///
    /// By default there is nothing to do: an engine in memory keeps nothing that was removed.
    fn reclaim(&self, _go_on: &dyn Fn() -> bool) -> io::Result<()> {
        Ok(())
    }
}
