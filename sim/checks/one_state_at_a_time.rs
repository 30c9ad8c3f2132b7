//! **One state at a time.** A transaction reads the database as it was at one tid, whichever node served it, whatever
//! was cached, through failovers; and no client is shown what is taken back later. A client sees what it has
//! committed, and after a sync all that any client was told of before.

use std::collections::BTreeMap;

use zrs::zodb::{Oid, Tid};

use super::Kept;
use crate::history::Record;

pub fn check(record: &Record, kept: &[Kept]) -> Result<(), String> {
    let mut revisions: BTreeMap<(Oid, Tid), u64> = BTreeMap::new();
    for transaction in kept {
        revisions.extend(transaction.writes.iter().map(|(oid, value)| ((*oid, transaction.tid), *value)));
    }
    for shown in &record.shown {
        let there = revisions.range((shown.oid, Tid::ZERO)..=(shown.oid, shown.snapshot)).next_back();
        if there.map(|(_, value)| *value) != shown.value {
            return Err(format!("one_state_at_a_time: there was {there:?}, but a client was shown {shown:?}"));
        }
    }
    match record.reached.iter().find(|reached| reached.view < reached.at_least) {
        Some(short) => Err(format!("one_state_at_a_time: {short:?}")),
        None => Ok(()),
    }
}
