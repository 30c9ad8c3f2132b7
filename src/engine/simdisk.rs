//! A simulated disk: an [`Engine`] in memory that keeps exactly the promises of [`crate::engine`], and no more.
//!
//! A [`SimDisk`] is the device. It survives the host that uses it: the simulation holds on to it while hosts crash and
//! come back. [`SimDisk::open`] gives a host its engine. Everything is deterministic: ordered maps, no threads, no
//! clock, and chance only from the numbers that the caller gives. (The caller decides how long a sync takes, too: the
//! engine is called from offloaded work.)
//!
//! **How.** The tables always hold everything that was written. Each batch since the last sync leaves behind the edits
//! that undo it; `sync` throws those away, and [`SimDisk::crash`] undoes a number of batches from the end:
//!
//! ```text
//! write a, write b, sync, write c, write d, write e, crash    ->  [a b], [a b c], [a b c d] or [a b c d e]
//! ```
//!
//! A failed write may have reached the disk all the same, and after a failed sync nothing more can be synced until the
//! engine is opened anew: a disk reports a lost write only once.
//!
//! **Left out.** Damaged bytes: the storage's checksums are tested with values that were damaged on purpose
//! ([`SimDisk::damage`]). Torn batches: RocksDB never shows half a batch, so neither does this.

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use super::contract::{Batch, Edit, Engine, Order, Pair, Pairs, Table};

type Value = Arc<[u8]>;
pub(super) type Content = BTreeMap<Vec<u8>, Value>;
/// The content of all tables, by name.
type Tables = BTreeMap<&'static str, Arc<Content>>;

/// The calls that fail: `Some(n)` lets n more calls through, and fails all later ones until the number is set anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskFaults {
    /// `get`, `first`, making a range.
    pub reads_after: Option<u64>,
    /// `write`, `checkpoint`.
    pub writes_after: Option<u64>,
    /// `sync`.
    pub syncs_after: Option<u64>,
    /// The bytes of keys and values that fit on the disk; a write that would not fit fails.
    pub space: Option<u64>,
}

/// How often each operation was asked of the disk, over all openings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// `get`, `first`, and ranges made.
    pub reads: u64,
    /// Batches written.
    pub writes: u64,
    /// Syncs that succeeded.
    pub syncs: u64,
    /// Batches that crashes have taken back.
    pub lost: u64,
}

/// A simulated disk; clones are the same disk.
#[derive(Clone, Default)]
pub struct SimDisk {
    device: Arc<Mutex<Device>>,
}

/// A [`SimDisk`] in use by a host. Dropping it gives the disk back.
pub struct SimEngine {
    device: Arc<Mutex<Device>>,
    opening: u64,
}

#[derive(Default)]
struct Device {
    /// By name. Ranges share the Arc, so that they go on showing the content of their beginning.
    tables: Tables,
    /// The content that takes the place of `tables` at the next opening.
    taken: Option<Tables>,
    incoming: Option<SimIncoming>,
    /// The edits that undo the batches since the last sync, each batch from its end.
    unsynced: Vec<Vec<Undo>>,
    checkpoints: BTreeMap<PathBuf, Tables>,
    /// Bytes of keys and values.
    size: u64,
    /// The opening that may use the disk; older ones belong to hosts that crashed.
    opening: u64,
    in_use: bool,
    sync_failed: bool,
    faults: DiskFaults,
    counters: Counters,
}

/// A database on its way to a simulated disk.
#[derive(Clone, Default)]
pub(super) struct SimIncoming {
    pub offer: Vec<u8>,
    /// The bytes of each file, and whether it was finished. What was not is lost in a crash.
    pub files: BTreeMap<String, (Vec<u8>, bool)>,
}

impl SimIncoming {
    fn crash(&mut self) {
        self.files.retain(|_, (_, finished)| *finished);
    }
}

/// A key's value before it was changed.
struct Undo {
    table: &'static str,
    key: Vec<u8>,
    before: Option<Value>,
}

impl SimDisk {
    /// An empty disk.
    pub fn new() -> SimDisk {
        SimDisk::default()
    }

    /// Opens the disk; everything that can be read from it after that survives another crash.
    ///
    /// # Errors
    /// If the disk is open already, or holds other tables.
    pub fn open(&self, tables: &[Table]) -> io::Result<SimEngine> {
        let mut device = self.device();
        if device.in_use {
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, "the simulated disk is open already"));
        }
        if let Some(taken) = device.taken.take() {
            device.size = size_of(&taken);
            device.tables = taken;
        }
        if let Some(name) = device.tables.keys().find(|name| tables.iter().all(|table| table.name != **name)) {
            let message = format!("the simulated disk holds a table {name:?} that is not known here");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let lacking = tables.iter().find(|table| !device.tables.contains_key(table.name));
        if let Some(table) = lacking.filter(|_| device.size > 0) {
            let message = format!("the simulated disk lacks the table {:?}", table.name);
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        for table in tables {
            device.tables.entry(table.name).or_default();
        }
        device.unsynced.clear();
        device.in_use = true;
        device.sync_failed = false;
        device.opening += 1;
        Ok(SimEngine { device: self.device.clone(), opening: device.opening })
    }

    /// Crashes the host: of the batches that were not synced, only as many of the first as `chance` says remain.
    /// The engine that was open only gives errors from now on.
    pub fn crash(&self, chance: u64) {
        let mut device = self.device();
        let unsynced = device.unsynced.len() as u64;
        // Losing all and losing nothing are the cases where bugs are; they get a quarter of the chances each.
        let kept = match chance % 4 {
            0 => 0,
            1 => unsynced,
            _ => (chance / 4) % (unsynced + 1),
        };
        device.counters.lost += unsynced - kept;
        while device.unsynced.len() as u64 > kept {
            let undo = device.unsynced.pop().expect("there are more than the ones that are kept");
            device.undo(undo);
        }
        device.unsynced.clear();
        if let Some(incoming) = &mut device.incoming {
            incoming.crash();
        }
        // (A host removes its checkpoints when it starts.)
        device.checkpoints.clear();
        device.in_use = false;
        device.opening += 1;
    }

    /// Sets which calls fail from now on.
    pub fn set_faults(&self, faults: DiskFaults) {
        self.device().faults = faults;
    }

    /// How often each operation was asked of the disk so far.
    pub fn counters(&self) -> Counters {
        self.device().counters
    }

    /// Bytes of keys and values on the disk.
    pub fn size(&self) -> u64 {
        self.device().size
    }

    /// How many batches a crash could take back.
    pub fn unsynced(&self) -> usize {
        self.device().unsynced.len()
    }

    /// The disk that a checkpoint made: its folder's name is looked up among the checkpoints of this disk.
    pub fn at_checkpoint(&self, folder: &Path) -> Option<SimDisk> {
        let tables = self.device().checkpoints.get(folder)?.clone();
        Some(SimDisk::with_content(tables))
    }

    pub(super) fn with_content(tables: Tables) -> SimDisk {
        let size = size_of(&tables);
        SimDisk { device: Arc::new(Mutex::new(Device { tables, size, ..Device::default() })) }
    }

    pub(super) fn content(&self) -> Tables {
        self.device().tables.clone()
    }

    /// Looks at, or changes, the database that is on its way; an error if the disk can't be written.
    pub(super) fn incoming<T>(&self, change: impl FnOnce(&mut Option<SimIncoming>) -> T) -> io::Result<T> {
        let mut device = self.device();
        if fails(&mut device.faults.writes_after) {
            return Err(io::Error::other("simulated: the disk can't be written"));
        }
        Ok(change(&mut device.incoming))
    }

    /// From the next opening on the disk holds this.
    pub(super) fn take(&self, content: Tables) {
        self.device().taken = Some(content);
    }

    /// A disk with the same content, as a snapshot that is put back would be. (Its host's unsynced writes are there.)
    pub fn copy(&self) -> SimDisk {
        let device = self.device();
        let copy = Device {
            tables: device.tables.clone(),
            taken: device.taken.clone(),
            incoming: device.incoming.clone(),
            size: device.size,
            ..Device::default()
        };
        SimDisk { device: Arc::new(Mutex::new(copy)) }
    }

    /// Forgets a checkpoint; whether there was one.
    pub fn remove_checkpoint(&self, folder: &Path) -> bool {
        self.device().checkpoints.remove(folder).is_some()
    }

    /// Flips a bit of a value, as a bad disk would; `chance` chooses the bit. False if there is no such value.
    pub fn damage(&self, table: Table, key: &[u8], chance: u64) -> bool {
        let mut device = self.device();
        let Some(content) = device.tables.get_mut(table.name) else { return false };
        let Some(value) = content.get(key).filter(|value| !value.is_empty()) else { return false };
        let mut damaged = value.to_vec();
        let bit = (chance % (damaged.len() as u64 * 8)) as usize;
        damaged[bit / 8] ^= 1 << (bit % 8);
        Arc::make_mut(content).insert(key.to_vec(), damaged.into());
        true
    }

    fn device(&self) -> MutexGuard<'_, Device> {
        lock(&self.device)
    }
}

fn lock(device: &Mutex<Device>) -> MutexGuard<'_, Device> {
    // A panic elsewhere (an assertion of the simulation) leaves the maps whole: every change is finished at once.
    device.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn size_of(tables: &Tables) -> u64 {
    tables.values().flat_map(|content| content.iter()).map(|(key, value)| length(key, value)).sum()
}

fn length(key: &[u8], value: &[u8]) -> u64 {
    (key.len() + value.len()) as u64
}

/// Counts one call down; true if it must fail.
fn fails(after: &mut Option<u64>) -> bool {
    match after {
        None => false,
        Some(0) => true,
        Some(left) => {
            *left -= 1;
            false
        }
    }
}

impl Device {
    fn table(&self, table: Table) -> &Arc<Content> {
        self.tables.get(table.name).expect("an engine is only asked for the tables that it was opened with")
    }

    fn read(&mut self, table: Table) -> io::Result<&Arc<Content>> {
        self.counters.reads += 1;
        if fails(&mut self.faults.reads_after) {
            return Err(io::Error::other("simulated: the disk can't be read"));
        }
        Ok(self.table(table))
    }

    fn apply(&mut self, batch: Batch) {
        let mut undo = Vec::new();
        for edit in batch.edits {
            match edit {
                Edit::Put(table, key, value) => undo.push(self.set(table.name, key, Some(value.into()))),
                Edit::Delete(table, key) => undo.push(self.set(table.name, key, None)),
                Edit::DeleteRange(table, from, until) if from < until => {
                    let keys: Vec<Vec<u8>> = self.table(table).range(from..until).map(|(key, _)| key.clone()).collect();
                    undo.extend(keys.into_iter().map(|key| self.set(table.name, key, None)));
                }
                Edit::DeleteRange(..) => {}
            }
        }
        self.counters.writes += 1;
        self.unsynced.push(undo);
    }

    fn undo(&mut self, undo: Vec<Undo>) {
        for Undo { table, key, before } in undo.into_iter().rev() {
            self.set(table, key, before);
        }
    }

    /// Sets or (`None`) removes a key.
    fn set(&mut self, table: &'static str, key: Vec<u8>, value: Option<Value>) -> Undo {
        let content = self.tables.get_mut(table).expect("an engine only writes the tables that it was opened with");
        let content = Arc::make_mut(content);
        let after = value.as_ref().map_or(0, |value| length(&key, value));
        let before = match value {
            Some(value) => content.insert(key.clone(), value),
            None => content.remove(&key),
        };
        self.size = self.size + after - before.as_ref().map_or(0, |value| length(&key, value));
        Undo { table, key, before }
    }
}

impl SimEngine {
    fn device(&self) -> io::Result<MutexGuard<'_, Device>> {
        let device = lock(&self.device);
        if device.opening != self.opening {
            return Err(io::Error::new(io::ErrorKind::NotConnected, "simulated: the host of this engine has crashed"));
        }
        Ok(device)
    }
}

impl Drop for SimEngine {
    /// Gives the disk back, unsynced as it is: only a later crash decides what was lost, or the next opening keeps it.
    fn drop(&mut self) {
        let mut device = lock(&self.device);
        if device.opening == self.opening {
            device.in_use = false;
        }
    }
}

impl Engine for SimEngine {
    fn get(&self, table: Table, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        Ok(self.device()?.read(table)?.get(key).map(|value| value.to_vec()))
    }

    fn first(&self, table: Table, from: &[u8], until: &[u8]) -> io::Result<Option<Pair>> {
        let mut device = self.device()?;
        let content = device.read(table)?;
        Ok(within(content, Bound::Included(from), until, Order::Ascending))
    }

    fn range<'a>(&'a self, table: Table, from: &[u8], until: &[u8], order: Order) -> Pairs<'a> {
        let content = self.device().and_then(|mut device| device.read(table).cloned());
        match content {
            Ok(content) => {
                Box::new(SimRange { content, from: Bound::Included(from.to_vec()), until: until.to_vec(), order })
            }
            Err(error) => Box::new(std::iter::once(Err(error))),
        }
    }

    fn write(&self, batch: Batch) -> io::Result<()> {
        let mut device = self.device()?;
        let added: usize = batch
            .edits
            .iter()
            .map(|edit| if let Edit::Put(_, key, value) = edit { key.len() + value.len() } else { 0 })
            .sum();
        if device.faults.space.is_some_and(|space| device.size + added as u64 > space) {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "simulated: no space left on the disk"));
        }
        if fails(&mut device.faults.writes_after) {
            // Every other failed write has happened: the caller can't know.
            if device.counters.writes % 2 == 0 {
                device.apply(batch);
            }
            return Err(io::Error::other("simulated: the disk can't be written"));
        }
        device.apply(batch);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut device = self.device()?;
        if device.sync_failed || fails(&mut device.faults.syncs_after) {
            device.sync_failed = true;
            return Err(io::Error::other("simulated: the disk can't be synced"));
        }
        device.unsynced.clear();
        device.counters.syncs += 1;
        Ok(())
    }

    /// A checkpoint is kept under its folder's name, survives crashes, and is opened with [`SimDisk::at_checkpoint`].
    fn checkpoint(&self, folder: &Path) -> io::Result<()> {
        let mut device = self.device()?;
        if fails(&mut device.faults.writes_after) {
            return Err(io::Error::other("simulated: the disk can't be written"));
        }
        if device.checkpoints.contains_key(folder) {
            let message = format!("simulated: {} exists already", folder.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
        }
        let tables = device.tables.clone();
        device.checkpoints.insert(folder.to_owned(), tables);
        Ok(())
    }
}

/// A range over the content of the moment when it was made: writers copy a table that a range still shares.
struct SimRange {
    content: Arc<Content>,
    /// Grows when ascending; `until` shrinks when descending.
    from: Bound<Vec<u8>>,
    until: Vec<u8>,
    order: Order,
}

impl Iterator for SimRange {
    type Item = io::Result<Pair>;

    fn next(&mut self) -> Option<io::Result<Pair>> {
        let pair = within(&self.content, self.from.as_ref().map(Vec::as_slice), &self.until, self.order)?;
        match self.order {
            Order::Ascending => self.from = Bound::Excluded(pair.0.clone()),
            Order::Descending => self.until = pair.0.clone(),
        }
        Some(Ok(pair))
    }
}

/// The first pair of a range, in the order asked for.
fn within(content: &Content, from: Bound<&[u8]>, until: &[u8], order: Order) -> Option<Pair> {
    // BTreeMap panics on ranges that end before they begin.
    if let Bound::Included(from) | Bound::Excluded(from) = from
        && from >= until
    {
        return None;
    }
    let mut range = content.range::<[u8], _>((from, Bound::Excluded(until)));
    let found = match order {
        Order::Ascending => range.next(),
        Order::Descending => range.next_back(),
    };
    found.map(|(key, value)| (key.clone(), value.to_vec()))
}
