//! The data folder: one node's, of this format, used by one process.
//!
//! ```text
//! DIR/ZRS      the marker: names this folder as zrs's, with its format
//! DIR/lock     locked while a process uses the folder; says which
//! DIR/log/     a journal: what consensus must not forget, with the cluster's and the node's id
//! DIR/store/   an engine: the database
//! DIR/new/     while an import makes it: the database to be is below it
//! DIR/made/    for a moment at its end: the same, whole
//! DIR/old/     for that moment: the database that was
//! ```
//!
//! **Promises.** Nothing is written into a folder that holds foreign files, has a newer format, or is used by another
//! process; the refusal says what was found and what to do. The marker is there, whole and durable, before anything
//! else but an empty `new/`, so that an import never leaves what looks like an empty folder, wherever it is cut off.
//! The name `made/` decides: once it is there, the next opening of the folder finishes the import; before, the folder
//! is refused until an import is run again.
//!
//! **Left out.** Which node and cluster the folder belongs to: the nodes agree on that, and stamp it into `log/`.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::config::to_allow;

/// The format of everything below the folder; it grows when an older program could misread what a newer one wrote.
pub const FORMAT: u32 = 2;

const MARKER: &str = "ZRS";
const LOCK: &str = "lock";
const STORE: &str = "store";
const LOG: &str = "log";
const NEW: &str = "new";
const MADE: &str = "made";
const OLD: &str = "old";
/// Names that a file system, or a crash of zrsd, may have left in a folder that counts as empty all the same.
const NOTHING: [&str; 3] = [LOCK, "ZRS.new", "lost+found"];

/// A data folder that this process holds; dropping the handle, or the end of the process, frees the folder.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes the folder if it is not there, and takes it.
    ///
    /// # Errors
    /// The folder can't be made or read, is in use, is no data folder, or has a newer format than this program knows.
    /// The error names the folder and says what to do.
    pub fn open(path: &Path) -> io::Result<Folder> {
        make(path).map_err(|why| denied(path, "can't be made", &why))?;
        // Inspected twice: before the lock, as locking writes a file, and again under the lock.
        inspect(path)?;
        let lock = lock(path)?;
        let marked = inspect(path)?;
        if path.join(NEW).exists() {
            let why = "an import into it was cut off: import again, or empty the folder to begin with nothing";
            return Err(refuse(path, why));
        }
        finish(path).map_err(|why| refuse(path, why))?;
        if !marked {
            mark(path).map_err(|why| denied(path, "can't be marked as a data folder", &why))?;
        }
        Ok(Folder { path: path.to_owned(), _lock: lock })
    }

    /// Takes the folder of a node that does not run, to read it: not a byte in it changes. Readers may share it; a node
    /// that starts meanwhile is refused.
    ///
    /// # Errors
    /// There is no such folder, it is not ours, its format is newer than this program, a node uses it, or an import
    /// into it is not finished. The error names the folder and says what to do.
    pub fn open_read_only(path: &Path) -> io::Result<Folder> {
        if !path.is_dir() {
            return Err(refuse(path, "is not there, or not a folder"));
        }
        if !path.join(MARKER).exists() {
            return Err(refuse(path, format!("is not a zrs data folder: it has no file {MARKER}")));
        }
        inspect(path)?;
        let name = path.join(LOCK);
        let lock = File::open(&name).map_err(|why| refuse(path, format!("its file {LOCK} can't be opened: {why}")))?;
        match lock.try_lock_shared() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(in_use(path, "stop it first")),
            Err(TryLockError::Error(why)) => return Err(refuse(path, format!("can't be locked: {why}"))),
        }
        if let Some(left) = [NEW, MADE, OLD].into_iter().find(|name| path.join(name).exists()) {
            let why = format!("an import into it was cut off (it has {left}/): import again, or start its node");
            return Err(refuse(path, why));
        }
        Ok(Folder { path: path.to_owned(), _lock: lock })
    }

    /// Where consensus keeps its log and its vote.
    pub fn log(&self) -> PathBuf {
        self.path.join(LOG)
    }

    /// Where the database is.
    pub fn store(&self) -> PathBuf {
        self.path.join(STORE)
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Makes the folder, and those above it, if they are not there; their names are durable on return.
fn make(path: &Path) -> io::Result<()> {
    // (The name of a folder that is there may not be durable either: perhaps the process ended between the two steps.)
    let mut above: Vec<&Path> = path.ancestors().skip(1).take(1).collect();
    above.extend(path.ancestors().skip(1).take_while(|folder| !folder.exists()).filter_map(Path::parent));
    fs::create_dir_all(path)?;
    for folder in above {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        match File::open(folder) {
            Ok(folder) => folder.sync_all()?,
            // (Then it was somebody else who made the folder in it.)
            Err(why) if why.kind() == io::ErrorKind::PermissionDenied => {}
            Err(why) => return Err(why),
        }
    }
    Ok(())
}

/// A data folder in which a database is being made; it is as it was before, unless it is kept.
#[derive(Debug)]
pub struct NewFolder {
    path: PathBuf,
    store: PathBuf,
    made: bool,
    marked: bool,
    kept: bool,
    _lock: File,
}

impl NewFolder {
    /// Takes a folder that is empty, or not there, or in which an import was cut off; or one with a database that no
    /// node has used yet ([`NewFolder::base`]).
    ///
    /// # Errors
    /// Those of [`Folder::open`]; and if a node has used the folder.
    pub fn take(path: &Path) -> io::Result<NewFolder> {
        let made = !path.exists();
        fs::create_dir_all(path).map_err(|why| denied(path, "can't be made", &why))?;
        inspect(path)?;
        let lock = lock(path)?;
        let cut_off = path.join(NEW).exists() && !path.join(STORE).exists();
        // An import that was cut off in an empty folder has left its marker there: the folder counts as unmarked.
        let marked = inspect(path)? && !cut_off;
        if path.join(LOG).exists() {
            return Err(refuse(
                path,
                "holds the database of a node that has started already: give --data a new folder",
            ));
        }
        let store = path.join(NEW).join(STORE);
        // From here on, dropping `taken` puts the folder back as it was.
        let taken = NewFolder { path: path.to_owned(), store, made, marked, kept: false, _lock: lock };
        taken.begin().map_err(|why| refuse(path, why))?;
        Ok(taken)
    }

    fn begin(&self) -> io::Result<()> {
        finish(&self.path)?;
        let new = self.path.join(NEW);
        if !new.exists() {
            fs::create_dir(&new)?;
        } else if self.store.exists() {
            fs::remove_dir_all(&self.store)?;
        }
        File::open(&self.path)?.sync_all()?;
        if self.marked { Ok(()) } else { mark(&self.path) }
    }

    /// The database that the folder had before; it stays unless a new one is kept in its place.
    pub fn base(&self) -> Option<PathBuf> {
        let store = self.path.join(STORE);
        store.exists().then_some(store)
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where to make the database; the folder of that name does not exist yet.
    pub fn store(&self) -> &Path {
        &self.store
    }

    /// Does everything of [`NewFolder::keep`] that can fail, except for the renames. The database must be closed, and
    /// all of it on disk.
    pub fn settle(&self) -> io::Result<()> {
        let settle = || {
            File::open(&self.store)?.sync_all()?;
            File::open(self.path.join(NEW))?.sync_all()?;
            match self.path.canonicalize()?.parent() {
                Some(parent) if self.made => File::open(parent)?.sync_all(),
                _ => Ok(()),
            }
        };
        settle().map_err(|why| refuse(&self.path, why))
    }

    /// Makes the settled database the folder's own, for [`Folder::open`].
    pub fn keep(mut self) -> io::Result<()> {
        fs::rename(self.path.join(NEW), self.path.join(MADE)).map_err(|why| refuse(&self.path, why))?;
        // After an error from here on, the next opening of the folder finishes the import.
        self.kept = true;
        let finish = || {
            File::open(&self.path)?.sync_all()?;
            finish(&self.path)
        };
        finish().map_err(|why| refuse(&self.path, why))
    }
}

impl Drop for NewFolder {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        // Errors are ignored: the import has failed already, and its own error is reported.
        // `new/` goes after the marker, so that what is left meanwhile is known as an import's.
        let _ = fs::remove_dir_all(&self.store);
        if !self.marked {
            let _ = fs::remove_file(self.path.join(MARKER));
        }
        let _ = fs::remove_dir(self.path.join(NEW));
        if !self.marked {
            let _ = fs::remove_file(self.path.join(LOCK));
        }
        if self.made {
            let _ = fs::remove_dir(&self.path);
        }
    }
}

/// Puts a database below `made/` in its place, wherever an earlier attempt at that was cut off.
fn finish(path: &Path) -> io::Result<()> {
    let (made, old, store) = (path.join(MADE), path.join(OLD), path.join(STORE));
    if !made.exists() && !old.exists() {
        return Ok(());
    }
    let whole = made.join(STORE);
    if whole.exists() {
        if store.exists() {
            fs::rename(&store, &old)?;
        }
        fs::rename(&whole, &store)?;
        File::open(path)?.sync_all()?;
        File::open(&made)?.sync_all()?;
    }
    if !store.exists() {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("the folder has {MADE}/ or {OLD}/, but no {STORE}/"),
        ));
    }
    for gone in [made, old] {
        if gone.exists() {
            fs::remove_dir_all(gone)?;
        }
    }
    File::open(path)?.sync_all()
}

fn refuse(path: &Path, why: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("data folder {}: {why}", path.display()))
}

/// The same, for something that the system may have forbidden.
fn denied(path: &Path, what: &str, why: &io::Error) -> io::Error {
    refuse(path, format!("{what}: {why}{}", to_allow(why, path)))
}

/// Whether the folder has our marker; an error if it has none and is not empty.
fn inspect(path: &Path) -> io::Result<bool> {
    match fs::read_to_string(path.join(MARKER)) {
        Ok(text) => return understand(path, &text).map(|()| true),
        Err(why) if why.kind() == io::ErrorKind::NotFound => {}
        Err(why) => return Err(denied(path, &format!("its file {MARKER} can't be read"), &why)),
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path).map_err(|why| denied(path, "can't be read", &why))? {
        let name = entry.map_err(|why| refuse(path, why))?.file_name().to_string_lossy().into_owned();
        // An import begins with an empty `new/`.
        let begun = name == NEW && fs::read_dir(path.join(NEW)).is_ok_and(|mut inside| inside.next().is_none());
        if !begun && !NOTHING.contains(&name.as_str()) {
            found.push(name);
        }
    }
    if found.is_empty() {
        return Ok(false);
    }
    found.sort();
    let shown = found.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
    let more = if found.len() > 3 { format!(" and {} more", found.len() - 3) } else { String::new() };
    Err(refuse(
        path,
        format!(
            "is not empty and not a zrs data folder (it has no file {MARKER}, but {shown}{more}): \
             give --data a new folder, or move these away"
        ),
    ))
}

fn understand(path: &Path, text: &str) -> io::Result<()> {
    let format = text.lines().find_map(|line| line.strip_prefix("format ")).and_then(|n| n.trim().parse::<u32>().ok());
    match format {
        Some(FORMAT) => Ok(()),
        Some(newer) if newer > FORMAT => Err(refuse(
            path,
            format!(
                "has format {newer}, and this zrsd {} knows {FORMAT}: start the newer zrsd that wrote it",
                crate_version()
            ),
        )),
        Some(older) => Err(refuse(
            path,
            format!(
                "has format {older}, of before the first release, and this zrsd {} knows {FORMAT}: export the database \
                 with the zrsctl of that version, and import it into a new folder",
                crate_version()
            ),
        )),
        None => Err(refuse(
            path,
            format!(
                "its file {MARKER} does not say which format it has: restore the file, or give --data a new folder"
            ),
        )),
    }
}

fn crate_version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// The refusal of a folder that another process has locked, with `advice`.
fn in_use(path: &Path, advice: &str) -> io::Error {
    let user = fs::read_to_string(path.join(LOCK)).unwrap_or_default();
    let user = if user.trim().is_empty() { "another process" } else { user.trim() };
    refuse(path, format!("is in use by {user}: {advice}"))
}

fn lock(path: &Path) -> io::Result<File> {
    let name = path.join(LOCK);
    let mut file = File::options()
        .create(true)
        .read(true)
        .write(true)
        .truncate(false)
        .open(&name)
        .map_err(|why| denied(path, &format!("its file {LOCK} can't be opened"), &why))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(in_use(path, "stop that one first, or give each node its own --data"));
        }
        Err(TryLockError::Error(why)) => return Err(refuse(path, format!("can't be locked: {why}"))),
    }
    // The process id is only for the message above, so a full disk is no reason to fail here.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "process {}", std::process::id()));
    Ok(file)
}

/// Writes the marker so that it is there whole or not at all, also after a power cut.
fn mark(path: &Path) -> io::Result<()> {
    let new = path.join("ZRS.new");
    let mut file = File::create(&new)?;
    write!(
        file,
        "This folder belongs to zrsd, a ZODB storage server. Do not change anything in it.\nformat {FORMAT}\n"
    )?;
    file.sync_all()?;
    fs::rename(&new, path.join(MARKER))?;
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(path: &Path) -> String {
        Folder::open(path).unwrap_err().to_string()
    }

    #[test]
    fn a_new_folder_is_made_and_opens_again() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("deep/er");
        let folder = Folder::open(&path).unwrap();
        assert_eq!((folder.log(), folder.store()), (path.join("log"), path.join("store")));
        fs::create_dir(folder.log()).unwrap();
        drop(folder);
        Folder::open(&path).unwrap();
    }

    #[test]
    fn a_second_use_is_refused_and_names_the_first() {
        let path = tempfile::tempdir().unwrap();
        let first = Folder::open(path.path()).unwrap();
        let said = refused(path.path());
        assert!(said.contains(&format!("in use by process {}", std::process::id())), "{said}");
        drop(first);
        Folder::open(path.path()).unwrap();
    }

    #[test]
    fn readers_share_a_folder_and_change_nothing_in_it() {
        let path = tempfile::tempdir().unwrap();
        let path = path.path();
        let refused = |path: &Path| Folder::open_read_only(path).unwrap_err().to_string();
        assert!(refused(path).contains("is not a zrs data folder"));
        assert!(refused(&path.join("none")).contains("is not there"));
        assert_eq!(fs::read_dir(path).unwrap().count(), 0);
        let node = Folder::open(path).unwrap();
        assert!(refused(path).contains(&format!("in use by process {}: stop it first", std::process::id())));
        drop(node);
        let lock = fs::read(path.join(LOCK)).unwrap();
        let readers = [(); 2].map(|()| Folder::open_read_only(path).unwrap());
        assert!(self::refused(path).contains("in use"), "a node starts while somebody reads");
        assert_eq!(fs::read(path.join(LOCK)).unwrap(), lock);
        drop(readers);
        fs::create_dir(path.join(NEW)).unwrap();
        assert!(refused(path).contains("an import into it was cut off (it has new/)"));
    }

    #[test]
    fn a_foreign_folder_is_left_alone() {
        let path = tempfile::tempdir().unwrap();
        for name in ["Data.fs", "Data.fs.index", "a", "b"] {
            File::create(path.path().join(name)).unwrap();
        }
        let said = refused(path.path());
        assert!(
            said.contains("Data.fs, Data.fs.index, a and 1 more") && said.contains("--data a new folder"),
            "{said}"
        );
        assert_eq!(fs::read_dir(path.path()).unwrap().count(), 4);
    }

    #[test]
    fn a_crash_before_the_marker_is_no_foreign_folder() {
        let path = tempfile::tempdir().unwrap();
        for name in NOTHING {
            File::create(path.path().join(name)).unwrap();
        }
        Folder::open(path.path()).unwrap();
    }

    #[test]
    fn a_new_folder_is_there_whole_or_not_at_all() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        let new = NewFolder::take(&path).unwrap();
        assert!(refused(&path).contains("in use by process"), "it is locked meanwhile");
        fs::create_dir(new.store()).unwrap();
        drop(new);
        assert!(!path.exists());

        fs::create_dir(&path).unwrap();
        drop(NewFolder::take(&path).unwrap());
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0, "it was there, and empty");

        // The folder as a kill would leave it.
        drop(Folder::open(&path).unwrap());
        let left = path.join("new/store");
        fs::create_dir_all(&left).unwrap();
        fs::write(left.join("half"), "").unwrap();
        assert!(refused(&path).contains("an import into it was cut off"));
        let new = NewFolder::take(&path).unwrap();
        assert!(!left.join("half").exists());
        fs::create_dir(new.store()).unwrap();
        fs::write(new.store().join("whole"), "").unwrap();
        new.settle().unwrap();
        new.keep().unwrap();
        let folder = Folder::open(&path).unwrap();
        assert!(folder.store().join("whole").exists() && !folder.log().exists());
        drop(folder);

        // One database takes the place of another, whenever it is cut off.
        let new = NewFolder::take(&path).unwrap();
        assert_eq!(new.base(), Some(path.join("store")));
        drop(new);
        assert!(path.join("store/whole").exists());
        fs::create_dir(path.join("new")).unwrap();
        assert!(refused(&path).contains("an import into it was cut off"));
        let new = NewFolder::take(&path).unwrap();
        fs::create_dir(new.store()).unwrap();
        fs::write(new.store().join("more"), "").unwrap();
        new.settle().unwrap();
        new.keep().unwrap();
        assert_eq!(names(&path), ["ZRS", "lock", "store"]);
        assert!(path.join("store/more").exists() && !path.join("store/whole").exists());

        fs::create_dir(path.join("log")).unwrap();
        let why = NewFolder::take(&path).unwrap_err().to_string();
        assert!(why.contains("of a node that has started already"), "{why}");
    }

    fn names(path: &Path) -> Vec<String> {
        let entries = fs::read_dir(path).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn an_import_that_is_cut_off_never_leaves_an_empty_folder() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        let new = NewFolder::take(&path).unwrap();
        assert_eq!(names(&path), ["ZRS", "lock", "new"], "before there is a database");
        // The files that a kill leaves at each step of taking the folder.
        let copy = parent.path().join("copy");
        fs::create_dir(&copy).unwrap();
        for steps in [&["new"][..], &["new", "ZRS.new"], &["new", "ZRS.new", MARKER]] {
            for step in steps {
                match *step {
                    NEW => drop(fs::create_dir(copy.join(NEW))),
                    name => drop(fs::copy(path.join(MARKER), copy.join(name)).unwrap()),
                }
            }
            let before = copy.join(MARKER).exists();
            assert!(refused(&copy).contains("an import into it was cut off"), "{steps:?}");
            assert_eq!(copy.join(MARKER).exists(), before);
        }
        drop(NewFolder::take(&copy).unwrap());
        assert!(names(&copy).is_empty());
        drop(new);
        assert!(!path.exists());

        // A foreign folder of that name stays.
        let foreign = parent.path().join("foreign");
        fs::create_dir_all(foreign.join("new")).unwrap();
        fs::write(foreign.join("new/letter"), "dear").unwrap();
        assert!(NewFolder::take(&foreign).unwrap_err().to_string().contains("not a zrs data folder"));
        assert!(foreign.join("new/letter").exists());
    }

    #[test]
    fn a_new_database_takes_its_place_wherever_that_is_cut_off() {
        let states: [&[&str]; 6] = [
            &["store/old", "made/store/new"],
            &["old/old", "made/store/new"],
            &["old/old", "store/new", "made/"],
            &["old/old", "store/new"],
            &["made/store/new"],
            &["store/new", "made/"],
        ];
        for state in states {
            for imports in [false, true] {
                let path = tempfile::tempdir().unwrap();
                let path = path.path();
                mark(path).unwrap();
                for name in state {
                    let (folder, file) = name.rsplit_once('/').unwrap();
                    fs::create_dir_all(path.join(folder)).unwrap();
                    if !file.is_empty() {
                        fs::write(path.join(name), "").unwrap();
                    }
                }
                if imports {
                    drop(NewFolder::take(path).unwrap());
                } else {
                    drop(Folder::open(path).unwrap());
                }
                assert_eq!(names(path), ["ZRS", "lock", "store"], "{state:?}");
                assert_eq!(names(&path.join("store")), ["new"], "{state:?}");
            }
        }
    }

    #[test]
    fn another_format_is_refused() {
        let path = tempfile::tempdir().unwrap();
        fs::write(path.path().join(MARKER), "format 3\n").unwrap();
        assert!(refused(path.path()).contains("has format 3"));
        fs::write(path.path().join(MARKER), "format 1\n").unwrap();
        assert!(refused(path.path()).contains("has format 1, of before the first release"));
        fs::write(path.path().join(MARKER), "").unwrap();
        assert!(refused(path.path()).contains("does not say which format"));
    }
}
