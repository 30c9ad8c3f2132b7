//! The history: what clients did and saw. The checks compare the history with a model, and with the stores of the
//! nodes.
//!
//! A transaction whose finish was asked for and not answered is *unknown*: the transaction may have committed or not,
//! and no check may count on either.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use zrs::zodb::{Conflict, Oid, Tid};

use crate::packs;
use crate::stream::Stream;
use crate::things::Things;
use crate::trace;
use crate::value::{Found, Value};

/// One attempt to commit a transaction; a retry after a conflict is another one.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Stands in each record that the attempt writes; no two attempts have the same.
    pub mark: u64,
    pub client: usize,
    /// The tid as of which the transaction has read.
    pub snapshot: Tid,
    /// The states that were to be written.
    pub writes: BTreeMap<Oid, Value>,
    /// The serials that a client of the protocol has sent: of each write its base, newest after a conflict was
    /// resolved. (The Rust client bases every write on the snapshot, and does not say more.)
    pub bases: BTreeMap<Oid, Tid>,
    /// Objects that were not to change, with the serials that they had.
    pub checks: BTreeMap<Oid, Tid>,
    /// The transactions that it undoes, one after the other,
    pub undoes: Vec<Tid>,
    /// and the objects that these wrote.
    pub touches: BTreeSet<Oid>,
    /// Whether others may undo it: no rule of the application speaks of what it writes.
    pub may_be_undone: bool,
    /// When votes were sent, and when they were answered, or the connection was lost.
    pub votes: Vec<(Duration, Duration)>,
    /// How many conflicts were resolved under the locks.
    pub resolved: u64,
    /// The client's connection in [`Record::streams`], if it is one of the protocol.
    pub stream: Option<usize>,
    /// How the attempt stood by its finish.
    pub manner: Manner,
    pub began: Duration,
    pub end: End,
    pub ended: Duration,
}

impl Attempt {
    /// The objects that the attempt locks.
    pub fn objects(&self) -> impl Iterator<Item = Oid> {
        self.writes.keys().chain(self.checks.keys()).chain(&self.touches).copied()
    }
}

/// How a client stands by the finish that it has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Soon after its vote, at the primary itself.
    Waits,
    /// By way of another node, or long after its vote, or without much patience: the connection may be closed
    /// meanwhile, for a good reason.
    Risks,
    /// The client has closed the connection itself.
    Leaves,
}

/// How an attempt ended, as its client knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// With the tid, where the client was told.
    Committed(Option<Tid>),
    /// Not committed, because of these conflicts.
    Conflict(Vec<Conflict>),
    /// The client was told that the attempt has not committed, or never asked for its commit.
    NotCommitted(String),
    Unknown,
}

/// An object as a transaction has read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    pub client: usize,
    /// The transaction's snapshot: the transaction reads what was current there.
    pub snapshot: Tid,
    pub oid: Oid,
    /// `None`: there was no such object.
    pub found: Option<Found>,
    /// Whether an older state than the client's view was asked for.
    pub historical: bool,
    /// Whether no server was asked.
    pub cached: bool,
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

/// How many times a client tries, before it gives a transaction up.
pub const TRIES: usize = 3;

/// How an attempt has ended that the Rust client has tried again. (Of its conflicts it tells the last ones only.)
pub const TRIED_AGAIN: &str = "it was tried again";

/// How many transactions a client asks the undo log for.
pub const LOGGED: usize = 20;

/// A client that has given a transaction up, after attempts with these marks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GiveUp {
    pub client: usize,
    pub marks: Vec<u64>,
}

/// All that is written down.
#[derive(Default)]
pub struct Record {
    pub attempts: Vec<Attempt>,
    pub shown: Vec<Shown>,
    pub reached: Vec<Reached>,
    pub give_ups: Vec<GiveUp>,
    /// Object ids that were handed out, each with its client.
    pub oids: Vec<(usize, Oid)>,
    pub things: Things,
    /// Objects that were cut off, and may be grafted on again, oldest first.
    pub cut_off: Vec<Oid>,
    pub packs: Vec<packs::Asked>,
    /// What connections of the protocol were sent.
    pub streams: Vec<Stream>,
    /// When which client has got something done.
    pub moves: Vec<(usize, Duration)>,
    /// The newest tid that any client was answered so far.
    pub answered: Tid,
    /// The primary, and how many times there was another.
    pub primary: Option<u64>,
    pub elections: u64,
    /// The nodes that are at another address: who moves them tells the clients of the protocol.
    pub moved: BTreeSet<u64>,
    /// Whether a primary goes on with a pack that another one has begun.
    pub resumes: bool,
    /// The pack time of the last pack that has begun.
    pub packed: Option<Tid>,
    /// All faults have ended.
    pub is_calm: bool,
    /// The clients that have ended: what they did will not change any more.
    pub gone: BTreeSet<usize>,
}

impl Record {
    /// Whether records were written that no pack can read.
    pub fn has_junk(&self) -> bool {
        let is_junk = |attempt: &Attempt| attempt.writes.values().any(|value| matches!(value, Value::Junk(_)));
        self.attempts.iter().any(is_junk)
    }
}

/// The record of a run; clones share it.
#[derive(Clone, Default)]
pub struct History(Arc<Mutex<Record>>);

impl History {
    pub fn look(&self) -> MutexGuard<'_, Record> {
        self.0.lock().unwrap()
    }

    /// An attempt begins, and is unknown until [`History::ends`]. `writes` makes the states from the attempt's mark,
    /// which is returned.
    pub fn begins(&self, client: usize, snapshot: Tid, writes: impl FnOnce(u64) -> BTreeMap<Oid, Value>) -> u64 {
        let mut record = self.look();
        let mark = record.attempts.len() as u64;
        record.attempts.push(Attempt {
            mark,
            client,
            snapshot,
            writes: writes(mark),
            bases: BTreeMap::new(),
            checks: BTreeMap::new(),
            undoes: Vec::new(),
            touches: BTreeSet::new(),
            may_be_undone: false,
            votes: Vec::new(),
            resolved: 0,
            stream: None,
            manner: Manner::Waits,
            began: trace::now(),
            end: End::Unknown,
            ended: Duration::ZERO,
        });
        mark
    }

    /// Changes what is known of an attempt.
    pub fn note(&self, mark: u64, change: impl FnOnce(&mut Attempt)) {
        change(&mut self.look().attempts[mark as usize]);
    }

    pub fn ends(&self, mark: u64, end: End) {
        let mut record = self.look();
        let now = trace::now();
        if let End::Committed(tid) = &end {
            record.answered = record.answered.max(tid.unwrap_or_default());
        }
        let attempt = &mut record.attempts[mark as usize];
        attempt.end = end;
        attempt.ended = now;
        if let End::Committed(_) = attempt.end {
            let client = attempt.client;
            record.moves.push((client, now));
        }
    }

    /// A client that only reads has got something done.
    pub fn moved(&self, client: usize) {
        self.look().moves.push((client, trace::now()));
    }

    /// How many times `client` has got something done after `since`.
    pub fn moves(&self, client: usize, since: Duration) -> usize {
        self.look().moves.iter().rev().take_while(|(_, at)| *at > since).filter(|(who, _)| *who == client).count()
    }

    /// How many clients of the protocol have connected.
    pub fn begins_stream(&self, stream: Stream) -> usize {
        let mut record = self.look();
        record.streams.push(stream);
        record.streams.len() - 1
    }

    /// Looks who is primary.
    pub fn leads(&self, primary: Option<u64>) {
        let mut record = self.look();
        if primary.is_some() && primary != record.primary {
            record.primary = primary;
            record.elections += 1;
        }
    }
}
