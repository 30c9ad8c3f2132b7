//! Makes the pair equal to something new without having read it, a while after the transaction has begun: what others
//! have written meanwhile is a conflict all the same. Counted by commits.

use std::collections::BTreeMap;

use super::common;
use super::worker::{Clients, Worker, Workload};
use crate::chance::Chance;
use crate::history::End;
use crate::value::Value;

pub const OVERWRITE: Workload = Workload {
    name: "overwrite",
    clients: Clients::Writers,
    pause: 200..900,
    turn: |worker, chance| Box::pin(overwrite(worker, chance)),
};

async fn overwrite(worker: &Worker, chance: &mut Chance) -> u64 {
    let things = worker.things();
    let (wait, value) = (chance.millis(0..120), Value::Number(chance.below(1_000)));
    let Ok(transaction) = worker.connection.begin().await else { return 0 };
    worker.env.sleep(wait).await;
    let values: BTreeMap<_, _> = things.pair.iter().map(|oid| (*oid, value.clone())).collect();
    let end = common::commit(worker, transaction, values, 20).await;
    u64::from(matches!(end, End::Committed(_)))
}
