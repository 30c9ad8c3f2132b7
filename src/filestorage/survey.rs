//! Reads a file through before anything of it is imported: what is wrong with it is told at once and not after hours,
//! missing blobs are known, and so is how much there is to copy.
//!
//! **The order of transactions.** A store takes transactions with growing ids only. FileStorage takes any, with a line
//! in its log ("time-stamp reduction"), and finds an object's revisions backwards from its last record in the file:
//! `loadBefore(tid)` gives the first one met that is older than `tid`. So a revision can only be loaded if all later
//! records of the object have greater ids. The revisions of which this is true have growing ids, in the file as well:
//! sorted by their ids they answer every load as the file does. The others, which nobody could load, are left out.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use super::blobs::{BlobFolder, is_blob_record};
use super::notes::Notes;
use super::progress::{Overseer, Phase, Progress, stopped};
use super::read::{FileContent, FileRecord, Reader, Step};
use crate::zodb::Tid;

/// Records up to this length are checked for being a blob's; those have some thirty bytes.
const BLOB_RECORD: u64 = 4096;
/// Bytes by which such a record is known.
const BLOB_CLASS: u64 = 256;
/// Missing blobs that are named one by one.
const NAMED: usize = 5;

/// A transaction's id, and its place in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub tid: Tid,
    pub position: u64,
}

/// A file as it was found.
#[derive(Debug, Default)]
pub struct Survey {
    pub notes: Notes,
    /// Bytes of all blobs.
    pub blob_bytes: u64,
    pub missing: Missing,
    /// The transactions by their ids, if they don't grow in the file.
    pub order: Option<Vec<Place>>,
}

/// Blobs whose files are missing.
#[derive(Debug, Default)]
pub struct Missing {
    pub count: u64,
    /// The first few.
    pub first: Vec<PathBuf>,
}

impl Missing {
    /// Notes a blob that should be at `path` (`None`: no folder was named).
    pub fn note(&mut self, path: Option<PathBuf>) {
        self.count += 1;
        self.first.extend(path.filter(|_| self.first.len() < NAMED));
    }
}

/// Whether a record is a blob's, itself or by what it shows.
pub fn is_blob(reader: &mut Reader, record: &FileRecord) -> io::Result<bool> {
    let Some((position, length)) = record.content.data() else { return Ok(false) };
    if length > BLOB_RECORD {
        return Ok(false);
    }
    let length = length.min(BLOB_CLASS) as usize;
    Ok(is_blob_record(&match record.content {
        FileContent::SameAs(_) => reader.data_elsewhere(position, length)?,
        _ => reader.data(position, length)?,
    }))
}

/// Reads the file through, and rewinds it. Ends with the first missing blob if there is no folder and `wants_folder`.
pub fn look_through(
    reader: &mut Reader,
    blobs: Option<&BlobFolder>,
    wants_folder: bool,
    overseer: Overseer<'_>,
) -> io::Result<Survey> {
    let mut survey = Survey::default();
    let (mut last, mut grow) = (Tid::ZERO, true);
    loop {
        tell(reader, overseer)?;
        let transaction = match reader.step()? {
            Step::End => break,
            Step::Passed => continue,
            Step::Transaction(transaction) => transaction,
        };
        grow &= transaction.tid > last;
        last = transaction.tid;
        // (Many files list the record of a blob twice.)
        let mut seen = BTreeSet::new();
        while let Some(record) = reader.record()? {
            if !is_blob(reader, &record)? || !seen.insert(record.oid) {
                continue;
            }
            match blobs.map(|blobs| blobs.find(record.oid, record.tid)).transpose()?.flatten() {
                Some((_, length)) => survey.blob_bytes += length,
                None => {
                    survey.missing.note(blobs.map(|blobs| blobs.path_of(record.oid, record.tid)));
                    if blobs.is_none() && wants_folder {
                        return Ok(survey);
                    }
                }
            }
        }
    }
    survey.notes = reader.rewind();
    if !grow {
        survey.order = Some(order(reader, overseer)?);
        reader.rewind();
    }
    Ok(survey)
}

fn order(reader: &mut Reader, overseer: Overseer<'_>) -> io::Result<Vec<Place>> {
    let mut places = Vec::new();
    loop {
        tell(reader, overseer)?;
        match reader.step()? {
            Step::End => break,
            Step::Passed => {}
            Step::Transaction(transaction) => {
                places.push(Place { tid: transaction.tid, position: transaction.position });
                reader.skip();
            }
        }
    }
    places.sort_unstable();
    Ok(places)
}

fn tell(reader: &Reader, overseer: Overseer<'_>) -> io::Result<()> {
    let (done, total) = (reader.position(), reader.size());
    if overseer(Progress { phase: Phase::Looking, done, total, bytes: done }) { Ok(()) } else { Err(stopped()) }
}
