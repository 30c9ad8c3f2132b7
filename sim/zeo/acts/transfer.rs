//! Moves an amount from one account to another. A conflict is resolved by addition, or all begins anew. Counted by
//! commits.

use std::collections::BTreeMap;

use crate::chance::Chance;
use crate::value::Value;
use crate::zeo::act::Act;
use crate::zeo::commit::transact;
use crate::zeo::line::Lost;
use crate::zeo::plan::Plan;
use crate::zeo::session::Session;

pub const TRANSFER: Act = Act {
    name: "zeo_transfer",
    reads_only: false,
    pause: 30..150,
    turn: |session, chance| Box::pin(transfer(session, chance)),
};

async fn transfer(session: &mut Session, chance: &mut Chance) -> Result<u64, Lost> {
    let accounts = session.things().accounts;
    let (from, to, amount) = (chance.one_of(&accounts), chance.one_of(&accounts), 1 + chance.below(20));
    if from == to {
        return Ok(0);
    }
    let plan = Plan {
        reads: vec![from, to],
        change: Box::new(move |found, _| {
            let (has, gets) = (found[&from].value.number(), found[&to].value.number());
            if has < amount {
                return BTreeMap::new();
            }
            BTreeMap::from([(from, Value::Number(has - amount)), (to, Value::Number(gets.wrapping_add(amount)))])
        }),
        resolves: chance.once_in(2),
        ..Plan::default()
    };
    transact(session, chance, &plan).await
}
