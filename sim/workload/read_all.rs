//! Reads all objects in one transaction, at one snapshot. Counted by objects read.

use super::common;
use super::worker::{Clients, Worker, Workload};

pub const READ_ALL: Workload =
    Workload { name: "read_all", clients: Clients::All, pause: 10..120, turn: |worker, _| Box::pin(read_all(worker)) };

async fn read_all(worker: &Worker) -> u64 {
    let Ok(transaction) = worker.connection.begin().await else { return 0 };
    let values = common::values_of(worker, &transaction, &worker.things().all()).await;
    values.map_or(0, |values| values.len() as u64)
}
