//! **Nothing twice.** A register that is appended to has each attempt that committed once, in the order of the tids,
//! and no other: a retry, a resolved conflict and a lost answer add nothing by themselves.

use crate::history::Record;
use crate::model::Model;
use crate::seen;

pub const APPENDED: &str = "appended_once: appended";

pub fn check(record: &Record, model: &Model) -> Result<(), String> {
    for (oid, revisions) in model.objects().filter(|(oid, _)| record.things.registers.contains(oid)) {
        // (The first revision created the register.)
        let marks: Vec<u64> = revisions.values().skip(1).map(|(_, mark)| *mark).collect();
        for (n, (tid, (value, _))) in revisions.iter().enumerate() {
            if value.list() != &marks[..n] {
                return Err(format!("appended_once: {oid} as of {tid} has {:?}, not {:?}", value.list(), &marks[..n]));
            }
        }
        seen::check(APPENDED, marks.len() as u64);
    }
    Ok(())
}
