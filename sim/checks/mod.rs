//! The checks: the promises that must hold, one a file.
//!
//! Each check counts what it had to look at ([`seen::check`](crate::seen::check)): a check that never had anything to
//! look at would hold whatever the server does.

pub mod answers_by_the_news;
pub mod appended_once;
pub mod conflicts_are_real;
pub mod every_news_once;
pub mod few_unknown;
pub mod heals;
pub mod locks_let_go;
pub mod no_exclusion;
pub mod no_lost_commit;
pub mod no_lost_update;
pub mod oids_once;
pub mod one_primary;
pub mod one_state_at_a_time;
pub mod rules_kept;
pub mod same_state_same_index;
pub mod serializable;
pub mod the_same_database;
pub mod votes_are_kept;

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use zrs::storage::Store;
use zrs::zodb::{Oid, State, Tid};

use crate::value::{Value, read};

/// All that the checks must have looked at, in enough runs.
pub const LOOKED_AT: [&str; 29] = [
    answers_by_the_news::CACHES,
    answers_by_the_news::LOADS,
    answers_by_the_news::OLD,
    answers_by_the_news::SERIALS,
    appended_once::APPENDED,
    conflicts_are_real::FINAL,
    conflicts_are_real::GIVEN_UP,
    conflicts_are_real::RESOLVED,
    conflicts_are_real::TO_RESOLVE,
    every_news_once::NEWS,
    every_news_once::OWN,
    few_unknown::STOPPED,
    few_unknown::UNKNOWN,
    heals::CLIENTS,
    locks_let_go::VOTES,
    no_lost_commit::COMMITTED,
    no_lost_commit::NOT_COMMITTED,
    no_lost_commit::UNKNOWN,
    no_lost_update::UPDATES,
    oids_once::OIDS,
    one_state_at_a_time::CACHED,
    one_state_at_a_time::OLD,
    one_state_at_a_time::READS,
    one_state_at_a_time::VIEWS,
    rules_kept::RULES,
    serializable::BASES,
    serializable::CHECKS,
    the_same_database::REVISIONS,
    votes_are_kept::FINISHES,
];

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
