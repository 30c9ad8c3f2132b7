//! The log of a node that does not run, for people who look into it (`zrsctl dump`).
//!
//! Reads a journal that nothing writes to. Entries are numbered as in `/status`, from 1; where the journal is damaged
//! the reading ends.
//!
//! **Left out.** Which entries are committed: no node knows that from its own disk alone.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::{io, iter};

use bytes::Bytes;
use serde::Serialize;

use super::base::LogBase;
use super::edits::{place_of, record};
use super::formation::{INCARNATION, STAMP};
use super::log::{VOTE, value};
use super::memory;
use super::origin;
use super::stamp::{Stamp, cluster_name};
use super::types::{Ballot, Incarnation, Members, RecordContent};
use crate::command::{self, Command};
use crate::config::limits;
use crate::journal::{Entry, Files, Inspection};
use crate::storage::{Position, Store};

pub use super::origin::Origin;

/// The meta data of a log, and how far its entries reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSummary {
    /// This node's number; `None`: the stamp, if there is one, does not name its incarnation.
    pub node: Option<u64>,
    /// The stamp, which ties the folder to a cluster; `None`: the node has not joined one.
    pub membership: Option<Stamped>,
    /// The newest vote that this node has given; `None`: it has never voted.
    pub vote: Option<VoteGiven>,
    /// How many starts of a node the folder has seen.
    pub starts: u64,
    /// Why its node takes no part, if it was told so.
    pub excluded: Option<String>,
    /// The last entry that was removed from the front of the log.
    pub purged: Option<Position>,
    /// The first entry of the log.
    pub first: Option<Position>,
    /// The last entry of the log.
    pub last: Option<Position>,
    /// What is wrong with the log; the entries behind that place are not counted.
    pub damage: Option<String>,
}

/// The stamp: how the cluster began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stamped {
    /// The cluster's id.
    pub cluster: String,
    /// The members that the cluster began with: their numbers and addresses.
    pub members: BTreeMap<u64, String>,
    /// The digest of the data that all members began with.
    pub base: String,
}

/// The candidate for which a node has voted, and the term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct VoteGiven {
    /// The term of the election.
    pub term: u64,
    /// The candidate's number; `None`: the cluster did not begin with that node.
    pub node: Option<u64>,
    /// Whether that candidate is known to have won.
    pub won: bool,
}

/// The members of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemberList {
    /// The nodes whose votes count; two sets while the members change.
    pub voters: Vec<Vec<u64>>,
    /// The number and address of every member, observers among them.
    pub members: BTreeMap<u64, String>,
}

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// The entry's index and term.
    pub position: Position,
    /// Bytes of the entry's value on disk, checksum included.
    pub size: usize,
    /// The entry's content.
    pub content: LogContent,
}

/// The content of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogContent {
    /// A new leader's first entry.
    Blank,
    /// A [`Command`], encoded.
    Command(Bytes),
    /// The members from this entry on.
    Membership(MemberList),
}

/// Looks at a log.
pub fn summary(log: &Inspection) -> io::Result<LogSummary> {
    let stamp = value::<Stamp>(&log.values, STAMP)?;
    let number = |of: Incarnation| Some(stamp.as_ref()?.members.get(&of)?.node);
    let node = value::<Incarnation>(&log.values, INCARNATION)?.and_then(number);
    let vote = value::<Ballot>(&log.values, VOTE)?.map(|ballot| {
        let Ballot { term, candidate, committed } = ballot;
        VoteGiven { term, node: number(candidate), won: committed }
    });
    let first = entries(log, 1, u64::MAX).next().transpose()?;
    let position = |at| place_of(at).map(Position::from);
    Ok(LogSummary {
        node,
        membership: stamp.map(Stamped::from),
        vote,
        starts: memory::starts(&log.values)?,
        excluded: memory::excluded(&log.values)?,
        purged: log.purged.and_then(position),
        last: log.last.and_then(position).filter(|_| first.is_some()),
        first: first.map(|entry| entry.position),
        damage: log.damage.as_ref().map(ToString::to_string),
    })
}

/// The entries from index `first` to index `last`, both included, as far as they are there.
pub fn entries(log: &Inspection, first: u64, last: u64) -> impl Iterator<Item = io::Result<LogEntry>> + '_ {
    let mut next = first.max(log.reader.first());
    let mut part = VecDeque::new();
    let mut ended = false;
    iter::from_fn(move || {
        if part.is_empty() && !ended {
            match log.reader.read(next, last.saturating_add(1), limits::APPEND_BYTES) {
                Ok(entries) => part.extend(entries),
                Err(fault) => {
                    ended = true;
                    return Some(Err(fault));
                }
            }
        }
        let entry = part.pop_front()?;
        next = entry.number + 1;
        Some(read(entry))
    })
}

/// Whether what the log has behind the last entry that `store` has applied follows on that entry. It does not where the
/// database was fetched from another node: what the log has from there on was never committed then. An error if the two
/// can't belong together.
pub fn goes_on(log: &Inspection, store: &Store) -> io::Result<bool> {
    let last = store.applied();
    let first = last.index + 1;
    if log.reader.first() > first {
        let (begins, applied) = (log.reader.first(), last.index);
        let why = format!("the database has applied {applied} entries, and the log begins with entry {begins}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    if let Some(entry) = entries(log, last.index.max(1), last.index).next().transpose()?
        && entry.position.term != last.term
    {
        return Ok(false);
    }
    Ok(true)
}

/// Applies to `store` whatever follows in the log, committed or not; gives how many entries. For a store that begins
/// anew after that: it does not keep the members.
pub fn replay(log: &Inspection, store: &Store) -> io::Result<u64> {
    if !goes_on(log, store)? {
        return Ok(0);
    }
    let first = store.applied().index + 1;
    let mut applied = 0;
    for entry in entries(log, first, u64::MAX) {
        let LogEntry { position, content, .. } = entry?;
        match content {
            LogContent::Blank | LogContent::Membership(_) => store.pass(position)?,
            LogContent::Command(bytes) => {
                let damaged =
                    |why| io::Error::new(io::ErrorKind::InvalidData, format!("entry {}: {why}", position.index));
                store.apply(position, &Command::decode(&bytes, command::FORMAT).map_err(damaged)?)?;
            }
        }
        applied += 1;
    }
    Ok(applied)
}

/// Whether `store`, in which no entry was applied, is the one that the log began with. (Else it has begun anew.)
pub fn begins_with(log: &Inspection, store: &Store) -> io::Result<bool> {
    let stamp = value::<Stamp>(&log.values, STAMP)?;
    Ok(stamp.is_some_and(|stamp| stamp.base == LogBase::of(store).digest()))
}

/// What the folder with this log is, as it knows itself: a copy or not.
pub fn origin(files: &dyn Files, log: &Inspection) -> io::Result<Origin> {
    origin::look(files, &log.values)
}

/// Makes a copied or excluded folder one that may take part again; durable on return. `files`: those of a log that no
/// process uses.
pub fn adopt(files: Arc<dyn Files>) -> io::Result<Origin> {
    origin::adopt(files)
}

/// Reads a membership as [`Store::membership`](crate::storage::Store::membership) keeps it.
pub fn membership(bytes: &[u8]) -> io::Result<MemberList> {
    let damaged = |why| io::Error::new(io::ErrorKind::InvalidData, format!("the membership is damaged: {why}"));
    postcard::from_bytes::<Members>(bytes).map(MemberList::from).map_err(damaged)
}

fn read(entry: Entry) -> io::Result<LogEntry> {
    let size = entry.payload.len();
    let record = record(entry)?;
    let content = match record.content {
        RecordContent::Blank => LogContent::Blank,
        RecordContent::Command(bytes) => LogContent::Command(bytes),
        RecordContent::Membership(members) => LogContent::Membership(members.into()),
    };
    Ok(LogEntry { position: record.place.into(), size, content })
}

impl From<Stamp> for Stamped {
    fn from(stamp: Stamp) -> Stamped {
        Stamped {
            cluster: cluster_name(&stamp.cluster),
            members: stamp.addresses(),
            base: stamp.base.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }
}

impl From<Members> for MemberList {
    fn from(members: Members) -> MemberList {
        let Members { voters, seats } = members;
        let numbers = |set: BTreeSet<Incarnation>| {
            let mut numbers: Vec<u64> = set.iter().filter_map(|voter| Some(seats.get(voter)?.node)).collect();
            numbers.sort_unstable();
            numbers
        };
        MemberList {
            voters: voters.into_iter().map(numbers).collect(),
            members: seats.values().map(|seat| (seat.node, seat.address.clone())).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Journal, SimFiles, Sizes, inspect};

    #[test]
    fn damage_is_told_and_the_entries_before_it_are_read() {
        let disk = SimFiles::new();
        let mut journal = Journal::open(disk.open(), Sizes::default(), 1).unwrap();
        let look = || inspect(disk.open()).unwrap().unwrap();
        let found = summary(&look()).unwrap();
        assert_eq!((found.node, found.membership, found.vote), (None, None, None));
        assert_eq!((found.purged, found.first, found.last, found.damage), (None, None, None, None));
        drop(journal);
        journal = Journal::open(disk.open(), Sizes::default(), 1).unwrap();
        journal.append(1, &[&[0]]).unwrap();
        for number in 2..=4u64 {
            journal.append(1 + number / 3, &[&[1], format!("command {number}").as_bytes()]).unwrap();
            journal.sync().unwrap();
        }
        drop(journal);
        let log = look();
        let found = summary(&log).unwrap();
        assert_eq!(found.first, Some(Position { index: 1, term: 1 }));
        assert_eq!(found.last, Some(Position { index: 4, term: 2 }));
        let indexes = |log: &Inspection, first, last| -> Vec<u64> {
            entries(log, first, last).map(|entry| entry.unwrap().position.index).collect()
        };
        assert_eq!(indexes(&log, 0, u64::MAX), [1, 2, 3, 4]);
        assert_eq!((indexes(&log, 5, 9), indexes(&log, 3, 2)), (vec![], vec![]));
        let third = entries(&log, 3, 3).next().unwrap().unwrap();
        assert_eq!(
            (third.position, third.content),
            (Position { index: 3, term: 2 }, LogContent::Command("command 3".into()))
        );
        assert!(disk.flip("00000000000000000001.log", (4096 + 64 + 72 + 58) * 8));
        let log = look();
        assert!(summary(&log).unwrap().damage.unwrap().contains("entry 3"));
        assert_eq!(indexes(&log, 0, u64::MAX), [1, 2]);
    }
}
