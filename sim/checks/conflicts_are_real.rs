//! **Conflicts are real.** A client is told of a conflict only if another transaction has changed the object since the
//! revision that the client had read, and only after the news of that transaction; all conflicts of a vote come in one
//! answer; and once it has resolved them, a vote that needs no more locks meets no others. So a client that tries again
//! reads the newer state, and one that gives up has met a change each time, three times. (`src/tpc/mod.rs`,
//! docs/client.md)

use std::collections::BTreeMap;

use zrs::zodb::{Conflict, Oid, Tid};

use crate::history::{Attempt, End, Record, TRIED_AGAIN, TRIES};
use crate::model::Model;
use crate::seen;
use crate::stream::Event;

pub const TO_RESOLVE: &str = "conflicts_are_real: to resolve";
pub const RESOLVED: &str = "conflicts_are_real: resolved";
pub const FINAL: &str = "conflicts_are_real: final";
pub const GIVEN_UP: &str = "conflicts_are_real: given up";

pub fn check(record: &Record, model: &Model) -> Result<(), String> {
    for (number, stream) in record.streams.iter().enumerate() {
        let mut told = stream.registered;
        // What the transaction under way has locked, once it has met conflicts.
        let mut locked: Option<(u64, &BTreeMap<Oid, Tid>)> = None;
        for event in &stream.events {
            let wrong = |why: String| format!("conflicts_are_real: {}: {event:?}: {why}", stream.name(number));
            let (mark, sent, conflicts) = match event {
                Event::News(tid, _) | Event::Finished { tid, .. } => {
                    told = *tid;
                    continue;
                }
                Event::Conflicts { mark, sent, conflicts } => {
                    seen::check(TO_RESOLVE, conflicts.len() as u64);
                    complete(model, sent, conflicts, told).map_err(wrong)?;
                    (*mark, sent, conflicts.as_slice())
                }
                Event::Failed { mark, sent, conflict } => {
                    seen::check(FINAL, 1);
                    (*mark, sent, std::slice::from_ref(conflict))
                }
                Event::Voted { mark, .. } => {
                    seen::check(RESOLVED, u64::from(locked.is_some_and(|(other, _)| other == *mark)));
                    continue;
                }
                _ => continue,
            };
            conflicts.iter().try_for_each(|conflict| told_and_newest(model, conflict, told)).map_err(wrong)?;
            if locked.is_some_and(|(other, before)| other == mark && before.keys().eq(sent.keys())) {
                return Err(wrong("its locks were held since the vote before".to_owned()));
            }
            locked = Some((mark, sent));
        }
    }
    for attempt in &record.attempts {
        let End::Conflict(conflicts) = &attempt.end else { continue };
        let wrong =
            |why: String| format!("conflicts_are_real: attempt {} of client {}: {why}", attempt.mark, attempt.client);
        if conflicts.is_empty() {
            return Err(wrong("a conflict with nothing".to_owned()));
        }
        for conflict in conflicts {
            changed_since(model, attempt, conflict).map_err(wrong)?;
        }
    }
    record.give_ups.iter().try_for_each(|give_up| {
        seen::check(GIVEN_UP, 1);
        let conflicts = |mark: &&u64| match &record.attempts[**mark as usize].end {
            End::Conflict(_) => true,
            End::NotCommitted(why) => why == TRIED_AGAIN,
            End::Committed(_) | End::Unknown => false,
        };
        let met = give_up.marks.iter().filter(conflicts).count();
        if give_up.marks.len() == TRIES && met == TRIES {
            return Ok(());
        }
        Err(format!("conflicts_are_real: {give_up:?} was given up after {met} conflicts"))
    })
}

/// The conflict's revision is the newest that the client was told of.
fn told_and_newest(model: &Model, conflict: &Conflict, told: Tid) -> Result<(), String> {
    let newest = model.newest(conflict.oid, told).map(|(tid, _)| tid);
    if newest != Some(conflict.committed) {
        return Err(format!("{conflict:?}, but up to {told}, as the client was told, there is {newest:?}"));
    }
    Ok(())
}

/// The conflicts are those of what the client has `sent`, and none is missing.
fn complete(model: &Model, sent: &BTreeMap<Oid, Tid>, conflicts: &[Conflict], told: Tid) -> Result<(), String> {
    for (oid, base) in sent {
        let newest = model.newest(*oid, told).map(|(tid, _)| tid);
        let named = conflicts.iter().find(|conflict| conflict.oid == *oid).map(|conflict| conflict.read);
        let due = newest.filter(|newest| newest != base).map(|_| *base);
        let was_packed = named.is_none() && model.may_lack(*oid, told);
        if named != due && !was_packed {
            return Err(format!("{oid} was sent with {base}, and is {newest:?}"));
        }
    }
    Ok(())
}

/// Another transaction has changed the object since it was read.
fn changed_since(model: &Model, attempt: &Attempt, conflict: &Conflict) -> Result<(), String> {
    let Conflict { oid, committed, read } = conflict;
    let is_there = model.newest(*oid, *committed).is_some_and(|(tid, _)| tid == *committed);
    if !is_there || committed <= read {
        return Err(format!("{conflict:?}, but no transaction has changed the object since"));
    }
    let base = attempt.bases.get(oid).or_else(|| attempt.checks.get(oid));
    if base.is_some_and(|base| base != read) || (base.is_none() && *read > attempt.snapshot) {
        return Err(format!("{conflict:?}, but the client has sent {base:?}, or read as of {}", attempt.snapshot));
    }
    if base.is_none() && *committed <= attempt.snapshot {
        return Err(format!("{conflict:?}, but the client had read as of {}", attempt.snapshot));
    }
    Ok(())
}
