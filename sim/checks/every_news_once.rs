//! **Every news once, and in order.** On each connection a client is told of every transaction after its register: none
//! is left out, none comes twice, no two as one, in the order of their tids, each with all objects that it wrote. In
//! the place of the client's own transaction stands the answer to its finish, and no invalidation.
//! (`src/server/session/view.rs`)

use std::collections::BTreeSet;

use zrs::zodb::{Oid, Tid};

use crate::history::Record;
use crate::model::Model;
use crate::seen;
use crate::stream::{Event, Stream};

pub const NEWS: &str = "every_news_once: invalidations";
pub const OWN: &str = "every_news_once: own finishes";

pub fn check(record: &Record, model: &Model) -> Result<(), String> {
    for (number, stream) in record.streams.iter().enumerate() {
        follow(record, model, number, stream)
            .map_err(|why| format!("every_news_once: {}: {why}", stream.name(number)))?;
    }
    Ok(())
}

fn follow(record: &Record, model: &Model, number: usize, stream: &Stream) -> Result<(), String> {
    let is_known = |tid: &Tid| *tid == Tid::ZERO || model.transactions.contains_key(tid);
    if !is_known(&stream.registered) {
        return Err("it registered at a tid that no transaction has".to_owned());
    }
    let mut due = model.transactions.range(stream.registered.next()..);
    for event in &stream.events {
        let (tid, told) = match event {
            Event::News(tid, oids) => (*tid, Some(oids)),
            Event::Finished { tid, .. } => (*tid, None),
            _ => continue,
        };
        let Some((next, mark)) = due.next() else { return Err(format!("{event:?}, and there is no such transaction")) };
        if *next != tid {
            return Err(format!("{event:?}, where the transaction {next} was due"));
        }
        let attempt = &record.attempts[*mark as usize];
        let is_own = attempt.stream == Some(number);
        match told {
            Some(_) if is_own => return Err(format!("{event:?} is the client's own transaction")),
            Some(oids) => {
                let wrote: BTreeSet<Oid> = model.wrote(tid);
                if oids.len() != wrote.len() || oids.iter().any(|oid| !wrote.contains(oid)) {
                    return Err(format!("{event:?}, but {wrote:?} were written"));
                }
                seen::check(NEWS, 1);
            }
            None if !is_own => return Err(format!("{event:?} is another client's transaction")),
            None => seen::check(OWN, 1),
        }
    }
    Ok(())
}
