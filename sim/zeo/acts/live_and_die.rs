//! Deletes an object, or creates one that was deleted, and says so in a register, and in the holder that refers to the
//! object. A client that creates the object
//! can't know the deletion's serial: the conflict tells it. Counted by commits.

use std::collections::BTreeMap;

use crate::chance::Chance;
use crate::value::Value;
use crate::zeo::act::Act;
use crate::zeo::commit::transact;
use crate::zeo::line::Lost;
use crate::zeo::plan::Plan;
use crate::zeo::session::Session;

pub const LIVE_AND_DIE: Act = Act {
    name: "zeo_live_and_die",
    reads_only: false,
    pause: 30..150,
    turn: |session, chance| Box::pin(live_and_die(session, chance)),
};

async fn live_and_die(session: &mut Session, chance: &mut Chance) -> Result<u64, Lost> {
    let things = session.things();
    let one = chance.below(things.mortals.len() as u64) as usize;
    let (mortal, holder, register) = (things.mortals[one], things.holders[one], chance.one_of(&things.registers));
    let dies = chance.once_in(2);
    let plan = Plan {
        reads: vec![mortal, holder, register],
        change: Box::new(move |found, mark| {
            let Value::List(list) = &found[&register].value else { return BTreeMap::new() };
            if found[&holder].value == Value::Gone {
                return BTreeMap::new();
            }
            let next = match &found[&mortal].value {
                Value::Number(_) if dies => Value::Gone,
                other => Value::Number(other.number() + 1),
            };
            let list = Value::List([list.as_slice(), &[mark]].concat());
            let held = Value::node(if next == Value::Gone { Vec::new() } else { vec![mortal] });
            BTreeMap::from([(mortal, next), (holder, held), (register, list)])
        }),
        resolves: true,
        ..Plan::default()
    };
    transact(session, chance, &plan).await
}
