//! **No answer beyond the news, nor behind them.** Each answer that a client of the protocol gets shows the database as
//! of the newest transaction that the client had been told of before it, on the same connection: an invalidation comes
//! before any effect of its transaction. After a reconnect the client is told of every object that it has missed.
//! (`src/server/session/view.rs`; docs/protocol.md: missed invalidations)

use zrs::zodb::{Oid, Tid};

use crate::history::Record;
use crate::model::Model;
use crate::seen;
use crate::stream::Event;

pub const LOADS: &str = "answers_by_the_news: loads";
pub const OLD: &str = "answers_by_the_news: old loads";
pub const SERIALS: &str = "answers_by_the_news: serials";
pub const CACHES: &str = "answers_by_the_news: catch-ups";

pub fn check(record: &Record, model: &Model) -> Result<(), String> {
    for (number, stream) in record.streams.iter().enumerate() {
        let mut told = stream.registered;
        for event in &stream.events {
            if let Some(expected) = expected(model, event, &mut told).filter(|expected| expected != event) {
                let name = stream.name(number);
                return Err(format!(
                    "answers_by_the_news: {name}, told up to {told}, was sent {event:?} where {expected:?} was due"
                ));
            }
        }
    }
    Ok(())
}

/// The event as it ought to be; `None` for one that this check does not look at.
fn expected(model: &Model, event: &Event, told: &mut Tid) -> Option<Event> {
    match event {
        Event::News(tid, _) | Event::Finished { tid, .. } => {
            *told = *tid;
            None
        }
        Event::Loaded { oid, before, .. } => {
            seen::check(if before > told { LOADS } else { OLD }, 1);
            Some(Event::Loaded { oid: *oid, before: *before, answer: model.load(*oid, *before, *told) })
        }
        Event::Serial { oid, tid, .. } => {
            seen::check(SERIALS, 1);
            let exact = model.newest(*oid, *tid).filter(|(newest, _)| newest == tid && tid <= told);
            let found = exact.and_then(|_| model.at(*oid, *tid));
            Some(Event::Serial { oid: *oid, tid: *tid, found })
        }
        Event::Last(_) => Some(Event::Last(*told)),
        Event::Missed { since, .. } => {
            seen::check(CACHES, 1);
            let oids: Vec<Oid> = model.changed(*since, *told);
            Some(Event::Missed { since: *since, answer: Some((*told, oids)) })
        }
        Event::Conflicts { .. } | Event::Failed { .. } | Event::Voted { .. } | Event::Refused { .. } => None,
    }
}
