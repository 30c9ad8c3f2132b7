//! The peers' messages, byte for byte: the `P1` handshake, and the calls and answers of Raft.
//!
//! **Handshake**, one frame each (4-byte big-endian length, then the bytes), postcard behind the two letters:
//!
//! ```text
//! initiator                                    acceptor
//!   "P1" Hello{versions, cluster, from, to, incarnations, what is known of `to`, nonce, purpose}
//!                                     ────►      knows the cluster, the incarnations? else Refused
//!        ◄────  Welcome::Challenge{nonce, own past, proof}
//!   Proof{own past, proof}            ────►      Verdict::Accepted, Refused{why}, or Outdated{why}
//! ```
//!
//! Both proofs are keyed BLAKE3 over (a word for the side, the acceptor's nonce, the own [`Past`], the Hello as sent);
//! the key is derived from the cluster's shared secret by BLAKE3's `derive_key`. Nonces are drawn by chance for each
//! connection, and the Hello names both ends, so that a recorded or reflected proof is worth nothing. Without a secret
//! the key is public, and the acceptor looks at the address instead (`Caller::comes_from`).
//!
//! **Versions.** The Hello says which versions the initiator speaks, and the Challenge the one that both speak then:
//! the newest that both know. A message that only a later version has is never sent on a connection of an earlier one.
//!
//! After `Accepted` a connection for `Purpose::Calls` carries numbered [`Ask`]s and [`Answer`]s, in any order; one for
//! `Purpose::Form` a single question of `formation`; one for `Purpose::Relay` a [`RelayRequest`], its answer, and
//! then a client's own bytes; one for `Purpose::Fetch` a database (`fetch`).

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::base::LogBase;
use super::errand::{Errand, Report};
use super::past::Past;
use super::stamp::{ClusterId, Stamp};
use super::types::{Ballot, Incarnation, Place, Record, Seat};
use crate::storage::Mark;

/// The first two bytes of a peer's first frame.
pub const GREETING: &[u8; 2] = b"P1";
/// The newest version of the peers' protocol that this program speaks.
pub const VERSION: u8 = 1;
/// The oldest one.
pub const OLDEST_VERSION: u8 = 1;

/// The first two fields stay as they are in all versions. Later versions add fields at the end, which older ones skip.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The newest version that the initiator speaks.
    pub version: u8,
    /// The oldest version that the initiator speaks.
    pub oldest: u8,
    /// The newest command format the initiator knows.
    pub format: u8,
    /// `None` while the initiator belongs to no cluster.
    pub cluster: Option<ClusterId>,
    /// The initiator's number.
    pub from: u64,
    pub from_incarnation: Incarnation,
    /// The acceptor's number.
    pub to: u64,
    /// `None` while the cluster forms: the initiator does not know it yet.
    pub to_incarnation: Option<Incarnation>,
    /// What the initiator remembers of the acceptor.
    pub known: Option<Past>,
    pub nonce: [u8; 16],
    pub purpose: Purpose,
    /// The initiator's seat; `None`: it has none yet.
    pub seat: Option<SeatClaim>,
}

/// A node's seat in the cluster, as the node itself knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeatClaim {
    /// The number of the entry of the log by which the members became those of now.
    pub entry: u64,
    /// `host:port`
    pub address: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    Form,
    Calls,
    Relay,
    Fetch,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Welcome {
    Challenge {
        /// The version that both speak from here on.
        version: u8,
        /// The newest command format the acceptor knows.
        format: u8,
        nonce: [u8; 16],
        past: Past,
        proof: [u8; 32],
    },
    Refused(String),
    /// Refused as long as the acceptor is not a member itself.
    NotYet {
        why: String,
        /// The newest command format that it knows.
        format: u8,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    pub past: Past,
    pub proof: [u8; 32],
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    Accepted,
    Refused(String),
    /// Refused, as the initiator has less on its disk than it once had: it can take no part any more.
    Outdated(String),
}

/// The side that proves. It is part of the proof, so that one side's can't be played back as the other's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Initiator,
    Acceptor,
}

impl Hello {
    /// The version to speak with the initiator, if this node's newest one is `newest`.
    pub fn common_version(&self, newest: u8) -> Option<u8> {
        let common = self.version.min(newest);
        (common >= self.oldest.max(OLDEST_VERSION)).then_some(common)
    }
}

/// The key that proofs are made with.
#[derive(Clone)]
pub struct PeerKey([u8; 32]);

impl PeerKey {
    pub fn of_secret(secret: Option<&[u8]>) -> PeerKey {
        PeerKey(blake3::derive_key("zrs 2026 membership of peers, by shared secret", secret.unwrap_or_default()))
    }

    pub fn prove(&self, side: Side, hello: &[u8], nonce: &[u8; 16], past: &Past) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(match side {
            Side::Initiator => b"initiator",
            Side::Acceptor => b"acceptor.",
        });
        hasher.update(nonce);
        let past = pack(past);
        hasher.update(&[past.len() as u8]).update(&past);
        hasher.update(hello);
        *hasher.finalize().as_bytes()
    }

    /// Compares in constant time.
    pub fn is_proof(&self, proof: &[u8; 32], side: Side, hello: &[u8], nonce: &[u8; 16], past: &Past) -> bool {
        blake3::Hash::from_bytes(self.prove(side, hello, nonce, past)) == blake3::Hash::from_bytes(*proof)
    }
}

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
    /// So many bytes of the database are there, of so many; 0 of 0: it has only begun.
    Fetching { done: u64, total: u64 },
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

/// The frame that answers a Hello of whatever version with a refusal.
pub fn refusal(why: &str) -> Vec<u8> {
    pack(&Welcome::Refused(why.to_owned()))
}

/// Reads the Hello out of a peer's first frame; an error if this node, whose newest version is `newest`, speaks no
/// version that the peer speaks.
pub fn read_hello(first: &[u8], newest: u8) -> io::Result<Hello> {
    let body = first.strip_prefix(GREETING.as_slice()).unwrap_or_default();
    // The versions first: nothing is known of the rest before.
    if let [version, oldest, ..] = *body
        && (oldest > newest || version < OLDEST_VERSION)
    {
        let why = format!(
            "the peer speaks versions {oldest} to {version} of the peers' protocol, this node {OLDEST_VERSION} to \
             {newest}: update zrsd on the older one"
        );
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    // (Fields that an older version does not send count as not given.)
    let hello: Hello = unpack(&[body, &[0; 4]].concat())?;
    match hello.common_version(newest) {
        Some(_) => Ok(hello),
        None => Err(io::Error::new(io::ErrorKind::InvalidData, "the peer's versions of the protocol contradict")),
    }
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
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_worth_nothing_elsewhere() {
        let key = PeerKey::of_secret(Some(b"secret"));
        let nonce = [7; 16];
        let past = Past { entries: 5, ..Past::default() };
        let proof = key.prove(Side::Initiator, b"hello", &nonce, &past);
        assert!(key.is_proof(&proof, Side::Initiator, b"hello", &nonce, &past));
        assert!(!key.is_proof(&proof, Side::Acceptor, b"hello", &nonce, &past), "reflected");
        assert!(!key.is_proof(&proof, Side::Initiator, b"hello", &[8; 16], &past), "recorded");
        assert!(!key.is_proof(&proof, Side::Initiator, b"hallo", &nonce, &past), "another hello");
        assert!(!key.is_proof(&proof, Side::Initiator, b"hello", &nonce, &Past::default()), "another past");
        assert!(!PeerKey::of_secret(Some(b"Secret")).is_proof(&proof, Side::Initiator, b"hello", &nonce, &past));
    }

    use proptest::prelude::*;

    proptest! {
        /// Whatever comes in is a message or an error: no panic, and no more memory than the bytes account for.
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = unpack::<Hello>(&bytes);
            let _ = unpack::<Welcome>(&bytes);
            let _ = unpack::<Proof>(&bytes);
            let _ = unpack::<Verdict>(&bytes);
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
        let start = super::super::past::Start { number: 3, id: 99 };
        let past = Past { start, vote: Some(ballot), entries: 400 };
        let place = Place { term: 7, index: 399 };
        let seat = |node: u64| super::super::types::Seat { node, address: format!("db{node}:8100") };
        let members = BTreeMap::from([(one, seat(1)), (two, seat(2))]);
        let hello = Hello {
            version: 1,
            oldest: 1,
            format: 2,
            cluster: Some([5; 16]),
            from: 1,
            from_incarnation: one,
            to: 2,
            to_incarnation: Some(two),
            known: Some(past),
            nonce: [6; 16],
            purpose: Purpose::Calls,
            seat: None,
        };
        let challenge = Welcome::Challenge { version: 1, format: 2, nonce: [7; 16], past, proof: [8; 32] };
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
            ("hello", pack(&hello)),
            ("challenge", pack(&challenge)),
            ("refused", pack(&Welcome::Refused("no".into()))),
            ("proof", pack(&Proof { past, proof: [8; 32] })),
            ("accepted", pack(&Verdict::Accepted)),
            ("refused verdict", pack(&Verdict::Refused("no".into()))),
            ("outdated", pack(&Verdict::Outdated("old".into()))),
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
            ("fetching", answer(Answer::CatchUp(CatchUpAnswer::Fetching { done: 5, total: 3_000_000 }))),
            ("follows another", answer(Answer::CatchUp(CatchUpAnswer::HigherVote(ballot)))),
            ("open", pack(&FetchAsk::Open { again: Some("1f".into()), entries: 400 })),
            ("read", pack(&FetchAsk::Read { file: 3, offset: 1 << 20, length: 4096 })),
            ("opened", pack(&FetchAnswer::Opened(offer))),
            ("part", pack(&FetchAnswer::Part { checksum: 0x1122_3344, bytes: b"bytes".to_vec() })),
            ("fetch failed", pack(&FetchAnswer::Failed("no".into()))),
        ]
    }

    /// Nodes of this version must go on understanding each other. A change here is a new version: its messages get a
    /// file of their own, and this one stays. (`ZRS_BLESS=1` writes the file.)
    #[test]
    fn the_wire_is_that_of_its_version() {
        let path = format!("{}/tests/data/peers-{VERSION}.txt", env!("CARGO_MANIFEST_DIR"));
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let all = samples().into_iter().chain(samples_of_fetching());
        let text: String = all.map(|(name, bytes)| format!("{name}: {}\n", hex(&bytes))).collect();
        if std::env::var_os("ZRS_BLESS").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "compare {path}");
    }

    #[test]
    fn the_newest_common_version_is_spoken() {
        let said = |oldest, version| {
            let (_, bytes) = samples().swap_remove(0);
            let mut frame = GREETING.to_vec();
            frame.extend([version, oldest]);
            frame.extend(&bytes[2..]);
            // (A later version has more to say, which is skipped.)
            frame.extend(b"more");
            read_hello(&frame, 1).map(|hello| hello.common_version(1)).map_err(|e| e.to_string())
        };
        assert_eq!(said(1, 1), Ok(Some(1)));
        assert_eq!(said(1, 9), Ok(Some(1)));
        assert!(said(2, 9).unwrap_err().contains("versions 2 to 9"));
        assert!(said(0, 0).unwrap_err().contains("versions 0 to 0"));
    }
}
