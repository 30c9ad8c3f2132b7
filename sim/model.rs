//! The model: a database as plain as can be, with none of the server's code.
//!
//! A transaction has its place by its tid, and an object is, as of any tid, what the newest transaction up to that tid
//! has written. The model is filled from what clients were answered; only of an attempt whose answer never came, the
//! database is asked whether it is there. Then every other answer has to fit, and so has the database.

use std::collections::BTreeMap;

use zrs::zodb::{Oid, Tid};

use crate::history::{Attempt, End, Record};
use crate::stream::Loaded;
use crate::value::{Found, Value};

/// All transactions that have committed.
#[derive(Default)]
pub struct Model {
    /// By tid, the marks of the attempts.
    pub transactions: BTreeMap<Tid, u64>,
    revisions: BTreeMap<Oid, BTreeMap<Tid, Found>>,
}

impl Model {
    /// The model of what clients did. `unanswered` tells the tid of an attempt whose client does not know it; `None`:
    /// the attempt has not committed.
    pub fn of(record: &Record, unanswered: impl Fn(&Attempt) -> Option<Tid>) -> Result<Model, String> {
        let mut model = Model::default();
        for attempt in &record.attempts {
            let tid = match &attempt.end {
                End::Committed(Some(tid)) => Some(*tid),
                End::Committed(None) | End::Unknown => unanswered(attempt),
                End::Conflict(_) | End::NotCommitted(_) => None,
            };
            let Some(tid) = tid else { continue };
            if let Some(other) = model.transactions.insert(tid, attempt.mark) {
                return Err(format!("attempts {other} and {} have both committed as {tid}", attempt.mark));
            }
            for (oid, value) in &attempt.writes {
                model.revisions.entry(*oid).or_default().insert(tid, (value.clone(), attempt.mark));
            }
        }
        Ok(model)
    }

    /// All objects, each with its revisions.
    pub fn objects(&self) -> impl Iterator<Item = (Oid, &BTreeMap<Tid, Found>)> {
        self.revisions.iter().map(|(oid, revisions)| (*oid, revisions))
    }

    /// The newest revision of an object that is not younger than `at`.
    pub fn newest(&self, oid: Oid, at: Tid) -> Option<(Tid, &Found)> {
        self.revisions.get(&oid)?.range(..=at).next_back().map(|(tid, found)| (*tid, found))
    }

    /// The serial that a write of the object at `tid` must be based on: zero if there was no revision.
    pub fn base(&self, oid: Oid, tid: Tid) -> Tid {
        self.newest(oid, tid.previous()).map_or(Tid::ZERO, |(base, _)| base)
    }

    /// The object as of `at`; `None`: there is none.
    pub fn at(&self, oid: Oid, at: Tid) -> Option<Found> {
        let (_, found) = self.newest(oid, at)?;
        (found.0 != Value::Gone).then(|| found.clone())
    }

    /// The answer to a load, for a client that was told everything up to `told` and nothing newer.
    pub fn load(&self, oid: Oid, before: Tid, told: Tid) -> Loaded {
        let asks_for_newest = before > told;
        let cap = if asks_for_newest { told } else { before.previous() };
        match self.newest(oid, cap).filter(|_| before > Tid::ZERO) {
            Some((_, (Value::Gone, _))) => Loaded::NoObject,
            Some((tid, (value, mark))) => {
                let after = self.revisions[&oid].range(tid.next()..).next().map(|(tid, _)| *tid);
                let end = after.filter(|end| *end <= told);
                Loaded::Found { value: value.clone(), mark: *mark, tid, end }
            }
            None if self.newest(oid, told).is_some() => Loaded::Younger,
            None => Loaded::NoObject,
        }
    }

    /// The objects that have changed after `since`, up to `upto`; each once, in order.
    pub fn changed(&self, since: Tid, upto: Tid) -> Vec<Oid> {
        let changed = |revisions: &BTreeMap<Tid, Found>| revisions.range(since.next()..=upto).next().is_some();
        self.objects().filter(|(_, revisions)| since < upto && changed(revisions)).map(|(oid, _)| oid).collect()
    }
}
