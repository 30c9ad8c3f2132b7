//! The word that a primary's process has ended, which its witness sends to the other members.
//!
//! Who hears nothing of a primary can't tell whether it is dead or cut off, and waits until its lease is over: a
//! primary that is cut off serves reads until then. One whose process has ended does not. So an obituary ends the lease
//! at once.
//!
//! ```text
//!   zrsd ── what to send, and to whom ──► its witness, a process of its own
//!     ✗ ends: the system closes the pipe ──► reads the end of it
//!                                            sends "O1" Obituary to all other members ──► `node::succession`
//! ```
//!
//! **Why that is proof.** The pipe's other end is closed once all threads of the process have ended, and not before, by
//! whatever they ended. A closed or reset connection would prove less: a firewall can do that, too. The word is about
//! one ballot: no later life of the node leads by that again. So it stays true however late it comes, and however
//! often.
//!
//! **The frame** is "O1", then postcard. Its signature is keyed BLAKE3 with the cluster's key ([`PeerKey`]); without a
//! secret the sender's address counts, as in the handshake (`hello`). Nothing answers it. A node that does not know the
//! frame closes the connection, and waits for the lease's end.

use std::io;

use serde::{Deserialize, Serialize};

use super::hello::PeerKey;
use super::stamp::ClusterId;
use super::types::Ballot;
use super::wire::{pack, unpack};

/// The first two bytes of the frame.
pub const LETTERS: &[u8; 2] = b"O1";

/// That the process has ended in which a node led by a ballot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Obituary {
    pub cluster: ClusterId,
    /// The number of the node.
    pub node: u64,
    /// By which it led.
    pub ballot: Ballot,
}

#[derive(Serialize, Deserialize)]
struct Signed {
    obituary: Obituary,
    signature: [u8; 32],
}

/// What the witness of a primary does once that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Will {
    /// `host:port` of the other members.
    pub addresses: Vec<String>,
    /// The frame to send to them.
    #[serde(with = "serde_bytes")]
    pub frame: Vec<u8>,
}

impl Obituary {
    /// The frame, without its length.
    pub fn frame(self, key: &PeerKey) -> Vec<u8> {
        let signature = key.sign_obituary(&pack(&self));
        [&LETTERS[..], &pack(&Signed { obituary: self, signature })].concat()
    }

    /// Reads a frame; an error if no member has made it.
    pub fn read(frame: &[u8], key: &PeerKey) -> io::Result<Obituary> {
        let Signed { obituary, signature } = unpack(frame.strip_prefix(LETTERS.as_slice()).unwrap_or_default())?;
        if key.has_signed(&signature, &pack(&obituary)) {
            return Ok(obituary);
        }
        let why = "an obituary that no member has signed (compare the files of --secret-file)";
        Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::types::Incarnation;
    use super::super::wire::testing::same_as_in_the_file;
    use super::*;

    fn obituary() -> Obituary {
        let ballot = Ballot { term: 7, candidate: Incarnation(0x1111_2222_3333_4444), committed: true };
        Obituary { cluster: [5; 16], node: 1, ballot }
    }

    #[test]
    fn only_members_make_one() {
        let key = PeerKey::of_secret(Some(b"secret"));
        let frame = obituary().frame(&key);
        assert_eq!(Obituary::read(&frame, &key).unwrap(), obituary());
        let stranger = Obituary::read(&frame, &PeerKey::of_secret(Some(b"Secret"))).unwrap_err();
        assert_eq!(stranger.kind(), io::ErrorKind::PermissionDenied);
        for at in 0..frame.len() {
            let mut other = frame.clone();
            other[at] ^= 1;
            assert!(Obituary::read(&other, &key).is_err(), "byte {at}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let key = PeerKey::of_secret(None);
            prop_assert!(Obituary::read(&bytes, &key).is_err());
            prop_assert!(Obituary::read(&[&LETTERS[..], &bytes].concat(), &key).is_err());
        }
    }

    #[test]
    fn the_frame_stays_as_it_is() {
        let frame = |secret: Option<&[u8]>| obituary().frame(&PeerKey::of_secret(secret));
        let both = vec![("obituary", frame(Some(b"secret"))), ("obituary without a secret", frame(None))];
        same_as_in_the_file("obituary-1.txt", both);
    }
}
