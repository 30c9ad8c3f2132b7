//! Data folders: new ones, made of what an import leaves, and those of nodes that do not run.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::engine::{Durability, Engine, Folder, NewFolder, Rocks};
use crate::storage::{self, Store};

/// Makes data folders that all hold what `fill` puts into a store: an empty one, or that of a single folder that no node has
/// used yet. If it fails, they are as before; but at the very end they get their databases one after the other, by a rename, and
/// should a disk refuse one of these then those before it have theirs. Killed, it leaves folders that are whole, and ones that
/// are refused until somebody imports again; none that look empty.
///
/// Nodes that start on them can form a cluster together. Where the folders lie on one disk they share files, which is safe:
/// an engine never changes a file that it has written.
///
/// # Errors
/// A folder holds something that can't be added to, or what `fill` and the disk say.
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
        // (A copy that shares its files.)
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
    // (Closes the engine: what is renamed is not in use.)
    drop(store);
    drop(engine);
    taken.iter().try_for_each(NewFolder::settle)?;
    taken.into_iter().try_for_each(NewFolder::keep)?;
    Ok(filled)
}

/// The folder and store of a node that does not run.
///
/// # Errors
/// There is none, or it is in use.
pub fn open_stopped(path: &Path) -> io::Result<(Folder, Store)> {
    let nothing = || {
        let why = format!("{} is no data folder with a database in it", path.display());
        io::Error::new(io::ErrorKind::NotFound, why)
    };
    // (Opening would make one.)
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
