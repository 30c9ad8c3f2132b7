//! Iterates over the transactions of the last seconds, and over the records of each, while packs go on. Counted by
//! transactions.

use zrs::zeo::{Call, Reply};
use zrs::zodb::Tid;

use crate::chance::Chance;
use crate::stream::{Event, Iterand, Iterated};
use crate::value::read;
use crate::zeo::act::Act;
use crate::zeo::line::{Answer, Lost};
use crate::zeo::session::Session;

pub const ITERATE: Act = Act {
    name: "zeo_iterate",
    reads_only: true,
    pause: 400..2_000,
    turn: |session, chance| Box::pin(iterate(session, chance)),
};

/// How many transactions are read at most.
const MOST: usize = 15;

async fn iterate(session: &mut Session, chance: &mut Chance) -> Result<u64, Lost> {
    let told = session.line.told();
    let from = Tid(told.0.saturating_sub(chance.below(8 << 32) / 60));
    let to = if chance.once_in(2) { None } else { Some(Tid(told.0.saturating_sub(chance.below(2 << 32) / 60))) };
    let start = session.line.call(Call::IteratorStart { start: Some(from), stop: to }).await?;
    let Answer::Reply(Reply::Iterator(iterator)) = start else { panic!("iterator_start was answered with {start:?}") };
    // It has told everything up to its start.
    let to = to.unwrap_or(Tid::MAX).min(session.line.told());
    let (mut transactions, mut is_whole) = (Vec::new(), false);
    while transactions.len() < MOST {
        let tid = match session.line.call(Call::IteratorNext(iterator)).await? {
            Answer::Reply(Reply::Transaction(tid, _)) => tid,
            Answer::Reply(Reply::Nothing) => {
                is_whole = true;
                break;
            }
            other => panic!("iterator_next was answered with {other:?}"),
        };
        transactions.push((tid, records(session, iterator, tid).await?));
    }
    if !is_whole {
        session.line.tell(&Call::IteratorGc(vec![iterator]));
    }
    let count = transactions.len() as u64;
    session.line.event(Event::Iterated(Iterated { from, to, is_whole, transactions }));
    Ok(count)
}

async fn records(session: &mut Session, iterator: i64, tid: Tid) -> Result<Vec<Iterand>, Lost> {
    let start = session.line.call(Call::IteratorRecordStart { iterator, tid }).await?;
    let Answer::Reply(Reply::Iterator(iterator)) = start else {
        panic!("iterator_record_start was answered with {start:?}")
    };
    let mut records = Vec::new();
    loop {
        match session.line.call(Call::IteratorRecordNext(iterator)).await? {
            Answer::Reply(Reply::IteratedRecord { oid, data, .. }) => {
                let found = data.map(|data| read(&data).unwrap_or_else(|| panic!("nobody has written {data:?}")));
                records.push((oid, found));
            }
            Answer::Reply(Reply::Nothing) => return Ok(records),
            other => panic!("iterator_record_next was answered with {other:?}"),
        }
    }
}
