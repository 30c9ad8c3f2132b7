//! The file `synced`: up to where the entries are known to be synced, and whether a truncation goes on.
//!
//! Two places of a page each, written in turn; the one with the greater count is valid. After each sync of entries the
//! mark is only written, not synced: it may be behind after a power cut, never ahead. When a segment begins and after
//! its first batch, and while a truncation goes on, it is synced. A mark lies in one sector, which disks write whole or
//! not at all; so one of the two can be read after any crash.
//!
//! ```text
//! 0 digest of the following u32   4 format u32   8 journal's id u64   16 count u64   24 synced up to entry u64
//! 32 generation of the slots u64   40 erase: 1, or 0   48 erase after entry u64   56 chain after the synced entry u64
//! ```

use std::sync::Arc;

use super::damage::{Damage, Fault};
use super::entry::{MOST, digest};
use super::files::{Files, OpenFile};

pub const NAME: &str = "synced";
/// Its name while it is made.
pub const UNFINISHED: &str = "synced.new";
const PAGE: u64 = 4096;
const LENGTH: usize = 64;
const FORMAT: u32 = 1;

/// What the file says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Entries up to this one were synced; those that were purged count.
    pub synced: u64,
    /// The chain after that entry.
    pub chain: u32,
    /// The generation of the slots when it was written.
    pub generation: u64,
    /// A truncation that was begun: every entry behind this one is to be erased.
    pub erase_after: Option<u64>,
}

/// The open file.
pub struct MarkFile {
    file: Arc<dyn OpenFile>,
    /// The journal's id, drawn by chance when the journal is made.
    pub journal: u64,
    count: u64,
}

impl MarkFile {
    /// Makes the file of a new journal, with a mark that says 0. Durable on return, and whole once it has its name.
    pub fn create(files: &dyn Files, journal: u64) -> std::io::Result<MarkFile> {
        let file = files.create(UNFINISHED, 2 * PAGE)?;
        let mut made = MarkFile { file, journal, count: 0 };
        made.write_twice(Mark::default())?;
        files.rename(UNFINISHED, NAME)?;
        files.sync()?;
        Ok(made)
    }

    /// Opens the file and reads the newest mark.
    pub fn open(files: &dyn Files) -> Result<(MarkFile, Mark), Fault> {
        let file = files.open(NAME)?;
        if file.size()? != 2 * PAGE {
            return Err(Damage::of(NAME, format!("it should have {} bytes, and has {}", 2 * PAGE, file.size()?)).into());
        }
        let mut newest: Option<(u64, u64, Mark)> = None;
        for place in 0..2 {
            let mut bytes = [0; LENGTH];
            file.read_at(place * PAGE, &mut bytes)?;
            if let Some(found) = read(&bytes)
                && newest.is_none_or(|(_, count, _)| found.1 > count)
            {
                newest = Some(found);
            }
        }
        let Some((journal, count, mark)) = newest else {
            return Err(Damage::of(NAME, "neither of its two marks can be read").into());
        };
        Ok((MarkFile { file, journal, count }, mark))
    }

    /// Writes a newer mark; durable after [`MarkFile::sync`].
    pub fn write(&mut self, mark: Mark) -> std::io::Result<()> {
        self.count += 1;
        let mut bytes = [0; LENGTH];
        bytes[4..8].copy_from_slice(&FORMAT.to_be_bytes());
        let erase = (u64::from(mark.erase_after.is_some()), mark.erase_after.unwrap_or(0));
        let chain = u64::from(mark.chain);
        let fields = [self.journal, self.count, mark.synced, mark.generation, erase.0, erase.1, chain];
        for (field, at) in fields.into_iter().zip((8..).step_by(8)) {
            bytes[at..at + 8].copy_from_slice(&field.to_be_bytes());
        }
        let digest = digest(self.journal, &[&bytes[4..]]);
        bytes[..4].copy_from_slice(&digest.to_be_bytes());
        self.file.write_at(self.count % 2 * PAGE, &bytes)
    }

    /// Writes a newer mark in both places; durable on return. A torn later one then leaves this one, at the worst.
    pub fn write_twice(&mut self, mark: Mark) -> std::io::Result<()> {
        for _ in 0..2 {
            self.write(mark)?;
            self.sync()?;
        }
        Ok(())
    }

    pub fn sync(&self) -> std::io::Result<()> {
        self.file.sync()
    }
}

/// The journal's id, the count and the mark; `None` if the bytes are not those of a mark.
fn read(bytes: &[u8; LENGTH]) -> Option<(u64, u64, Mark)> {
    let field = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let journal = field(8);
    let possible = [field(16), field(24), field(48)].iter().all(|number| *number <= MOST);
    let intact =
        possible && digest(journal, &[&bytes[4..]]).to_be_bytes() == bytes[..4] && bytes[4..8] == FORMAT.to_be_bytes();
    intact.then(|| {
        let erase_after = (field(40) == 1).then(|| field(48));
        let mark = Mark { synced: field(24), chain: field(56) as u32, generation: field(32), erase_after };
        (journal, field(16), mark)
    })
}
