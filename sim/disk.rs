//! Simulated disks whose writes go into the trace.

use std::io;
use std::path::Path;
use std::sync::Arc;

use zrs::engine::{Batch, Edit, Engine, Order, Pair, Pairs, SimDisk, SimEngine, Table};
use zrs::journal::{Files, Identity, OpenFile, SimFiles};

use crate::trace;

/// A [`SimEngine`] whose writes and syncs go into the trace.
pub struct Watched {
    engine: SimEngine,
    /// The disk's name in the trace.
    name: String,
}

impl Watched {
    /// Opens `disk`; `name` is its name in the trace.
    pub fn open(disk: &SimDisk, tables: &[Table], name: String) -> io::Result<Watched> {
        Ok(Watched { engine: disk.open(tables)?, name })
    }
}

impl Engine for Watched {
    fn get(&self, table: Table, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.engine.get(table, key)
    }

    fn first(&self, table: Table, from: &[u8], until: &[u8]) -> io::Result<Option<Pair>> {
        self.engine.first(table, from, until)
    }

    fn range<'a>(&'a self, table: Table, from: &[u8], until: &[u8], order: Order) -> Pairs<'a> {
        self.engine.range(table, from, until, order)
    }

    fn write(&self, batch: Batch) -> io::Result<()> {
        let mut bytes = Vec::new();
        for edit in &batch.edits {
            let (what, table, first, second) = match edit {
                Edit::Put(table, key, value) => (b'+', table, key.as_slice(), value.as_slice()),
                Edit::Delete(table, key) => (b'-', table, key.as_slice(), &[][..]),
                Edit::DeleteRange(table, from, until) => (b'~', table, from.as_slice(), until.as_slice()),
            };
            bytes.extend([what, table.index as u8]);
            bytes.extend((first.len() as u32).to_be_bytes());
            bytes.extend(first);
            bytes.extend((second.len() as u32).to_be_bytes());
            bytes.extend(second);
        }
        trace::event(&self.name, "write", &bytes);
        self.engine.write(batch)
    }

    fn sync(&self) -> io::Result<()> {
        trace::event(&self.name, "sync", &[]);
        self.engine.sync()
    }

    fn checkpoint(&self, folder: &Path) -> io::Result<()> {
        self.engine.checkpoint(folder)
    }
}

/// Simulated files whose writes and syncs go into the trace.
pub struct WatchedFiles {
    files: Arc<dyn Files>,
    name: String,
}

struct WatchedFile {
    file: Arc<dyn OpenFile>,
    name: String,
}

impl WatchedFiles {
    /// Gives `disk` to a host; `name` is its name in the trace.
    pub fn open(disk: &SimFiles, name: String) -> WatchedFiles {
        WatchedFiles { files: disk.open(), name }
    }

    fn watched(&self, file: Arc<dyn OpenFile>) -> Arc<dyn OpenFile> {
        Arc::new(WatchedFile { file, name: self.name.clone() })
    }
}

impl Files for WatchedFiles {
    fn list(&self) -> io::Result<Vec<String>> {
        self.files.list()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn OpenFile>> {
        Ok(self.watched(self.files.open(name)?))
    }

    fn create(&self, name: &str, size: u64) -> io::Result<Arc<dyn OpenFile>> {
        trace::event(&self.name, "create", name.as_bytes());
        Ok(self.watched(self.files.create(name, size)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        trace::event(&self.name, "rename", to.as_bytes());
        self.files.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        trace::event(&self.name, "remove", name.as_bytes());
        self.files.remove(name)
    }

    fn sync(&self) -> io::Result<()> {
        trace::event(&self.name, "sync names", &[]);
        self.files.sync()
    }

    fn identity(&self, name: &str) -> io::Result<Identity> {
        self.files.identity(name)
    }

    fn free(&self) -> io::Result<Option<u64>> {
        self.files.free()
    }

    fn place(&self) -> String {
        self.files.place()
    }
}

impl OpenFile for WatchedFile {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        trace::event(&self.name, "write", bytes);
        self.file.write_at(offset, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        trace::event(&self.name, "sync", &[]);
        self.file.sync()
    }
}
