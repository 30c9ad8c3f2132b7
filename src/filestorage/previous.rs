//! Compares the previous positions in records with where the records really are, as FileStorage does when it opens a
//! file. An import has no use for them; but FileStorage has shown no revisions behind a wrong one.
//!
//! FileStorage has a position for every object in memory. Here a table of fixed size has that of objects whose ids
//! share a place in it: what the table does not know (any more) counts as right.

use super::format::{RECORD, RecordHeader};
use crate::zodb::Oid;

/// Places of the table, at most: some 40 bytes each.
const PLACES: usize = 1 << 19;

/// The last record of an object.
#[derive(Clone, Copy, Debug)]
struct Last {
    oid: Oid,
    /// The record's transaction, and the previous position that its records should have.
    transaction: u64,
    before: u64,
    at: u64,
}

/// The table.
#[derive(Debug)]
pub struct Previous(Vec<Option<Last>>);

impl Previous {
    /// For a file of this size.
    pub fn new(size: u64) -> Previous {
        let records = usize::try_from(size / RECORD as u64).unwrap_or(PLACES);
        Previous(vec![None; records.clamp(1, PLACES)])
    }

    /// Notes the record at `at` of the transaction at `transaction`. Whether its previous position is right.
    pub fn agrees(&mut self, transaction: u64, at: u64, header: &RecordHeader) -> bool {
        let places = self.0.len() as u64;
        let place = &mut self.0[(header.oid.0 % places) as usize];
        let (before, agrees) = match place {
            None => (0, header.previous == 0),
            // (The records of one transaction all have the one before it.)
            Some(last) if last.oid == header.oid && last.transaction == transaction => {
                (last.before, header.previous == last.before)
            }
            Some(last) if last.oid == header.oid => (last.at, header.previous == last.at),
            Some(_) => (header.previous, true),
        };
        *place = Some(Last { oid: header.oid, transaction, before, at });
        agrees
    }
}
