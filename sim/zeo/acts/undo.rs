//! Undoes one to three transactions of the undo log in one, as a rule the newest first: what was cut off, grafted on,
//! written to a page, or undone; or the very transaction up to which was packed, which has to be refused. Counted by
//! commits.

use std::collections::BTreeSet;

use zrs::zeo::{Call, Reply, UndoItem};
use zrs::zodb::{Oid, Tid};

use crate::chance::Chance;
use crate::history::{Attempt, LOGGED};
use crate::zeo::act::Act;
use crate::zeo::commit::transact;
use crate::zeo::line::{Answer, Lost};
use crate::zeo::plan::Plan;
use crate::zeo::session::Session;

pub const UNDO: Act = Act {
    name: "zeo_undo",
    reads_only: false,
    pause: 100..500,
    turn: |session, chance| Box::pin(undo(session, chance)),
};

async fn undo(session: &mut Session, chance: &mut Chance) -> Result<u64, Lost> {
    let packed = session.client.history.look().packed;
    if let Some(packed) = packed.filter(|_| chance.once_in(6)) {
        let plan = Plan { undoes: vec![packed], ..Plan::default() };
        return transact(session, chance, &plan).await;
    }
    let log = match session.line.call(Call::UndoLog { first: 0, last: -(LOGGED as i64) }).await? {
        Answer::Reply(Reply::UndoLog(log)) => log,
        other => panic!("undoLog was answered with {other:?}"),
    };
    let mut chosen: Vec<(Tid, BTreeSet<Oid>)> = {
        let record = session.client.history.look();
        let attempt = |item: &UndoItem| {
            let mark: usize = std::str::from_utf8(&item.meta.description).ok()?.parse().ok()?;
            let attempt: &Attempt = record.attempts.get(mark).filter(|attempt| attempt.may_be_undone)?;
            Some((item.tid, attempt.objects().collect()))
        };
        log.iter().filter_map(attempt).collect()
    };
    let (skip, many) = (chance.below(3) as usize, 1 + chance.below(3) as usize);
    chosen = chosen.into_iter().skip(skip).take(many).collect();
    if chosen.is_empty() {
        return Ok(0);
    }
    if chance.once_in(5) {
        chosen.reverse();
    }
    let plan = Plan {
        undoes: chosen.iter().map(|(tid, _)| *tid).collect(),
        touches: chosen.into_iter().flat_map(|(_, oids)| oids).collect(),
        may_be_undone: true,
        ..Plan::default()
    };
    transact(session, chance, &plan).await
}
