//! Adds one to some counters by `Client::transact`, which tries again after a conflict. Counted by commits.

use std::collections::BTreeMap;

use super::common;
use super::worker::{Clients, Worker, Workload};
use crate::chance::Chance;
use crate::value::Value;

pub const TRANSACT: Workload = Workload {
    name: "transact",
    clients: Clients::Writers,
    pause: 20..100,
    turn: |worker, chance| Box::pin(transact(worker, chance)),
};

async fn transact(worker: &Worker, chance: &mut Chance) -> u64 {
    let (chosen, padding) = (common::some_of(&worker.things().counters, chance), common::padding(chance));
    common::transact(worker, &chosen, padding, |values| {
        if values.values().any(|value| *value == Value::Gone) {
            return BTreeMap::new();
        }
        values.iter().map(|(oid, value)| (*oid, Value::Number(value.number() + 1))).collect()
    })
    .await
}
