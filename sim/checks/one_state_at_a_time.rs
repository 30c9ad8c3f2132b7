//! **One state at a time.** A transaction reads the database as it was at one tid, whichever node served it, whatever
//! was cached, through failovers; and no client is shown what is taken back later. A client sees what it has
//! committed, and after a sync all that any client was told of before. (docs/replication.md)

use crate::history::Record;
use crate::model::Model;
use crate::seen;

pub const READS: &str = "one_state_at_a_time: reads";
pub const CACHED: &str = "one_state_at_a_time: from caches";
pub const OLD: &str = "one_state_at_a_time: of old states";
pub const VIEWS: &str = "one_state_at_a_time: views";

pub fn check(record: &Record, model: &Model) -> Result<(), String> {
    for shown in &record.shown {
        seen::check(READS, 1);
        seen::check(CACHED, u64::from(shown.cached));
        seen::check(OLD, u64::from(shown.historical));
        if !model.shows(shown.oid, shown.snapshot, shown.found.as_ref(), shown.cached) {
            let there = model.at(shown.oid, shown.snapshot);
            return Err(format!("one_state_at_a_time: there was {there:?}, but a client was shown {shown:?}"));
        }
    }
    seen::check(VIEWS, record.reached.len() as u64);
    match record.reached.iter().find(|reached| reached.view < reached.at_least) {
        Some(short) => Err(format!("one_state_at_a_time: {short:?}")),
        None => Ok(()),
    }
}
