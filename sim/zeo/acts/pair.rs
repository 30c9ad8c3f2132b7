//! Writes both objects of the pair, which are always equal. A conflict begins anew. Counted by commits.

use std::collections::BTreeMap;

use crate::chance::Chance;
use crate::value::Value;
use crate::zeo::act::Act;
use crate::zeo::commit::transact;
use crate::zeo::line::Lost;
use crate::zeo::plan::Plan;
use crate::zeo::session::Session;

pub const PAIR: Act = Act {
    name: "zeo_pair",
    reads_only: false,
    pause: 40..200,
    turn: |session, chance| Box::pin(pair(session, chance)),
};

async fn pair(session: &mut Session, chance: &mut Chance) -> Result<u64, Lost> {
    let plan = Plan {
        reads: session.things().pair,
        change: Box::new(|found, _| {
            if found.values().any(|read| read.value == Value::Gone) {
                return BTreeMap::new();
            }
            let next = found.values().map(|read| read.value.number()).max().unwrap_or(0) + 1;
            found.keys().map(|oid| (*oid, Value::Number(next))).collect()
        }),
        ..Plan::default()
    };
    transact(session, chance, &plan).await
}
