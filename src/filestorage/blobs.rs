//! The folder of blobs beside a `Data.fs`, as `ZODB.blob` lays it out.
//!
//! ```text
//! bushy    DIR/0x00/0x00/0x00/0x00/0x00/0x00/0x12/0x34/0x040d30c2a4695f11.blob     a folder for each byte of the oid
//! lawn     DIR/0x1234/0x040d30c2a4695f11.blob                                      of old, a folder for each object
//! ```
//!
//! `DIR/.layout` says which layout it is. A copy that left hidden files behind lacks it, and ZODB itself, which takes
//! any folder without it for a lawn, may have written the wrong word there. The two layouts can't be in each other's
//! way, so blobs are looked for in both.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::faults::of_file;
use crate::zodb::{Oid, Tid};

const MARKER: &str = ".layout";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    Bushy,
    Lawn,
}

impl Layout {
    fn other(self) -> Layout {
        match self {
            Layout::Bushy => Layout::Lawn,
            Layout::Lawn => Layout::Bushy,
        }
    }
}

/// A folder of blobs.
#[derive(Clone, Debug)]
pub struct BlobFolder {
    path: PathBuf,
    /// The layout of most blobs.
    layout: Layout,
    /// Whether the folder says so.
    marked: bool,
}

impl BlobFolder {
    /// Opens a folder that is there.
    pub fn open(path: &Path) -> io::Result<BlobFolder> {
        let of = |fault: io::Error| of_file(path, &fault);
        fs::read_dir(path).map_err(of)?;
        let marker = path.join(MARKER);
        let marked = match fs::read_to_string(&marker) {
            Ok(text) => match text.trim() {
                "bushy" => Some(Layout::Bushy),
                "lawn" => Some(Layout::Lawn),
                "zeocache" => {
                    let why = "this is the blob cache of a ZEO client, which does not have all blobs. Give the folder of \
                               the server (blob-dir)";
                    return Err(of(io::Error::new(io::ErrorKind::InvalidData, why)));
                }
                other => {
                    let why = format!(
                        "its layout is {other:?}, which ZODB does not have (bushy or lawn). If these are the blobs of the \
                         Data.fs, remove {}: both layouts are looked for",
                        marker.display()
                    );
                    return Err(of(io::Error::new(io::ErrorKind::InvalidData, why)));
                }
            },
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => None,
            Err(fault) => return Err(of_file(&marker, &fault)),
        };
        let layout = match marked {
            Some(layout) => layout,
            None => by_shape(path).map_err(of)?,
        };
        Ok(BlobFolder { path: path.to_owned(), layout, marked: marked.is_some() })
    }

    /// Whether the folder says which layout it has.
    pub fn is_marked(&self) -> bool {
        self.marked
    }

    /// Makes a folder as ZODB would; it must not exist.
    pub fn create(path: &Path) -> io::Result<BlobFolder> {
        let make = || {
            fs::create_dir(path)?;
            fs::create_dir(path.join("tmp"))?;
            let mut marker = File::create_new(path.join(MARKER))?;
            marker.write_all(b"bushy")?;
            marker.sync_all()
        };
        make().map_err(|fault| of_file(path, &fault))?;
        Ok(BlobFolder { path: path.to_owned(), layout: Layout::Bushy, marked: true })
    }

    /// The path that the blob of a revision should have, whether it is there or not.
    pub fn path_of(&self, oid: Oid, tid: Tid) -> PathBuf {
        self.path_in(self.layout, oid, tid)
    }

    fn path_in(&self, layout: Layout, oid: Oid, tid: Tid) -> PathBuf {
        let mut path = self.path.clone();
        match layout {
            Layout::Bushy => oid.to_bytes().iter().for_each(|byte| path.push(format!("0x{byte:02x}"))),
            Layout::Lawn => path.push(repr(oid.0)),
        }
        path.push(format!("{}.blob", repr(tid.0)));
        path
    }

    /// The file of the blob of a revision, and its length; `None`: there is no such file in either layout.
    pub fn find(&self, oid: Oid, tid: Tid) -> io::Result<Option<(PathBuf, u64)>> {
        for layout in [self.layout, self.layout.other()] {
            let path = self.path_in(layout, oid, tid);
            match fs::metadata(&path) {
                Ok(about) => return Ok(Some((path, about.len()))),
                Err(fault) if [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&fault.kind()) => {}
                Err(fault) => return Err(of_file(&path, &fault)),
            }
        }
        Ok(None)
    }

    /// Fsyncs the folders, so that the names of the blobs are on disk as their bytes are.
    pub fn finish(&self) -> io::Result<()> {
        sync_folders(&self.path)
    }

    /// Writes the blob of a revision as a read-only file, as ZODB does.
    pub fn write(
        &self,
        oid: Oid,
        tid: Tid,
        parts: &mut dyn Iterator<Item = io::Result<bytes::Bytes>>,
    ) -> io::Result<()> {
        let path = self.path_of(oid, tid);
        let folder = path.parent().expect("a blob lies in its object's folder");
        let write = || {
            fs::create_dir_all(folder)?;
            let mut file = File::options().write(true).create_new(true).open(&path)?;
            for part in parts {
                file.write_all(&part?)?;
            }
            let readers = fs::metadata(folder)?.permissions().mode() & 0o444;
            file.set_permissions(fs::Permissions::from_mode(readers | 0o400))?;
            file.sync_all()
        };
        write().map_err(|fault| of_file(&path, &fault))
    }
}

/// The layout that a folder without a marker seems to have: a lawn's folders hold blobs, a bush's hold folders.
fn by_shape(path: &Path) -> io::Result<Layout> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with("0x") || !entry.path().is_dir() {
            continue;
        }
        for inner in fs::read_dir(entry.path())? {
            let name = inner?.file_name();
            let name = name.to_string_lossy();
            if name.starts_with("0x") {
                return Ok(if name.ends_with(".blob") { Layout::Lawn } else { Layout::Bushy });
            }
        }
    }
    Ok(Layout::Bushy)
}

/// Fsyncs a folder and those below it; the bushy layout bounds their depth.
fn sync_folders(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path).map_err(|fault| of_file(path, &fault))? {
        let entry = entry.map_err(|fault| of_file(path, &fault))?;
        if entry.file_type().map_err(|fault| of_file(path, &fault))?.is_dir() {
            sync_folders(&entry.path())?;
        }
    }
    File::open(path).and_then(|folder| folder.sync_all()).map_err(|fault| of_file(path, &fault))
}

/// An id as ZODB writes it in names: whole bytes, without zeros in front (`oid_repr`).
fn repr(id: u64) -> String {
    let digits = format!("{id:x}");
    format!("0x{}{digits}", if digits.len() % 2 == 1 { "0" } else { "" })
}

/// Whether a record is that of a blob: the class it begins with is `ZODB.blob.Blob` (`ZODB.blob.is_blob_record`).
pub fn is_blob_record(record: &[u8]) -> bool {
    class(record).is_some_and(|(module, name)| module == b"ZODB.blob" && name == b"Blob")
}

/// The module and name of the class, if a record's first pickle is nothing but a class; of any of pickle's protocols.
fn class(mut pickle: &[u8]) -> Option<(&[u8], &[u8])> {
    fn take<'p>(pickle: &mut &'p [u8], count: usize) -> Option<&'p [u8]> {
        let (taken, rest) = pickle.split_at_checked(count)?;
        *pickle = rest;
        Some(taken)
    }
    fn line<'p>(pickle: &mut &'p [u8]) -> Option<&'p [u8]> {
        let end = pickle.iter().position(|byte| *byte == b'\n')?;
        let line = take(pickle, end)?;
        take(pickle, 1)?;
        Some(line)
    }
    let mut texts: Vec<&[u8]> = Vec::new();
    let mut found = None;
    loop {
        match take(&mut pickle, 1)?[0] {
            0x80 => drop(take(&mut pickle, 1)?),                            // PROTO
            0x95 => drop(take(&mut pickle, 8)?),                            // FRAME
            b'q' => drop(take(&mut pickle, 1)?),                            // BINPUT
            b'r' => drop(take(&mut pickle, 4)?),                            // LONG_BINPUT
            b'p' => drop(line(&mut pickle)?),                               // PUT
            0x94 => {}                                                      // MEMOIZE
            b'c' => found = Some((line(&mut pickle)?, line(&mut pickle)?)), // GLOBAL
            0x8c => {
                // SHORT_BINUNICODE
                let length = take(&mut pickle, 1)?[0];
                texts.push(take(&mut pickle, length.into())?);
            }
            0x93 => match texts[..] {
                // STACK_GLOBAL
                [module, name] => found = Some((module, name)),
                _ => return None,
            },
            b'.' => return found, // STOP
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blobs_record_is_known_by_its_class() {
        // As ZODB writes them with protocols 1, 3 and 4; then comes the object's state.
        for class in [
            &b"cZODB.blob\nBlob\nq\x01."[..],
            b"\x80\x03cZODB.blob\nBlob\nq\x01.",
            b"\x80\x04\x95\x14\0\0\0\0\0\0\0\x8c\x09ZODB.blob\x94\x8c\x04Blob\x94\x93\x94.",
        ] {
            assert!(is_blob_record(&[class, b"N."].concat()), "{}", class.escape_ascii());
            for length in 0..class.len() {
                assert!(!is_blob_record(&class[..length]));
            }
        }
        for record in [
            &b"\x80\x03cZODB.blob\nBlobFile\nq\x01."[..],
            b"\x80\x03cmine\nBlob\nq\x01.",
            b"\x80\x03cmine\nThing\nq\x01.cZODB.blob\nBlob\n.",
            b"\x80\x03cZODB.blob\nBlob\nq\x01)\x86q\x02.",
        ] {
            assert!(!is_blob_record(record), "{}", record.escape_ascii());
        }
    }

    #[test]
    fn blobs_lie_where_zodb_looks_for_them() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("blobs");
        let (oid, tid) = (Oid(0x1234), Tid(0x0fed));
        let made = BlobFolder::create(&path).unwrap();
        made.write(oid, tid, &mut [Ok("ab".into()), Ok("c".into())].into_iter()).unwrap();
        let file = path.join("0x00/0x00/0x00/0x00/0x00/0x00/0x12/0x34/0x0fed.blob");
        assert_eq!(fs::read(&file).unwrap(), b"abc");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o222, 0);
        let opened = BlobFolder::open(&path).unwrap();
        assert_eq!(opened.find(oid, tid).unwrap(), Some((file.clone(), 3)));
        assert_eq!(opened.find(oid, Tid(1)).unwrap(), None);
        assert!(opened.is_marked());

        // Without a marker, and with a wrong one.
        fs::remove_file(path.join(".layout")).unwrap();
        let opened = BlobFolder::open(&path).unwrap();
        assert!(!opened.is_marked() && opened.path_of(oid, tid) == file);
        fs::write(path.join(".layout"), "lawn\n").unwrap();
        let lawn = BlobFolder::open(&path).unwrap();
        assert_eq!(lawn.path_of(Oid(0x123), tid), path.join("0x0123/0x0fed.blob"));
        assert_eq!(lawn.path_of(Oid(0), tid), path.join("0x00/0x0fed.blob"));
        assert_eq!(lawn.find(oid, tid).unwrap(), Some((file, 3)));
        for (word, told) in [("forest", "\"forest\""), ("zeocache", "blob cache of a ZEO client")] {
            fs::write(path.join(".layout"), word).unwrap();
            assert!(BlobFolder::open(&path).unwrap_err().to_string().contains(told));
        }
    }

    #[test]
    fn a_lawn_without_its_marker_is_known_by_its_shape() {
        let parent = tempfile::tempdir().unwrap();
        let file = parent.path().join("0x05/0x0fed.blob");
        fs::create_dir_all(parent.path().join("tmp")).unwrap();
        fs::create_dir(file.parent().unwrap()).unwrap();
        fs::write(&file, "abc").unwrap();
        let lawn = BlobFolder::open(parent.path()).unwrap();
        assert_eq!(lawn.path_of(Oid(5), Tid(0x0fed)), file);
        assert_eq!(lawn.find(Oid(5), Tid(0x0fed)).unwrap(), Some((file, 3)));
    }
}
