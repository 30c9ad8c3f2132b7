//! Marks: digests of the whole state at certain positions, by which nodes find out that they differ.
//!
//! Every node has the same state after the same entries; if two do not, one of them has met a fault of its hardware or
//! of this program. A mark is made after every [`limits::MARK_EVERY`]th entry, so that nodes that are a little apart
//! still have some in common. It sums up the summaries, which are kept up from every command ([`Summary`]); it reads
//! nothing, so that a record that has rotted on the disk is found by its checksum and not here.

use std::collections::VecDeque;

use super::summary::Summary;
use crate::command::Reign;
use crate::config::limits;
use crate::zodb::StorageId;

/// The way in which digests are made. Only those of one scheme can be compared: whoever changes what goes into them
/// makes another one, or nodes of two versions would take each other for broken.
pub const MARK_SCHEME: u8 = 1;

/// How many entries were applied, and the digest of the state then.
pub type Mark = (u64, [u8; 16]);

/// A storage, as a mark sums it up.
pub(super) struct Marked<'a> {
    pub number: StorageId,
    pub name: &'a str,
    pub is_dropped: bool,
    pub summary: &'a Summary,
}

/// The newest marks of a store, oldest first.
#[derive(Default)]
pub(super) struct Marks(VecDeque<Mark>);

impl Marks {
    /// Makes a mark if it is time for one.
    pub fn note<'a>(&mut self, entries: u64, reign: Reign, storages: impl Iterator<Item = Marked<'a>>) {
        if !entries.is_multiple_of(limits::MARK_EVERY) {
            return;
        }
        if self.0.len() >= limits::MARKS {
            self.0.pop_front();
        }
        self.0.push_back((entries, digest(reign, storages)));
    }

    pub fn all(&self) -> Vec<Mark> {
        self.0.iter().copied().collect()
    }
}

fn digest<'a>(reign: Reign, storages: impl Iterator<Item = Marked<'a>>) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&reign.term.to_be_bytes()).update(&reign.number.to_be_bytes());
    for Marked { number, name, is_dropped, summary } in storages {
        hasher.update(&number.0.to_be_bytes()).update(&[u8::from(is_dropped)]);
        hasher.update(&(name.len() as u64).to_be_bytes()).update(name.as_bytes());
        hasher.update(&summary.to_bytes());
    }
    let mut short = [0; 16];
    hasher.finalize_xof().fill(&mut short);
    short
}
