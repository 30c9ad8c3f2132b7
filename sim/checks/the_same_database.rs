//! **The database is the one that clients were answered about.** In the end each node has the transactions of the model
//! and no others; of each object every revision can be loaded, as it was written, with the tid of the next one.
//! (docs/storage.md)
//!
//! **A pack removes nothing reachable, nothing newer than its time, and all the garbage that FileStorage's would**: of
//! each object there is what the rule leaves ([`packed`](crate::packed)), and each transaction has the records that are
//! left of it; one that has none is gone. (docs/storage.md: Packs)

use std::collections::BTreeMap;
use std::io;

use zrs::storage::{Loaded as Revision, Store};
use zrs::zodb::{Oid, Refusal, StorageId, Tid};

use crate::ledger::kept;
use crate::model::{Model, load};
use crate::packed::Revisions;
use crate::seen;
use crate::stream::Loaded;
use crate::value::{Found, read};

pub const REVISIONS: &str = "the_same_database: revisions";
/// Loads of clients that a node has answered from its cache, which this check goes through as well.
pub const FROM_MEMORY: &str = "the_same_database: loads from memory";

pub fn check(model: &Model, store: &Store) -> Result<(), String> {
    let wrong = |why: String| format!("the_same_database: {why}");
    let fault = |fault: io::Error| wrong(fault.to_string());
    let Some(storage) = store.storage("1") else { return Ok(()) };
    let last = store.last_tid(storage);
    seen::check(FROM_MEMORY, store.cache_counts().hits);
    let mut expected: BTreeMap<Tid, BTreeMap<Oid, Found>> = BTreeMap::new();
    for (oid, all) in model.objects() {
        let there = there(store, storage, oid).map_err(fault)?;
        let variants = model.last(oid);
        let Some(revisions) = variants.iter().find(|revisions| revisions.keys().eq(&there)) else {
            let due: Vec<Vec<&Tid>> = variants.iter().map(|revisions| revisions.keys().collect()).collect();
            return Err(wrong(format!("{oid} has the revisions {there:?}, not {due:?}; committed were {all:?}")));
        };
        look(store, (storage, oid), all, revisions, last).map_err(wrong)?;
        for (tid, found) in *revisions {
            expected.entry(*tid).or_default().insert(oid, found.clone());
        }
    }
    let kept = kept(store).map_err(fault)?;
    let found: Vec<Tid> = kept.iter().map(|kept| kept.tid).collect();
    if !found.iter().eq(expected.keys()) {
        let differs = found.iter().zip(expected.keys()).find(|(one, other)| one != other);
        return Err(wrong(format!(
            "{} transactions where {} were due; the first that differs is {differs:?}",
            found.len(),
            expected.len()
        )));
    }
    for kept in kept {
        let (mark, due) = (model.transactions.get(&kept.tid), &expected[&kept.tid]);
        if mark != Some(&kept.mark) || kept.writes != *due {
            return Err(wrong(format!("there is {kept:?}, where attempt {mark:?} wrote {due:?}")));
        }
    }
    Ok(())
}

/// The revisions that a node has of an object, oldest first.
fn there(store: &Store, storage: StorageId, oid: Oid) -> io::Result<Vec<Tid>> {
    let all = store.history(storage, oid, usize::MAX, Tid::MAX)?;
    Ok(all.map(|all| all.iter().rev().map(|entry| entry.tid).collect()).unwrap_or_default())
}

/// Loads each revision that was committed, whether it is still there or not.
fn look(
    store: &Store,
    (storage, oid): (StorageId, Oid),
    committed: &Revisions,
    revisions: &Revisions,
    last: Tid,
) -> Result<(), String> {
    for tid in committed.keys() {
        seen::check(REVISIONS, 1);
        for before in [*tid, tid.next(), Tid::MAX] {
            let found = store.load_before(storage, oid, before, last).map_err(|fault| fault.to_string())?;
            let found = loaded(oid, found)?;
            let expected = load(revisions, before, last);
            if found != expected {
                return Err(format!("{oid} before {before} is {found:?}, not {expected:?}"));
            }
        }
    }
    Ok(())
}

fn loaded(oid: Oid, found: Result<Option<Revision>, Refusal>) -> Result<Loaded, String> {
    match found {
        Ok(Some(found)) => match read(&found.data) {
            Some((value, mark)) => Ok(Loaded::Found { value, mark, tid: found.tid, end: found.end }),
            None => Err(format!("{oid} at {} has a record that no client wrote", found.tid)),
        },
        Ok(None) => Ok(Loaded::Younger),
        Err(Refusal::NoObject(_)) => Ok(Loaded::NoObject),
        Err(other) => Err(format!("{oid} can't be loaded: {other}")),
    }
}
