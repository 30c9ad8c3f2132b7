//! Counts the oddities of a file, which FileStorage passes over with a line in its log, and the losses.

use crate::config::limits;
use crate::zodb::Tid;

/// Why FileStorage takes the file to end before its last byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// A transaction was voted and not finished (status `c`).
    Unfinished,
    /// A transaction is cut short, or says that it reaches past the end of the file.
    CutShort,
    /// There are bytes that are no transaction: zeros, say.
    Rubbish,
}

/// The place from which FileStorage cuts the file off when it opens it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The first byte that does not count.
    pub at: u64,
    /// How many bytes from there.
    pub bytes: u64,
    /// Why.
    pub why: EndReason,
    /// Whether whole transactions lie among these bytes.
    pub transactions: bool,
}

/// Oddities of a file, and losses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// The bytes at the end that do not count.
    pub cut: Option<Cut>,
    /// Transactions of status `u`.
    pub undone: u64,
    /// Transactions of a status that FileStorage does not know.
    pub statuses: u64,
    /// Transactions whose id is not greater than that of the one before.
    pub reductions: u64,
    /// Transactions whose records all have another id than their header.
    pub renamed: u64,
    /// Records with another id than the rest of their transaction.
    pub strangers: u64,
    /// Transactions of id zero.
    pub zero: u64,
    /// Records that name another place than that of their transaction.
    pub astray: u64,
    /// Records with a version's length, and without a version.
    pub versions: u64,
    /// Records whose previous position is not that of the object's record before.
    pub previous: u64,
    /// The id in the header of the last transaction.
    pub last_header: Tid,
    /// Damaged places and losses, one by one.
    pub lost: Vec<String>,
    /// How many there are.
    pub lost_count: u64,
}

impl Notes {
    /// Notes the id in a transaction's header.
    pub fn header(&mut self, tid: Tid) {
        self.reductions += u64::from(tid <= self.last_header);
        self.last_header = tid;
    }

    /// Notes something that could not be read.
    pub fn lose(&mut self, what: String) {
        self.lost_count += 1;
        if self.lost.len() < limits::LOST_NAMED {
            self.lost.push(what);
        }
    }
}
