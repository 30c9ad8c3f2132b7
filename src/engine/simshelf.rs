//! The [`Shelf`] of a simulated disk: checkpoints are what the disk's tables held, as one file for each table.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::contract::{Engine, Table};
use super::shelf::{Checkpoint, Incoming, Shelf, ShelfFile};
use super::simdisk::{Content, SimDisk, SimIncoming};

/// The shelf of a simulated disk.
pub struct SimShelf {
    disk: SimDisk,
    tables: &'static [Table],
}

impl SimDisk {
    /// The disk's shelf, for databases with these tables.
    pub fn shelf(&self, tables: &'static [Table]) -> SimShelf {
        SimShelf { disk: self.clone(), tables }
    }
}

impl Shelf for SimShelf {
    fn checkpoint(&self, engine: &dyn Engine, name: &str) -> io::Result<Arc<dyn Checkpoint>> {
        let folder = PathBuf::from(name);
        engine.checkpoint(&folder)?;
        let content = self.disk.at_checkpoint(&folder).map(|disk| disk.content()).unwrap_or_default();
        let files = content.iter().map(|(table, content)| ((*table).to_owned(), pack(content))).collect();
        Ok(Arc::new(SimCheckpoint { disk: self.disk.clone(), folder, tables: self.tables, files }))
    }

    fn incoming(&self) -> io::Result<Arc<dyn Incoming>> {
        Ok(Arc::new(SimIncomingDisk { disk: self.disk.clone(), tables: self.tables }))
    }
}

struct SimCheckpoint {
    disk: SimDisk,
    folder: PathBuf,
    tables: &'static [Table],
    files: BTreeMap<String, Vec<u8>>,
}

impl Checkpoint for SimCheckpoint {
    fn files(&self) -> Vec<ShelfFile> {
        self.files.iter().map(|(name, bytes)| ShelfFile { name: name.clone(), size: bytes.len() as u64 }).collect()
    }

    fn read(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let bytes = self.files.get(name).and_then(|bytes| bytes.get(offset as usize..offset as usize + length));
        bytes.map(<[u8]>::to_vec).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn open(&self) -> io::Result<Arc<dyn Engine>> {
        let disk = self.disk.at_checkpoint(&self.folder).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(disk.open(self.tables)?))
    }
}

impl Drop for SimCheckpoint {
    fn drop(&mut self) {
        self.disk.remove_checkpoint(&self.folder);
    }
}

struct SimIncomingDisk {
    disk: SimDisk,
    tables: &'static [Table],
}

impl SimIncomingDisk {
    fn content(&self) -> io::Result<BTreeMap<&'static str, Arc<Content>>> {
        let incoming = self.disk.incoming(|incoming| incoming.clone())?.ok_or(io::ErrorKind::NotFound)?;
        let mut content = BTreeMap::new();
        for table in self.tables {
            let (bytes, _) = incoming.files.get(table.name).filter(|file| file.1).ok_or(io::ErrorKind::NotFound)?;
            content.insert(table.name, Arc::new(unpack(bytes)?));
        }
        Ok(content)
    }
}

impl Incoming for SimIncomingDisk {
    fn offer(&self) -> io::Result<Option<Vec<u8>>> {
        self.disk.incoming(|incoming| incoming.as_ref().map(|incoming| incoming.offer.clone()))
    }

    fn begin(&self, offer: &[u8]) -> io::Result<()> {
        let begun = SimIncoming { offer: offer.to_vec(), files: BTreeMap::new() };
        self.disk.incoming(|incoming| *incoming = Some(begun))
    }

    fn whole(&self) -> io::Result<Vec<ShelfFile>> {
        let finished = |(name, (bytes, finished)): (&String, &(Vec<u8>, bool))| {
            finished.then(|| ShelfFile { name: name.clone(), size: bytes.len() as u64 })
        };
        self.disk.incoming(|incoming| {
            incoming.iter().flat_map(|incoming| incoming.files.iter()).filter_map(finished).collect()
        })
    }

    fn write(&self, name: &str, offset: u64, part: &[u8]) -> io::Result<()> {
        self.disk.incoming(|incoming| {
            let file = incoming.get_or_insert_default().files.entry(name.to_owned()).or_default();
            file.0.truncate(offset as usize);
            file.0.extend(part);
        })
    }

    fn finish(&self, name: &str) -> io::Result<()> {
        self.disk.incoming(|incoming| {
            if let Some(file) = incoming.get_or_insert_default().files.get_mut(name) {
                file.1 = true;
            }
        })
    }

    fn open(&self) -> io::Result<Arc<dyn Engine>> {
        Ok(Arc::new(SimDisk::with_content(self.content()?).open(self.tables)?))
    }

    fn take(&self) -> io::Result<()> {
        let content = self.content()?;
        self.disk.take(content);
        self.discard()
    }

    fn discard(&self) -> io::Result<()> {
        self.disk.incoming(|incoming| *incoming = None)
    }
}

fn pack(content: &Content) -> Vec<u8> {
    let pairs: Vec<(&[u8], &[u8])> = content.iter().map(|(key, value)| (key.as_slice(), &value[..])).collect();
    postcard::to_stdvec(&pairs).expect("pairs of bytes are plain data")
}

fn unpack(bytes: &[u8]) -> io::Result<Content> {
    let pairs: Vec<(Vec<u8>, Vec<u8>)> =
        postcard::from_bytes(bytes).map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))?;
    Ok(pairs.into_iter().map(|(key, value)| (key, value.into())).collect())
}
