//! Simulated disks whose writes go into the trace, and which tell the moments that faults wait for.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use zrs::engine::{Batch, Edit, Engine, Order, Pair, Pairs, SimEngine, Table};
use zrs::journal::{Files, Identity, OpenFile, SLOTS};

use crate::moments::{Moment, Teller};
use crate::trace;

/// The bytes that are free on a disk with room. (A disk that can't tell would leave a node with what it heard last.)
const ROOMY: u64 = 1 << 40;

/// A [`SimEngine`] whose writes and syncs go into the trace.
pub struct Watched {
    engine: SimEngine,
    /// The disk's name in the trace.
    name: String,
    teller: Teller,
}

impl Watched {
    /// Opens the store of the teller's folder; `name` is its name in the trace.
    pub fn open(teller: &Teller, tables: &[Table], name: String) -> io::Result<Watched> {
        Ok(Watched { engine: teller.folder.store.open(tables)?, name, teller: teller.clone() })
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
        self.engine.write(batch)?;
        self.teller.now(Moment::Applied)
    }

    fn sync(&self) -> io::Result<()> {
        trace::event(&self.name, "sync", &[]);
        self.teller.now(Moment::Flushing)?;
        self.engine.sync()?;
        self.teller.now(Moment::Flushed)
    }

    fn checkpoint(&self, folder: &Path) -> io::Result<()> {
        self.engine.checkpoint(folder)
    }
}

/// Simulated files whose writes and syncs go into the trace.
pub struct WatchedFiles {
    files: Arc<dyn Files>,
    watch: Watch,
}

struct WatchedFile {
    file: Arc<dyn OpenFile>,
    kind: Kind,
    watch: Watch,
}

/// The files of the log.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Slots,
    Mark,
    Segment,
}

/// What the files of one node share.
#[derive(Clone)]
struct Watch {
    name: String,
    teller: Teller,
    /// Whether the last mark said that a truncation goes on.
    truncating: Arc<AtomicBool>,
}

impl Watch {
    /// A step of whatever goes on.
    fn step(&self) -> io::Result<()> {
        if self.truncating.load(Relaxed) { self.teller.now(Moment::Truncating) } else { Ok(()) }
    }
}

impl WatchedFiles {
    /// Gives the log of the teller's folder to a host; `name` is its name in the trace.
    pub fn open(teller: &Teller, name: String) -> WatchedFiles {
        let watch = Watch { name, teller: teller.clone(), truncating: Arc::default() };
        WatchedFiles { files: teller.folder.log.open(), watch }
    }

    fn watched(&self, name: &str, file: Arc<dyn OpenFile>) -> Arc<dyn OpenFile> {
        let kind = match name {
            SLOTS => Kind::Slots,
            _ if name.starts_with("synced") => Kind::Mark,
            _ => Kind::Segment,
        };
        Arc::new(WatchedFile { file, kind, watch: self.watch.clone() })
    }
}

impl Files for WatchedFiles {
    fn list(&self) -> io::Result<Vec<String>> {
        self.files.list()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn OpenFile>> {
        Ok(self.watched(name, self.files.open(name)?))
    }

    fn create(&self, name: &str, size: u64) -> io::Result<Arc<dyn OpenFile>> {
        trace::event(&self.watch.name, "create", name.as_bytes());
        Ok(self.watched(name, self.files.create(name, size)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        trace::event(&self.watch.name, "rename", to.as_bytes());
        self.files.rename(from, to)?;
        self.watch.teller.now(Moment::SegmentBegun)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        trace::event(&self.watch.name, "remove", name.as_bytes());
        self.files.remove(name)?;
        self.watch.step()
    }

    fn sync(&self) -> io::Result<()> {
        trace::event(&self.watch.name, "sync names", &[]);
        self.files.sync()?;
        self.watch.step()
    }

    fn identity(&self, name: &str) -> io::Result<Identity> {
        self.files.identity(name)
    }

    fn free(&self) -> io::Result<Option<u64>> {
        Ok(self.watch.teller.host.free().or(self.files.free()?).or(Some(ROOMY)))
    }

    fn place(&self) -> String {
        self.files.place()
    }
}

/// The byte of a mark that says whether a truncation goes on (`src/journal/mark.rs`).
const ERASE: usize = 47;

impl OpenFile for WatchedFile {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        trace::event(&self.watch.name, "write", bytes);
        self.file.write_at(offset, bytes)?;
        if self.kind == Kind::Mark {
            self.watch.truncating.store(bytes.get(ERASE) == Some(&1), Relaxed);
        }
        self.watch.step()
    }

    fn sync(&self) -> io::Result<()> {
        let (before, after) = match self.kind {
            Kind::Slots => (Some(Moment::SlotsWritten), Some(Moment::SlotsSynced)),
            Kind::Segment => (Some(Moment::EntriesWritten), Some(Moment::EntriesSynced)),
            Kind::Mark => (None, None),
        };
        trace::event(&self.watch.name, "sync", &[]);
        before.map_or(Ok(()), |moment| self.watch.teller.now(moment))?;
        self.file.sync()?;
        after.map_or(Ok(()), |moment| self.watch.teller.now(moment))?;
        self.watch.step()
    }
}
