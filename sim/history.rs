//! What clients did and saw: the half of the story that the checks compare with what the nodes keep.
//!
//! A transaction that was asked to finish and not answered is *unknown*: it may be there or not, and no check may count
//! on either. Only an answer makes it more than that.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use zrs::zodb::{Oid, Tid};

/// One attempt to commit a transaction; a retry after a conflict is another one.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Stands in each record that it writes; no two attempts have the same.
    pub mark: u64,
    pub client: usize,
    /// What was to be written.
    pub writes: BTreeMap<Oid, u64>,
    pub end: End,
    pub ended: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// With its tid, where the client was told.
    Committed(Option<Tid>),
    /// It was told that it has not committed, or it never asked to.
    NotCommitted(String),
    Unknown,
}

/// What a transaction has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    pub client: usize,
    /// The transaction's snapshot: it reads what was current there.
    pub snapshot: Tid,
    pub oid: Oid,
    /// `None`: there was no such object.
    pub value: Option<u64>,
}

/// A moment that promises something: the client's view, and what it must have reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    pub client: usize,
    pub view: Tid,
    /// The newest transaction that the promise speaks of.
    pub at_least: Tid,
    pub why: &'static str,
}

#[derive(Default)]
pub struct Record {
    pub attempts: Vec<Attempt>,
    pub shown: Vec<Shown>,
    pub reached: Vec<Reached>,
    /// Object ids that were handed out, and to whom.
    pub oids: Vec<(usize, Oid)>,
    pub counters: Vec<Oid>,
}

/// The record of a run; clones are the same.
#[derive(Clone, Default)]
pub struct History(Arc<Mutex<Record>>);

impl History {
    pub fn look(&self) -> MutexGuard<'_, Record> {
        self.0.lock().unwrap()
    }

    /// An attempt begins: unknown until [`History::ends`]. Gives its mark.
    pub fn begins(&self, client: usize, writes: BTreeMap<Oid, u64>) -> u64 {
        let mut record = self.look();
        let mark = record.attempts.len() as u64;
        record.attempts.push(Attempt { mark, client, writes, end: End::Unknown, ended: Duration::ZERO });
        mark
    }

    pub fn ends(&self, mark: u64, end: End) {
        let attempt = &mut self.look().attempts[mark as usize];
        attempt.end = end;
        attempt.ended = crate::trace::now();
    }

    /// How many transactions of `client` were committed after `since`.
    pub fn committed(&self, client: usize, since: Duration) -> usize {
        let committed = |a: &&Attempt| matches!(a.end, End::Committed(_)) && a.client == client && a.ended > since;
        self.look().attempts.iter().filter(committed).count()
    }
}

impl Record {
    /// The newest tid that was answered to anybody so far.
    pub fn answered(&self) -> Tid {
        let tid = |attempt: &Attempt| if let End::Committed(tid) = attempt.end { tid } else { None };
        self.attempts.iter().filter_map(tid).max().unwrap_or_default()
    }
}

/// A counter's record: its value, who made it so, and something to make it longer.
pub fn record(value: u64, mark: u64, padding: usize) -> Bytes {
    let mut bytes = [value.to_be_bytes(), mark.to_be_bytes()].concat();
    bytes.resize(16 + padding, b'.');
    bytes.into()
}

/// The value and the mark in a counter's record.
pub fn read(record: &[u8]) -> (u64, u64) {
    let number = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().unwrap());
    (number(&record[..8]), number(&record[8..16]))
}
