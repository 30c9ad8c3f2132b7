//! openraft's types as zrs fills them in, and structs of our own for the values among them that go to disk and to
//! peers, so that a change in openraft changes neither the disk format nor the wire.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;

use bytes::Bytes;
use openraft::impls::leader_id_std;
use openraft::vote::RaftLeaderId;
use openraft::{EntryPayload, LogId, OptionalSend, RaftTypeConfig};
use serde::{Deserialize, Serialize};

use super::runtime::Runtime;
use crate::command::Outcome;
use crate::storage::Position;

/// A command as the primary encoded it; nodes decode it only to apply it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposed(pub Bytes);

impl fmt::Display for Proposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a command of {} bytes", self.0.len())
    }
}

/// One life of a data folder: drawn by chance when the folder is new. Raft's node id.
///
/// A node that was given an empty folder has forgotten its votes and what it acknowledged. To Raft it is another node,
/// so nothing that the former one said can ever count for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Incarnation(pub u64);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A member of the cluster, as the log's membership entries hold it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seat {
    /// The operator's number for the node.
    pub node: u64,
    /// `host:port`, for clients and peers alike.
    pub address: String,
}

impl fmt::Display for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

/// zrs's filling of openraft's type parameters, in production and in simulation.
///
/// One leader a term (`leader_id_std`): a reign is named by its term and a count, which must not meet another leader's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Types;

impl RaftTypeConfig for Types {
    type D = Proposed;
    type R = Outcome;
    type NodeId = Incarnation;
    type Node = Seat;
    type Term = u64;
    type LeaderId = leader_id_std::LeaderId<u64, Incarnation>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = EntryPayload<Proposed, Incarnation, Seat>;
    type Entry = openraft::Entry<<Self::LeaderId as RaftLeaderId>::Committed, Self::Payload>;
    type AsyncRuntime = Runtime;
    type Responder<T>
        = openraft::impls::ProgressResponder<Self, T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

pub type Vote = openraft::alias::VoteOf<Types>;
pub type Entry = openraft::alias::EntryOf<Types>;
pub type LogPosition = openraft::alias::LogIdOf<Types>;
pub type Membership = openraft::Membership<Incarnation, Seat>;
pub type StoredMembership = openraft::alias::StoredMembershipOf<Types>;

/// Where an entry stands in the log, on disk and on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub term: u64,
    pub index: u64,
}

/// A vote, on disk and on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ballot {
    pub term: u64,
    pub candidate: Incarnation,
    /// Whether a majority has granted it: the candidate leads the term.
    pub committed: bool,
}

/// A log entry, on disk and on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub place: Place,
    pub content: RecordContent,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecordContent {
    /// A new leader's first entry.
    Blank,
    Command(#[serde(with = "crate::command::raw")] Bytes),
    Membership(Members),
}

/// The members of the cluster: the voters (two sets while they change), and every member's seat.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    pub voters: Vec<BTreeSet<Incarnation>>,
    pub seats: BTreeMap<Incarnation, Seat>,
}

impl From<LogPosition> for Place {
    fn from(id: LogPosition) -> Place {
        Place { term: id.leader_id.term, index: id.index }
    }
}

impl From<Place> for LogPosition {
    fn from(place: Place) -> LogPosition {
        LogId { leader_id: place.term.into(), index: place.index }
    }
}

/// The log's first index is 0, the store's first position 1: position 0 says that nothing was applied yet.
impl From<Place> for Position {
    fn from(place: Place) -> Position {
        Position { index: place.index + 1, term: place.term }
    }
}

impl Place {
    /// Where the entry stands that `position` says was applied last.
    pub fn of(position: Position) -> Option<Place> {
        Some(Place { term: position.term, index: position.index.checked_sub(1)? })
    }
}

impl From<&Vote> for Ballot {
    fn from(vote: &Vote) -> Ballot {
        Ballot { term: vote.leader_id.term, candidate: vote.leader_id.voted_for, committed: vote.committed }
    }
}

impl From<Ballot> for Vote {
    fn from(ballot: Ballot) -> Vote {
        let leader_id = leader_id_std::LeaderId { term: ballot.term, voted_for: ballot.candidate };
        Vote { leader_id, committed: ballot.committed }
    }
}

impl From<&Membership> for Members {
    fn from(membership: &Membership) -> Members {
        Members {
            voters: membership.get_joint_config().clone(),
            seats: membership.nodes().map(|(id, seat)| (*id, seat.clone())).collect(),
        }
    }
}

impl Members {
    /// An error if a voter has no seat.
    pub fn into_membership(self) -> io::Result<Membership> {
        let damaged = |e| io::Error::new(io::ErrorKind::InvalidData, format!("a membership is damaged: {e}"));
        Membership::new(self.voters, self.seats).map_err(damaged)
    }
}

impl From<&Entry> for Record {
    fn from(entry: &Entry) -> Record {
        let content = match &entry.payload {
            EntryPayload::Blank => RecordContent::Blank,
            EntryPayload::Normal(Proposed(bytes)) => RecordContent::Command(bytes.clone()),
            EntryPayload::Membership(membership) => RecordContent::Membership(membership.into()),
        };
        Record { place: entry.log_id.into(), content }
    }
}

impl Record {
    /// The entry as openraft has it; an error if it is a damaged membership.
    pub fn into_entry(self) -> io::Result<Entry> {
        let payload = match self.content {
            RecordContent::Blank => EntryPayload::Blank,
            RecordContent::Command(bytes) => EntryPayload::Normal(Proposed(bytes)),
            RecordContent::Membership(members) => EntryPayload::Membership(members.into_membership()?),
        };
        Ok(openraft::Entry { log_id: self.place.into(), payload })
    }
}

impl Record {
    /// About how many bytes the record takes, on disk or on the wire.
    pub fn size(&self) -> usize {
        match &self.content {
            RecordContent::Command(bytes) => bytes.len() + 32,
            RecordContent::Blank | RecordContent::Membership(_) => 256,
        }
    }
}
