//! **The database is the one that clients were answered about.** In the end each node has the transactions of the model
//! and no others; of each object every revision can be loaded, as it was written, with the tid of the next one.
//! (docs/storage.md)

use zrs::storage::Store;
use zrs::zodb::{Oid, Refusal, Tid};

use super::kept::Kept;
use crate::model::Model;
use crate::seen;
use crate::stream::Loaded;
use crate::value::read;

pub const REVISIONS: &str = "the_same_database: revisions";

pub fn check(model: &Model, store: &Store, kept: &[Kept]) -> Result<(), String> {
    let there: Vec<(Tid, u64)> = kept.iter().map(|kept| (kept.tid, kept.mark)).collect();
    let expected: Vec<(Tid, u64)> = model.transactions.iter().map(|(tid, mark)| (*tid, *mark)).collect();
    if there != expected {
        let differs = there.iter().zip(&expected).find(|(one, other)| one != other);
        return Err(format!(
            "the_same_database: {} transactions where {} were answered; the first that differs is {differs:?}",
            there.len(),
            expected.len()
        ));
    }
    let Some(storage) = store.storage("1") else { return Ok(()) };
    let last = store.last_tid(storage);
    for (oid, revisions) in model.objects() {
        for tid in revisions.keys() {
            seen::check(REVISIONS, 1);
            for before in [*tid, tid.next(), Tid::MAX] {
                let found = store.load_before(storage, oid, before, last).map_err(|fault| fault.to_string())?;
                let found = loaded(oid, found)?;
                let expected = model.load(oid, before, last);
                if found != expected {
                    return Err(format!("the_same_database: {oid} before {before} is {found:?}, not {expected:?}"));
                }
            }
        }
    }
    Ok(())
}

fn loaded(oid: Oid, found: Result<Option<zrs::storage::Loaded>, Refusal>) -> Result<Loaded, String> {
    match found {
        Ok(Some(found)) => match read(&found.data) {
            Some((value, mark)) => Ok(Loaded::Found { value, mark, tid: found.tid, end: found.end }),
            None => Err(format!("the_same_database: {oid} at {} has a record that no client wrote", found.tid)),
        },
        Ok(None) => Ok(Loaded::Younger),
        Err(Refusal::NoObject(_)) => Ok(Loaded::NoObject),
        Err(other) => Err(format!("the_same_database: {oid} can't be loaded: {other}")),
    }
}
