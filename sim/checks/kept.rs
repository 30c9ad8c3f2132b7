//! What a node keeps: the transactions as the checks compare them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use zrs::storage::Store;
use zrs::zodb::{Oid, State, Tid};

use crate::value::{Value, read};

/// A transaction as a node keeps it.
pub struct Kept {
    pub tid: Tid,
    pub mark: u64,
    /// The states that the transaction wrote.
    pub writes: BTreeMap<Oid, Value>,
}

/// All transactions of a node, by tid.
pub fn kept(store: &Store) -> io::Result<Vec<Kept>> {
    let Some(storage) = store.storage("1") else { return Ok(Vec::new()) };
    let mut all = Vec::new();
    let mut after = Tid::ZERO;
    while let Some((tid, _)) = store.transaction_at(storage, after.next(), Tid::MAX)? {
        let (mut writes, mut marks) = (BTreeMap::new(), BTreeSet::new());
        while let Some((_, revision)) = store.record_at(storage, tid, writes.len())? {
            let value = match &revision.state {
                State::Data(data) => {
                    let no_record = || io::Error::other(format!("no client has written {data:?}"));
                    let (value, mark) = read(data).ok_or_else(no_record)?;
                    marks.insert(mark);
                    value
                }
                // (A transaction that deletes writes something else as well, which has its mark.)
                State::Absent => Value::Gone,
            };
            writes.insert(revision.oid, value);
        }
        let Some(mark) = marks.pop_first().filter(|_| marks.is_empty()) else {
            return Err(io::Error::other(format!("{tid} has records of several transactions, or none")));
        };
        all.push(Kept { tid, mark, writes });
        after = tid;
    }
    Ok(all)
}

/// Compares the sums that a node keeps (of objects, records, bytes) with a count of what it holds.
pub fn counted(store: &Store) -> Result<(), String> {
    for (storage, _) in store.storages() {
        let (summary, recount) = store.recount(storage).map_err(|fault| format!("recount: {fault}"))?;
        if !recount.agrees(&summary) {
            return Err(format!("recount: {summary:?}, but counted {recount:?}"));
        }
    }
    Ok(())
}
