//! What can be wrong with a journal when it is opened or read.

use std::fmt;
use std::io;

/// Something that was synced is not there any more as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file's name, inside of the journal's folder.
    pub file: String,
    /// The byte in the file where it begins; `None`: the whole file.
    pub offset: Option<u64>,
    /// The entry that lies, or should lie, there; `None`: no entry in particular.
    pub entry: Option<u64>,
    /// What is wrong, as the end of a sentence that begins with the place.
    pub why: String,
}

/// Why a journal can't be opened.
#[derive(Debug)]
pub enum Fault {
    /// The disk, or its file system, refused.
    Disk(io::Error),
    /// The files are not what they were.
    Damage(Damage),
}

impl Damage {
    /// Damage of a whole file.
    pub(super) fn of(file: impl Into<String>, why: impl Into<String>) -> Damage {
        Damage { file: file.into(), offset: None, entry: None, why: why.into() }
    }

    /// Damage at a byte of a file, where `entry` should lie.
    pub(super) fn at(file: impl Into<String>, offset: u64, entry: u64, why: impl Into<String>) -> Damage {
        Damage { file: file.into(), offset: Some(offset), entry: Some(entry), why: why.into() }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the log is damaged: file {}", self.file)?;
        if let Some(offset) = self.offset {
            write!(f, ", byte {offset}")?;
        }
        if let Some(entry) = self.entry {
            write!(f, ", entry {entry}")?;
        }
        write!(f, ": {}", self.why)
    }
}

impl std::error::Error for Damage {}

impl From<Damage> for io::Error {
    fn from(damage: Damage) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, damage)
    }
}

impl From<Damage> for Fault {
    fn from(damage: Damage) -> Fault {
        Fault::Damage(damage)
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        Fault::Disk(error)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Disk(error) => write!(f, "{error}"),
            Fault::Damage(damage) => write!(f, "{damage}"),
        }
    }
}

impl std::error::Error for Fault {}
