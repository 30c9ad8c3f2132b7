//! Takes object ids: so many that the next ones come from the server, and after a failover from another range. Counted
//! by ids.

use super::worker::{Clients, Worker, Workload};

/// How many ids a turn takes.
const MANY: u64 = 60;

pub const NEW_OIDS: Workload = Workload {
    name: "new_oids",
    clients: Clients::Writers,
    pause: 100..500,
    turn: |worker, _| Box::pin(new_oids(worker)),
};

async fn new_oids(worker: &Worker) -> u64 {
    for taken in 0..MANY {
        if worker.new_oid().await.is_none() {
            return taken;
        }
    }
    MANY
}
