//! Everything that may be replicated, and the outcomes.
//!
//! A [`Command`] is made by a primary, goes through the log, and is applied on every node in the same order by
//! `storage::apply`, which alone says what a command means. Every choice that two nodes could make differently (the tid
//! from the clock, for one) is made by the primary, and stands in the command.
//!
//! **On disk and on the wire** a command is one format byte and then postcard. The format number grows when a command
//! is added or changed, or a limit that decides an outcome (`limits_of_this_format` in the tests has them). A node that
//! meets a newer format than it knows stops, as it can't apply that command; so a primary proposes commands of the
//! newest format that all members know.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::roster::Roster;
use crate::zodb::{Conflict, Oid, Refusal, StorageId, Tid, TransactionMeta};

/// The newest command format this program knows; members tell each other theirs.
pub const FORMAT: u8 = 4;
/// The oldest format that this program can still read and propose.
pub const OLDEST_FORMAT: u8 = 3;
/// The first format that has [`Change::Roster`].
pub const ROSTER_FORMAT: u8 = 4;

/// A span in which one node may commit: the Raft term, and the number of the lease within that term.
///
/// Ordered: a barrier opens only a greater reign, and a command of any other reign than the open one is stale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Reign {
    /// The Raft term.
    pub term: u64,
    /// The number of the lease within the term, from 1.
    pub number: u64,
}

/// A proposal of a primary: a change, made in a reign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The reign in which the primary made the change.
    pub reign: Reign,
    /// The change.
    pub change: Change,
}

/// A change of the databases, or of what the nodes know of reigns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Opens `Command::reign` and closes all before it. -> `Outcome::Done`
    Barrier,
    /// Creates a storage, unless there is one of that name. -> `Outcome::Storage`
    CreateStorage {
        /// The name by which clients ask for the storage.
        name: String,
    },
    /// Takes `count` unused object ids, in a row, out of the storage; fewer if there are no more. -> `Outcome::Oids`
    ReserveOids {
        /// The storage.
        storage: StorageId,
        /// How many ids.
        count: u32,
        /// No smaller id: those below are promised to transactions that have not committed yet.
        from: Oid,
    },
    /// A whole transaction. -> `Outcome::Committed`, or `Outcome::Refused`
    Commit(Commit),
    /// Data of a later `Commit`, which then names these pieces. -> `Outcome::Staged`
    Stage {
        /// The storage.
        storage: StorageId,
        /// The pieces, each at most [`limits::PIECE`](crate::config::limits::PIECE) bytes.
        #[serde(with = "crate::command::raw_list")]
        pieces: Vec<Bytes>,
    },
    /// Removes staged pieces that no transaction will name. (A barrier removes all that are left.) -> `Outcome::Done`
    Discard {
        /// The storage.
        storage: StorageId,
        /// The pieces; those that are not there, or belong to a transaction, are passed over.
        pieces: Vec<Span>,
    },
    /// Begins a pack: from here on nothing up to the pack time can be undone. -> `Outcome::Done`, or `Outcome::Refused`
    /// while another is going on.
    PackBegin {
        /// The storage.
        storage: StorageId,
        /// The pack time. (Apply takes the last transaction's tid if that is less.)
        upto: Tid,
    },
    /// Carries out a part of the pack that is going on. -> `Outcome::Done`, or `Outcome::Refused`
    PackStep(PackStep),
    /// Ends the pack that is going on. -> `Outcome::Done`
    PackEnd {
        /// The storage.
        storage: StorageId,
    },
    /// Drops a storage in which nothing was ever committed. -> `Outcome::Done`, or `Outcome::Refused`
    DropStorage {
        /// The name by which clients asked for the storage.
        name: String,
    },
    /// Keeps the nodes that operators want in the cluster. -> `Outcome::Done`, or `Outcome::Refused`
    Roster {
        /// The entry of the log that has set the roster of which this one was made; 0: there is none.
        after: u64,
        /// The nodes.
        roster: Roster,
    },
}

/// A bounded part of a pack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackStep {
    /// The storage.
    pub storage: StorageId,
    /// Objects, each once, with the revisions of them that go.
    pub objects: Vec<Removal>,
    /// Transactions to look at: a transaction without records goes; one that lists an object more than once keeps only
    /// the last mention of it.
    pub transactions: Vec<Tid>,
}

/// The revisions of one object that a pack removes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// The object.
    pub oid: Oid,
    /// The newest revision that the plan has seen: if there is a newer one, the object is left as it is.
    pub current: Tid,
    /// The revisions that go.
    pub tids: Vec<Tid>,
    /// The revisions that stay and show the record or blob of one that goes, oldest first. The first of those that
    /// show a record or blob becomes its holder.
    pub heirs: Vec<Tid>,
}

/// Staged pieces in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Span {
    /// The number of the first piece, which apply gave.
    pub first: u64,
    /// How many pieces.
    pub count: u32,
}

/// A record or blob that came ahead of its transaction, in pieces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staged {
    /// The pieces, in the order of the data.
    pub pieces: Vec<Span>,
    /// Bytes of all pieces.
    pub length: u64,
    /// The content hash of the record, or of the blob (`storage::digest`).
    pub hash: [u8; 32],
}

/// A blob of a write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Blob {
    /// A new blob, which came ahead in pieces.
    Staged(Staged),
    /// The blob of an older revision of the object, again.
    SameAs(Tid),
}

/// A transaction as it was voted: its locks were held and its serials checked on the primary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// The storage.
    pub storage: StorageId,
    /// Greater than the storage's last tid; apply refuses the commit otherwise.
    pub tid: Tid,
    /// User, description and extension.
    pub meta: TransactionMeta,
    /// At most one write per object, but for writes that say [`Content::SameAs`] this commit's own tid: such a write
    /// lists an object once more, as it stands already.
    pub writes: Vec<Write>,
}

/// One object in a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// The object.
    pub oid: Oid,
    /// The revision that the write is based on.
    pub base: Base,
    /// The new revision's content.
    pub content: Content,
    /// The blob that belongs to this revision.
    pub blob: Option<Blob>,
}

impl Write {
    /// The record and the blob of this write, as far as they came ahead in pieces.
    pub fn staged(&self) -> impl Iterator<Item = &Staged> {
        let record = match &self.content {
            Content::Staged(staged) => Some(staged),
            Content::Data(_) | Content::Absent | Content::SameAs(_) => None,
        };
        let blob = match &self.blob {
            Some(Blob::Staged(staged)) => Some(staged),
            Some(Blob::SameAs(_)) | None => None,
        };
        record.into_iter().chain(blob)
    }
}

/// The revision of the object that a write is based on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Base {
    /// The newest revision must have this serial; `Tid::ZERO`: there must be none.
    Serial(Tid),
    /// Any revision, whichever is current: the write copies a revision from another database (`restore`).
    Any,
}

/// The content of a revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// A record, as the client pickled it.
    Data(#[serde(with = "crate::command::raw")] Bytes),
    /// The object does not exist any more (creation undone, deleted).
    Absent,
    /// The data of the object's revision by this older transaction, again.
    SameAs(Tid),
    /// A record that came ahead in pieces.
    Staged(Staged),
}

/// The outcome of a command, the same on every node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The command has been carried out; there is nothing more to tell.
    Done,
    /// The storage, new or not.
    Storage(StorageId),
    /// The object ids from `first` on.
    Oids {
        /// The first id reserved.
        first: Oid,
        /// How many ids, in a row.
        count: u32,
    },
    /// The transaction is committed.
    Committed(Tid),
    /// The pieces are kept, numbered in a row from this one on.
    Staged(u64),
    /// The command is refused; the database is as before.
    Refused(Refusal),
    /// The command's reign was over; the database is as before.
    Stale,
}

impl Outcome {
    /// Whether a command that was right when it was proposed came too late: its reign was over, or its storage was
    /// dropped.
    pub fn is_too_late(&self) -> bool {
        matches!(self, Outcome::Stale | Outcome::Refused(Refusal::NoStorage { .. }))
    }

    /// A refusal for a base serial that is not the current one.
    pub fn conflict(oid: Oid, committed: Tid, read: Tid) -> Outcome {
        Outcome::Refused(Refusal::Conflict(Conflict { oid, committed, read }))
    }
}

/// Bytes that are not a command of a format this program knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnreadableCommand {
    /// Bytes of a newer program's format, or of one that is older than [`OLDEST_FORMAT`].
    Format(u8),
    /// Damaged bytes; why they can't be decoded.
    Broken(String),
}

impl Command {
    /// The bytes in the log and on the wire, in a format that is known here.
    pub fn encode(&self, format: u8) -> Bytes {
        let mut out = Vec::with_capacity(self.size_hint());
        out.push(format);
        let out = postcard::to_io(self, out).expect("commands have no sequences of unknown length");
        Bytes::from(out)
    }

    /// Reads what [`Command::encode`] wrote, here or in another version of this program; `newest` is the newest format
    /// that counts as known ([`FORMAT`], but for tests of upgrades).
    pub fn decode(bytes: &[u8], newest: u8) -> Result<Command, UnreadableCommand> {
        match bytes.split_first() {
            Some((&format, body)) if (OLDEST_FORMAT..=newest).contains(&format) => {
                postcard::from_bytes(body).map_err(|e| UnreadableCommand::Broken(e.to_string()))
            }
            Some((&format, _)) => Err(UnreadableCommand::Format(format)),
            None => Err(UnreadableCommand::Broken("no bytes".into())),
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
                    Content::Staged(staged) => 80 + 12 * staged.pieces.len(),
                });
                64 + meta.user.len() + meta.description.len() + meta.extension.len() + writes.sum::<usize>()
            }
            Change::CreateStorage { name } | Change::DropStorage { name } => 32 + name.len(),
            Change::Stage { pieces, .. } => 32 + pieces.iter().map(|piece| piece.len() + 8).sum::<usize>(),
            Change::Discard { pieces, .. } => 32 + 12 * pieces.len(),
            Change::PackStep(step) => {
                let removed = step
                    .objects
                    .iter()
                    .map(|removal| 24 + 10 * (removal.tids.len() + removal.heirs.len()))
                    .sum::<usize>();
                32 + removed + 10 * step.transactions.len()
            }
            Change::Roster { roster, .. } => {
                40 + roster.nodes.values().map(|wish| 32 + wish.address.len()).sum::<usize>()
            }
            Change::Barrier | Change::ReserveOids { .. } | Change::PackBegin { .. } | Change::PackEnd { .. } => 32,
        }
    }
}

impl fmt::Display for Reign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.number)
    }
}

impl fmt::Display for UnreadableCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UnreadableCommand::Format(format) => {
                let cure = match *format < OLDEST_FORMAT {
                    true => "export the database with the zrsctl of the version before, and import it with this one",
                    false => "update zrsd on this node",
                };
                write!(
                    f,
                    "a command of format {format}, but this program knows formats {OLDEST_FORMAT} to {FORMAT}: {cure}"
                )
            }
            UnreadableCommand::Broken(why) => write!(f, "not a command: {why}"),
        }
    }
}

impl std::error::Error for UnreadableCommand {}

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

/// [`raw`], for a list of byte strings.
pub(crate) mod raw_list {
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(pieces: &[Bytes], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(pieces.iter().map(|piece| serde_bytes::Bytes::new(piece)))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Bytes>, D::Error> {
        let pieces = Vec::<serde_bytes::ByteBuf>::deserialize(deserializer)?;
        Ok(pieces.into_iter().map(|piece| Bytes::from(piece.into_vec())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit() -> Command {
        let write = |oid, content| Write { oid: Oid(oid), base: Base::Serial(Tid(7)), content, blob: None };
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
        assert_eq!(Command::decode(&command.encode(FORMAT), FORMAT).unwrap(), command);
    }

    /// Nodes of different versions must apply a command alike. Who changes one of these makes a new format, and keeps
    /// the old values for commands of the old one.
    #[test]
    fn limits_of_this_format() {
        use crate::config::limits;
        assert_eq!((FORMAT, limits::PIECE, limits::STAGE_PIECES), (4, 1 << 20, 4096));
    }

    #[test]
    fn a_storage_that_was_dropped_is_nobodys_fault() {
        let refused = |refusal| Outcome::Refused(refusal).is_too_late();
        assert!(Outcome::Stale.is_too_late());
        assert!(refused(Refusal::NoStorage { name: "1".into(), known: vec![] }));
        assert!(!refused(Refusal::BadValue("an empty piece".into())) && !Outcome::Done.is_too_late());
    }

    #[test]
    fn another_format_is_named_with_what_helps() {
        for (format, cure) in [(FORMAT + 1, "update zrsd on this node"), (OLDEST_FORMAT - 1, "export the database")] {
            let mut bytes = commit().encode(FORMAT).to_vec();
            bytes[0] = format;
            let fault = Command::decode(&bytes, FORMAT).unwrap_err();
            assert_eq!(fault, UnreadableCommand::Format(format));
            let said = fault.to_string();
            assert!(said.contains(cure) && said.contains("update") == (format > FORMAT), "{said}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_command_or_an_error(mut bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = Command::decode(&bytes, FORMAT);
            bytes.insert(0, FORMAT);
            let _ = Command::decode(&bytes, FORMAT);
        }
    }

    #[test]
    fn a_cut_command_is_broken_at_every_length() {
        let bytes = commit().encode(FORMAT);
        for len in 0..bytes.len() {
            assert!(Command::decode(&bytes[..len], FORMAT).is_err(), "{len} bytes were taken for a command");
        }
    }
}
