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
//! the key is derived from the cluster's shared secret by BLAKE3's `derive_key`. Nonces are drawn by chance for each connection, and the
//! Hello names both ends, so that a recorded or reflected proof is worth nothing. Without a secret the
//! key is public, and the acceptor looks at the address instead (`Caller::comes_from`).
//!
//! After `Accepted` a connection for `Purpose::Calls` carries numbered [`Ask`]s and [`Answer`]s, in any order; one for
//! `Purpose::Form` a single question of `formation`; one for `Purpose::Relay` a [`RelayRequest`], its answer, and
//! then a client's own bytes.

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::base::LogBase;
use super::past::Past;
use super::stamp::{ClusterId, Stamp};
use super::types::{Ballot, Incarnation, Place, Record};

/// The first two bytes of a peer's first frame.
pub const GREETING: &[u8; 2] = b"P1";
/// The newest version of the peers' protocol.
pub const VERSION: u8 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub version: u8,
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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    Form,
    Calls,
    Relay,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Welcome {
    Challenge { nonce: [u8; 16], past: Past, proof: [u8; 32] },
    Refused(String),
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
    /// Asks for the node's clock, and whether it is fit to lead.
    Checkup,
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
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FormAnswer {
    Empty { incarnation: Incarnation, peers: BTreeMap<u64, String>, base: LogBase },
    Stamped(Stamp),
    Refused(String),
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
}
