//! Two share a watch: one may leave only while the other is on, and checks that the other has not changed. Counted by
//! commits.

use std::collections::BTreeMap;

use crate::chance::Chance;
use crate::value::Value;
use crate::zeo::act::Act;
use crate::zeo::commit::transact;
use crate::zeo::line::Lost;
use crate::zeo::plan::Plan;
use crate::zeo::session::Session;

pub const WATCH: Act = Act {
    name: "zeo_watch",
    reads_only: false,
    pause: 20..120,
    turn: |session, chance| Box::pin(watch(session, chance)),
};

async fn watch(session: &mut Session, chance: &mut Chance) -> Result<u64, Lost> {
    let watch = session.things().watch;
    let one = chance.below(2) as usize;
    let (one, other) = (watch[one], watch[1 - one]);
    let plan = Plan {
        reads: watch,
        change: Box::new(move |found, _| match (&found[&one].value, &found[&other].value) {
            (Value::Number(1), Value::Number(1)) => BTreeMap::from([(one, Value::Number(0))]),
            (Value::Number(0), Value::Number(_)) => BTreeMap::from([(one, Value::Number(1))]),
            _ => BTreeMap::new(),
        }),
        checks: vec![other],
        lingers: true,
        ..Plan::default()
    };
    transact(session, chance, &plan).await
}
