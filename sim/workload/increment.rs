//! Adds one to some counters, if no other client comes first: a conflict is the end of it. Counted by commits.

use super::counters;
use super::worker::{Clients, Worker, Workload};
use crate::chance::Chance;
use crate::history::End;

pub const INCREMENT: Workload = Workload {
    name: "increment",
    clients: Clients::Writers,
    pause: 20..100,
    turn: |worker, chance| Box::pin(increment(worker, chance)),
};

async fn increment(worker: &Worker, chance: &mut Chance) -> u64 {
    let (chosen, padding) = (counters::some_of(&worker.counters(), chance), counters::padding(chance));
    let Ok(transaction) = worker.connection.begin().await else { return 0 };
    let Ok(values) = counters::values_of(worker, &transaction, &chosen).await else { return 0 };
    let values = values.into_iter().map(|(oid, value)| (oid, value + 1)).collect();
    u64::from(matches!(counters::commit(worker, transaction, values, padding).await, End::Committed(_)))
}
