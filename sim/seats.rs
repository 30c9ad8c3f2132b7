//! The seats of members, as a node has applied them, and what is known about members beside that.

use std::collections::{BTreeMap, BTreeSet};

use zrs::roster::Part;
use zrs::storage::{Position, Store};

/// The membership of one entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seats {
    pub position: Position,
    /// The folders of those that vote.
    pub voters: BTreeSet<u64>,
    /// All members: a node's folder, and its number.
    pub numbers: BTreeMap<u64, u64>,
}

impl Seats {
    /// The last membership that a node has applied.
    pub fn of(store: &Store) -> Option<Seats> {
        let (position, bytes) = store.membership()?;
        // (As `raft::types::Members` is written: the voters, and the seat of each folder.)
        type Written = (Vec<BTreeSet<u64>>, BTreeMap<u64, (u64, String)>);
        let (voters, seats): Written = postcard::from_bytes(&bytes).ok()?;
        let numbers = seats.into_iter().map(|(folder, (number, _))| (folder, number)).collect();
        Some(Seats { position, voters: voters.into_iter().flatten().collect(), numbers })
    }

    /// The folder that a node is seated with.
    pub fn folder(&self, node: u64) -> Option<u64> {
        self.numbers.iter().find(|(_, number)| **number == node).map(|(folder, _)| *folder)
    }

    /// The numbers of those that vote.
    pub fn voting(&self) -> BTreeSet<u64> {
        self.voters.iter().filter_map(|folder| self.numbers.get(folder).copied()).collect()
    }
}

/// What is known about members beside what the nodes say.
#[derive(Default)]
pub struct Books {
    /// The folders that were taken from their nodes.
    pub gone: BTreeSet<u64>,
    /// The nodes that may be about to stop voting: an operator has asked for it, and the answer is not known.
    pub leaving: BTreeSet<u64>,
    /// Those that voted when the primary was last looked at.
    pub voting: BTreeSet<u64>,
    /// The nodes that an operator has ever said a wish about.
    pub touched: BTreeSet<u64>,
    /// The nodes that an operator is busy with.
    pub busy: BTreeSet<u64>,
    /// By node, the last wish that was granted, if nothing unknown came after it; `None`: it is to be no member.
    pub granted: BTreeMap<u64, Option<Part>>,
}
