//! The history: what clients did and saw. The checks compare the history with the stores of the nodes.
//!
//! A transaction whose finish was asked for and not answered is *unknown*: the transaction may have committed or not,
//! and no check may count on either.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use zrs::zodb::{Oid, Tid};

/// One attempt to commit a transaction; a retry after a conflict is another one.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Stands in each record that the attempt writes; no two attempts have the same.
    pub mark: u64,
    pub client: usize,
    /// The counters' values that were to be written.
    pub writes: BTreeMap<Oid, u64>,
    pub end: End,
    pub ended: Duration,
}

/// How an attempt ended, as its client knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// With the tid, where the client was told.
    Committed(Option<Tid>),
    /// The client was told that the attempt has not committed, or never asked for its commit.
    NotCommitted(String),
    Unknown,
}

/// A counter as a transaction has read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    pub client: usize,
    /// The transaction's snapshot: the transaction reads what was current there.
    pub snapshot: Tid,
    pub oid: Oid,
    /// `None`: there was no such object.
    pub value: Option<u64>,
}

/// A moment at which a client's view must have reached some transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    pub client: usize,
    pub view: Tid,
    /// The newest transaction that the promise speaks of.
    pub at_least: Tid,
    pub why: &'static str,
}

/// All that is written down.
#[derive(Default)]
pub struct Record {
    pub attempts: Vec<Attempt>,
    pub shown: Vec<Shown>,
    pub reached: Vec<Reached>,
    /// Object ids that were handed out, each with its client.
    pub oids: Vec<(usize, Oid)>,
    pub counters: Vec<Oid>,
}

/// The record of a run; clones share it.
#[derive(Clone, Default)]
pub struct History(Arc<Mutex<Record>>);

impl History {
    pub fn look(&self) -> MutexGuard<'_, Record> {
        self.0.lock().unwrap()
    }

    /// An attempt begins, and is unknown until [`History::ends`]. Gives its mark.
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
    /// The newest tid that any client was answered so far.
    pub fn answered(&self) -> Tid {
        let tid = |attempt: &Attempt| if let End::Committed(tid) = attempt.end { tid } else { None };
        self.attempts.iter().filter_map(tid).max().unwrap_or_default()
    }
}

/// A counter's record: its value, the mark of the attempt that wrote it, and bytes that make it longer.
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
