//! The counters that workloads read and write: few, so that writers meet at them.

use std::collections::{BTreeMap, BTreeSet};

use zrs::client::{CallError, CommitError, Transaction};
use zrs::zodb::{Oid, Refusal};

use super::worker::Worker;
use crate::chance::Chance;
use crate::history::{End, Reached, Shown, read, record};

const COUNTERS: usize = 5;

/// Creates the counters, all at nought. They are in the history if that has succeeded.
pub async fn create(worker: &Worker) {
    let mut oids = Vec::new();
    while oids.len() < COUNTERS {
        match worker.new_oid().await {
            Some(oid) => oids.push(oid),
            None => return,
        }
    }
    let Ok(transaction) = worker.connection.begin().await else { return };
    let values: BTreeMap<Oid, u64> = oids.iter().map(|oid| (*oid, 0)).collect();
    if let End::Committed(_) = commit(worker, transaction, values, 0).await {
        worker.history.look().counters = oids;
    }
}

/// Some of the counters, one to three.
pub fn some_of(counters: &[Oid], chance: &mut Chance) -> Vec<Oid> {
    let some = 1 + chance.below(3) as usize;
    let chosen: BTreeSet<Oid> = (0..some).map(|_| chance.one_of(counters)).collect();
    chosen.into_iter().collect()
}

/// By how many bytes a record is made longer.
pub fn padding(chance: &mut Chance) -> usize {
    if chance.once_in(10) { chance.below(20_000) as usize } else { 20 }
}

/// Reads counters; the values read go into the history.
pub async fn values_of(
    worker: &Worker,
    transaction: &Transaction,
    counters: &[Oid],
) -> Result<BTreeMap<Oid, u64>, CallError> {
    let (client, snapshot) = (worker.client, transaction.snapshot());
    let mut values = BTreeMap::new();
    for oid in counters.iter().copied() {
        let data = match transaction.read(oid).await {
            Ok(data) => data,
            // The snapshot may be from before the counters were created, which breaks no promise.
            Err(CallError::Refused(Refusal::NoObject(oid))) => {
                worker.history.look().shown.push(Shown { client, snapshot, oid, value: None });
                return Err(CallError::Refused(Refusal::NoObject(oid)));
            }
            Err(error) => return Err(error),
        };
        let (value, _) = read(&data);
        worker.history.look().shown.push(Shown { client, snapshot, oid, value: Some(value) });
        values.insert(oid, value);
    }
    Ok(values)
}

/// Writes counters in a transaction; gives the attempt's mark.
pub fn write(worker: &Worker, transaction: &Transaction, values: BTreeMap<Oid, u64>, padding: usize) -> u64 {
    let mark = worker.history.begins(worker.client, values.clone());
    for (oid, value) in values {
        transaction.write(oid, record(value, mark, padding));
    }
    mark
}

/// Writes counters and commits; how that ended goes into the history.
pub async fn commit(worker: &Worker, transaction: Transaction, values: BTreeMap<Oid, u64>, padding: usize) -> End {
    let mark = write(worker, &transaction, values, padding);
    let end = match transaction.commit("somebody", "counted").await {
        Ok(tid) => End::Committed(Some(tid)),
        Err(error) => end_of(&error),
    };
    if let End::Committed(Some(at_least)) = end {
        let (client, view) = (worker.client, worker.connection.view());
        worker.history.look().reached.push(Reached { client, view, at_least, why: "it committed that itself" });
    }
    worker.history.ends(mark, end.clone());
    end
}

/// The end of a transaction, by the error of its commit.
pub fn end_of(error: &CommitError) -> End {
    match error {
        CommitError::Unknown => End::Unknown,
        CommitError::Conflict(_) | CommitError::Refused(_) | CommitError::Disconnected => {
            End::NotCommitted(error.to_string())
        }
    }
}
