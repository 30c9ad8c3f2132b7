//! What workloads share: they read and write the objects of [`Things`], and their answers go into the history.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use zrs::client::{CallError, CommitError, Transaction};
use zrs::zodb::{Oid, Refusal};

use super::worker::Worker;
use crate::chance::Chance;
use crate::history::{End, GiveUp, Reached, Shown, TRIED_AGAIN};
use crate::things::Things;
use crate::value::{Value, read, record};

/// Creates the objects that all clients share. They are in the history if that has succeeded.
pub async fn create(worker: &Worker) {
    let mut oids = Vec::new();
    while oids.len() < Things::COUNT {
        match worker.new_oid().await {
            Some(oid) => oids.push(oid),
            None => return,
        }
    }
    let Ok(transaction) = worker.connection.begin().await else { return };
    let things = Things::of(oids);
    if let End::Committed(_) = commit(worker, transaction, things.at_first(), 0).await {
        worker.history.look().things = things;
    }
}

/// Some of the objects, one to three.
pub fn some_of(oids: &[Oid], chance: &mut Chance) -> Vec<Oid> {
    let some = 1 + chance.below(3) as usize;
    let chosen: BTreeSet<Oid> = (0..some).map(|_| chance.one_of(oids)).collect();
    chosen.into_iter().collect()
}

/// By how many bytes a record is made longer.
pub fn padding(chance: &mut Chance) -> usize {
    if chance.once_in(10) { chance.below(20_000) as usize } else { 20 }
}

/// Reads objects; what was read goes into the history.
pub async fn values_of(
    worker: &Worker,
    transaction: &Transaction,
    oids: &[Oid],
) -> Result<BTreeMap<Oid, Value>, CallError> {
    let (client, snapshot) = (worker.client, transaction.snapshot());
    let mut values = BTreeMap::new();
    for oid in oids.iter().copied() {
        let found = match transaction.read(oid).await {
            Ok(data) => Some(read(&data).expect("objects have records that clients wrote")),
            // (Objects are deleted; and the snapshot may be from before they were created.)
            Err(CallError::Refused(Refusal::NoObject(_))) => None,
            Err(error) => return Err(error),
        };
        values.insert(oid, found.as_ref().map_or(Value::Gone, |(value, _)| value.clone()));
        let shown = Shown { client, snapshot, oid, found, historical: false, cached: false };
        worker.history.look().shown.push(shown);
    }
    Ok(values)
}

/// Writes objects in a transaction; gives the attempt's mark.
pub fn write(worker: &Worker, transaction: &Transaction, values: &BTreeMap<Oid, Value>, padding: usize) -> u64 {
    let mark = worker.history.begins(worker.client, transaction.snapshot(), |_| values.clone());
    worker.history.look().attempts[mark as usize].manner = worker.manner;
    for (oid, value) in values {
        transaction.write(*oid, record(value, mark, padding));
    }
    mark
}

/// Writes objects and commits; how that ended goes into the history.
pub async fn commit(worker: &Worker, transaction: Transaction, values: BTreeMap<Oid, Value>, padding: usize) -> End {
    let mark = write(worker, &transaction, &values, padding);
    let end = match transaction.commit("somebody", mark.to_string()).await {
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

/// Reads objects, writes what `change` makes of them, and commits, by `Client::transact`, which tries again after a
/// conflict. Each try is an attempt of its own in the history; those before the last have not committed, and must not
/// be there. Gives how many transactions have committed.
pub async fn transact(
    worker: &Worker,
    oids: &[Oid],
    padding: usize,
    change: impl Fn(&BTreeMap<Oid, Value>) -> BTreeMap<Oid, Value>,
) -> u64 {
    let marks = RefCell::new(Vec::new());
    let work = async |transaction: Transaction| {
        let values = change(&values_of(worker, &transaction, oids).await?);
        let mark = (!values.is_empty()).then(|| write(worker, &transaction, &values, padding));
        marks.borrow_mut().push(mark);
        Ok::<_, CommitError>(())
    };
    let done = worker.connection.transact(work).await;
    let marks = marks.take();
    let Some((last, earlier)) = marks.split_last() else { return 0 };
    for mark in earlier.iter().flatten() {
        worker.history.ends(*mark, End::NotCommitted(TRIED_AGAIN.to_owned()));
    }
    // (A transaction that wrote nothing is none.)
    let Some(last) = *last else { return 0 };
    let end = match &done {
        Ok(()) => End::Committed(None),
        Err(error) => end_of(error),
    };
    if let End::Conflict(_) = end {
        let marks = marks.iter().flatten().copied().collect();
        worker.history.look().give_ups.push(GiveUp { client: worker.client, marks });
    }
    worker.history.ends(last, end);
    u64::from(done.is_ok())
}

/// The end of a transaction, by the error of its commit.
pub fn end_of(error: &CommitError) -> End {
    match error {
        CommitError::Unknown => End::Unknown,
        CommitError::Conflict(conflicts) => End::Conflict(conflicts.clone()),
        CommitError::Refused(_) | CommitError::Disconnected => End::NotCommitted(error.to_string()),
    }
}
