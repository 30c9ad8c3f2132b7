//! Moves an amount from one account to another by `Client::transact`, and makes the pair equal to something new.
//! Counted by commits.

use std::collections::BTreeMap;

use super::common;
use super::worker::{Clients, Worker, Workload};
use crate::chance::Chance;
use crate::value::Value;

pub const TRANSFER: Workload = Workload {
    name: "transfer",
    clients: Clients::Writers,
    pause: 100..400,
    turn: |worker, chance| Box::pin(transfer(worker, chance)),
};

async fn transfer(worker: &Worker, chance: &mut Chance) -> u64 {
    let things = worker.things();
    let (from, to) = (chance.one_of(&things.accounts), chance.one_of(&things.accounts));
    let (amount, with_pair, padding) = (1 + chance.below(20), chance.once_in(3), common::padding(chance));
    let mut oids = vec![from, to];
    if with_pair {
        oids.extend(&things.pair);
    }
    common::transact(worker, &oids, padding, |values| {
        let (has, gets) = (values[&from].number(), values[&to].number());
        if from == to || has < amount {
            return BTreeMap::new();
        }
        let mut writes = BTreeMap::from([(from, Value::Number(has - amount)), (to, Value::Number(gets + amount))]);
        if with_pair {
            let next = Value::Number(values[&things.pair[0]].number() + 1);
            writes.extend(things.pair.iter().map(|oid| (*oid, next.clone())));
        }
        writes
    })
    .await
}
