//! Whether the nodes have the same databases: their marks (`storage::marks`) side by side.
//!
//! A node whose mark differs from that of a majority of the voters after the same entries has another database than the
//! cluster, and must serve nobody. Without a majority on one side nobody knows who is right, and all say so.

use std::collections::{BTreeMap, BTreeSet};

use crate::storage::Mark;

/// What a node makes of the marks of the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// This node is the odd one: after so many entries.
    pub own_is_odd: Option<u64>,
    /// The others that differ, and after how many entries.
    pub odd: BTreeMap<u64, u64>,
    /// Whether a majority has the same as this node, wherever it differs from another one.
    pub is_sure: bool,
}

/// Compares the marks of node `own` with those that other nodes have told; `voters`: the numbers of those that vote.
pub fn compare(own: u64, marks: &[Mark], told: &BTreeMap<u64, Vec<Mark>>, voters: &BTreeSet<u64>) -> Comparison {
    let mut found = Comparison { is_sure: true, ..Comparison::default() };
    for (entries, mine) in marks {
        let of = |node: u64| told.get(&node).and_then(|marks| Some(marks.iter().find(|mark| mark.0 == *entries)?.1));
        let odd: Vec<u64> = told.keys().copied().filter(|node| of(*node).is_some_and(|its| its != *mine)).collect();
        if odd.is_empty() {
            continue;
        }
        let votes = |digest: &[u8; 16]| {
            let all = voters
                .iter()
                .filter(|node| if **node == own { digest == mine } else { of(**node).as_ref() == Some(digest) });
            all.count() > voters.len() / 2
        };
        if odd.iter().filter_map(|node| of(*node)).any(|digest| votes(&digest)) {
            found.own_is_odd.get_or_insert(*entries);
        }
        found.is_sure &= votes(mine);
        for node in odd {
            found.odd.entry(node).or_insert(*entries);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: [u8; 16] = [1; 16];
    const B: [u8; 16] = [2; 16];

    fn compared(mine: &[Mark], told: &[(u64, &[Mark])]) -> Comparison {
        let told = told.iter().map(|(node, marks)| (*node, marks.to_vec())).collect();
        compare(1, mine, &told, &BTreeSet::from([1, 2, 3]))
    }

    #[test]
    fn the_one_that_differs_from_a_majority_is_odd() {
        let mine = [(64, A), (128, A)];
        let same = Comparison { is_sure: true, ..Comparison::default() };
        assert_eq!(compared(&mine, &[(2, &[(64, A)]), (3, &[(128, A), (192, B)])]), same);
        assert_eq!(compared(&mine, &[]), same);
        let found = compared(&mine, &[(2, &[(64, A), (128, A)]), (3, &[(64, A), (128, B)])]);
        assert_eq!(found, Comparison { odd: [(3, 128)].into(), ..same.clone() });
        let found = compared(&mine, &[(2, &[(128, B)]), (3, &[(128, B)])]);
        assert_eq!((found.own_is_odd, found.is_sure), (Some(128), false));
    }

    #[test]
    fn two_that_differ_are_not_sure() {
        let found = compared(&[(64, A)], &[(2, &[(64, B)])]);
        assert_eq!(found, Comparison { own_is_odd: None, odd: [(2, 64)].into(), is_sure: false });
        // An observer has no say.
        let found = compared(&[(64, A)], &[(2, &[(64, B)]), (9, &[(64, B)])]);
        assert_eq!((found.own_is_odd, found.odd.len()), (None, 2));
    }
}
