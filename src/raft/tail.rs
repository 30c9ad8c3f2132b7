//! The tail of the log: the newest entries and the meta data, in memory.

use std::collections::VecDeque;

use super::types::{Entry, LogPosition, Place, Record, Vote};
use crate::config::limits;

/// The part of the log that is in memory.
#[derive(Default)]
pub struct Tail {
    pub vote: Option<Vote>,
    pub purged: Option<LogPosition>,
    pub last: Option<LogPosition>,
    /// The newest entries, without gaps up to `last`; every entry that is not on disk yet is among them.
    pub entries: VecDeque<Entry>,
    pub bytes: usize,
}

impl Tail {
    /// The index of the first entry in memory; one past the last if there is none.
    pub fn first_cached(&self) -> u64 {
        self.entries.front().map_or_else(|| self.last.map_or(0, |last| last.index + 1), |e| e.log_id.index)
    }

    pub fn cached(&self, start: u64, end: u64, bytes: usize) -> Vec<Entry> {
        let first = self.first_cached();
        let mut size = 0;
        let mut entries = Vec::new();
        if start < first {
            return entries;
        }
        for index in start..end {
            let Some(entry) = self.entries.get((index - first) as usize) else { break };
            size += entry_size(entry);
            if size > bytes && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
        }
        entries
    }

    pub fn push(&mut self, entry: Entry) {
        if let Some(last) = self.last {
            assert_eq!(entry.log_id.index, last.index + 1, "log entries come without gaps");
        }
        self.last = Some(entry.log_id);
        self.bytes += entry_size(&entry);
        self.entries.push_back(entry);
    }

    /// Drops the oldest entries that are on disk, while there are too many bytes in memory.
    pub fn shrink(&mut self, durable: u64) {
        while self.bytes > limits::LOG_TAIL_BYTES {
            match self.entries.front() {
                Some(entry) if entry.log_id.index < durable => {
                    self.bytes -= entry_size(entry);
                    self.entries.pop_front();
                }
                _ => break,
            }
        }
    }

    /// Whether the vote is on disk, and the entry at `place`, if one is named, is known to be here.
    pub fn holds(&self, vote: &Vote, place: Option<Place>) -> bool {
        // (A vote comes here once it is durable.)
        self.vote.as_ref() == Some(vote) && place.is_none_or(|place| self.place_at(place.index) == Some(place))
    }

    fn place_at(&self, index: u64) -> Option<Place> {
        let found = match self.last {
            Some(last) if last.index == index => last,
            _ => self.entries.get(index.checked_sub(self.first_cached())? as usize)?.log_id,
        };
        Some(found.into())
    }
}

/// About how many bytes an entry takes.
pub fn entry_size(entry: &Entry) -> usize {
    Record::from(entry).size()
}
