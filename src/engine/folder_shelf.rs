//! The [`Shelf`] of a data folder.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::contract::{Engine, Table};
use super::folder::{MADE, STORE};
use super::rocks::{Durability, Rocks};
use super::shelf::{Checkpoint, Incoming, Shelf, ShelfFile};

const CHECKPOINTS: &str = "checkpoints";
const INCOMING: &str = "incoming";
const OFFER: &str = "OFFER";
/// What a file is called until it is whole.
const PART: &str = ".part";

/// The shelf in a data folder.
#[derive(Clone, Debug)]
pub struct FolderShelf {
    folder: PathBuf,
    tables: &'static [Table],
}

impl FolderShelf {
    /// The shelf in the data folder `folder`; checkpoints that are left from before are removed.
    pub fn open(folder: &Path, tables: &'static [Table]) -> io::Result<FolderShelf> {
        remove(&folder.join(CHECKPOINTS))?;
        Ok(FolderShelf { folder: folder.to_owned(), tables })
    }
}

impl Shelf for FolderShelf {
    fn checkpoint(&self, engine: &dyn Engine, name: &str) -> io::Result<Arc<dyn Checkpoint>> {
        let all = self.folder.join(CHECKPOINTS);
        fs::create_dir_all(&all)?;
        let path = all.join(plain(name)?);
        engine.checkpoint(&path)?;
        let mut checkpoint = FolderCheckpoint { path, tables: self.tables, files: Vec::new() };
        checkpoint.files = list(&checkpoint.path)?;
        Ok(Arc::new(checkpoint))
    }

    fn incoming(&self) -> io::Result<Arc<dyn Incoming>> {
        Ok(Arc::new(FolderIncoming { folder: self.folder.clone(), tables: self.tables }))
    }
}

struct FolderCheckpoint {
    path: PathBuf,
    tables: &'static [Table],
    files: Vec<ShelfFile>,
}

impl Checkpoint for FolderCheckpoint {
    fn files(&self) -> Vec<ShelfFile> {
        self.files.clone()
    }

    fn read(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        File::open(self.path.join(plain(name)?))?.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    fn open(&self) -> io::Result<Arc<dyn Engine>> {
        Ok(Arc::new(Rocks::open_read_only(&self.path, self.tables, Durability::Flush)?))
    }
}

impl Drop for FolderCheckpoint {
    fn drop(&mut self) {
        if let Err(why) = remove(&self.path) {
            tracing::warn!("the checkpoint {} can't be removed: {why}", self.path.display());
        }
    }
}

struct FolderIncoming {
    folder: PathBuf,
    tables: &'static [Table],
}

impl FolderIncoming {
    fn path(&self) -> PathBuf {
        self.folder.join(INCOMING)
    }

    fn store(&self) -> PathBuf {
        self.path().join(STORE)
    }
}

impl Incoming for FolderIncoming {
    fn offer(&self) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.path().join(OFFER)) {
            Ok(offer) => Ok(Some(offer)),
            Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(why) => Err(why),
        }
    }

    fn begin(&self, offer: &[u8]) -> io::Result<()> {
        self.discard()?;
        fs::create_dir_all(self.store())?;
        let (part, whole) = (self.path().join(format!("{OFFER}{PART}")), self.path().join(OFFER));
        fs::write(&part, offer)?;
        File::open(&part)?.sync_all()?;
        fs::rename(part, whole)?;
        sync(&self.path())?;
        sync(&self.folder)
    }

    fn whole(&self) -> io::Result<Vec<ShelfFile>> {
        let mut files = list(&self.store())?;
        files.retain(|file| !file.name.ends_with(PART));
        Ok(files)
    }

    fn write(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let path = self.store().join(format!("{}{PART}", plain(name)?));
        let file = File::options().write(true).create(true).truncate(offset == 0).open(path)?;
        file.write_all_at(bytes, offset)
    }

    fn finish(&self, name: &str) -> io::Result<()> {
        let name = plain(name)?;
        let part = self.store().join(format!("{name}{PART}"));
        File::open(&part)?.sync_all()?;
        fs::rename(part, self.store().join(name))?;
        sync(&self.store())
    }

    fn open(&self) -> io::Result<Arc<dyn Engine>> {
        Ok(Arc::new(Rocks::open_read_only(&self.store(), self.tables, Durability::Flush)?))
    }

    fn take(&self) -> io::Result<()> {
        sync(&self.store())?;
        sync(&self.path())?;
        // (As an import does it: see `folder`.)
        fs::rename(self.path(), self.folder.join(MADE))?;
        sync(&self.folder)
    }

    fn discard(&self) -> io::Result<()> {
        // (Without its offer, what is left of it counts as nothing.)
        match fs::remove_file(self.path().join(OFFER)) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
            _ => {}
        }
        remove(&self.path())
    }
}

/// A name that can't lead out of its folder: it may come from another node.
fn plain(name: &str) -> io::Result<&str> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if !name.is_empty() && name.bytes().all(fits) && !name.starts_with('.') && !name.ends_with(PART) {
        return Ok(name);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is no name of a database's file")))
}

fn list(folder: &Path) -> io::Result<Vec<ShelfFile>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        if meta.is_file() {
            files.push(ShelfFile { name: entry.file_name().to_string_lossy().into_owned(), size: meta.len() });
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => Err(why),
        _ => Ok(()),
    }
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
