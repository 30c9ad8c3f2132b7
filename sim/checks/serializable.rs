//! **One order of all.** The transactions are serializable in the order of their tids: each has written over the
//! revisions that it had read (or that it was told of when it resolved a conflict), and what it only checked had not
//! changed by then. Tids grow in real time: a transaction that began after another one was answered is the later one.
//! (README.md, docs/architecture.md)
//!
//! (That every read shows the state at its snapshot is `one_state_at_a_time`.)

use zrs::zodb::Tid;

use crate::history::{Attempt, End, Record};
use crate::model::Model;
use crate::seen;

pub const BASES: &str = "serializable: bases";
pub const CHECKS: &str = "serializable: checks";

pub fn check(record: &Record, model: &Model) -> Result<(), String> {
    for (tid, mark) in &model.transactions {
        let attempt = &record.attempts[*mark as usize];
        over_what_was_read(model, attempt, *tid)
            .map_err(|why| format!("serializable: attempt {mark} of client {} ({tid}) {why}", attempt.client))?;
    }
    in_real_time(record, model)
}

fn over_what_was_read(model: &Model, attempt: &Attempt, tid: Tid) -> Result<(), String> {
    // (An undo goes by what is current.)
    if tid <= attempt.snapshot {
        return Err(format!("is not younger than its snapshot, {}", attempt.snapshot));
    }
    for oid in attempt.writes.keys() {
        seen::check(BASES, 1);
        let base = model.base(*oid, tid);
        match attempt.bases.get(oid) {
            // (An object that was packed away may be stored over any serial.)
            Some(sent) if *sent != base && !model.may_lack(*oid, tid.previous()) => {
                return Err(format!("wrote {oid} over {base}, but had read {sent}"));
            }
            None if base > attempt.snapshot => {
                return Err(format!("wrote {oid} over {base}, but had read as of {}", attempt.snapshot));
            }
            _ => {}
        }
    }
    for (oid, serial) in &attempt.checks {
        seen::check(CHECKS, 1);
        let base = model.base(*oid, tid);
        if base != *serial {
            return Err(format!("checked {oid} as of {serial}, but by then it was {base}"));
        }
    }
    Ok(())
}

fn in_real_time(record: &Record, model: &Model) -> Result<(), String> {
    let (mut begun, mut answered) = (Vec::new(), Vec::new());
    for (tid, mark) in &model.transactions {
        let attempt = &record.attempts[*mark as usize];
        begun.push((attempt.began, *tid));
        if let End::Committed(_) = attempt.end {
            answered.push((attempt.ended, *tid));
        }
    }
    answered.sort_unstable();
    begun.sort_unstable();
    let (mut answers, mut newest) = (answered.into_iter().peekable(), Tid::ZERO);
    for (began, tid) in begun {
        while let Some((_, earlier)) = answers.next_if(|(ended, _)| *ended < began) {
            newest = newest.max(earlier);
        }
        if tid < newest {
            return Err(format!("serializable: {tid} began at {began:?}, when {newest} was answered already"));
        }
    }
    Ok(())
}
