//! [`Files`] as the operating system has them.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use rustix::io::Errno;

use super::files::{Files, Identity, OpenFile};

/// Zeros are written in parts of so many bytes, so that what else waits for the disk gets its turn.
const ZEROS: usize = 1 << 20;

/// How often, and at which intervals, a file is opened while the process may have no more files open.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// With fewer inodes left than this, a disk counts as full.
const FILES_LEFT: u64 = 64;

/// A folder on disk.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    writable: bool,
    /// The folder itself, for syncs: they must not fail as a process has too many files open.
    folder: File,
}

impl Directory {
    /// The folder at `path`, which is made if it is not there.
    pub fn open(path: &Path) -> io::Result<Directory> {
        if !path.exists() {
            fs::create_dir(path)?;
        }
        // (Also if it is there: perhaps the process ended between the two steps.)
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            File::open(parent)?.sync_all()?;
        }
        Ok(Directory { path: path.to_owned(), writable: true, folder: File::open(path)? })
    }

    /// The folder at `path`, of which nothing is to be changed: opening for writing, and every change, fails.
    pub fn open_read_only(path: &Path) -> io::Result<Directory> {
        fs::read_dir(path)?;
        Ok(Directory { path: path.to_owned(), writable: false, folder: File::open(path)? })
    }

    fn changeable(&self) -> io::Result<()> {
        match self.writable {
            true => Ok(()),
            false => Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "the folder was opened for reading only")),
        }
    }
}

impl Files for Directory {
    fn list(&self) -> io::Result<Vec<String>> {
        let named = |entry: io::Result<fs::DirEntry>| entry.map(|e| e.file_name().to_string_lossy().into_owned());
        fs::read_dir(&self.path)?.map(named).collect()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn OpenFile>> {
        Ok(OnDisk::over(self, open(&self.path.join(name), self.writable)?))
    }

    fn create(&self, name: &str, size: u64) -> io::Result<Arc<dyn OpenFile>> {
        self.changeable()?;
        let path = self.path.join(name);
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
        let zeros = vec![0; ZEROS.min(size as usize)];
        let mut written = 0;
        while written < size {
            let part = (size - written).min(ZEROS as u64) as usize;
            file.write_all_at(&zeros[..part], written)?;
            file.sync_data()?;
            written += part as u64;
        }
        file.sync_all()?;
        Ok(OnDisk::over(self, file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.changeable()?;
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.changeable()?;
        fs::remove_file(self.path.join(name))
    }

    fn sync(&self) -> io::Result<()> {
        self.changeable()?;
        self.folder.sync_all()
    }

    fn identity(&self, name: &str) -> io::Result<Identity> {
        // (A container may have neither.)
        let line = |path| fs::read_to_string(path).map(|text: String| text.trim().to_owned()).unwrap_or_default();
        let meta = fs::metadata(self.path.join(name))?;
        Ok(Identity {
            machine: line("/etc/machine-id"),
            boot: line("/proc/sys/kernel/random/boot_id"),
            inode: meta.ino(),
            born: meta.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok()),
        })
    }

    fn free(&self) -> io::Result<Option<u64>> {
        let disk = rustix::fs::statvfs(&self.path)?;
        // (File systems that make inodes as they need them have none to count.)
        let no_files = disk.f_files > 0 && disk.f_favail < FILES_LEFT;
        Ok(Some(if no_files { 0 } else { disk.f_bavail.saturating_mul(disk.f_frsize) }))
    }

    fn place(&self) -> String {
        self.path.display().to_string()
    }
}

/// A file of a folder. A process may have only so many files open, and a log has more: those that rest are closed, and
/// opened again when they are used.
struct OnDisk {
    folder: PathBuf,
    writable: bool,
    place: Mutex<Place>,
}

enum Place {
    Open(Arc<File>),
    Resting(String),
}

impl OnDisk {
    fn over(directory: &Directory, file: File) -> Arc<dyn OpenFile> {
        let place = Mutex::new(Place::Open(Arc::new(file)));
        Arc::new(OnDisk { folder: directory.path.clone(), writable: directory.writable, place })
    }

    fn file(&self) -> io::Result<Arc<File>> {
        let mut place = self.place();
        let name = match &*place {
            Place::Open(file) => return Ok(file.clone()),
            Place::Resting(name) => name,
        };
        let file = Arc::new(patiently(|| open(&self.folder.join(name), self.writable))?);
        *place = Place::Open(file.clone());
        Ok(file)
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open(path: &Path, writable: bool) -> io::Result<File> {
    File::options().read(true).write(writable).open(path)
}

/// Opens a file of the log, without which this node ends: if too many are open at the moment, it tries for a second.
fn patiently<T>(mut open: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let too_many = |fault: &io::Error| matches!(Errno::from_io_error(fault), Some(Errno::MFILE | Errno::NFILE));
    for _ in 1..TRIES {
        match open() {
            Err(fault) if too_many(&fault) => std::thread::sleep(PAUSE),
            done => return done,
        }
    }
    open()
}

impl OpenFile for OnDisk {
    fn size(&self) -> io::Result<u64> {
        Ok(self.file()?.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file()?.read_exact_at(buffer, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file()?.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file()?.sync_data()
    }

    fn rest(&self, name: &str) {
        *self.place() = Place::Resting(name.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_opened_once_another_was_closed() {
        let mut tries = 0;
        let mut opens = |at: u32, fault: Errno| {
            tries = 0;
            let opened = patiently(|| {
                tries += 1;
                if tries < at { Err(fault.into()) } else { Ok(()) }
            });
            (opened.is_ok(), tries)
        };
        assert_eq!(opens(3, Errno::MFILE), (true, 3));
        assert_eq!(opens(2, Errno::NFILE), (true, 2));
        assert_eq!(opens(2, Errno::IO), (false, 1));
        assert_eq!(opens(u32::MAX, Errno::MFILE), (false, TRIES));
    }

    #[test]
    fn a_folder_is_synced_without_opening_anything() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Directory::open(&parent.path().join("log")).unwrap();
        // (By this name there is nothing to open.)
        fs::rename(parent.path().join("log"), parent.path().join("moved")).unwrap();
        folder.sync().unwrap();
    }
}
