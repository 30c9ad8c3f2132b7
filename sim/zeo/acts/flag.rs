//! Counts a flag up, which others check. The vote waits for these, and its client is often gone before it is answered:
//! those that come after it must not wait for it. Counted by commits.

use std::collections::BTreeMap;

use crate::chance::Chance;
use crate::value::Value;
use crate::zeo::act::Act;
use crate::zeo::commit::transact;
use crate::zeo::line::Lost;
use crate::zeo::plan::Plan;
use crate::zeo::session::Session;

pub const FLAG: Act = Act {
    name: "zeo_flag",
    reads_only: false,
    pause: 30..150,
    turn: |session, chance| Box::pin(flag(session, chance)),
};

async fn flag(session: &mut Session, chance: &mut Chance) -> Result<u64, Lost> {
    let flag = chance.one_of(&session.things().flags);
    let plan = Plan {
        reads: vec![flag],
        change: Box::new(move |found, _| match &found[&flag].value {
            Value::Number(number) => BTreeMap::from([(flag, Value::Number(number + 1))]),
            _ => BTreeMap::new(),
        }),
        is_moody: true,
        ..Plan::default()
    };
    transact(session, chance, &plan).await
}
