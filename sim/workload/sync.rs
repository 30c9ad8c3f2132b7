//! Syncs: after that, the client sees every commit that any client was told of before. Counted by syncs.

use super::worker::{Clients, Worker, Workload};
use crate::history::Reached;

pub const SYNC: Workload =
    Workload { name: "sync", clients: Clients::All, pause: 100..500, turn: |worker, _| Box::pin(sync(worker)) };

async fn sync(worker: &Worker) -> u64 {
    let at_least = worker.history.look().answered;
    let Ok(view) = worker.connection.sync().await else { return 0 };
    let why = "it synced after that was answered";
    worker.history.look().reached.push(Reached { client: worker.client, view, at_least, why });
    1
}
