//! The stream of a connection: everything that a client of the protocol was sent, in order.
//!
//! Clients write down each frame as they read it, before they do anything with it; the checks read the stream again and
//! know at each point what the client had been told by then.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use zrs::zeo::Encoding;
use zrs::zodb::{Conflict, Oid, Tid};

use crate::value::{Found, Value};

/// One connection, from its register to its end.
#[derive(Clone, Debug)]
pub struct Stream {
    pub client: usize,
    /// The node that it leads to, perhaps a relay.
    pub node: u64,
    pub encoding: Encoding,
    pub read_only: bool,
    /// The answer to the register.
    pub registered: Tid,
    pub events: Vec<Event>,
    /// When each event came.
    pub times: Vec<Duration>,
}

impl Stream {
    /// The connection for people; `number` is its place in the history.
    pub fn name(&self, number: usize) -> String {
        let Stream { client, node, encoding, registered, .. } = self;
        let reads = if self.read_only { "to read" } else { "to write" };
        format!("connection {number} (client {client} at node {node} {reads}, {encoding:?}, from {registered} on)")
    }
}

/// What a client was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// `invalidateTransaction`.
    News(Tid, Vec<Oid>),
    /// The answer to `loadBefore`.
    Loaded { oid: Oid, before: Tid, answer: Loaded },
    /// The answer to `loadSerial`.
    Serial { oid: Oid, tid: Tid, found: Option<Found> },
    /// The answer to `lastTransaction`.
    Last(Tid),
    /// The answer to `getInvalidations`; `None`: the tid is too old.
    Missed { since: Tid, answer: Option<(Tid, Vec<Oid>)> },
    /// The answer to a vote: conflicts to be resolved. `sent`: the serials that the client had sent with its writes.
    Conflicts { mark: u64, sent: BTreeMap<Oid, Tid>, conflicts: Vec<Conflict> },
    /// The answer to a vote: one conflict that ends the transaction.
    Failed { mark: u64, sent: BTreeMap<Oid, Tid>, conflict: Conflict },
    /// The answer to a vote: the transaction may be finished, and undoes something of these objects.
    Voted { mark: u64, undone: BTreeSet<Oid> },
    /// The answer to a vote: an object that is to be checked, or referred to, is not there.
    Missing { mark: u64, oid: Oid },
    /// The answer to `sendBlob`; `None`: there is none.
    Blob { oid: Oid, tid: Tid, bytes: Option<Bytes> },
    /// The answer to a vote: an undo is refused because of these objects; none: because of a transaction.
    NotUndone { mark: u64, oids: BTreeSet<Oid> },
    /// The answers to an iterator.
    Iterated(Iterated),
    /// The answer to `undoLog`, newest first.
    UndoLog(Vec<Tid>),
    /// The answer to a vote or a finish: any other refusal.
    Refused { mark: u64, finish: bool, why: String },
    /// The answer to a finish.
    Finished { mark: u64, tid: Tid },
}

/// What an iterator has given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Iterated {
    pub from: Tid,
    /// The end, at most the newest transaction that the client had been told of when the iterator was started.
    pub to: Tid,
    /// Whether it came to its end.
    pub is_whole: bool,
    pub transactions: Vec<(Tid, Vec<Iterand>)>,
}

/// A record of a transaction; `None`: there is no such object any more.
pub type Iterand = (Oid, Option<Found>);

/// The answer to a load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// The revision, its serial, and the next one's.
    Found {
        value: Value,
        mark: u64,
        tid: Tid,
        end: Option<Tid>,
    },
    /// All revisions are younger.
    Younger,
    NoObject,
}
