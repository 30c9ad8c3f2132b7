//! **No lost update.** A transaction that wrote a counter had read the value that the transaction before it wrote, or
//! has resolved the conflict: in the order of the tids, each counter goes up by one, from nought.

use crate::history::Record;
use crate::model::Model;
use crate::seen;

pub const UPDATES: &str = "no_lost_update: updates";

pub fn check(record: &Record, model: &Model) -> Result<(), String> {
    let counters = &record.things.counters;
    for (oid, revisions) in model.objects().filter(|(oid, _)| counters.contains(oid)) {
        for (expected, (tid, (value, mark))) in (0..).zip(revisions) {
            seen::check(UPDATES, 1);
            if value.number() != expected {
                return Err(format!(
                    "no_lost_update: attempt {mark} ({tid}) made counter {oid} {value:?} where {expected} was due"
                ));
            }
        }
    }
    Ok(())
}
