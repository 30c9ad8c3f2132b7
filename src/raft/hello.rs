//! The handshake of peers, byte for byte: who calls whom, and the proof that both belong to the cluster.
//!
//! One frame each (4-byte big-endian length, then the bytes), postcard behind the two letters:
//!
//! ```text
//! initiator                                    acceptor
//!   "P1" Hello{versions, cluster, from, to, incarnations, what is known of `to`, nonce, purpose, own seat}
//!                                     ────►      knows the cluster, the incarnations? else Refused, or NotYet
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
//! What follows on `Accepted` depends on the [`Purpose`], and stands in `wire`.

use std::io;

use serde::{Deserialize, Serialize};

use super::past::Past;
use super::stamp::ClusterId;
use super::types::Incarnation;
use super::wire::{pack, unpack};

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
    /// `host:port`, as the members have it.
    pub address: String,
    /// `host:port` at which the node is now: it may have moved, and the others not know of it yet.
    pub now: String,
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

    /// What only members can make of `said`, which the word of an [`Obituary`](super::obituary::Obituary) is known by.
    pub fn sign_obituary(&self, said: &[u8]) -> [u8; 32] {
        // (As long as the words of the sides, and none of them: it can't be played back as a proof.)
        *blake3::Hasher::new_keyed(&self.0).update(b"obituary.").update(said).finalize().as_bytes()
    }

    /// Compares in constant time.
    pub fn has_signed(&self, signature: &[u8; 32], said: &[u8]) -> bool {
        blake3::Hash::from_bytes(self.sign_obituary(said)) == blake3::Hash::from_bytes(*signature)
    }

    /// Compares in constant time.
    pub fn is_proof(&self, proof: &[u8; 32], side: Side, hello: &[u8], nonce: &[u8; 16], past: &Past) -> bool {
        blake3::Hash::from_bytes(self.prove(side, hello, nonce, past)) == blake3::Hash::from_bytes(*proof)
    }
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

#[cfg(test)]
mod tests {
    use super::super::types::Ballot;
    use super::super::wire::testing::same_as_in_the_file;
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
            let _ = read_hello(&[&GREETING[..], &bytes].concat(), 1);
        }
    }

    /// One of each message, by name.
    fn samples() -> Vec<(&'static str, Vec<u8>)> {
        let (one, two) = (Incarnation(0x1111_2222_3333_4444), Incarnation(0x5555_6666_7777_8888));
        let ballot = Ballot { term: 7, candidate: one, committed: true };
        let start = super::super::past::Start { number: 3, id: 99 };
        let past = Past { start, vote: Some(ballot), entries: 400 };
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
        let seat = SeatClaim { entry: 300, address: "db1:8100".into(), now: "db9:8100".into() };
        let seated = Hello { seat: Some(seat), ..hello.clone() };
        vec![
            ("hello", pack(&hello)),
            ("challenge", pack(&challenge)),
            ("refused", pack(&Welcome::Refused("no".into()))),
            ("proof", pack(&Proof { past, proof: [8; 32] })),
            ("accepted", pack(&Verdict::Accepted)),
            ("refused verdict", pack(&Verdict::Refused("no".into()))),
            ("outdated", pack(&Verdict::Outdated("old".into()))),
            ("hello of a member", pack(&seated)),
            ("not yet", pack(&Welcome::NotYet { why: "no".into(), format: 4 })),
        ]
    }

    /// Nodes of this version must go on understanding each other. A change here is a new version: its messages get a
    /// file of their own, and this one stays.
    #[test]
    fn the_handshake_is_that_of_its_version() {
        same_as_in_the_file(&format!("handshake-{VERSION}.txt"), samples());
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

    #[test]
    fn what_an_older_version_does_not_say_is_not_given() {
        let (_, bytes) = samples().swap_remove(0);
        let frame = [&GREETING[..], &bytes[..bytes.len() - 1]].concat();
        assert_eq!(read_hello(&frame, 1).unwrap().seat, None);
    }
}
