//! Lets a branch refer again to an object that was cut off from one, if the object still exists: perhaps while a pack
//! removes it. What the object leads to has to be there then, too. Counted by commits.
//!
//! While a primary goes on with the pack of another one, that is done again and again: parts of what was cut off have
//! gone then, and the new primary does not know which.

use std::collections::BTreeMap;

use super::MANY;
use crate::chance::Chance;
use crate::value::Value;
use crate::zeo::act::Act;
use crate::zeo::commit::transact;
use crate::zeo::line::Lost;
use crate::zeo::plan::Plan;
use crate::zeo::session::Session;

pub const GRAFT: Act = Act {
    name: "zeo_graft",
    reads_only: false,
    pause: 100..500,
    turn: |session, chance| Box::pin(grafts(session, chance)),
};

/// How often it is tried in a row at most.
const TRIES: u64 = 8;

async fn grafts(session: &mut Session, chance: &mut Chance) -> Result<u64, Lost> {
    let mut done = graft(session, chance, false).await?;
    for _ in 1..TRIES {
        if !session.client.history.look().resumes {
            break;
        }
        done += graft(session, chance, false).await?;
    }
    Ok(done)
}

/// Grafts an object on, if one was cut off. `last`: the one that was cut off last.
pub async fn graft(session: &mut Session, chance: &mut Chance, last: bool) -> Result<u64, Lost> {
    let (branch, cut_off) = (chance.one_of(&session.things().branches), session.client.history.look().cut_off.clone());
    if cut_off.is_empty() {
        return Ok(0);
    }
    // What was cut off last is still there as a rule.
    let of = match last {
        true => &cut_off[cut_off.len() - 1..],
        false if chance.once_in(2) => &cut_off[cut_off.len().saturating_sub(2)..],
        false => &cut_off[..],
    };
    let (graft, writes_it) = (chance.one_of(of), chance.once_in(4));
    let plan = Plan {
        reads: vec![branch, graft],
        change: Box::new(move |found, _| {
            let Value::Node { to, weak } = &found[&branch].value else { return BTreeMap::new() };
            let again = &found[&graft].value;
            if to.len() >= MANY || to.contains(&graft) || *again == Value::Gone {
                return BTreeMap::new();
            }
            let to = [to.as_slice(), &[graft]].concat();
            let mut values = BTreeMap::from([(branch, Value::Node { to, weak: weak.clone() })]);
            if writes_it && again.to().is_empty() {
                // (If it has gone meanwhile, this creates it again.)
                values.insert(graft, again.clone());
            }
            values
        }),
        checks: vec![graft],
        // (An undo of what creates the object again takes it away, whoever else has come to refer to it.)
        may_be_undone: !writes_it,
        ..Plan::default()
    };
    transact(session, chance, &plan).await
}
