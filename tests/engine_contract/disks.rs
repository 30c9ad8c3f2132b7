//! The engines under test, each on a disk that can crash, and the few calls that all tests make.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use zrs::engine::{Batch, Durability, Engine, Order, Pair, Rocks, SimDisk, Table};

pub const SMALL: Table = Table { index: 0, name: "small", large_values: false, cached: true };
pub const LARGE: Table = Table { index: 1, name: "large", large_values: true, cached: true };
pub const TABLES: &[Table] = &[SMALL, LARGE];
pub const END: &[u8] = &[0xff; 32];

/// Something that engines are opened on, and that can crash.
pub trait Disk {
    fn open(&self) -> io::Result<Arc<dyn Engine>>;
    fn open_tables(&self, tables: &[Table]) -> io::Result<Arc<dyn Engine>>;
    /// Power fails while `engine` is open.
    fn crash(&mut self, engine: Arc<dyn Engine>, chance: u64);
    /// A folder that checkpoints may be made in.
    fn beside(&self, name: &str) -> PathBuf;
    fn open_checkpoint(&self, folder: &Path) -> io::Result<Arc<dyn Engine>>;
}

pub struct OnRocks {
    durability: Durability,
    home: TempDir,
    generation: u32,
}

impl OnRocks {
    pub fn new(durability: Durability) -> OnRocks {
        OnRocks { durability, home: TempDir::new().unwrap(), generation: 0 }
    }

    pub fn folder(&self) -> PathBuf {
        self.home.path().join(format!("generation-{}", self.generation))
    }
}

/// Copies a folder's files into a new one. `false`: other files came or went meanwhile.
fn copy_files(from: &Path, to: &Path) -> io::Result<bool> {
    let names = || fs::read_dir(from)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<BTreeSet<_>>>();
    let before = names()?;
    fs::create_dir(to)?;
    for name in &before {
        match fs::copy(from.join(name), to.join(name)) {
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(false),
            copied => copied?,
        };
    }
    Ok(names()? == before)
}

impl Disk for OnRocks {
    fn open(&self) -> io::Result<Arc<dyn Engine>> {
        self.open_tables(TABLES)
    }

    fn open_tables(&self, tables: &[Table]) -> io::Result<Arc<dyn Engine>> {
        Ok(Arc::new(Rocks::open(&self.folder(), tables, self.durability)?))
    }

    fn crash(&mut self, engine: Arc<dyn Engine>, _: u64) {
        let before = self.folder();
        self.generation += 1;
        let after = self.folder();
        // (The engine may remove and make files meanwhile: a crash has those of one moment.)
        while !copy_files(&before, &after).unwrap() {
            fs::remove_dir_all(&after).unwrap();
        }
        drop(engine);
        fs::remove_dir_all(before).unwrap();
    }

    fn beside(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn open_checkpoint(&self, folder: &Path) -> io::Result<Arc<dyn Engine>> {
        Ok(Arc::new(Rocks::open(folder, TABLES, self.durability)?))
    }
}

pub struct Simulated(pub SimDisk);

impl Disk for Simulated {
    fn open(&self) -> io::Result<Arc<dyn Engine>> {
        self.open_tables(TABLES)
    }

    fn open_tables(&self, tables: &[Table]) -> io::Result<Arc<dyn Engine>> {
        Ok(Arc::new(self.0.open(tables)?))
    }

    fn crash(&mut self, _engine: Arc<dyn Engine>, chance: u64) {
        self.0.crash(chance);
    }

    fn beside(&self, name: &str) -> PathBuf {
        PathBuf::from(name)
    }

    fn open_checkpoint(&self, folder: &Path) -> io::Result<Arc<dyn Engine>> {
        let disk = self.0.at_checkpoint(folder).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(disk.open(TABLES)?))
    }
}

pub fn disks() -> Vec<(&'static str, Box<dyn Disk>)> {
    vec![
        ("RocksDB with a log", Box::new(OnRocks::new(Durability::Log))),
        ("RocksDB with flushes", Box::new(OnRocks::new(Durability::Flush))),
        ("the simulated disk", Box::new(Simulated(SimDisk::new()))),
    ]
}

pub fn each(mut story: impl FnMut(&str, &mut dyn Disk)) {
    for (name, mut disk) in disks() {
        story(name, disk.as_mut());
    }
}

pub fn pair(key: &str, value: &str) -> Pair {
    (key.into(), value.into())
}

pub fn put(engine: &dyn Engine, table: Table, pairs: &[(&str, &str)]) {
    let mut batch = Batch::new();
    for (key, value) in pairs {
        batch.put(table, *key, *value);
    }
    engine.write(batch).unwrap();
}

pub fn all(engine: &dyn Engine, table: Table) -> Vec<Pair> {
    engine.range(table, b"", END, Order::Ascending).map(Result::unwrap).collect()
}
