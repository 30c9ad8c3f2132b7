//! Stores blobs, in parts of any size, and at times one that it never ends; then it may be gone. Counted by commits.

use std::collections::BTreeMap;

use crate::chance::Chance;
use crate::value::Value;
use crate::zeo::act::Act;
use crate::zeo::commit::transact;
use crate::zeo::line::Lost;
use crate::zeo::plan::Plan;
use crate::zeo::session::Session;

pub const UPLOAD: Act = Act {
    name: "zeo_upload",
    reads_only: false,
    pause: 150..900,
    turn: |session, chance| Box::pin(upload(session, chance)),
};

async fn upload(session: &mut Session, chance: &mut Chance) -> Result<u64, Lost> {
    let files = session.things().files;
    let chosen = if chance.once_in(4) { files } else { vec![chance.one_of(&files)] };
    let longest = chance.one_of(&[2, 300, 20_000]);
    let length = chance.below(longest);
    let plan = Plan {
        reads: chosen,
        change: Box::new(move |found, _| {
            if found.values().any(|read| read.value == Value::Gone) {
                return BTreeMap::new();
            }
            found.keys().map(|oid| (*oid, Value::Blob(length))).collect()
        }),
        leaves_a_part: chance.once_in(12),
        may_be_undone: true,
        ..Plan::default()
    };
    transact(session, chance, &plan).await
}
