//! Creates objects that refer to each other, and lets a branch refer to the first of them, in one transaction. Counted
//! by commits.

use std::collections::BTreeMap;

use super::MANY;
use crate::chance::Chance;
use crate::value::Value;
use crate::zeo::act::Act;
use crate::zeo::commit::transact;
use crate::zeo::line::Lost;
use crate::zeo::plan::Plan;
use crate::zeo::session::Session;

pub const GROW: Act = Act {
    name: "zeo_grow",
    reads_only: false,
    pause: 80..400,
    turn: |session, chance| Box::pin(grow(session, chance)),
};

async fn grow(session: &mut Session, chance: &mut Chance) -> Result<u64, Lost> {
    let branch = chance.one_of(&session.things().branches);
    let mut new = Vec::new();
    for _ in 0..1 + chance.below(4) {
        new.push(session.new_oid().await?);
    }
    if chance.once_in(2) {
        // An object may have a smaller id than those that refer to it, or a greater one.
        new.reverse();
    }
    let (in_a_row, also_an_old_one, pick) = (chance.once_in(2), chance.once_in(3), chance.number() as usize);
    let plan = Plan {
        reads: vec![branch],
        change: Box::new(move |found, _| {
            let Value::Node { to, weak } = &found[&branch].value else { return BTreeMap::new() };
            if to.len() >= MANY {
                return BTreeMap::new();
            }
            let mut values: BTreeMap<_, _> = new.iter().map(|oid| (*oid, Value::node(Vec::new()))).collect();
            if in_a_row {
                values.extend(new.windows(2).map(|pair| (pair[0], Value::node(vec![pair[1]]))));
            } else {
                values.insert(new[0], Value::node(new[1..].to_vec()));
            }
            let last = new[new.len() - 1];
            if also_an_old_one && !to.is_empty() && last != new[0] {
                values.insert(last, Value::node(vec![to[pick % to.len()]]));
            }
            let to = [to.as_slice(), &[new[0]]].concat();
            values.insert(branch, Value::Node { to, weak: weak.clone() });
            values
        }),
        ..Plan::default()
    };
    transact(session, chance, &plan).await
}
