//! The log of a node that does not run, for people who look into it (`zrsctl dump`).
//!
//! Reads an engine of `log/` that nothing writes to. Entries are numbered as in `/status`, from 1, and a damaged one is
//! an error in its place, behind which the reading goes on.
//!
//! **Left out.** Which entries are committed: no node knows that from its own disk alone.

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;
use serde::Serialize;

use super::formation::{INCARNATION, STAMP};
use super::log::{ENTRIES, PURGED, VOTE, read_meta, unsealed};
use super::stamp::{Stamp, cluster_name};
use super::types::{Ballot, Members, Place, Record, RecordContent};
use crate::engine::{Engine, Order, Pair};
use crate::storage::Position;

/// The meta data of a log, and how far its entries reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSummary {
    /// This node's number; `None`: the stamp, if there is one, does not name its incarnation.
    pub node: Option<u64>,
    /// The stamp, which ties the folder to a cluster; `None`: the node has not joined one.
    pub membership: Option<Stamped>,
    /// The newest vote that this node has given; `None`: it has never voted.
    pub vote: Option<VoteGiven>,
    /// The last entry that was removed from the front of the log.
    pub purged: Option<Position>,
    /// The first entry of the log.
    pub first: Option<Position>,
    /// The last entry of the log.
    pub last: Option<Position>,
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
    /// The candidate.
    pub node: u64,
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
    /// A [`Command`](crate::command::Command), encoded.
    Command(Bytes),
    /// The members from this entry on.
    Membership(MemberList),
}

/// An entry, or the index of a damaged one and what is wrong with it.
pub type Read = Result<LogEntry, (u64, io::Error)>;

/// Looks at a log whose `engine` was opened with [`super::TABLES`].
pub fn summary(engine: &dyn Engine) -> io::Result<LogSummary> {
    let stamp = read_meta::<Stamp>(engine, STAMP)?;
    let incarnation = read_meta::<u64>(engine, INCARNATION)?;
    let node = stamp.as_ref().and_then(|stamp| {
        stamp.members.iter().find(|(_, seat)| Some(seat.incarnation) == incarnation).map(|(node, _)| *node)
    });
    let end = |order| -> io::Result<Option<Position>> {
        let Some(pair) = engine.range(ENTRIES, &[], &[0xff; 9], order).next() else { return Ok(None) };
        read(pair?).map(|entry| Some(entry.position)).map_err(|(_, fault)| fault)
    };
    Ok(LogSummary {
        node,
        membership: stamp.map(Stamped::from),
        vote: read_meta::<Ballot>(engine, VOTE)?.map(VoteGiven::from),
        purged: read_meta::<Place>(engine, PURGED)?.map(Position::from),
        first: end(Order::Ascending)?,
        last: end(Order::Descending)?,
    })
}

/// The entries from index `first` to index `last`, both included.
pub fn entries(engine: &dyn Engine, first: u64, last: u64) -> impl Iterator<Item = io::Result<Read>> + '_ {
    // (On disk the first index is 0.)
    let (from, until) = (first.saturating_sub(1).to_be_bytes(), last.to_be_bytes());
    engine.range(ENTRIES, &from, &until, Order::Ascending).map(|pair| pair.map(read))
}

/// Reads a membership as [`Store::membership`](crate::storage::Store::membership) keeps it.
pub fn membership(bytes: &[u8]) -> io::Result<MemberList> {
    let damaged = |why| io::Error::new(io::ErrorKind::InvalidData, format!("the membership is damaged: {why}"));
    postcard::from_bytes::<Members>(bytes).map(MemberList::from).map_err(damaged)
}

fn read((key, value): Pair) -> Read {
    let index = <[u8; 8]>::try_from(&key[..]).map_or(0, |index| u64::from_be_bytes(index).saturating_add(1));
    let record: Record = unsealed(&value, &format!("entry {index}")).map_err(|fault| (index, fault))?;
    let content = match record.content {
        RecordContent::Blank => LogContent::Blank,
        RecordContent::Command(bytes) => LogContent::Command(bytes),
        RecordContent::Membership(members) => LogContent::Membership(members.into()),
    };
    Ok(LogEntry { position: record.place.into(), size: value.len(), content })
}

impl From<Stamp> for Stamped {
    fn from(stamp: Stamp) -> Stamped {
        Stamped {
            cluster: cluster_name(&stamp.cluster),
            members: stamp.members.into_iter().map(|(node, seat)| (node, seat.address)).collect(),
            base: stamp.base.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }
}

impl From<Ballot> for VoteGiven {
    fn from(ballot: Ballot) -> VoteGiven {
        VoteGiven { term: ballot.term, node: ballot.node, won: ballot.committed }
    }
}

impl From<Members> for MemberList {
    fn from(members: Members) -> MemberList {
        MemberList {
            voters: members.voters.into_iter().map(|set| set.into_iter().collect()).collect(),
            members: members.seats.into_iter().map(|(node, seat)| (node, seat.address)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::log::{TABLES, sealed};
    use super::*;
    use crate::engine::{Batch, SimDisk};

    #[test]
    fn a_damaged_entry_is_told_and_the_others_are_read() {
        let disk = SimDisk::new();
        let engine = disk.open(TABLES).unwrap();
        assert_eq!(
            summary(&engine).unwrap(),
            LogSummary { node: None, membership: None, vote: None, purged: None, first: None, last: None }
        );
        let mut batch = Batch::new();
        for index in 0..4u64 {
            let content = match index {
                0 => RecordContent::Blank,
                _ => RecordContent::Command(Bytes::from(format!("command {index}"))),
            };
            let record = Record { place: Place { term: 1 + index / 2, index }, content };
            batch.put(ENTRIES, index.to_be_bytes(), sealed(&record));
        }
        engine.write(batch).unwrap();
        assert!(disk.damage(ENTRIES, &1u64.to_be_bytes(), 60));
        let found = summary(&engine).unwrap();
        assert_eq!(found.first, Some(Position { index: 1, term: 1 }));
        assert_eq!(found.last, Some(Position { index: 4, term: 2 }));
        let read = |first, last| -> Vec<Read> { entries(&engine, first, last).map(Result::unwrap).collect() };
        let all = read(0, u64::MAX);
        let indexes = all.iter().map(|read| read.as_ref().map_or_else(|(at, _)| *at, |entry| entry.position.index));
        assert_eq!(indexes.collect::<Vec<_>>(), [1, 2, 3, 4]);
        let (at, fault) = all[1].as_ref().unwrap_err();
        assert_eq!((*at, fault.to_string().as_str()), (2, "the log's entry 2 is damaged: its checksum does not match"));
        let third = &read(3, 3)[..];
        let [Ok(LogEntry { position: Position { index: 3, term: 2 }, content: LogContent::Command(bytes), .. })] =
            third
        else {
            panic!("{third:?}")
        };
        assert_eq!(bytes, "command 2");
        assert!(read(5, 9).is_empty() && read(3, 2).is_empty());
    }
}
