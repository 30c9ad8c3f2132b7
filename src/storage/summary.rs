//! A storage in numbers: kept up by apply, and stored in the same batch as the writes that it sums up.

use std::io;

use super::digest::Digest;
use super::value;
use crate::zodb::{Oid, Tid};

/// A storage in numbers. Stored as the fields in this order, big-endian: eight u64, then 32 bytes each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The newest transaction; `Tid::ZERO`: there is none.
    pub last_tid: Tid,
    /// The number of objects that have a revision, absent ones included (the `len` of a FileStorage).
    pub objects: u64,
    /// The sum of the lengths of all records, each counted where its data lies.
    pub bytes: u64,
    /// The number of transactions.
    pub transactions: u64,
    /// The object id that the next reservation begins with.
    pub next_oid: Oid,
    /// The number of the next piece that is staged.
    pub next_piece: u64,
    /// The pack time of the pack that is going on; `Tid::ZERO`: there is none.
    pub packing: Tid,
    /// The latest pack time of the packs that have removed something.
    pub packed: Tid,
    /// The digest of all transactions as they were committed (`digest`).
    pub history: Digest,
    /// The digest of all present revisions (`digest`).
    pub present: Digest,
}

impl Default for Summary {
    /// An empty storage. `Oid::ROOT` is taken from the start: every client stores the root there without asking for an
    /// id.
    fn default() -> Summary {
        Summary {
            last_tid: Tid::ZERO,
            objects: 0,
            bytes: 0,
            transactions: 0,
            next_oid: Oid(1),
            next_piece: 1,
            packing: Tid::ZERO,
            packed: Tid::ZERO,
            history: [0; 32],
            present: [0; 32],
        }
    }
}

impl Summary {
    /// Why the storage `name`, which this sums up, can't be dropped.
    pub fn not_empty(&self, name: &str) -> Option<String> {
        let transactions = match self.transactions {
            0 => "had transactions".to_owned(),
            1 => "has 1 transaction".to_owned(),
            many => format!("has {many} transactions"),
        };
        (self.last_tid != Tid::ZERO).then(|| format!("storage {name:?} is not empty: it {transactions}"))
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(128);
        let counts = [self.last_tid.0, self.objects, self.bytes, self.transactions, self.next_oid.0];
        for number in counts.into_iter().chain([self.next_piece, self.packing.0, self.packed.0]) {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes.extend_from_slice(&self.history);
        bytes.extend_from_slice(&self.present);
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> io::Result<Summary> {
        let parse = || {
            let (counts, digests) = bytes.split_at_checked(64)?;
            let [last_tid, objects, sum, transactions, next_oid, next_piece, packing, packed] = value::numbers(counts)?;
            let (history, present) = digests.split_at_checked(32)?;
            Some(Summary {
                last_tid: Tid(last_tid),
                objects,
                bytes: sum,
                transactions,
                next_oid: Oid(next_oid),
                next_piece,
                packing: Tid(packing),
                packed: Tid(packed),
                history: history.try_into().ok()?,
                present: present.try_into().ok()?,
            })
        };
        parse().ok_or_else(|| value::damaged("a summary is not 128 bytes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_survives_the_round_trip() {
        let summary = Summary {
            last_tid: Tid(1),
            objects: 2,
            bytes: 3,
            transactions: 4,
            next_oid: Oid(5),
            next_piece: 8,
            packing: Tid(9),
            packed: Tid(10),
            history: [6; 32],
            present: [7; 32],
        };
        let bytes = summary.to_bytes();
        assert_eq!(bytes[..8], [0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(bytes[32..40], [0, 0, 0, 0, 0, 0, 0, 5]);
        assert_eq!(bytes[63..65], [10, 6]);
        assert_eq!(Summary::from_bytes(&bytes).unwrap(), summary);
        assert!(Summary::from_bytes(&bytes[1..]).is_err());
    }
}
