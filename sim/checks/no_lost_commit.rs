//! **No lost commit.** The answer to a commit stays true: a transaction whose finish was answered is there, with the
//! tid of the answer and all that it wrote; one that was refused is not. (docs/replication.md, README.md)
//!
//! A transaction whose finish was not answered may be there or not, but not twice, and nothing is there that no client
//! has written.

use std::collections::BTreeMap;

use zrs::zodb::Oid;

use crate::history::{End, Record};
use crate::ledger::{Kept, Ledger};
use crate::seen;
use crate::value::{Found, Value};

pub const COMMITTED: &str = "no_lost_commit: answered";
pub const NOT_COMMITTED: &str = "no_lost_commit: refused";
pub const UNKNOWN: &str = "no_lost_commit: unknown";

pub fn check(record: &Record, ledger: &Ledger) -> Result<(), String> {
    let mut by_mark: BTreeMap<u64, &Kept> = BTreeMap::new();
    for transaction in ledger.transactions.values() {
        if by_mark.insert(transaction.mark, transaction).is_some() {
            return Err(format!("no_lost_commit: attempt {} is there twice", transaction.mark));
        }
        if record.attempts.len() as u64 <= transaction.mark {
            return Err(format!("no_lost_commit: {} is there, and no client has written it", transaction.tid));
        }
    }
    for attempt in &record.attempts {
        let name = format!("no_lost_commit: attempt {} of client {}", attempt.mark, attempt.client);
        seen::check(
            match attempt.end {
                End::Committed(_) => COMMITTED,
                End::Conflict(_) | End::NotCommitted(_) => NOT_COMMITTED,
                End::Unknown => UNKNOWN,
            },
            1,
        );
        match (&attempt.end, by_mark.get(&attempt.mark)) {
            (End::Committed(tid), None) => return Err(format!("{name} was answered ({tid:?}), and is not there")),
            (End::Committed(Some(tid)), Some(kept)) if kept.tid != *tid => {
                return Err(format!("{name} was answered with {tid}, but is {}", kept.tid));
            }
            (End::NotCommitted(_) | End::Conflict(_), Some(kept)) => {
                return Err(format!("{name} has not committed ({:?}), and is there as {}", attempt.end, kept.tid));
            }
            (_, Some(kept)) if attempt.undoes.is_empty() => {
                let own = |value: &Value| (value.clone(), attempt.mark);
                let wrote: BTreeMap<Oid, Found> =
                    attempt.writes.iter().map(|(oid, value)| (*oid, own(value))).collect();
                if wrote != kept.writes {
                    return Err(format!("{name} wrote {wrote:?}, but there is {:?}", kept.writes));
                }
            }
            _ => {}
        }
    }
    Ok(())
}
