//! Adds one to some counters. A conflict is resolved by addition, or all begins anew. Counted by commits.

use std::collections::BTreeMap;

use super::some_of;
use crate::chance::Chance;
use crate::value::Value;
use crate::zeo::act::Act;
use crate::zeo::commit::transact;
use crate::zeo::line::Lost;
use crate::zeo::plan::Plan;
use crate::zeo::session::Session;

pub const COUNT: Act = Act {
    name: "zeo_count",
    reads_only: false,
    pause: 15..80,
    turn: |session, chance| Box::pin(count(session, chance)),
};

async fn count(session: &mut Session, chance: &mut Chance) -> Result<u64, Lost> {
    let reads = some_of(&session.things().counters, chance);
    let plan = Plan {
        reads,
        change: Box::new(|found, _| {
            if found.values().any(|read| read.value == Value::Gone) {
                return BTreeMap::new();
            }
            found.iter().map(|(oid, read)| (*oid, Value::Number(read.value.number() + 1))).collect()
        }),
        resolves: chance.once_in(2),
        ..Plan::default()
    };
    transact(session, chance, &plan).await
}
