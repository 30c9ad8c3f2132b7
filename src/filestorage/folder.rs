//! Data folders: makes new ones for imports, and opens those of nodes that do not run.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::engine::{Durability, Engine, Folder, NewFolder, Rocks};
use crate::storage::{self, Store};

/// Makes data folders that all hold the same store: an empty one, or that of a single folder that no node has used yet,
/// and what `fill` adds to it. After an error the folders are as before; but at the very end they get their databases
/// one after the other, each by a rename, and if a disk refuses one of these, the folders before it have theirs. A
/// process that is killed leaves folders that are whole, and folders that are refused until an import is run again;
/// none that look empty.
///
/// Nodes that start on these folders can form a cluster together. On one disk the folders share files, which is safe:
/// an engine never changes a file that it has written.
///
/// # Errors
/// A folder holds something that can't be added to; errors of `fill`, and of the disk.
pub fn create<T>(folders: &[PathBuf], fill: impl FnOnce(&Store) -> io::Result<T>) -> io::Result<T> {
    let taken: Vec<NewFolder> = folders.iter().map(|path| NewFolder::take(path)).collect::<io::Result<_>>()?;
    let Some(first) = taken.first() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no data folder is named"));
    };
    let holding = taken.iter().find_map(|folder| folder.base().map(|base| (folder, base)));
    match holding {
        Some((folder, _)) if taken.len() > 1 => {
            let why = format!(
                "data folder {} holds a database already: add to one folder at a time, or make new ones",
                folder.path().display()
            );
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
        }
        // (The copy shares its files.)
        Some((_, base)) => {
            Rocks::open(&base, storage::TABLES, Durability::Flush)?.checkpoint(first.store())?;
        }
        None => {}
    }
    let engine = Arc::new(Rocks::open(first.store(), storage::TABLES, Durability::Flush)?);
    let store = Store::open(engine.clone())?;
    let filled = fill(&store)?;
    store.flush()?;
    for other in &taken[1..] {
        engine.checkpoint(other.store())?;
    }
    // (Closes the engine before its folder is renamed.)
    drop(store);
    drop(engine);
    taken.iter().try_for_each(NewFolder::settle)?;
    taken.into_iter().try_for_each(NewFolder::keep)?;
    Ok(filled)
}

/// The folder and store of a node that does not run.
///
/// # Errors
/// There is no such folder, it has no database, or it is in use.
pub fn open_stopped(path: &Path) -> io::Result<(Folder, Store)> {
    let nothing = || {
        let why = format!("{} is no data folder with a database in it", path.display());
        io::Error::new(io::ErrorKind::NotFound, why)
    };
    // (Folder::open would make a data folder of it.)
    if !path.is_dir() || path.read_dir()?.next().is_none() {
        return Err(nothing());
    }
    let folder = Folder::open(path)?;
    if !folder.store().is_dir() {
        return Err(nothing());
    }
    let engine = Rocks::open(&folder.store(), storage::TABLES, Durability::Flush)?;
    let store = Store::open(Arc::new(engine))?;
    Ok((folder, store))
}
