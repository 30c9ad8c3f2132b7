//! The model: a database as plain as can be, with none of the server's code.
//!
//! A transaction has its place by its tid, and an object is, as of any tid, what the newest transaction up to that tid
//! has written. The model is filled from what clients were answered; only of an attempt whose answer never came, the
//! ledger is asked whether it has committed. Then every other answer has to fit, and so has the database.
//!
//! The model forgets nothing. Where a pack may have removed something, an answer fits if it fits to one of the object's
//! variants ([`packed`]).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use zrs::zodb::{Oid, Tid};

use crate::history::{End, Record};
use crate::ledger::Ledger;
use crate::packed::{self, Committed, Manner, Revisions, Variant, any_between};
use crate::packs::Pack;
use crate::stream::Loaded;
use crate::value::{Found, Value};

/// All transactions that have committed.
#[derive(Default)]
pub struct Model {
    /// By tid, the marks of the attempts.
    pub transactions: BTreeMap<Tid, u64>,
    revisions: BTreeMap<Oid, Revisions>,
    links: BTreeMap<(Oid, Tid), Tid>,
    written: BTreeMap<Tid, BTreeSet<Oid>>,
    variants: BTreeMap<Oid, Vec<Variant>>,
}

/// An object as an undo leaves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undone {
    /// `None`: there was no such object.
    pub found: Option<Found>,
    /// The older revision that it shows again.
    pub link: Option<Tid>,
}

impl Model {
    /// The model of what clients did.
    pub fn of(record: &Record, ledger: &Ledger) -> Result<Model, String> {
        let by_mark: BTreeMap<u64, Tid> = ledger.transactions.values().map(|kept| (kept.mark, kept.tid)).collect();
        let mut model = Model::default();
        for attempt in &record.attempts {
            let tid = match &attempt.end {
                End::Committed(Some(tid)) => Some(*tid),
                End::Committed(None) | End::Unknown => by_mark.get(&attempt.mark).copied(),
                End::Conflict(_) | End::NotCommitted(_) => None,
            };
            let Some(tid) = tid else { continue };
            if let Some(other) = model.transactions.insert(tid, attempt.mark) {
                return Err(format!("attempts {other} and {} have both committed as {tid}", attempt.mark));
            }
        }
        for (tid, mark) in model.transactions.clone() {
            let attempt = &record.attempts[mark as usize];
            for (oid, value) in &attempt.writes {
                model.write(*oid, tid, (value.clone(), mark));
            }
            let undone = model.undo(&attempt.undoes, tid.previous());
            let undone =
                undone.map_err(|oids| format!("attempt {mark} ({tid}) has undone {attempt:?} in spite of {oids:?}"))?;
            for (oid, Undone { found, link }) in undone {
                // (What an undone transaction had found may have been packed away since.)
                let kept = ledger.transactions.get(&tid).and_then(|kept| kept.writes.get(&oid));
                if kept.is_some_and(|(value, _)| *value == Value::Gone) {
                    model.write(oid, tid, (Value::Gone, mark));
                    continue;
                }
                model.write(oid, tid, found.unwrap_or((Value::Gone, mark)));
                model.links.extend(link.map(|link| ((oid, tid), link)));
            }
        }
        Ok(model)
    }

    /// The objects as undoing these transactions, one after the other, leaves them, when `at` was the newest; or those
    /// that stand in the way: which were changed since, and not back again.
    pub fn undo(&self, undoes: &[Tid], at: Tid) -> Result<BTreeMap<Oid, Undone>, BTreeSet<Oid>> {
        let mut made: BTreeMap<Oid, Undone> = BTreeMap::new();
        for tid in undoes {
            let mut failed = BTreeSet::new();
            for oid in self.wrote(*tid) {
                let (is_as_left, now) = match made.get(&oid) {
                    Some(Undone { found, link }) => (*link == Some(*tid), found.clone()),
                    None => {
                        let (current, found) = self.newest(oid, at).expect("the undone transaction wrote it");
                        let shows = current == *tid || self.links.get(&(oid, current)) == Some(tid);
                        (shows, Some(found.clone()))
                    }
                };
                let alive = |found: &&Found| found.0 != Value::Gone;
                let wanted = self.revisions[&oid].get(tid).filter(alive);
                if !is_as_left && (wanted.is_none() || wanted != now.as_ref().filter(alive)) {
                    failed.insert(oid);
                }
                let before = self.newest(oid, tid.previous());
                let found = before.map(|(_, found)| found.clone());
                made.insert(oid, Undone { found, link: before.map(|(before, _)| before) });
            }
            if !failed.is_empty() {
                return Err(failed);
            }
        }
        Ok(made)
    }

    fn write(&mut self, oid: Oid, tid: Tid, found: Found) {
        self.revisions.entry(oid).or_default().insert(tid, found);
        self.written.entry(tid).or_default().insert(oid);
    }

    /// Works out what packs may have left.
    pub fn pack(&mut self, record: &Record, packs: &[Pack], manner: Manner) {
        let Model { revisions: objects, links, .. } = self;
        let committed = Committed { objects, links, attempts: &record.attempts };
        self.variants = packed::variants(&committed, packs, manner);
    }

    /// Whether a pack may have removed anything.
    pub fn was_packed(&self) -> bool {
        !self.variants.is_empty()
    }

    /// All objects, each with its revisions.
    pub fn objects(&self) -> impl Iterator<Item = (Oid, &Revisions)> {
        self.revisions.iter().map(|(oid, revisions)| (*oid, revisions))
    }

    /// The objects that a transaction wrote.
    pub fn wrote(&self, tid: Tid) -> BTreeSet<Oid> {
        self.written.get(&tid).cloned().unwrap_or_default()
    }

    /// The newest revision of an object that is not younger than `at`.
    pub fn newest(&self, oid: Oid, at: Tid) -> Option<(Tid, &Found)> {
        self.revisions.get(&oid)?.range(..=at).next_back().map(|(tid, found)| (*tid, found))
    }

    /// What may be there of an object, in the end or by the way, at a time of the run.
    fn ever(&self, oid: Oid, by: Duration) -> Vec<&Revisions> {
        match self.variants.get(&oid) {
            None => self.revisions.get(&oid).into_iter().collect(),
            Some(variants) => variants.iter().filter(|one| one.since <= by).map(|one| &one.revisions).collect(),
        }
    }

    /// What may be there of an object once all packs are over.
    pub fn last(&self, oid: Oid) -> Vec<&Revisions> {
        match self.variants.get(&oid) {
            None => self.revisions.get(&oid).into_iter().collect(),
            Some(variants) => variants.iter().filter(|one| one.is_last).map(|one| &one.revisions).collect(),
        }
    }

    /// Whether a pack may have removed all revisions of the object up to `at`.
    pub fn may_lack(&self, oid: Oid, at: Tid) -> bool {
        self.ever(oid, Duration::MAX).iter().any(|there| there.range(..=at).next().is_none())
    }

    /// Whether a pack may have removed one revision of the object by a time of the run.
    pub fn may_have_removed(&self, oid: Oid, tid: Tid, by: Duration) -> bool {
        self.ever(oid, by).iter().any(|there| !there.contains_key(&tid))
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

    /// Whether a client that read as of `at` may have been shown this. `cached`: from its cache, which may keep what
    /// was deleted and packed while the client was away.
    pub fn shows(&self, oid: Oid, at: Tid, found: Option<&Found>, cached: bool) -> bool {
        let shows = |there: &&Revisions| {
            let newest = there.range(..=at).next_back().map(|(_, found)| found);
            newest.filter(|(value, _)| *value != Value::Gone) == found
        };
        let ever = self.ever(oid, Duration::MAX);
        if ever.is_empty() {
            return found.is_none();
        }
        let stale = || {
            let Some(revisions) = self.revisions.get(&oid) else { return false };
            let serial = revisions.range(..=at).rev().find(|(_, other)| Some(*other) == found).map(|(tid, _)| *tid);
            serial.is_some_and(|serial| ever.iter().any(|there| !any_between(there, serial, at)))
        };
        ever.iter().any(shows) || (cached && stale())
    }

    /// The answers to a load that may come at a time of the run, for a client that was told everything up to `told` and
    /// nothing newer. The first is the one without any pack.
    pub fn loads(&self, oid: Oid, before: Tid, told: Tid, by: Duration) -> Vec<Loaded> {
        let ever = self.ever(oid, by);
        if ever.is_empty() {
            return vec![Loaded::NoObject];
        }
        ever.into_iter().map(|there| load(there, before, told)).collect()
    }

    /// The answers to a load of one revision.
    pub fn serials(&self, oid: Oid, tid: Tid, told: Tid, by: Duration) -> Vec<Option<Found>> {
        let exact = |there: &Revisions| {
            let found = there.get(&tid).filter(|_| tid <= told);
            found.filter(|(value, _)| *value != Value::Gone).cloned()
        };
        let ever = self.ever(oid, by);
        if ever.is_empty() { vec![None] } else { ever.into_iter().map(exact).collect() }
    }

    /// The objects that have changed after `since`, up to `upto`; each once, in order.
    pub fn changed(&self, since: Tid, upto: Tid) -> Vec<Oid> {
        let changed = |revisions: &Revisions| any_between(revisions, since, upto);
        self.objects().filter(|(_, revisions)| changed(revisions)).map(|(oid, _)| oid).collect()
    }

    /// Whether a pack may have removed all changes of the object after `since`, up to `upto`.
    pub fn may_forget(&self, oid: Oid, since: Tid, upto: Tid, by: Duration) -> bool {
        self.ever(oid, by).iter().any(|there| !any_between(there, since, upto))
    }
}

/// The answer to a load of an object with these revisions.
pub fn load(there: &Revisions, before: Tid, told: Tid) -> Loaded {
    let cap = if before > told { told } else { before.previous() };
    match there.range(..=cap).next_back().filter(|_| before > Tid::ZERO) {
        Some((_, (Value::Gone, _))) => Loaded::NoObject,
        Some((tid, (value, mark))) => {
            let after = there.range(tid.next()..).next().map(|(tid, _)| *tid);
            let end = after.filter(|end| *end <= told);
            Loaded::Found { value: value.clone(), mark: *mark, tid: *tid, end }
        }
        None if there.range(..=told).next().is_some() => Loaded::Younger,
        None => Loaded::NoObject,
    }
}
