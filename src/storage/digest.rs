//! Two fingerprints of a storage, by which nodes find out that they do not hold the same.
//!
//! All hashes are BLAKE3 (32 bytes), all numbers big-endian. The *content hash* of a revision is the hash of `01` and
//! the record, or of `00` alone if the object is absent; if the revision has a blob, the hash of `03`, that hash, and
//! the blob's hash (of `02` and the blob). A revision that shows older data again has that data's hash: a digest is
//! over the data that readers get, not over the way it is stored.
//!
//! **history**, a chain over the transactions as they were committed; each node can extend the chain, none can undo it:
//!
//! ```text
//! history(0) = 32 zero bytes
//! history(n) = H(history(n-1) ‖ tid u64 ‖ status u8
//!                ‖ user ‖ description ‖ extension                       (each: length u32, bytes)
//!                ‖ count u32 ‖ count times (oid u64 ‖ content hash))
//! ```
//!
//! **present**, the sum of a hash for each present revision:
//!
//! ```text
//! present = Σ H(oid u64 ‖ tid u64 ‖ content hash)
//! ```
//!
//! taken as four numbers u64 that are added apart, modulo 2^64. The order does not matter, a removed revision is
//! subtracted, and the sum can be recounted from the tables ([`Store::recount`](super::Store::recount)). Neither
//! fingerprint contains the storage's number, so equal databases have equal digests in different clusters too.
//!
//! **Left out**: a defence against somebody who wants to make two databases look equal; sums of hashes are weak there.

use super::value;
use crate::zodb::{Oid, Tid, TransactionMeta};

/// A BLAKE3 hash, or a sum of them.
pub type Digest = [u8; 32];

/// The content hash of a revision with this record; `None`: the object is absent.
pub(super) fn content(record: Option<&[u8]>) -> Digest {
    let mut hasher = blake3::Hasher::new();
    match record {
        Some(record) => hasher.update(&[1]).update(record),
        None => hasher.update(&[0]),
    };
    hasher.finalize().into()
}

/// Hashes a record or a blob piece by piece.
pub struct Hashing(blake3::Hasher);

impl Hashing {
    /// For a record.
    pub fn record() -> Hashing {
        Hashing::of(1)
    }

    /// For a blob.
    pub fn blob() -> Hashing {
        Hashing::of(2)
    }

    fn of(kind: u8) -> Hashing {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[kind]);
        Hashing(hasher)
    }

    /// Adds the next bytes of the record or blob.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The content hash of all bytes that were added.
    pub fn finish(&self) -> Digest {
        self.0.finalize().into()
    }
}

/// The content hash of a revision whose record has the hash `content`, and its blob the hash `blob`.
pub(super) fn with_blob(content: Digest, blob: Option<&Digest>) -> Digest {
    match blob {
        None => content,
        Some(blob) => {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&[3]).update(&content).update(blob);
            hasher.finalize().into()
        }
    }
}

/// The hash of one revision, a part of the sum `present`.
pub(super) fn revision(oid: Oid, tid: Tid, content: &Digest) -> Digest {
    let mut bytes = [0; 48];
    bytes[..8].copy_from_slice(&oid.to_bytes());
    bytes[8..16].copy_from_slice(&tid.to_bytes());
    bytes[16..].copy_from_slice(content);
    blake3::hash(&bytes).into()
}

/// `sum` with `part` in it.
pub(super) fn add(sum: &Digest, part: &Digest) -> Digest {
    lanes(sum, part, u64::wrapping_add)
}

/// `sum` without `part`.
pub(super) fn subtract(sum: &Digest, part: &Digest) -> Digest {
    lanes(sum, part, u64::wrapping_sub)
}

fn lanes(a: &Digest, b: &Digest, each: fn(u64, u64) -> u64) -> Digest {
    let lane = |d: &Digest, n: usize| u64::from_be_bytes(std::array::from_fn(|i| d[8 * n + i]));
    let mut result = [0; 32];
    for n in 0..4 {
        result[8 * n..8 * n + 8].copy_from_slice(&each(lane(a, n), lane(b, n)).to_be_bytes());
    }
    result
}

/// The next link of the chain `history`.
pub(super) fn history(previous: &Digest, tid: Tid, meta: &TransactionMeta, writes: &[(Oid, Digest)]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(previous).update(&tid.to_bytes()).update(&[meta.status]);
    for text in value::texts(meta) {
        let length = u32::try_from(text.len()).expect("frames are limited to far less than 4 GiB");
        hasher.update(&length.to_be_bytes()).update(text);
    }
    let count = u32::try_from(writes.len()).expect("apply refuses transactions of more objects");
    hasher.update(&count.to_be_bytes());
    for (oid, content) in writes {
        hasher.update(&oid.to_bytes()).update(content);
    }
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_made_of_the_documented_bytes() {
        assert_eq!(content(Some(b"pickle")), *blake3::hash(b"\x01pickle").as_bytes());
        assert_eq!(content(None), *blake3::hash(b"\x00").as_bytes());
        let content = content(None);
        let mut bytes = vec![0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2];
        bytes.extend_from_slice(&content);
        assert_eq!(revision(Oid(1), Tid(2), &content), *blake3::hash(&bytes).as_bytes());

        let meta = TransactionMeta { status: b' ', user: b"jim".to_vec(), ..Default::default() };
        let mut bytes = vec![9; 32];
        bytes.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 2, b' ', 0, 0, 0, 3]);
        bytes.extend_from_slice(b"jim\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x01");
        bytes.extend_from_slice(&content);
        assert_eq!(history(&[9; 32], Tid(2), &meta, &[(Oid(1), content)]), *blake3::hash(&bytes).as_bytes());
    }

    #[test]
    fn a_sum_wraps_in_each_lane_and_not_beyond() {
        let mut one = [0; 32];
        one[15] = 1;
        let mut all = [0; 32];
        all[8..16].fill(0xff);
        assert_eq!(add(&all, &one), [0; 32]);
        assert_eq!(add(&one, &[0; 32]), one);
    }
}
