//! Oddities of a file that do not stop its import, in words for operators.

use std::fmt;

use super::notes::{Cut, EndReason, Notes};
use crate::zodb::Tid;

/// An oddity of a file that does not stop its import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// The file has not even a beginning; it counts as an empty database.
    Empty,
    /// Python 2 wrote the file.
    Python2,
    /// The file ends before its last byte.
    Cut(Cut),
    /// So many transactions of status `u` (undone in place, by an old FileStorage) are left out.
    Undone(u64),
    /// So many transactions have a status that FileStorage does not know.
    Statuses(u64),
    /// So many transactions have an id that is not greater than that of the one before.
    Reductions(u64),
    /// The transactions were sorted by their ids.
    Sorted,
    /// So many revisions are left out, as FileStorage never loads them.
    Shadowed(u64),
    /// So many transactions have the id of their records, and not of their header.
    Renamed(u64),
    /// So many records have the id of their transaction, and not their own.
    Strangers(u64),
    /// A transaction of id zero has become one of id 1.
    Zero,
    /// An empty transaction was added, with the id that the file ends with.
    Added(Tid),
    /// So many records have a previous position that is wrong.
    Previous(u64),
    /// So many records name another place of their transaction.
    Astray(u64),
    /// So many records have a version's length, but no version.
    Versions(u64),
    /// So many records were replaced by a later one of the same transaction.
    Replaced(u64),
    /// So many pointers lead to a record of another object.
    Foreign(u64),
    /// So many blobs are missing.
    MissingBlobs(u64),
}

impl Warning {
    /// The warnings that a file's notes give.
    pub(super) fn of(notes: &Notes) -> Vec<Warning> {
        let counted = |count: u64, warning: fn(u64) -> Warning| (count > 0).then(|| warning(count));
        let all = [
            notes.cut.map(Warning::Cut),
            counted(notes.undone, Warning::Undone),
            counted(notes.statuses, Warning::Statuses),
            counted(notes.reductions, Warning::Reductions),
            counted(notes.renamed, Warning::Renamed),
            counted(notes.strangers, Warning::Strangers),
            counted(notes.zero, |_| Warning::Zero),
            counted(notes.previous, Warning::Previous),
            counted(notes.astray, Warning::Astray),
            counted(notes.versions, Warning::Versions),
        ];
        all.into_iter().flatten().collect()
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::Empty => write!(f, "the file is empty; it counts as an empty database, as for FileStorage"),
            Warning::Python2 => write!(
                f,
                "the file was written by Python 2; clients with Python 3 need it converted by zodbupdate, before the \
                 import or after it"
            ),
            Warning::Cut(cut) => self.cut(f, cut),
            Warning::Undone(count) => write!(f, "{count} transactions of status u (undone) are left out"),
            Warning::Statuses(count) => {
                write!(f, "{count} transactions have an invalid status; it is kept, and they can't be undone")
            }
            Warning::Reductions(count) => write!(
                f,
                "time-stamp reduction: {count} transactions have an id that is not greater than that of the one before"
            ),
            Warning::Sorted => write!(
                f,
                "the transactions are sorted by their ids, as ids must grow; loads answer as from the file, lists of \
                 transactions are in the new order, and transactions of one id have become one"
            ),
            Warning::Shadowed(count) => write!(
                f,
                "{count} revisions are left out: the file has a later record of the object with a smaller or the same \
                 transaction id, and FileStorage loads that one"
            ),
            Warning::Renamed(count) => write!(
                f,
                "{count} transactions have other ids in their records than in their headers (fsrecover makes such files); \
                 those of the records are kept, as loads give them"
            ),
            Warning::Strangers(count) => write!(
                f,
                "{count} records have another transaction id than the rest of their transaction; they get that of the \
                 transaction"
            ),
            Warning::Zero => write!(f, "a transaction of id 0 is imported with id 1, as 0 stands for none"),
            Warning::Added(tid) => write!(
                f,
                "an empty transaction {tid} is added at the end: the file's last transaction says that it has this id, \
                 and clients may have seen it"
            ),
            Warning::Previous(count) => write!(
                f,
                "{count} records have an incorrect previous pointer; revisions that FileStorage did not find for that \
                 reason are there now"
            ),
            Warning::Astray(count) => write!(f, "{count} records name a wrong place of their transaction"),
            Warning::Versions(count) => write!(f, "{count} records say that they have a version, and have none"),
            Warning::Replaced(count) => write!(
                f,
                "{count} records are left out, as the same transaction has other data of their objects further on"
            ),
            Warning::Foreign(count) => write!(
                f,
                "{count} records show the data of a record of another object; they are kept, as FileStorage loads them"
            ),
            Warning::MissingBlobs(count) => write!(f, "{count} blobs are missing; opening one of them is an error"),
        }
    }
}

impl Warning {
    fn cut(&self, f: &mut fmt::Formatter<'_>, cut: &Cut) -> fmt::Result {
        let Cut { at, bytes, why, transactions } = cut;
        match why {
            EndReason::Unfinished => write!(
                f,
                "the transaction that begins at byte {at} was never finished (status c); it is left out, as FileStorage \
                 would do"
            )?,
            EndReason::CutShort => write!(
                f,
                "truncated at byte {at}, possibly due to damaged records: the {bytes} bytes from there are left out, as \
                 FileStorage would do"
            )?,
            EndReason::Rubbish => write!(
                f,
                "the {bytes} bytes from byte {at} on are no transaction; they are left out, as FileStorage would do"
            )?,
        }
        if *transactions {
            write!(
                f,
                ". Whole transactions lie among these {bytes} bytes, and are left out as well: to import what can be read of \
                 them, import again with --salvage"
            )?;
        }
        Ok(())
    }
}
