//! A simulated disk whose writes go into the trace.

use std::io;
use std::path::Path;

use zrs::engine::{Batch, Edit, Engine, Order, Pair, Pairs, SimDisk, SimEngine, Table};

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
