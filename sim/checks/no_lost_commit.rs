//! **No lost commit.** What a client was told is so, for good: a transaction whose finish was answered is there, with the tid
//! that was answered and all it wrote; one that was refused is not.
//!
//! A transaction whose finish was not answered may be there or not, but not twice.

use std::collections::BTreeMap;

use super::Kept;
use crate::history::{End, Record};

pub fn check(record: &Record, kept: &[Kept]) -> Result<(), String> {
    let mut by_mark: BTreeMap<u64, &Kept> = BTreeMap::new();
    for transaction in kept {
        if by_mark.insert(transaction.mark, transaction).is_some() {
            return Err(format!("no_lost_commit: attempt {} is there twice", transaction.mark));
        }
    }
    for attempt in &record.attempts {
        let who = format!("no_lost_commit: attempt {} of client {}", attempt.mark, attempt.client);
        match (&attempt.end, by_mark.get(&attempt.mark)) {
            (End::Committed(tid), None) => return Err(format!("{who} was answered ({tid:?}), and is not there")),
            (End::Committed(Some(tid)), Some(kept)) if kept.tid != *tid => {
                return Err(format!("{who} was answered with {tid}, but is {}", kept.tid));
            }
            (End::NotCommitted(why), Some(kept)) => {
                return Err(format!("{who} was refused ({why}), and is there as {}", kept.tid));
            }
            (_, Some(kept)) if attempt.writes != kept.writes => {
                return Err(format!("{who} wrote {:?}, but there is {:?}", attempt.writes, kept.writes));
            }
            _ => {}
        }
    }
    Ok(())
}
