//! Reads objects as they were at an older tid (`loadBefore`). Counted by objects read.

use zrs::client::CallError;
use zrs::zodb::{Refusal, Tid};

use super::common;
use super::worker::{Clients, Worker, Workload};
use crate::chance::Chance;
use crate::history::Shown;
use crate::value::read;

pub const LOOK_BACK: Workload = Workload {
    name: "look_back",
    clients: Clients::All,
    pause: 100..400,
    turn: |worker, chance| Box::pin(look_back(worker, chance)),
};

async fn look_back(worker: &Worker, chance: &mut Chance) -> u64 {
    let (client, view) = (worker.client, worker.connection.view());
    // A moment of the last seconds: a tid counts the minute's seconds in its lower half.
    let snapshot = Tid(view.0.saturating_sub(chance.below(5 << 32) / 60));
    let mut read_so_far = 0;
    for oid in common::some_of(&worker.things().all(), chance) {
        let found = match worker.connection.load_before(oid, snapshot.next()).await {
            Ok(Some(found)) => Some(read(&found.data).expect("objects have records that clients wrote")),
            Ok(None) | Err(CallError::Refused(Refusal::NoObject(_))) => None,
            Err(_) => break,
        };
        worker.history.look().shown.push(Shown { client, snapshot, oid, found, historical: true, cached: false });
        read_so_far += 1;
    }
    read_so_far
}
