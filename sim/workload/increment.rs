//! Adds one to some counters, if no other client comes first: a conflict is the end of it. Counted by commits.

use super::common;
use super::worker::{Clients, Worker, Workload};
use crate::chance::Chance;
use crate::history::End;
use crate::value::Value;

pub const INCREMENT: Workload = Workload {
    name: "increment",
    clients: Clients::Writers,
    pause: 20..100,
    turn: |worker, chance| Box::pin(increment(worker, chance)),
};

async fn increment(worker: &Worker, chance: &mut Chance) -> u64 {
    let (chosen, padding) = (common::some_of(&worker.things().counters, chance), common::padding(chance));
    let Ok(transaction) = worker.connection.begin().await else { return 0 };
    let Ok(values) = common::values_of(worker, &transaction, &chosen).await else { return 0 };
    if values.values().any(|value| *value == Value::Gone) {
        // The snapshot is from before the counters were created.
        return 0;
    }
    let values = values.into_iter().map(|(oid, value)| (oid, Value::Number(value.number() + 1))).collect();
    u64::from(matches!(common::commit(worker, transaction, values, padding).await, End::Committed(_)))
}
