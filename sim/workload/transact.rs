//! Adds one to some counters by `Client::transact`, which tries again after a conflict. Counted by commits.
//!
//! Each try is an attempt of its own in the history. Those before the last have not committed, and must not be there.

use std::cell::RefCell;

use zrs::client::{CommitError, Transaction};

use super::counters;
use super::worker::{Clients, Worker, Workload};
use crate::chance::Chance;
use crate::history::End;

pub const TRANSACT: Workload = Workload {
    name: "transact",
    clients: Clients::Writers,
    pause: 20..100,
    turn: |worker, chance| Box::pin(transact(worker, chance)),
};

async fn transact(worker: &Worker, chance: &mut Chance) -> u64 {
    let (chosen, padding) = (counters::some_of(&worker.counters(), chance), counters::padding(chance));
    let marks = RefCell::new(Vec::new());
    let work = async |transaction: Transaction| {
        let values = counters::values_of(worker, &transaction, &chosen).await?;
        let values = values.into_iter().map(|(oid, value)| (oid, value + 1)).collect();
        marks.borrow_mut().push(counters::write(worker, &transaction, values, padding));
        Ok::<_, CommitError>(())
    };
    let done = worker.connection.transact(work).await;
    let mut marks = marks.take();
    let last = marks.pop();
    for mark in marks {
        worker.history.ends(mark, End::NotCommitted("it was tried again".to_owned()));
    }
    if let Some(last) = last {
        let end = match &done {
            Ok(()) => End::Committed(None),
            Err(error) => counters::end_of(error),
        };
        worker.history.ends(last, end);
    }
    u64::from(done.is_ok())
}
