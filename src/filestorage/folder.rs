//! Data folders: new ones, made of what an import leaves, and those of nodes that do not run.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::engine::{Durability, Engine, Folder, NewFolder, Rocks};
use crate::storage::{self, Store};

/// Makes data folders that all hold what `fill` puts into an empty store. If it fails, none of them is there.
///
/// Nodes that start on them can form a cluster together. Where the folders lie on one disk they share files, which is safe:
/// an engine never changes a file that it has written.
///
/// # Errors
/// A folder holds something already, or what `fill` and the disk say.
pub fn create<T>(folders: &[PathBuf], fill: impl FnOnce(&Store) -> io::Result<T>) -> io::Result<T> {
    let taken: Vec<NewFolder> = folders.iter().map(|path| NewFolder::take(path)).collect::<io::Result<_>>()?;
    let Some(first) = taken.first() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no data folder is named"));
    };
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
