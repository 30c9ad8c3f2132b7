//! The wish of a client for one object (a store, a deletion, a restore), and where the data lies that the client sent.

use bytes::Bytes;

use super::staging::Item;
use crate::command::Staged;
use crate::tpc::Read;
use crate::zodb::Tid;

/// A record as the client sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    Here(Bytes),
    /// The record is in the log, or on its way there.
    Ahead(Item),
}

impl From<Bytes> for Record {
    fn from(data: Bytes) -> Record {
        Record::Here(data)
    }
}

/// The write that a client asks for on one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// `storea`: the data, and the serial that the client had read.
    Store { base: Tid, data: Record },
    /// `deleteObject`.
    Delete { base: Tid },
    /// `restorea`: the data, whatever revision is current. `None`: an undone creation. `like`: the transaction that may
    /// have written the same data before.
    Restore { data: Option<Record>, like: Option<Tid> },
}

/// Where the data lies that the client has stored of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    Here(Bytes),
    /// The data is in the log.
    Ahead(Staged),
}

impl Written {
    pub fn length(&self) -> u64 {
        match self {
            Written::Here(data) => data.len() as u64,
            Written::Ahead(staged) => staged.length,
        }
    }

    /// The number of pieces that the data is read from.
    pub fn pieces(&self) -> u64 {
        match self {
            Written::Here(_) => 0,
            Written::Ahead(staged) => staged.pieces.iter().map(|span| u64::from(span.count)).sum(),
        }
    }
}

impl Wish {
    /// The record, if it is here.
    pub fn here(&self) -> Option<&Bytes> {
        match self {
            Wish::Store { data: Record::Here(data), .. } | Wish::Restore { data: Some(Record::Here(data)), .. } => {
                Some(data)
            }
            _ => None,
        }
    }

    /// The revision that the client has read of the object.
    pub fn read(&self) -> Read {
        match self {
            Wish::Store { base, .. } => Read::Serial(*base),
            Wish::Delete { base } => Read::Existing(*base),
            Wish::Restore { .. } => Read::Any,
        }
    }
}
