//! The stream of a connection: everything that a client of the protocol was sent, in order.
//!
//! Clients write down each frame as they read it, before they do anything with it; the checks read the stream again and
//! know at each point what the client had been told by then.

use std::collections::BTreeMap;

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
    /// The answer to a vote: the transaction may be finished.
    Voted { mark: u64 },
    /// The answer to a vote or a finish: any other refusal.
    Refused { mark: u64, finish: bool, why: String },
    /// The answer to a finish.
    Finished { mark: u64, tid: Tid },
}

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
