//! Writes a page, or both, and with it the object that it refers to: a new one, the one that it has, or none any more.
//! Nobody else refers to that object; so all of it can be undone. Counted by commits.

use std::collections::BTreeMap;

use zrs::zodb::Oid;

use crate::chance::Chance;
use crate::value::Value;
use crate::zeo::act::Act;
use crate::zeo::commit::transact;
use crate::zeo::line::Lost;
use crate::zeo::plan::Plan;
use crate::zeo::session::Session;

pub const PAGE: Act = Act {
    name: "zeo_page",
    reads_only: false,
    pause: 60..300,
    turn: |session, chance| Box::pin(page(session, chance)),
};

async fn page(session: &mut Session, chance: &mut Chance) -> Result<u64, Lost> {
    let pages = session.things().pages;
    let chosen = if chance.once_in(3) { pages } else { vec![chance.one_of(&pages)] };
    let mut fates: BTreeMap<Oid, (u64, Oid)> = BTreeMap::new();
    for page in &chosen {
        fates.insert(*page, (chance.below(4), session.new_oid().await?));
    }
    let plan = Plan {
        reads: chosen,
        change: Box::new(move |found, _| {
            let mut values = BTreeMap::new();
            for (page, read) in found {
                let Value::Node { to, .. } = &read.value else { return BTreeMap::new() };
                let (fate, new) = fates[page];
                let to = match fate {
                    0 => Vec::new(),
                    1 | 2 => vec![new],
                    _ => to.clone(),
                };
                values.extend(to.iter().filter(|oid| **oid == new).map(|oid| (*oid, Value::node(Vec::new()))));
                values.insert(*page, Value::node(to));
            }
            values
        }),
        may_be_undone: true,
        ..Plan::default()
    };
    transact(session, chance, &plan).await
}
