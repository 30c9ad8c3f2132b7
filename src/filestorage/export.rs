//! From a store to a `Data.fs` and its blobs, which FileStorage opens.
//!
//! Both are written under other names (`.part`) and get their own when they are whole and on disk; after an error the
//! parts are gone, and earlier files are as they were.
//!
//! **What a store has that a file has not.** A status that FileStorage does not know is written as a blank, and
//! counted. Records that a pack has removed are not written, nor transactions that have lost all of their records.
//! Packed transactions that are left get FileStorage's status for that (`p`), which the store derives: else FileStorage
//! would undo transactions whose earlier records are gone.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::blobs::BlobFolder;
use super::faults::of_file;
use super::format::{DONE, PACKED};
use super::progress::{Overseer, Phase, Progress, stopped};
use super::write::Writer;
use crate::command::Staged;
use crate::storage::{Holding, Store};
use crate::zodb::{Oid, StorageId, Tid};

/// The storage to export, and the files to write.
#[derive(Clone, Debug)]
pub struct Export {
    /// The `Data.fs` to write; it must not exist.
    pub file: PathBuf,
    /// The folder of blobs to write; it must not exist, or be empty.
    pub blobs: Option<PathBuf>,
    /// The name of the storage.
    pub storage: String,
    /// Whether blobs may be left out.
    pub without_blobs: bool,
}

/// The export in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// How many transactions.
    pub transactions: u64,
    /// How many records they list.
    pub records: u64,
    /// How many blobs.
    pub blobs: u64,
    /// Bytes of records and blobs.
    pub bytes: u64,
    /// The last transaction.
    pub last: Tid,
    /// Transactions whose status FileStorage does not know.
    pub strange_status: u64,
}

impl Export {
    /// Writes the storage as `store` has applied it.
    pub fn run(&self, store: &Store, overseer: Overseer<'_>) -> io::Result<Exported> {
        let Some(storage) = store.storage(&self.storage) else {
            let names: Vec<String> = store.storages().into_iter().map(|(_, name)| format!("{name:?}")).collect();
            let why = format!("there is no storage {:?}, but {}", self.storage, names.join(", "));
            return Err(io::Error::new(io::ErrorKind::NotFound, why));
        };
        if self.blobs.is_none() && !self.without_blobs && store.has_blobs(storage)? {
            let why = "the storage has blobs: name a folder for them by --blobs, or leave them out by --without-blobs";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let mut file = Part::of_file(&self.file)?;
        let mut blobs = self.blobs.as_deref().map(Part::of_folder).transpose()?;
        let folder = blobs.as_ref().map(|part| BlobFolder::create(&part.path)).transpose()?;
        let mut exporter = Exporter {
            store,
            storage,
            total: store.summary(storage).bytes,
            records_bytes: 0,
            packed: store.unmarked(storage)?,
            writer: Writer::create(&file.path)?,
            blobs: folder,
            done: Exported::default(),
            overseer,
        };
        let mut next = Tid::ZERO;
        while let Some(tid) = exporter.transaction(next)? {
            exporter.done.last = tid;
            next = tid.next();
            exporter.tell()?;
        }
        exporter.writer.finish()?;
        exporter.blobs.as_ref().map_or(Ok(()), BlobFolder::finish)?;
        let kept = blobs.as_mut().map_or(Ok(()), Part::keep).and_then(|()| file.keep());
        if kept.is_err() {
            file.give_back();
            blobs.iter_mut().for_each(Part::give_back);
        }
        kept.map(|()| exporter.done)
    }
}

struct Exporter<'e> {
    store: &'e Store,
    storage: StorageId,
    total: u64,
    records_bytes: u64,
    /// Transactions up to this one get the status of packed ones.
    packed: Tid,
    writer: Writer,
    blobs: Option<BlobFolder>,
    done: Exported,
    overseer: Overseer<'e>,
}

impl Exporter<'_> {
    /// Copies the first transaction from `at_least` on.
    fn transaction(&mut self, at_least: Tid) -> io::Result<Option<Tid>> {
        let Some(listing) = self.store.listing(self.storage, at_least)? else { return Ok(None) };
        let (tid, mut meta) = (listing.tid, listing.meta);
        if tid <= self.packed {
            meta.status = PACKED;
        } else if ![DONE, PACKED].contains(&meta.status) {
            self.done.strange_status += 1;
            meta.status = DONE;
        }
        self.writer.begin(tid, &meta)?;
        let mut found = BTreeSet::new();
        for oid in listing.oids {
            let Some(holding) = self.store.holding(self.storage, oid, tid)? else { continue };
            self.record(oid, holding)?;
            self.done.records += 1;
            if found.insert(oid) {
                self.blob(oid, tid)?;
            }
        }
        if found.len() as u64 != u64::from(listing.left) {
            let why = format!(
                "the store is damaged: transaction {tid} has {} of its revisions, and should have {}",
                found.len(),
                listing.left
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        self.writer.end()?;
        self.done.transactions += 1;
        Ok(Some(tid))
    }

    fn record(&mut self, oid: Oid, holding: Holding) -> io::Result<()> {
        match holding {
            Holding::Absent => self.writer.absent(oid),
            Holding::SameAs(tid) => self.writer.same_as(oid, tid),
            // (In a Data.fs, an empty record can't be told from an absent object.)
            Holding::Data(data) if data.is_empty() => self.writer.absent(oid),
            Holding::Data(data) => {
                self.count(data.len() as u64);
                self.writer.record(oid, data.len() as u64)?;
                self.writer.data(&data)
            }
            Holding::Pieces(staged) => {
                self.writer.record(oid, staged.length)?;
                for piece in pieces(&staged) {
                    let data = self.store.piece(self.storage, piece)?;
                    self.count(data.len() as u64);
                    self.writer.data(&data)?;
                    self.tell()?;
                }
                Ok(())
            }
        }
    }

    fn count(&mut self, bytes: u64) {
        self.done.bytes += bytes;
        self.records_bytes += bytes;
    }

    fn blob(&mut self, oid: Oid, tid: Tid) -> io::Result<()> {
        let Some(blobs) = &self.blobs else { return Ok(()) };
        let Some((_, staged)) = self.store.blob(self.storage, oid, tid)? else { return Ok(()) };
        let (store, storage) = (self.store, self.storage);
        let (records, total, done) = (self.records_bytes, self.total, &mut self.done);
        let overseer = &mut *self.overseer;
        let mut parts = pieces(&staged).map(|piece| {
            let part = store.piece(storage, piece)?;
            done.bytes += part.len() as u64;
            let progress = Progress { phase: Phase::Copying, done: records, total, bytes: done.bytes };
            if overseer(progress) { Ok(part) } else { Err(stopped()) }
        });
        blobs.write(oid, tid, &mut parts)?;
        self.done.blobs += 1;
        Ok(())
    }

    fn tell(&mut self) -> io::Result<()> {
        let progress =
            Progress { phase: Phase::Copying, done: self.records_bytes, total: self.total, bytes: self.done.bytes };
        if (self.overseer)(progress) { Ok(()) } else { Err(stopped()) }
    }
}

fn pieces(staged: &Staged) -> impl Iterator<Item = u64> + '_ {
    staged.pieces.iter().flat_map(|span| (span.first..).take(span.count as usize))
}

fn refuse_to_overwrite(path: &Path) -> io::Result<()> {
    if path.symlink_metadata().is_ok() {
        let why = format!("{} is there already; export to another place", path.display());
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
    }
    Ok(())
}

/// A file or folder that is being written under another name; removed when dropped, unless it was kept.
struct Part {
    path: PathBuf,
    whole: PathBuf,
    /// Whether the finished folder takes the place of an empty one.
    replaces: bool,
    kept: bool,
}

impl Part {
    fn of_file(whole: &Path) -> io::Result<Part> {
        refuse_to_overwrite(whole)?;
        Part::new(whole, false)
    }

    fn of_folder(whole: &Path) -> io::Result<Part> {
        // (Collecting drops a slash at the end, with which a symbolic link would be followed.)
        let whole: PathBuf = whole.components().collect();
        let of = |fault: io::Error| of_file(&whole, &fault);
        let Ok(found) = whole.symlink_metadata() else { return Part::new(&whole, false) };
        if !found.is_dir() || fs::read_dir(&whole).map_err(of)?.next().is_some() {
            refuse_to_overwrite(&whole)?;
        }
        if found.dev() != parent(&whole).metadata().map_err(of)?.dev() {
            let why = format!("{} is a disk of its own; export to a new folder in it", whole.display());
            return Err(io::Error::new(io::ErrorKind::CrossesDevices, why));
        }
        Part::new(&whole, true)
    }

    fn new(whole: &Path, replaces: bool) -> io::Result<Part> {
        if whole.file_name().is_none() {
            let why = format!("{} is not the name of something new; export to another place", whole.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let mut path = OsString::from(whole);
        path.push(".part");
        let path = PathBuf::from(path);
        if path.symlink_metadata().is_ok() {
            let why =
                format!("{} is there: another export is going on, or one was cut off (then remove it)", path.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
        }
        Ok(Part { path, whole: whole.to_owned(), replaces, kept: false })
    }

    fn keep(&mut self) -> io::Result<()> {
        let of = |fault: io::Error| of_file(&self.whole, &fault);
        if self.path.is_dir() {
            // (Fails if the folder that is there has something in it.)
            fs::rename(&self.path, &self.whole).map_err(of)?;
        } else {
            self.keep_file()?;
        }
        self.kept = true;
        File::open(parent(&self.whole)).and_then(|parent| parent.sync_all()).map_err(of)
    }

    /// By a hard link, which never replaces another file, as a rename would.
    fn keep_file(&self) -> io::Result<()> {
        let of = |fault: io::Error| of_file(&self.whole, &fault);
        match fs::hard_link(&self.path, &self.whole) {
            Ok(()) => fs::remove_file(&self.path).map_err(of),
            Err(fault) if fault.kind() == io::ErrorKind::AlreadyExists => refuse_to_overwrite(&self.whole),
            // Not every file system has hard links.
            Err(_) => {
                refuse_to_overwrite(&self.whole)?;
                fs::rename(&self.path, &self.whole).map_err(of)
            }
        }
    }

    /// Undoes [`Part::keep`], as far as possible: an error is on its way already.
    fn give_back(&mut self) {
        if self.kept && fs::rename(&self.whole, &self.path).is_ok() {
            self.kept = false;
            if self.replaces {
                let _ = fs::create_dir(&self.whole);
            }
        }
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.kept {
            // (The part is a file or a folder: one of these calls fails.)
            let _ = fs::remove_file(&self.path);
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_came_into_being_meanwhile_stays_and_nothing_else_does() {
        let place = tempfile::tempdir().unwrap();
        let [whole, blobs] = ["Data.fs", "blobs"].map(|name| place.path().join(name));
        fs::create_dir(&blobs).unwrap();
        {
            let mut file = Part::of_file(&whole).unwrap();
            let mut folder = Part::of_folder(&blobs.join("")).unwrap();
            fs::write(&file.path, "exported").unwrap();
            BlobFolder::create(&folder.path).unwrap().finish().unwrap();
            fs::write(&whole, "another").unwrap();
            folder.keep().unwrap();
            assert!(blobs.join(".layout").exists());
            assert!(file.keep().unwrap_err().to_string().contains("is there already"));
            folder.give_back();
        }
        assert_eq!(fs::read(&whole).unwrap(), b"another");
        assert_eq!(fs::read_dir(&blobs).unwrap().count(), 0);
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_folder_whose_place_cannot_be_taken_is_refused_at_once() {
        let place = tempfile::tempdir().unwrap();
        let [full, link] = ["full", "link"].map(|name| place.path().join(name));
        fs::create_dir_all(full.join("something")).unwrap();
        std::os::unix::fs::symlink(full.join("something"), &link).unwrap();
        for path in [&full, &link, &link.join(""), Path::new("/"), Path::new("..")] {
            assert!(Part::of_folder(path).is_err(), "{}", path.display());
        }
    }
}
