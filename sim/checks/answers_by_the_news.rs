//! **No answer beyond the news, nor behind them.** Each answer that a client of the protocol gets shows the database as
//! of the newest transaction that the client had been told of before it, on the same connection: an invalidation comes
//! before any effect of its transaction. After a reconnect the client is told of every object that it has missed.
//! (`src/server/session/view.rs`; docs/protocol.md: missed invalidations)

use std::time::Duration;

use zrs::zodb::{Oid, Tid};

use crate::history::Record;
use crate::model::Model;
use crate::seen;
use crate::stream::Event;

pub const LOADS: &str = "answers_by_the_news: loads";
pub const OLD: &str = "answers_by_the_news: old loads";
pub const SERIALS: &str = "answers_by_the_news: serials";
pub const CACHES: &str = "answers_by_the_news: catch-ups";
pub const TOO_MANY: &str = "answers_by_the_news: caches dropped";

/// `most`: so many writes a client may have missed and still be told of.
pub fn check(record: &Record, model: &Model, most: usize) -> Result<(), String> {
    for (number, stream) in record.streams.iter().enumerate() {
        let mut told = stream.registered;
        for (event, at) in stream.events.iter().zip(&stream.times) {
            let expected = expected(model, event, &mut told, *at, most);
            if !expected.is_empty() && !expected.contains(event) {
                let name = stream.name(number);
                return Err(format!(
                    "answers_by_the_news: {name}, told up to {told}, was sent {event:?} where {expected:?} was due"
                ));
            }
        }
    }
    Ok(())
}

/// The event as it ought to be, or may be while packs go on; none for one that this check does not look at.
fn expected(model: &Model, event: &Event, told: &mut Tid, at: Duration, most: usize) -> Vec<Event> {
    match event {
        Event::News(tid, _) | Event::Finished { tid, .. } => {
            *told = *tid;
            Vec::new()
        }
        Event::Loaded { oid, before, .. } => {
            seen::check(if before > told { LOADS } else { OLD }, 1);
            let answers = model.loads(*oid, *before, *told, at).into_iter();
            answers.map(|answer| Event::Loaded { oid: *oid, before: *before, answer }).collect()
        }
        Event::Serial { oid, tid, .. } => {
            seen::check(SERIALS, 1);
            let answers = model.serials(*oid, *tid, *told, at).into_iter();
            answers.map(|found| Event::Serial { oid: *oid, tid: *tid, found }).collect()
        }
        Event::Last(_) => vec![Event::Last(*told)],
        Event::Missed { since, answer } => {
            seen::check(CACHES, 1);
            let mut oids: Vec<Oid> = model.changed(*since, *told);
            // (Of what was packed away altogether nobody knows any more that it has changed.)
            let named = |oid: &Oid| answer.as_ref().is_some_and(|(_, oids)| oids.contains(oid));
            oids.retain(|oid| named(oid) || !model.may_forget(*oid, *since, *told, at));
            let mut expected = vec![Event::Missed { since: *since, answer: Some((*told, oids)) }];
            let between = model.transactions.range(since.next()..).take_while(|(tid, _)| **tid <= *told);
            if between.map(|(tid, _)| model.wrote(*tid).len()).sum::<usize>() > most {
                seen::check(TOO_MANY, 1);
                expected.push(Event::Missed { since: *since, answer: None });
                // (Fewer, if some were packed away.)
                expected.drain(..usize::from(!model.was_packed()));
            }
            expected
        }
        Event::Conflicts { .. }
        | Event::Failed { .. }
        | Event::Voted { .. }
        | Event::Missing { .. }
        | Event::NotUndone { .. }
        | Event::UndoLog(_)
        | Event::Blob { .. }
        | Event::Iterated(_)
        | Event::Refused { .. } => Vec::new(),
    }
}
