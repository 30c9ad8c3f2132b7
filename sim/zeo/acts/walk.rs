//! Walks from the branches along all references, at one snapshot: each object that is referred to has to be there.
//! Counted by objects read.

use std::collections::BTreeSet;

use zrs::zodb::Oid;

use crate::chance::Chance;
use crate::value::Value;
use crate::zeo::act::Act;
use crate::zeo::line::Lost;
use crate::zeo::session::Session;

pub const WALK: Act = Act {
    name: "zeo_walk",
    reads_only: true,
    pause: 100..500,
    turn: |session, chance| Box::pin(walk(session, chance)),
};

/// How many objects a walk reads at most.
const FAR: usize = 60;

async fn walk(session: &mut Session, chance: &mut Chance) -> Result<u64, Lost> {
    let things = session.things();
    let snapshot = session.line.told();
    let mut next: Vec<Oid> = if chance.once_in(4) { things.branches } else { vec![chance.one_of(&things.branches)] };
    let mut read: BTreeSet<Oid> = BTreeSet::new();
    while !next.is_empty() && read.len() < FAR {
        let found = session.read_all(&next, snapshot).await?;
        read.extend(next.drain(..));
        let led_to: BTreeSet<Oid> = found.values().flat_map(|read| read.value.to()).copied().collect();
        next.extend(led_to.difference(&read));
        debug_assert!(found.values().all(|read| !matches!(read.value, Value::Number(_) | Value::List(_))));
    }
    Ok(read.len() as u64)
}
