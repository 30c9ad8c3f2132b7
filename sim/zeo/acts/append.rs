//! Appends its mark to a register, if a flag that it has read does not change. A conflict at the register is resolved
//! by appending again; then another object may be added, for which the locks have to be taken anew. Counted by commits.

use std::collections::BTreeMap;

use crate::chance::Chance;
use crate::value::Value;
use crate::zeo::act::Act;
use crate::zeo::commit::transact;
use crate::zeo::line::Lost;
use crate::zeo::plan::Plan;
use crate::zeo::session::Session;

pub const APPEND: Act = Act {
    name: "zeo_append",
    reads_only: false,
    pause: 15..80,
    turn: |session, chance| Box::pin(append_mark(session, chance)),
};

async fn append_mark(session: &mut Session, chance: &mut Chance) -> Result<u64, Lost> {
    let things = session.things();
    let (register, flag) = (chance.one_of(&things.registers), chance.one_of(&things.flags));
    let checks = if chance.once_in(4) { Vec::new() } else { vec![flag] };
    let plan = Plan {
        reads: vec![register, flag],
        change: Box::new(move |found, mark| {
            if found.values().any(|read| read.value == Value::Gone) {
                return BTreeMap::new();
            }
            let mut list = found[&register].value.list().to_vec();
            list.push(mark);
            BTreeMap::from([(register, Value::List(list))])
        }),
        checks,
        resolves: !chance.once_in(5),
        adds: true,
        lingers: true,
        ..Plan::default()
    };
    transact(session, chance, &plan).await
}
