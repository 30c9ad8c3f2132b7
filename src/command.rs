//! Everything that may be replicated, and what comes of it.
//!
//! A [`Command`] is made by a primary, goes through the log, and is applied on every node in the same order by
//! `storage::apply`, which alone says what a command means. Every choice that two nodes could make differently (the tid
//! from the clock, for one) is made before, and stands in the command.
//!
//! **On disk and on the wire** a command is one format byte and then postcard. The format grows when a command is added
//! or changed; a node that reads a format it does not know stops, as it can't follow.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::zodb::{Conflict, Oid, Refusal, StorageId, Tid, TransactionMeta};

/// The newest command format this program knows; members tell each other theirs.
pub const FORMAT: u8 = 1;

/// A span in which one node may commit: the Raft term, and the count of leases within it.
///
/// Ordered: a barrier opens only a greater reign, and a command of a lesser one than the open one is stale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Reign {
    /// The Raft term.
    pub term: u64,
    /// Which lease within the term, from 1.
    pub number: u64,
}

/// What a primary proposes: a change, made in a reign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The reign of the primary that made it.
    pub reign: Reign,
    /// What it changes.
    pub change: Change,
}

/// What may be changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Opens `Command::reign` and closes all before it. -> `Outcome::Done`
    Barrier,
    /// Creates a storage, unless there is one of that name. -> `Outcome::Storage`
    CreateStorage {
        /// As clients name it.
        name: String,
    },
    /// Takes `count` unused object ids, in a row, out of the storage. -> `Outcome::Oids`
    ReserveOids {
        /// Where.
        storage: StorageId,
        /// How many.
        count: u32,
    },
    /// A whole transaction. -> `Outcome::Committed`, or `Outcome::Refused`
    Commit(Commit),
}

/// A transaction as it was voted: its locks were held and its serials checked on the primary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Where.
    pub storage: StorageId,
    /// Greater than the storage's last; apply refuses it otherwise.
    pub tid: Tid,
    /// Who and what for.
    pub meta: TransactionMeta,
    /// At most one write per object, but for those that say [`Content::SameAs`] this commit's own tid: they list an object
    /// once more, as it stands already.
    pub writes: Vec<Write>,
}

/// One object in a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// The object.
    pub oid: Oid,
    /// What the writer has seen of it before.
    pub base: Base,
    /// What it is to be.
    pub content: Content,
}

/// What the writer has seen of the object before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Base {
    /// The newest revision must have this serial; `Tid::ZERO`: there must be none.
    Serial(Tid),
    /// Copied from another database, as it is (`restore`).
    Any,
}

/// What a revision is to say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// A record, as the client pickled it.
    Data(#[serde(with = "crate::command::raw")] Bytes),
    /// No such object any more (creation undone, deleted).
    Absent,
    /// The data of the revision that this transaction wrote, again.
    SameAs(Tid),
}

/// What came of a command, the same on every node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done; there is nothing to tell.
    Done,
    /// The storage, new or not.
    Storage(StorageId),
    /// The object ids from `first` on.
    Oids {
        /// The first one reserved.
        first: Oid,
        /// How many, in a row.
        count: u32,
    },
    /// The transaction is in.
    Committed(Tid),
    /// The database is as before.
    Refused(Refusal),
    /// The command's reign was over; the database is as before.
    Stale,
}

impl Outcome {
    /// A refusal for a base serial that is not the current one.
    pub fn conflict(oid: Oid, committed: Tid, read: Tid) -> Outcome {
        Outcome::Refused(Refusal::Conflict(Conflict { oid, committed, read }))
    }
}

/// Bytes that are not a command of a format this program knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// Written by a newer program.
    Format(u8),
    /// It is damaged; why it can't be decoded.
    Broken(String),
}

impl Command {
    /// As it stands in the log and on the wire.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.size_hint());
        out.push(FORMAT);
        let out = postcard::to_extend(self, out).expect("commands have no maps or unsized sequences");
        Bytes::from(out)
    }

    /// Reads what [`Command::encode`] wrote, here or in another version of this program.
    pub fn decode(bytes: &[u8]) -> Result<Command, Unreadable> {
        match bytes.split_first() {
            Some((&FORMAT, body)) => postcard::from_bytes(body).map_err(|e| Unreadable::Broken(e.to_string())),
            Some((&format, _)) => Err(Unreadable::Format(format)),
            None => Err(Unreadable::Broken("no bytes".into())),
        }
    }

    /// About how many bytes [`Command::encode`] makes.
    fn size_hint(&self) -> usize {
        match &self.change {
            Change::Commit(commit) => {
                let meta = &commit.meta;
                let writes = commit.writes.iter().map(|w| match &w.content {
                    Content::Data(data) => data.len() + 32,
                    Content::Absent | Content::SameAs(_) => 32,
                });
                64 + meta.user.len() + meta.description.len() + meta.extension.len() + writes.sum::<usize>()
            }
            Change::CreateStorage { name } => 32 + name.len(),
            Change::Barrier | Change::ReserveOids { .. } => 32,
        }
    }
}

impl fmt::Display for Reign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.number)
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unreadable::Format(format) => write!(
                f,
                "a command of format {format}, but this program knows formats up to {FORMAT}: update zrsd on this node"
            ),
            Unreadable::Broken(why) => write!(f, "not a command: {why}"),
        }
    }
}

impl std::error::Error for Unreadable {}

/// `Bytes` as one byte string (serde's default for them would be right too, but needs a feature of `bytes`).
pub(crate) mod raw {
    use bytes::Bytes;
    use serde::{Deserializer, Serializer};

    pub fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        serde_bytes::serialize(bytes.as_ref(), serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        serde_bytes::deserialize::<Vec<u8>, D>(deserializer).map(Bytes::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit() -> Command {
        let write = |oid, content| Write { oid: Oid(oid), base: Base::Serial(Tid(7)), content };
        Command {
            reign: Reign { term: 3, number: 1 },
            change: Change::Commit(Commit {
                storage: StorageId(1),
                tid: Tid(9),
                meta: TransactionMeta { status: b' ', user: b"u".to_vec(), ..Default::default() },
                writes: vec![
                    write(1, Content::Data(Bytes::from_static(b"pickle"))),
                    write(2, Content::Absent),
                    write(3, Content::SameAs(Tid(5))),
                ],
            }),
        }
    }

    #[test]
    fn a_command_survives_the_round_trip() {
        let command = commit();
        assert_eq!(Command::decode(&command.encode()).unwrap(), command);
    }

    #[test]
    fn a_newer_format_is_named() {
        let mut bytes = commit().encode().to_vec();
        bytes[0] = FORMAT + 1;
        assert_eq!(Command::decode(&bytes), Err(Unreadable::Format(FORMAT + 1)));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_command_or_an_error(mut bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = Command::decode(&bytes);
            bytes.insert(0, FORMAT);
            let _ = Command::decode(&bytes);
        }
    }

    #[test]
    fn a_cut_command_is_broken_at_every_length() {
        let bytes = commit().encode();
        for len in 0..bytes.len() {
            assert!(Command::decode(&bytes[..len]).is_err(), "{len} bytes were taken for a command");
        }
    }
}
