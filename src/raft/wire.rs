//! The peers' messages, byte for byte: postcard, in frames of a 4-byte big-endian length and the bytes.
//!
//! After the handshake (`hello`) a connection for calls carries numbered [`Ask`]s and [`Answer`]s, in any order; one
//! for forming a single question of `formation`; one for a relay a [`RelayRequest`], its answer, and then a client's
//! own bytes; one for fetching a database (`fetch`).

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::base::LogBase;
use super::errand::{Errand, Report};
use super::stamp::Stamp;
use super::types::{Ballot, Incarnation, Place, Record, Seat};
use crate::storage::Mark;

/// A call of one member to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    Append {
        ballot: Ballot,
        previous: Option<Place>,
        records: Vec<Record>,
        committed: Option<Place>,
        /// How many entries the sender has fsynced, at least.
        synced: u64,
    },
    Vote {
        ballot: Ballot,
        last: Option<Place>,
        transfer: bool,
    },
    PreVote {
        ballot: Ballot,
        last: Option<Place>,
        transfer: bool,
    },
    Transfer {
        ballot: Ballot,
        to: Incarnation,
        last: Option<Place>,
    },
    /// Asks for the index up to which a node must have applied to have every commit answered before now (a read index).
    ReadIndex,
    /// Asks for the node's clock, whether it is fit to lead, and how far it is.
    Checkup,
    /// Asks something of the node's server.
    Errand(Errand),
    /// A leader whose log does not go back to where the peer's ends asks the peer to fetch its database, until so many
    /// entries are applied there. Also a heartbeat.
    CatchUp {
        ballot: Ballot,
        entries: u64,
    },
    /// Asks for the newest digests of the node's state.
    Marks,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    Appended(Appended),
    Voted {
        ballot: Ballot,
        granted: bool,
        last: Option<Place>,
    },
    Transferring(Result<(), String>),
    /// `Err`: the asked node is not the primary, or not sure of being it.
    ReadIndex(Result<Place, String>),
    Checkup(Checkup),
    /// The call can't be answered, for the reason given: this node is stopping, say.
    Failed(String),
    Report(Report),
    CatchUp(CatchUpAnswer),
    Marks {
        /// The way in which they are made ([`MARK_SCHEME`](crate::storage::MARK_SCHEME)).
        scheme: u8,
        marks: Vec<Mark>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CatchUpAnswer {
    /// So many entries are applied.
    Applied { entries: u64 },
    /// A database is being fetched.
    Fetching,
    /// The peer follows another leader.
    HigherVote(Ballot),
}

/// A question on a connection for `Purpose::Fetch`; see `fetch`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FetchAsk {
    /// Asks for a checkpoint: the one that was begun, if it is still there, or one that has so many entries applied.
    Open { again: Option<String>, entries: u64 },
    /// Asks for a part of a file, which is named by its place in the offer.
    Read { file: u32, offset: u64, length: u32 },
    /// Tells the primary how far the sender is with a database that it fetches from another member, and which entries
    /// it will need then.
    Follow(Fetched),
}

/// The answer of the node that has the database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FetchAnswer {
    Opened(Offer),
    Part {
        /// CRC-32C of the bytes.
        checksum: u32,
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
    },
    Failed(String),
    /// To [`FetchAsk::Follow`]: whether the log still has the entries that follow that database's.
    Followed {
        kept: bool,
    },
}

/// How far a node is that fetches a database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetched {
    /// How many entries of the log the database has applied.
    pub entries: u64,
    /// Bytes that are there.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
}

/// What a checkpoint is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    pub name: String,
    /// The last entry that it has applied.
    pub place: Place,
    /// A term that the source had heard of when it had applied that entry. Whoever committed the entry led in this term
    /// or in an earlier one.
    pub term: u64,
    /// Names and bytes.
    pub files: Vec<(String, u64)>,
    /// The format of the database.
    pub format: u32,
}

impl Offer {
    pub fn bytes(&self) -> u64 {
        self.files.iter().fold(0, |sum: u64, (_, size)| sum.saturating_add(*size))
    }

    /// How far a node is that has `done` bytes of it.
    pub fn fetched(&self, done: u64) -> Fetched {
        Fetched { entries: self.place.index + 1, done, total: self.bytes() }
    }
}

/// How a node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkup {
    /// The node's wall clock: milliseconds since 1970.
    pub clock: u64,
    /// Why the node should not lead.
    pub unfit: Option<String>,
    /// Whether the node takes new entries.
    pub has_room: bool,
    /// How many log entries the node has applied.
    pub applied: u64,
    /// Milliseconds since the node was last sure to have all that a primary had; `None`: it never was.
    pub lag: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Appended {
    All,
    Upto(Option<Place>),
    Conflict,
    HigherVote(Ballot),
}

/// A frame on a connection for calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbered<T> {
    pub number: u64,
    pub body: T,
}

/// Asks the primary to take over a client that came to the wrong node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayRequest {
    /// `host:port` of the client.
    pub client: String,
    /// The frames that the client has sent so far: its choice of encoding, and `register`.
    #[serde(with = "frames")]
    pub opening: Vec<Bytes>,
}

/// A question about forming a cluster; see `formation`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FormAsk {
    /// Asks for the peer's incarnation, its list of peers, and its base.
    Probe,
    /// Hands over a stamp, for the peer to take if its folder is empty.
    Stamp(Stamp),
    /// The sender has an empty folder, and wants to be let in to the cluster as the member that has its number.
    Join,
}

/// A node with an empty folder is a member of the cluster from now on: an observer, to begin with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    /// The cluster, with the members as they are now.
    pub stamp: Stamp,
    /// The member that says so, and whose database is to be fetched.
    pub source: Incarnation,
    /// How many entries that database must have applied: the last of them lets the node in.
    pub entries: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FormAnswer {
    Empty {
        incarnation: Incarnation,
        peers: BTreeMap<u64, String>,
        base: LogBase,
    },
    Stamped(Stamp),
    Refused(String),
    /// To [`FormAsk::Join`]. (`Refused`: not yet, or never; why.)
    Admitted(Admission),
    /// To [`FormAsk::Join`]: this node is not the primary, the one with this seat is.
    Primary(Seat),
}

/// # Panics
/// Never for the types on this page.
pub fn pack<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).expect("peers' messages have no maps of unknown length")
}

pub fn unpack<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    postcard::from_bytes(bytes)
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, format!("a peer's message can't be read: {e}")))
}

mod frames {
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use serde_bytes::ByteBuf;

    pub fn serialize<S: Serializer>(frames: &[Bytes], serializer: S) -> Result<S::Ok, S::Error> {
        frames.iter().map(|frame| serde_bytes::Bytes::new(frame)).collect::<Vec<_>>().serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Bytes>, D::Error> {
        Ok(Vec::<ByteBuf>::deserialize(deserializer)?.into_iter().map(|frame| Bytes::from(frame.into_vec())).collect())
    }
}

#[cfg(test)]
pub(super) mod testing {
    /// Compares messages, by name, with those of a file. (`ZRS_BLESS=1` writes the file.)
    pub fn same_as_in_the_file(name: &str, messages: Vec<(&'static str, Vec<u8>)>) {
        let path = format!("{}/tests/data/{name}", env!("CARGO_MANIFEST_DIR"));
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let text: String = messages.iter().map(|(name, bytes)| format!("{name}: {}\n", hex(bytes))).collect();
        if std::env::var_os("ZRS_BLESS").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "compare {path}");
    }
}

#[cfg(test)]
mod tests {
    use super::super::members::MembersAsk;
    use super::*;

    use proptest::prelude::*;

    proptest! {
        /// Whatever comes in is a message or an error: no panic, and no more memory than the bytes account for.
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = unpack::<Numbered<Ask>>(&bytes);
            let _ = unpack::<Numbered<Answer>>(&bytes);
            let _ = unpack::<RelayRequest>(&bytes);
            let _ = unpack::<FormAsk>(&bytes);
            let _ = unpack::<FormAnswer>(&bytes);
            let _ = unpack::<FetchAsk>(&bytes);
            let _ = unpack::<FetchAnswer>(&bytes);
            let _ = unpack::<Record>(&bytes);
        }

        /// The same for a message that is nearly right: an append with a byte changed, or cut.
        #[test]
        fn a_damaged_append_is_read_or_refused(at in 0usize..200, to in any::<u8>(), len in 0usize..200) {
            let place = Place { term: 3, index: 70_000 };
            let content = super::super::types::RecordContent::Command(Bytes::from(vec![9; 100]));
            let ask = Ask::Append {
                ballot: Ballot { term: 3, candidate: Incarnation(1), committed: true },
                previous: Some(place),
                records: vec![Record { place, content }],
                committed: None,
                synced: 0,
            };
            let mut bytes = pack(&Numbered { number: 5, body: ask });
            if let Some(byte) = bytes.get_mut(at) {
                *byte = to;
            }
            bytes.truncate(len);
            let _ = unpack::<Numbered<Ask>>(&bytes);
        }
    }

    #[test]
    fn messages_survive_the_round_trip() {
        let request = RelayRequest { client: "a:1".into(), opening: vec![Bytes::from_static(b"Z5"), Bytes::new()] };
        assert_eq!(unpack::<RelayRequest>(&pack(&request)).unwrap(), request);
        let ask = Numbered { number: 3, body: Ask::ReadIndex };
        assert_eq!(unpack::<Numbered<Ask>>(&pack(&ask)).unwrap(), ask);
    }

    /// One of each message, by name.
    fn samples() -> Vec<(&'static str, Vec<u8>)> {
        let (one, two) = (Incarnation(0x1111_2222_3333_4444), Incarnation(0x5555_6666_7777_8888));
        let ballot = Ballot { term: 7, candidate: one, committed: true };
        let place = Place { term: 7, index: 399 };
        let seat = |node: u64| super::super::types::Seat { node, address: format!("db{node}:8100") };
        let members = BTreeMap::from([(one, seat(1)), (two, seat(2))]);
        use super::super::types::{Members, RecordContent};
        let voters = vec![[one, two].into()];
        let contents = [
            RecordContent::Blank,
            RecordContent::Command(Bytes::from_static(b"command")),
            RecordContent::Membership(Members { voters, seats: members.clone() }),
        ];
        let records = contents.into_iter().map(|content| Record { place, content }).collect();
        let append = Ask::Append { ballot, previous: Some(place), records, committed: None, synced: 400 };
        let vote = || (ballot, Some(place), false);
        let stamp = Stamp { cluster: [5; 16], members, base: [9; 32] };
        let peers = BTreeMap::from([(1, "db1:8100".to_owned())]);
        let checkup = Checkup {
            clock: 1_800_000_000_000,
            unfit: Some("full".into()),
            has_room: false,
            applied: 398,
            lag: Some(40),
        };
        let named = || "mian".to_owned();
        let ask = |body| pack(&Numbered { number: 300, body });
        let answer = |body| pack(&Numbered { number: 300, body });
        vec![
            ("append", ask(append)),
            ("vote", ask(Ask::Vote { ballot: vote().0, last: vote().1, transfer: vote().2 })),
            ("pre-vote", ask(Ask::PreVote { ballot: vote().0, last: vote().1, transfer: vote().2 })),
            ("transfer", ask(Ask::Transfer { ballot, to: two, last: None })),
            ("read index", ask(Ask::ReadIndex)),
            ("checkup", ask(Ask::Checkup)),
            ("hand over", ask(Ask::Errand(Errand::Transfer { to: Some(2) }))),
            ("drop a storage", ask(Ask::Errand(Errand::DropStorage { name: named() }))),
            ("look at a storage", ask(Ask::Errand(Errand::LookAtStorage { name: named() }))),
            ("appended", answer(Answer::Appended(Appended::All))),
            ("appended up to", answer(Answer::Appended(Appended::Upto(Some(place))))),
            ("conflict", answer(Answer::Appended(Appended::Conflict))),
            ("higher vote", answer(Answer::Appended(Appended::HigherVote(ballot)))),
            ("voted", answer(Answer::Voted { ballot, granted: true, last: Some(place) })),
            ("transferring", answer(Answer::Transferring(Err("no".into())))),
            ("is at", answer(Answer::ReadIndex(Ok(place)))),
            ("checked up", answer(Answer::Checkup(checkup))),
            ("failed", answer(Answer::Failed("no".into()))),
            ("done", answer(Answer::Report(Report::Done("yes".into())))),
            ("errand refused", answer(Answer::Report(Report::Refused("no".into())))),
            ("storage", answer(Answer::Report(Report::Storage { is_configured: true, clients: 3 }))),
            ("relay", pack(&RelayRequest { client: "c:1".into(), opening: vec![Bytes::from_static(b"Z5")] })),
            ("probe", pack(&FormAsk::Probe)),
            ("stamp", pack(&FormAsk::Stamp(stamp.clone()))),
            ("empty", pack(&FormAnswer::Empty { incarnation: one, peers, base: LogBase::default() })),
            ("stamped", pack(&FormAnswer::Stamped(stamp))),
            ("form refused", pack(&FormAnswer::Refused("no".into()))),
        ]
    }

    /// One of each message of a node that fetches a database.
    fn samples_of_fetching() -> Vec<(&'static str, Vec<u8>)> {
        let ballot = Ballot { term: 7, candidate: Incarnation(0x1111_2222_3333_4444), committed: true };
        let place = Place { term: 7, index: 399 };
        let offer =
            Offer { name: "1f".into(), place, term: 7, files: vec![("000007.sst".into(), 3_000_000)], format: 2 };
        let ask = |body| pack(&Numbered { number: 300, body });
        let answer = |body| pack(&Numbered { number: 300, body });
        vec![
            ("catch up", ask(Ask::CatchUp { ballot, entries: 400 })),
            ("has applied", answer(Answer::CatchUp(CatchUpAnswer::Applied { entries: 401 }))),
            ("fetching", answer(Answer::CatchUp(CatchUpAnswer::Fetching))),
            ("follows another", answer(Answer::CatchUp(CatchUpAnswer::HigherVote(ballot)))),
            ("open", pack(&FetchAsk::Open { again: Some("1f".into()), entries: 400 })),
            ("read", pack(&FetchAsk::Read { file: 3, offset: 1 << 20, length: 4096 })),
            ("opened", pack(&FetchAnswer::Opened(offer))),
            ("follow", pack(&FetchAsk::Follow(Fetched { entries: 400, done: 5, total: 3_000_000 }))),
            ("followed", pack(&FetchAnswer::Followed { kept: true })),
            ("part", pack(&FetchAnswer::Part { checksum: 0x1122_3344, bytes: b"bytes".to_vec() })),
            ("fetch failed", pack(&FetchAnswer::Failed("no".into()))),
        ]
    }

    /// One of each message by which members come and go, and by which databases are compared.
    fn samples_of_members() -> Vec<(&'static str, Vec<u8>)> {
        let one = Incarnation(0x1111_2222_3333_4444);
        let seat = || Seat { node: 1, address: "db1:8100".into() };
        let stamp = Stamp { cluster: [5; 16], members: BTreeMap::from([(one, seat())]), base: [9; 32] };
        let address = || "db4:8100".to_owned();
        let wish = |wish| pack(&Numbered { number: 300, body: Ask::Errand(Errand::Members(wish)) });
        let marks = Answer::Marks { scheme: 1, marks: vec![(64, [7; 16])] };
        vec![
            ("add", wish(MembersAsk::Add { node: 4, address: address(), observer: true })),
            ("promote", wish(MembersAsk::Promote { node: 4 })),
            ("observe", wish(MembersAsk::Observe { node: 4 })),
            ("remove", wish(MembersAsk::Remove { node: 4 })),
            ("replace", wish(MembersAsk::Replace { old: 2, node: 4, address: address(), planned: true })),
            ("address", wish(MembersAsk::Address { node: 4, address: address() })),
            ("join", pack(&FormAsk::Join)),
            ("admitted", pack(&FormAnswer::Admitted(Admission { stamp, source: one, entries: 300 }))),
            ("the primary is", pack(&FormAnswer::Primary(seat()))),
            ("marks?", pack(&Numbered { number: 300, body: Ask::Marks })),
            ("marks", pack(&Numbered { number: 300, body: marks })),
        ]
    }

    /// Nodes of this version must go on understanding each other. A change here is a new version: its messages get a
    /// file of their own, and this one stays.
    #[test]
    fn the_wire_is_that_of_its_version() {
        let all = samples().into_iter().chain(samples_of_fetching()).chain(samples_of_members());
        testing::same_as_in_the_file("peers-1.txt", all.collect());
    }
}
