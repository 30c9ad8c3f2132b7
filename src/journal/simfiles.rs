//! Simulated files: [`Files`] in memory that keep exactly the promises of the seam, and no more.
//!
//! A [`SimFiles`] is the disk. It survives the host that uses it; [`SimFiles::open`] gives a host its folder.
//! Everything is deterministic: ordered maps, no threads, no clock, and chance only from the numbers that the caller
//! gives.
//!
//! **How.** Each file has the bytes that readers see and those that are on the disk; [`OpenFile::sync`] makes them the
//! same. A crash decides for every sector of 512 bytes that differs which of the two remains: so of one write any part
//! may be there. Of the changes of names since the last [`Files::sync`], a crash keeps some of the first.
//!
//! A failed write may have reached the disk in part. After a failed sync no later one of this host succeeds; the next
//! host's do, and what the failed one should have written is still read, and is gone after a crash.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::files::{Files, Identity, OpenFile};

const SECTOR: usize = 512;

/// Which calls fail: `Some(n)` lets n more through, and fails those after them until it is set anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileFaults {
    /// Reads.
    pub reads_after: Option<u64>,
    /// Writes, and changes of names.
    pub writes_after: Option<u64>,
    /// Syncs of files and of names.
    pub syncs_after: Option<u64>,
    /// Openings of files, also of those that have rested.
    pub opens_after: Option<u64>,
    /// The bytes that all files together may have.
    pub space: Option<u64>,
}

/// A simulated disk with one folder; clones are the same disk.
#[derive(Clone, Default)]
pub struct SimFiles {
    device: Arc<Mutex<Device>>,
}

#[derive(Clone, Default)]
struct Device {
    files: BTreeMap<u64, Content>,
    /// By name, as readers see them.
    names: BTreeMap<String, u64>,
    /// By name, after the last sync.
    synced: BTreeMap<String, u64>,
    /// What happened to names since.
    changes: Vec<Change>,
    made: u64,
    /// The opening that may use the disk; older ones belong to hosts that crashed.
    opening: u64,
    sync_failed: bool,
    faults: FileFaults,
}

impl Device {
    fn used(&self) -> u64 {
        self.names.values().map(|file| self.files[file].seen.len() as u64).sum()
    }

    /// The file that has this name.
    fn open(&mut self, name: &str) -> io::Result<u64> {
        let file = *self.names.get(name).ok_or_else(|| absent(name))?;
        attempt(&mut self.faults.opens_after, "too many files are open")?;
        Ok(file)
    }
}

#[derive(Clone)]
struct Content {
    seen: Vec<u8>,
    durable: Vec<u8>,
    /// The sectors that may differ.
    dirty: BTreeSet<usize>,
}

#[derive(Clone)]
enum Change {
    Make(String, u64),
    Rename(String, String),
    Remove(String),
}

/// The folder, as a host uses it.
struct Opening {
    device: Arc<Mutex<Device>>,
    number: u64,
}

struct Handle {
    device: Arc<Mutex<Device>>,
    number: u64,
    place: Mutex<Place>,
}

/// As on a real disk, a file that has rested is opened again by its name.
enum Place {
    Open(u64),
    Resting(String),
}

impl SimFiles {
    /// An empty disk.
    pub fn new() -> SimFiles {
        SimFiles::default()
    }

    /// Gives the folder to a host; the handles of an earlier one only give errors from now on.
    pub fn open(&self) -> Arc<dyn Files> {
        let mut device = self.device();
        device.opening += 1;
        device.sync_failed = false;
        Arc::new(Opening { device: self.device.clone(), number: device.opening })
    }

    /// Crashes the host: of what was not synced, `chance` decides what remains.
    pub fn crash(&self, chance: u64) {
        let mut device = self.device();
        let mut draw = chance;
        // Losing all and losing nothing are the cases where bugs are; they get a quarter of the chances each.
        let kept = |draw: &mut u64| match chance % 4 {
            0 => false,
            1 => true,
            _ => next(draw).is_multiple_of(2),
        };
        for content in device.files.values_mut() {
            for sector in std::mem::take(&mut content.dirty) {
                let end = content.seen.len().min((sector + 1) * SECTOR);
                let range = sector * SECTOR..end;
                if kept(&mut draw) {
                    content.durable[range.clone()].copy_from_slice(&content.seen[range]);
                }
            }
            content.seen.clone_from(&content.durable);
        }
        let changes = std::mem::take(&mut device.changes);
        let remain = match chance % 4 {
            0 => 0,
            1 => changes.len(),
            _ => next(&mut draw) as usize % (changes.len() + 1),
        };
        let mut names = device.synced.clone();
        changes[..remain].iter().for_each(|change| apply(&mut names, change));
        device.names.clone_from(&names);
        device.synced = names;
        let left: BTreeSet<u64> = device.names.values().copied().collect();
        device.files.retain(|file, _| left.contains(file));
        device.opening += 1;
    }

    /// Sets which calls fail from now on.
    pub fn set_faults(&self, faults: FileFaults) {
        self.device().faults = faults;
    }

    /// Flips a bit of a file, as a bad disk would; `chance` chooses the bit. False if there is no such file.
    pub fn flip(&self, name: &str, chance: u64) -> bool {
        self.change(name, |bytes| {
            let bit = (chance % (bytes.len() as u64 * 8)) as usize;
            bytes[bit / 8] ^= 1 << (bit % 8);
        })
    }

    /// Overwrites a part of a file, as somebody would who should not. False if there is no such file.
    pub fn overwrite(&self, name: &str, offset: u64, with: &[u8]) -> bool {
        self.change(name, |bytes| bytes[offset as usize..offset as usize + with.len()].copy_from_slice(with))
    }

    /// Cuts a file. False if there is no such file.
    pub fn cut(&self, name: &str, size: u64) -> bool {
        self.change(name, |bytes| bytes.truncate(size as usize))
    }

    /// Removes a file, as somebody would who should not. False if there is no such file.
    pub fn lose(&self, name: &str) -> bool {
        let mut device = self.device();
        device.synced.remove(name);
        device.names.remove(name).is_some()
    }

    /// The names and sizes of all files.
    pub fn names(&self) -> Vec<(String, u64)> {
        let device = self.device();
        device.names.iter().map(|(name, file)| (name.clone(), device.files[file].seen.len() as u64)).collect()
    }

    /// A disk with the same content, as a backup that is put back would be.
    pub fn copy(&self) -> SimFiles {
        SimFiles { device: Arc::new(Mutex::new(self.device().clone())) }
    }

    fn change(&self, name: &str, change: impl Fn(&mut Vec<u8>)) -> bool {
        let mut device = self.device();
        let Some(file) = device.names.get(name).copied() else { return false };
        let content = device.files.get_mut(&file).expect("a name is that of a file");
        change(&mut content.seen);
        change(&mut content.durable);
        true
    }

    fn device(&self) -> MutexGuard<'_, Device> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// splitmix64: the next number of a sequence.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn apply(names: &mut BTreeMap<String, u64>, change: &Change) {
    match change {
        Change::Make(name, file) => {
            names.insert(name.clone(), *file);
        }
        Change::Rename(from, to) => {
            if let Some(file) = names.remove(from) {
                names.insert(to.clone(), file);
            }
        }
        Change::Remove(name) => {
            names.remove(name);
        }
    }
}

/// Counts one call down; an error if it must fail.
fn attempt(after: &mut Option<u64>, what: &str) -> io::Result<()> {
    match after {
        None => Ok(()),
        Some(0) => Err(io::Error::other(format!("simulated: {what}"))),
        Some(left) => {
            *left -= 1;
            Ok(())
        }
    }
}

fn held(device: &Mutex<Device>, opening: u64) -> io::Result<MutexGuard<'_, Device>> {
    let device = device.lock().unwrap_or_else(PoisonError::into_inner);
    if device.opening != opening {
        return Err(io::Error::new(io::ErrorKind::NotConnected, "simulated: the host of this folder has crashed"));
    }
    Ok(device)
}

fn absent(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("simulated: there is no file {name}"))
}

impl Opening {
    fn device(&self) -> io::Result<MutexGuard<'_, Device>> {
        held(&self.device, self.number)
    }

    fn handle(&self, file: u64) -> Arc<dyn OpenFile> {
        Arc::new(Handle { device: self.device.clone(), number: self.number, place: Mutex::new(Place::Open(file)) })
    }

    fn rechristen(&self, change: Change) -> io::Result<()> {
        let mut device = self.device()?;
        attempt(&mut device.faults.writes_after, "the disk can't be written")?;
        apply(&mut device.names, &change);
        device.changes.push(change);
        Ok(())
    }
}

impl Files for Opening {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.device()?.names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn OpenFile>> {
        let file = self.device()?.open(name)?;
        Ok(self.handle(file))
    }

    fn create(&self, name: &str, size: u64) -> io::Result<Arc<dyn OpenFile>> {
        let mut device = self.device()?;
        if device.faults.space.is_some_and(|space| device.used() + size > space) {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "simulated: no space left on the disk"));
        }
        attempt(&mut device.faults.writes_after, "the disk can't be written")?;
        device.made += 1;
        let file = device.made;
        let zeros = vec![0; size as usize];
        device.files.insert(file, Content { seen: zeros.clone(), durable: zeros, dirty: BTreeSet::new() });
        let change = Change::Make(name.to_owned(), file);
        apply(&mut device.names, &change);
        device.changes.push(change);
        Ok(self.handle(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        if !self.device()?.names.contains_key(from) {
            return Err(absent(from));
        }
        self.rechristen(Change::Rename(from.to_owned(), to.to_owned()))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        if !self.device()?.names.contains_key(name) {
            return Err(absent(name));
        }
        self.rechristen(Change::Remove(name.to_owned()))
    }

    fn sync(&self) -> io::Result<()> {
        let mut device = self.device()?;
        attempt(&mut device.faults.syncs_after, "the disk can't be synced")?;
        device.changes.clear();
        device.synced = device.names.clone();
        Ok(())
    }

    fn identity(&self, name: &str) -> io::Result<Identity> {
        let inode = *self.device()?.names.get(name).ok_or_else(|| absent(name))?;
        Ok(Identity { inode, ..Identity::default() })
    }

    fn free(&self) -> io::Result<Option<u64>> {
        let device = self.device()?;
        Ok(device.faults.space.map(|space| space.saturating_sub(device.used())))
    }

    fn place(&self) -> String {
        "the simulated disk".into()
    }
}

impl Handle {
    fn content<T>(
        &self,
        work: impl FnOnce(&mut Content, &mut FileFaults, &mut bool) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut device = held(&self.device, self.number)?;
        let file = self.file(&mut device)?;
        let Device { files, faults, sync_failed, .. } = &mut *device;
        work(files.get_mut(&file).expect("an open file stays until its host crashes"), faults, sync_failed)
    }

    fn file(&self, device: &mut Device) -> io::Result<u64> {
        let mut place = self.place();
        let file = match &*place {
            Place::Open(file) => *file,
            Place::Resting(name) => device.open(name)?,
        };
        *place = Place::Open(file);
        Ok(file)
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn outside(offset: u64, length: usize) -> io::Error {
    let message = format!("simulated: {length} bytes at {offset} are not inside of the file");
    io::Error::new(io::ErrorKind::UnexpectedEof, message)
}

impl OpenFile for Handle {
    fn size(&self) -> io::Result<u64> {
        self.content(|content, _, _| Ok(content.seen.len() as u64))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.content(|content, faults, _| {
            attempt(&mut faults.reads_after, "the disk can't be read")?;
            let range = offset as usize..offset as usize + buffer.len();
            buffer.copy_from_slice(content.seen.get(range).ok_or_else(|| outside(offset, buffer.len()))?);
            Ok(())
        })
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.content(|content, faults, _| {
            let range = offset as usize..offset as usize + bytes.len();
            if range.end > content.seen.len() {
                return Err(outside(offset, bytes.len()));
            }
            let allowed = attempt(&mut faults.writes_after, "the disk can't be written");
            // A failed write has come half of its way.
            let part = if allowed.is_ok() { bytes.len() } else { bytes.len() / 2 };
            if part > 0 {
                content.seen[range.start..range.start + part].copy_from_slice(&bytes[..part]);
                content.dirty.extend(range.start / SECTOR..=(range.start + part - 1) / SECTOR);
            }
            allowed
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.content(|content, faults, sync_failed| {
            if *sync_failed {
                return Err(io::Error::other("simulated: the disk can't be synced"));
            }
            // As Linux does: what could not be written counts as clean, and is never written by a later sync.
            attempt(&mut faults.syncs_after, "the disk can't be synced").inspect_err(|_| {
                *sync_failed = true;
                content.dirty.clear();
            })?;
            for sector in std::mem::take(&mut content.dirty) {
                let range = sector * SECTOR..content.seen.len().min((sector + 1) * SECTOR);
                content.durable[range.clone()].copy_from_slice(&content.seen[range]);
            }
            Ok(())
        })
    }

    fn rest(&self, name: &str) {
        *self.place() = Place::Resting(name.to_owned());
    }
}
