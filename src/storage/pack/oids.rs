//! A set of object ids, for millions of them.
//!
//! Ids are given out in a row, so nearly all ids of a database lie close together: the set keeps them as bits, 512 in a
//! piece. A database of 100 million objects takes some 20 MB; ids scattered at random take up to some 120 bytes each.

use std::collections::BTreeMap;

use crate::zodb::Oid;

const WORDS: usize = 8;
const BITS: u64 = 64 * WORDS as u64;

/// A set of object ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Oids {
    pieces: BTreeMap<u64, [u64; WORDS]>,
    len: u64,
}

impl Oids {
    /// Adds an id; `true` if it was not in the set.
    pub fn insert(&mut self, oid: Oid) -> bool {
        let word = &mut self.pieces.entry(oid.0 / BITS).or_default()[(oid.0 % BITS / 64) as usize];
        let bit = 1 << (oid.0 % 64);
        let new = *word & bit == 0;
        *word |= bit;
        self.len += u64::from(new);
        new
    }

    /// Whether the id is in the set.
    pub fn contains(&self, oid: Oid) -> bool {
        self.pieces
            .get(&(oid.0 / BITS))
            .is_some_and(|piece| piece[(oid.0 % BITS / 64) as usize] & 1 << (oid.0 % 64) != 0)
    }

    /// How many ids are in the set.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All ids, in order.
    pub fn iter(&self) -> impl Iterator<Item = Oid> {
        self.pieces.iter().flat_map(|(first, piece)| {
            let bits = (0..BITS).filter(|bit| piece[(bit / 64) as usize] & 1 << (bit % 64) != 0);
            bits.map(move |bit| Oid(first * BITS + bit))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    proptest::proptest! {
        #[test]
        fn it_is_a_set(oids in proptest::collection::vec(proptest::prop_oneof![0..2000u64, proptest::num::u64::ANY], 0..300)) {
            let (mut set, mut model) = (Oids::default(), BTreeSet::new());
            for oid in oids {
                assert_eq!(set.insert(Oid(oid)), model.insert(oid));
                assert!(set.contains(Oid(oid)));
                assert_eq!(set.contains(Oid(oid ^ 1)), model.contains(&(oid ^ 1)));
            }
            assert_eq!(set.len(), model.len() as u64);
            assert_eq!(set.iter().map(|oid| oid.0).collect::<Vec<_>>(), model.into_iter().collect::<Vec<_>>());
        }
    }
}
