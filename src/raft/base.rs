//! A base: the content of a store before the first entry of the log; none, or an imported database.
//!
//! The log says what came after its base, never what the base holds; so all nodes of a cluster must begin with the same
//! base. They compare theirs while the cluster forms. The stamp keeps the base's digest, by which a store that does not
//! belong to the log is found out.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::stamp::Stamp;
use crate::storage::Store;
use crate::zodb::{StorageId, Tid};

/// The description of a base that nodes send each other. Two are equal if the stores are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogBase {
    storages: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Part {
    number: u32,
    name: String,
    transactions: u64,
    last: Tid,
    /// The digest of the storage's summary, which has digests of its records.
    digest: [u8; 32],
}

impl LogBase {
    /// The base of a store in which no entry of a log was applied yet.
    pub fn of(store: &Store) -> LogBase {
        let part = |(number, name): (StorageId, String)| {
            let summary = store.summary(number);
            let counts = [summary.last_tid.0, summary.objects, summary.bytes, summary.transactions];
            let more = [summary.next_oid.0, summary.next_piece, summary.packing.0, summary.packed.0];
            let mut hasher = blake3::Hasher::new();
            for count in counts.into_iter().chain(more) {
                hasher.update(&count.to_be_bytes());
            }
            hasher.update(&summary.history).update(&summary.present);
            Part {
                number: number.0,
                name,
                transactions: summary.transactions,
                last: summary.last_tid,
                digest: hasher.finalize().into(),
            }
        };
        LogBase { storages: store.storages().into_iter().map(part).collect() }
    }

    /// The base of `store`; an error if the log with this stamp belongs to another store.
    pub fn checked(store: &Store, stamp: Option<&Stamp>) -> anyhow::Result<LogBase> {
        let base = LogBase::of(store);
        let applied = store.applied().index;
        let advice = "give --data the folder as it was, or an empty one";
        match stamp {
            None if applied > 0 => {
                anyhow::bail!(
                    "this data folder's store was filled from a log of {applied} entries, which is gone: {advice}"
                )
            }
            Some(stamp) if applied == 0 && stamp.base != base.digest() => {
                anyhow::bail!(
                    "this data folder's store is not the one that its cluster began with; it has {base}: {advice}"
                )
            }
            _ => Ok(base),
        }
    }

    /// The base in short, for the stamp.
    pub fn digest(&self) -> [u8; 32] {
        blake3::hash(&postcard::to_stdvec(self).expect("a base is plain data")).into()
    }
}

impl fmt::Display for LogBase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.storages.is_empty() {
            return f.write_str("no data");
        }
        for (n, part) in self.storages.iter().enumerate() {
            let digest: String = part.digest[..4].iter().map(|byte| format!("{byte:02x}")).collect();
            let Part { name, transactions, last, .. } = part;
            let and = if n > 0 { " and " } else { "" };
            write!(f, "{and}storage {name:?} with {transactions} transactions up to {last} (digest {digest})")?;
        }
        Ok(())
    }
}

/// Says which nodes begin with other data than the rest, for people; `None` if all agree.
pub fn disagreement(bases: &BTreeMap<u64, LogBase>) -> Option<String> {
    let mut groups: Vec<(Vec<u64>, &LogBase)> = Vec::new();
    for (node, base) in bases {
        match groups.iter_mut().find(|(_, known)| *known == base) {
            Some((nodes, _)) => nodes.push(*node),
            None => groups.push((vec![*node], base)),
        }
    }
    if groups.len() < 2 {
        return None;
    }
    // The smallest groups first. (The sort is stable, so all nodes say the same.)
    groups.sort_by_key(|(nodes, _)| nodes.len());
    let named = groups.iter().map(|(nodes, base)| match &nodes[..] {
        [node] => format!("node {node} has {base}"),
        nodes => {
            let list: Vec<String> = nodes.iter().map(u64::to_string).collect();
            format!("nodes {} have {base}", list.join(" and "))
        }
    });
    Some(format!(
        "the nodes do not begin with the same data: {}. Stop whichever is wrong, and give it an empty folder into which \
         the same Data.fs was imported as on the others",
        named.collect::<Vec<_>>().join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(digest: u8) -> LogBase {
        let part = Part { number: 1, name: "1".into(), transactions: 188, last: Tid(0xab), digest: [digest; 32] };
        LogBase { storages: vec![part] }
    }

    #[test]
    fn the_odd_node_is_named() {
        let empty = LogBase::default;
        assert_eq!(disagreement(&BTreeMap::from([(1, base(7)), (2, base(7))])), None);
        assert_eq!(disagreement(&BTreeMap::from([(1, empty()), (2, empty()), (3, empty())])), None);
        let said = disagreement(&BTreeMap::from([(1, base(7)), (2, empty()), (3, base(7))])).unwrap();
        let expected = "node 2 has no data, nodes 1 and 3 have storage \"1\" with 188 transactions up to \
                        00000000000000ab (digest 07070707).";
        assert!(said.contains(expected), "{said}");
        let said = disagreement(&BTreeMap::from([(1, base(7)), (2, base(8))])).unwrap();
        assert!(said.contains("digest 07070707), node 2 has storage \"1\""), "{said}");
        assert_ne!(base(7).digest(), base(8).digest());
    }
}
