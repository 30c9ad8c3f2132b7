//! Lets a branch, or an object that a branch refers to, not refer to another one any more, or weakly only. Counted by
//! commits.

use std::collections::BTreeMap;

use crate::chance::Chance;
use crate::value::Value;
use crate::zeo::act::Act;
use crate::zeo::commit::transact;
use crate::zeo::line::Lost;
use crate::zeo::plan::Plan;
use crate::zeo::session::Session;

pub const CUT: Act = Act {
    name: "zeo_cut",
    reads_only: false,
    pause: 100..500,
    turn: |session, chance| Box::pin(cut(session, chance, false)),
};

/// How many objects that were cut off are remembered.
const REMEMBERED: usize = 12;

/// Cuts an object off, if there is one. `anew`: from a branch, and writes the object as it is once more, so that
/// nothing is younger.
pub async fn cut(session: &mut Session, chance: &mut Chance, anew: bool) -> Result<u64, Lost> {
    let branch = chance.one_of(&session.things().branches);
    let snapshot = session.line.told();
    let found = session.read_all(&[branch], snapshot).await?;
    let to = found[&branch].value.to();
    if to.is_empty() {
        return Ok(0);
    }
    let child = chance.one_of(to);
    let of = if chance.once_in(3) && !anew { child } else { branch };
    // (A pack up to the transaction itself finds it to be the last one that wrote what it has cut off.)
    let (pick, writes_it) = (chance.number() as usize, of == branch && (anew || chance.once_in(2)));
    let plan = Plan {
        reads: vec![branch, of, child],
        change: Box::new(move |found, _| {
            let Value::Node { to, weak } = &found[&of].value else { return BTreeMap::new() };
            // (What is not reachable any more is left alone.)
            if to.is_empty() || !found[&branch].value.to().contains(&child) {
                return BTreeMap::new();
            }
            let mut to = to.clone();
            let gone = to.remove(if of == branch {
                to.iter().position(|oid| *oid == child).unwrap_or(0)
            } else {
                pick % to.len()
            });
            let weak = weak.iter().rev().take(2).rev().chain([&gone]).copied().collect();
            let mut values = BTreeMap::from([(of, Value::Node { to, weak })]);
            let gone = &found[&child].value;
            if writes_it && *gone != Value::Gone {
                values.insert(child, gone.clone());
            }
            values
        }),
        may_be_undone: true,
        ..Plan::default()
    };
    let done = transact(session, chance, &plan).await?;
    if done > 0 && of == branch {
        let mut record = session.client.history.look();
        record.cut_off.push(child);
        let surplus = record.cut_off.len().saturating_sub(REMEMBERED);
        record.cut_off.drain(..surplus);
    }
    Ok(done)
}
