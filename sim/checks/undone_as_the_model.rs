//! **An undo does what FileStorage's would, or nothing.** Each object that the undone transaction wrote is again as
//! before it, if it still is as that transaction has left it; otherwise the whole transaction is refused, and names the
//! objects that stand in the way. Nothing that a pack has reached can be undone. The undo log has what can be.
//! (`src/storage/undo.rs`; docs/storage.md: Packs)

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use zrs::zodb::{Oid, Tid};

use crate::history::{Attempt, LOGGED, Record};
use crate::ledger::Ledger;
use crate::model::Model;
use crate::packs::Pack;
use crate::seen;
use crate::stream::Event;
use crate::value::Value;

pub const LOGS: &str = "undone_as_the_model: logs";
pub const REFUSED: &str = "undone_as_the_model: refused";
pub const TOO_OLD: &str = "undone_as_the_model: packed";
pub const UNDONE: &str = "undone_as_the_model: undone";

pub fn check(record: &Record, model: &Model, ledger: &Ledger, packs: &[Pack]) -> Result<(), String> {
    for (tid, mark) in &model.transactions {
        let attempt = &record.attempts[*mark as usize];
        let wrong = |why: String| format!("undone_as_the_model: attempt {mark} ({tid}, {:?}): {why}", attempt.undoes);
        let Some(kept) = ledger.transactions.get(tid).filter(|_| !attempt.undoes.is_empty()) else { continue };
        seen::check(UNDONE, 1);
        let undone =
            model.undo(&attempt.undoes, tid.previous()).map_err(|oids| wrong(format!("{oids:?} in the way")))?;
        for (oid, undone) in &undone {
            let due = undone.found.clone().filter(|(value, _)| *value != Value::Gone);
            let found = kept.writes.get(oid).cloned().filter(|(value, _)| *value != Value::Gone);
            let packed = found.is_none() && attempt.undoes.iter().any(|undone| model.may_lack(*oid, undone.previous()));
            if found != due && !packed {
                return Err(wrong(format!("{oid} is {found:?} now, not {due:?}")));
            }
        }
        let wrote: BTreeSet<&Oid> = kept.writes.keys().collect();
        if wrote != undone.keys().chain(attempt.writes.keys()).collect() {
            return Err(wrong(format!("{wrote:?} were written, not {:?}", undone.keys())));
        }
        // (The pack is seen a moment after it has begun.)
        let asked = attempt.votes.last().map(|(asked, _)| *asked).unwrap_or_default();
        let reached = |pack: &&Pack| pack.began < asked && attempt.undoes.iter().any(|undone| *undone <= pack.upto);
        if let Some(pack) = packs.iter().filter(|pack| pack.ended.is_none_or(|ended| ended > asked)).find(reached) {
            return Err(wrong(format!("{pack:?} had reached that")));
        }
    }
    for (number, stream) in record.streams.iter().enumerate() {
        let mut told = stream.registered;
        for (event, at) in stream.events.iter().zip(&stream.times) {
            match event {
                Event::News(tid, _) | Event::Finished { tid, .. } => told = *tid,
                Event::NotUndone { mark, oids } => {
                    refused(record, model, &record.attempts[*mark as usize], oids, (told, *at), packs)
                        .map_err(|why| format!("undone_as_the_model: {}: {event:?}: {why}", stream.name(number)))?;
                }
                Event::UndoLog(log) => {
                    seen::check(LOGS, 1);
                    // (The search takes its time, and news overtake it.)
                    let view = log.first().copied().unwrap_or(Tid::ZERO);
                    let newest = |floor: Tid| {
                        let all = model.transactions.keys().rev();
                        let due = all.filter(|tid| **tid > floor && **tid <= view).take(LOGGED);
                        view <= told && due.eq(log)
                    };
                    let floors = packs.iter().filter(|pack| pack.began <= *at).map(|pack| pack.upto);
                    if !floors.chain([Tid::ZERO]).any(newest) {
                        return Err(format!(
                            "undone_as_the_model: {}: told up to {told}: {log:?}",
                            stream.name(number)
                        ));
                    }
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Whether an undo had to be refused because of these objects, or as too old, by the time of the answer.
fn refused(
    record: &Record,
    model: &Model,
    attempt: &Attempt,
    oids: &BTreeSet<Oid>,
    (told, at): (Tid, Duration),
    packs: &[Pack],
) -> Result<(), String> {
    let reached = |pack: &&Pack| pack.began <= at && attempt.undoes.iter().any(|tid| *tid <= pack.upto);
    if oids.is_empty() {
        seen::check(TOO_OLD, 1);
        return packs.iter().find(reached).map(|_| ()).ok_or_else(|| "no pack has reached that".to_owned());
    }
    seen::check(REFUSED, 1);
    let newest = model.undo(&attempt.undoes, attempt.snapshot);
    let later = model.transactions.range(attempt.snapshot.next()..);
    let by_then = |(_, mark): &(&Tid, &u64)| record.attempts[**mark as usize].began <= at;
    let mut verdicts: Vec<_> = later.filter(by_then).map(|(tid, _)| model.undo(&attempt.undoes, *tid)).collect();
    verdicts.push(newest);
    let same = |verdict: &Result<BTreeMap<Oid, _>, BTreeSet<Oid>>| verdict.as_ref().err() == Some(oids);
    if verdicts.iter().any(same) { Ok(()) } else { Err(format!("told up to {told}, it had to be {verdicts:?}")) }
}
