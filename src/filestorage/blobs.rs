//! The folder of blobs beside a `Data.fs`, as `ZODB.blob` lays it out.
//!
//! ```text
//! bushy    DIR/0x00/0x00/0x00/0x00/0x00/0x00/0x12/0x34/0x040d30c2a4695f11.blob     a folder for each byte of the oid
//! lawn     DIR/0x1234/0x040d30c2a4695f11.blob                                      of old, a folder for each object
//! ```
//!
//! `DIR/.layout` says which layout it is. Without that file, a folder with anything in it is a lawn, as for ZODB.

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

/// A folder of blobs.
#[derive(Clone, Debug)]
pub struct BlobFolder {
    path: PathBuf,
    layout: Layout,
}

impl BlobFolder {
    /// Opens a folder that is there.
    pub fn open(path: &Path) -> io::Result<BlobFolder> {
        let of = |fault: io::Error| of_file(path, &fault);
        let mut seen = false;
        for entry in fs::read_dir(path).map_err(of)? {
            seen |= !entry.map_err(of)?.file_name().to_string_lossy().starts_with('.');
        }
        let layout = match fs::read_to_string(path.join(MARKER)) {
            Ok(text) => match text.trim() {
                "bushy" => Layout::Bushy,
                "lawn" => Layout::Lawn,
                other => {
                    let why = format!("its layout is {other:?}, which ZODB does not have (bushy or lawn)");
                    return Err(of(io::Error::new(io::ErrorKind::InvalidData, why)));
                }
            },
            Err(fault) if fault.kind() == io::ErrorKind::NotFound && seen => Layout::Lawn,
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => Layout::Bushy,
            Err(fault) => return Err(of_file(&path.join(MARKER), &fault)),
        };
        Ok(BlobFolder { path: path.to_owned(), layout })
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
        Ok(BlobFolder { path: path.to_owned(), layout: Layout::Bushy })
    }

    /// The path that the blob of a revision has, whether it is there or not.
    pub fn path_of(&self, oid: Oid, tid: Tid) -> PathBuf {
        let mut path = self.path.clone();
        match self.layout {
            Layout::Bushy => oid.to_bytes().iter().for_each(|byte| path.push(format!("0x{byte:02x}"))),
            Layout::Lawn => path.push(repr(oid.0)),
        }
        path.push(format!("{}.blob", repr(tid.0)));
        path
    }

    /// Opens the blob of a revision; `None`: there is no such file.
    pub fn find(&self, oid: Oid, tid: Tid) -> io::Result<Option<File>> {
        let path = self.path_of(oid, tid);
        match File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(fault) => Err(of_file(&path, &fault)),
        }
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
        assert!(opened.find(oid, tid).unwrap().is_some());
        assert!(opened.find(oid, Tid(1)).unwrap().is_none());

        fs::remove_file(path.join(".layout")).unwrap();
        let lawn = BlobFolder::open(&path).unwrap();
        assert_eq!(lawn.path_of(Oid(0x123), tid), path.join("0x0123/0x0fed.blob"));
        assert_eq!(lawn.path_of(Oid(0), tid), path.join("0x00/0x0fed.blob"));
        fs::write(path.join(".layout"), "forest").unwrap();
        assert!(BlobFolder::open(&path).unwrap_err().to_string().contains("\"forest\""));
    }
}
