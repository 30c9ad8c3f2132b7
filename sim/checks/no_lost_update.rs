//! **No lost update.** A transaction that wrote a counter had read the value that the transaction before it wrote: in
//! the order of the tids, each counter goes up by one, from nought.

use std::collections::BTreeMap;

use super::Kept;

pub fn check(kept: &[Kept]) -> Result<(), String> {
    let mut counters = BTreeMap::new();
    for transaction in kept {
        for (oid, value) in &transaction.writes {
            let expected = counters.get(oid).map_or(0, |before| before + 1);
            if *value != expected {
                return Err(format!(
                    "no_lost_update: attempt {} ({}) made counter {oid} {value} where {expected} was due",
                    transaction.mark, transaction.tid
                ));
            }
            counters.insert(*oid, *value);
        }
    }
    Ok(())
}
