//! Writes a record that no pack can read over a file: a pack up to then fails, and ends all the same; later ones don't,
//! once a blob is there again. In some runs only, as failed packs leave what others remove. Counted by commits.

use std::collections::BTreeMap;

use crate::chance::Chance;
use crate::value::Value;
use crate::zeo::act::Act;
use crate::zeo::commit::transact;
use crate::zeo::line::Lost;
use crate::zeo::plan::Plan;
use crate::zeo::session::Session;

pub const JUNK: Act = Act {
    name: "zeo_junk",
    reads_only: false,
    pause: 400..3_000,
    turn: |session, chance| Box::pin(junk(session, chance)),
};

async fn junk(session: &mut Session, chance: &mut Chance) -> Result<u64, Lost> {
    let file = chance.one_of(&session.things().files);
    let plan = Plan {
        reads: vec![file],
        change: Box::new(move |found, mark| match &found[&file].value {
            Value::Gone => BTreeMap::new(),
            _ => BTreeMap::from([(file, Value::Junk(mark))]),
        }),
        may_be_undone: true,
        ..Plan::default()
    };
    transact(session, chance, &plan).await
}
