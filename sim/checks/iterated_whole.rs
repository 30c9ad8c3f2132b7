//! **An iterator leaves out nothing.** It shows the transactions that there were when it was started, each with all its
//! records, in order; only those that a pack removes may be missing. (`src/server/session/iterators.rs`)

use std::collections::BTreeMap;
use std::time::Duration;

use zrs::zodb::{Oid, Tid};

use crate::history::Record;
use crate::model::Model;
use crate::seen;
use crate::stream::{Event, Iterand, Iterated};

pub const TRANSACTIONS: &str = "iterated_whole: transactions";
pub const PASSED_OVER: &str = "iterated_whole: passed over";

pub fn check(record: &Record, model: &Model) -> Result<(), String> {
    for (number, stream) in record.streams.iter().enumerate() {
        for (event, at) in stream.events.iter().zip(&stream.times) {
            if let Event::Iterated(iterated) = event {
                follow(model, iterated, *at)
                    .map_err(|why| format!("iterated_whole: {}: {why}: {iterated:?}", stream.name(number)))?;
            }
        }
    }
    Ok(())
}

fn follow(model: &Model, iterated: &Iterated, at: Duration) -> Result<(), String> {
    let Iterated { from, to, is_whole, transactions } = iterated;
    if transactions.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
        return Err("not in order".to_owned());
    }
    let given: BTreeMap<Tid, &Vec<Iterand>> = transactions.iter().map(|(tid, records)| (*tid, records)).collect();
    if let Some(tid) = given.keys().find(|tid| **tid < *from || **tid > *to || !model.transactions.contains_key(tid)) {
        return Err(format!("there is no {tid} in it"));
    }
    let last = if *is_whole { Some(*to) } else { given.keys().next_back().copied() };
    for (tid, _) in model.transactions.range(from..).take_while(|(tid, _)| last.is_some_and(|last| **tid <= last)) {
        seen::check(TRANSACTIONS, 1);
        let records: BTreeMap<Oid, _> = given.get(tid).into_iter().flat_map(|all| all.iter().cloned()).collect();
        for oid in model.wrote(*tid) {
            let (shown, committed) = (records.get(&oid), model.at(oid, *tid));
            match shown {
                Some(shown) if *shown == committed => {}
                None if model.may_have_removed(oid, *tid, at) => seen::check(PASSED_OVER, 1),
                _ => return Err(format!("{oid} at {tid} came as {shown:?}, not {committed:?}")),
            }
        }
    }
    Ok(())
}
