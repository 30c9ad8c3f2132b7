//! What packs may leave of each object, by the rule of FileStorage, worked out without any of the server's code.
//!
//! A pack with time *t* removes, of an object, all revisions before the one that is current at *t*; all of them up to
//! *t* if the object is absent then, or can't be reached from the root. With garbage collection, a revision that a
//! younger one shows again stays. Beyond FileStorage, an object that a record younger than *t* refers to stays, with
//! all that it leads to.
//!
//! Nobody but the nodes knows how far a pack was when a client was answered, nor which attempts that came to nothing
//! had shown it a reference. So an object has several *variants*, each with the time from which on it may be met.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use zrs::zodb::{Oid, Tid};

use crate::history::Attempt;
use crate::packs::Pack;
use crate::seen;
use crate::value::{Found, Value};

pub const REMOVED: &str = "packed: revisions that had to go";
pub const GARBAGE: &str = "packed: garbage";
pub const REFERRED: &str = "packed: kept for younger records";
pub const UNCERTAIN: &str = "packed: either way";
pub const RESUMED: &str = "packed: resumed packs";

/// The revisions of an object.
pub type Revisions = BTreeMap<Tid, Found>;

/// Whether there is a revision after a tid, up to another one.
pub fn any_between(there: &Revisions, after: Tid, upto: Tid) -> bool {
    there.range(after.next()..).next().is_some_and(|(tid, _)| *tid <= upto)
}

/// What may be there of an object.
#[derive(Clone, Debug)]
pub struct Variant {
    /// Not before this time.
    pub since: Duration,
    pub revisions: Revisions,
    /// Whether all packs have passed over it.
    pub is_last: bool,
}

/// All that was committed.
pub struct Committed<'a> {
    pub objects: &'a BTreeMap<Oid, Revisions>,
    /// Of revisions that were made to show an older one again, that one's tid.
    pub links: &'a BTreeMap<(Oid, Tid), Tid>,
    pub attempts: &'a [Attempt],
}

/// How the packs of a run were made.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    pub gc: bool,
    /// A disk has failed, or a record can't be read, and a pack may have been given up for that.
    pub may_fail: bool,
}

/// By object, what may be there of it; objects that no pack may have touched are left out.
pub fn variants(committed: &Committed, packs: &[Pack], manner: Manner) -> BTreeMap<Oid, Vec<Variant>> {
    let mut all: BTreeMap<Oid, Vec<Variant>> = BTreeMap::new();
    for pack in packs {
        seen::check(RESUMED, u64::from(pack.resumed));
        let kept = committed.kept(pack);
        for (oid, revisions) in committed.objects {
            let garbage = match (manner.gc, kept.must.contains(oid), kept.may.contains(oid)) {
                (false, ..) | (_, true, _) => &[false][..],
                (_, _, true) => &[false, true],
                (_, _, false) => &[true],
            };
            let whole = || vec![Variant { since: Duration::ZERO, revisions: revisions.clone(), is_last: true }];
            let before = all.get(oid).cloned().unwrap_or_else(whole);
            let mut after = before.clone();
            after.iter_mut().for_each(|variant| variant.is_last &= manner.may_fail);
            for variant in before.iter().filter(|variant| variant.is_last) {
                for garbage in garbage {
                    committed.pack(*oid, variant, pack, (manner.gc, *garbage), &mut after);
                }
            }
            count(&kept, *oid, garbage, &after, revisions);
            all.insert(*oid, after);
        }
    }
    all.retain(|_, variants| variants.len() > 1);
    all
}

fn count(kept: &Keeps, oid: Oid, garbage: &[bool], after: &[Variant], revisions: &Revisions) {
    let fewest = after.iter().filter(|variant| variant.is_last).map(|variant| variant.revisions.len()).max();
    seen::check(REMOVED, (revisions.len() - fewest.unwrap_or(revisions.len())) as u64);
    seen::check(GARBAGE, u64::from(fewest == Some(0) && garbage == [true]));
    seen::check(REFERRED, u64::from(kept.must.contains(&oid) && !kept.reached.contains(&oid)));
    seen::check(UNCERTAIN, u64::from(garbage.len() > 1));
}

/// The objects that a pack keeps.
struct Keeps {
    /// Reached from the root.
    reached: BTreeSet<Oid>,
    must: BTreeSet<Oid>,
    may: BTreeSet<Oid>,
}

impl Committed<'_> {
    fn kept(&self, pack: &Pack) -> Keeps {
        let mut reached = BTreeSet::new();
        self.lead(pack, [Oid::ROOT].into(), &mut reached, true);
        let mut must = reached.clone();
        let young = self.objects.values().flat_map(|revisions| revisions.range(pack.upto.next()..));
        let young = young.filter(|(tid, _)| **tid <= pack.last);
        let referred: Vec<Oid> = young.flat_map(|(_, (value, _))| value.to()).copied().collect();
        self.lead(pack, referred.clone(), &mut must, false);
        let mut may = must.clone();
        self.lead(pack, referred, &mut may, true);
        for attempt in self.attempts.iter().filter(|attempt| beside(attempt, pack)) {
            self.lead(pack, self.shown_by(attempt), &mut may, true);
        }
        Keeps { reached, must, may }
    }

    /// Adds these objects, and what they lead to at the pack time. `whole`: also those that are younger, whose old
    /// revisions may go or stay.
    fn lead(&self, pack: &Pack, mut todo: Vec<Oid>, found: &mut BTreeSet<Oid>, whole: bool) {
        while let Some(oid) = todo.pop() {
            let Some(revisions) = self.objects.get(&oid) else { continue };
            let is_younger = any_between(revisions, pack.upto, pack.last);
            if (is_younger && !whole) || !found.insert(oid) {
                continue;
            }
            if let Some((_, (value, _))) = revisions.range(..=pack.upto).next_back() {
                todo.extend(value.to());
            }
        }
    }

    /// All that an attempt may have shown to a pack.
    fn shown_by(&self, attempt: &Attempt) -> Vec<Oid> {
        let undone = attempt.undoes.iter().flat_map(|tid| {
            let wrote = self.objects.values().filter(|revisions| revisions.contains_key(tid));
            wrote.flat_map(|revisions| revisions.values().flat_map(|(value, _)| value.to()))
        });
        attempt.writes.values().flat_map(Value::to).chain(undone).copied().collect()
    }

    /// What a pack may leave of a variant, on its way and in the end. (Without garbage collection it leaves no revision
    /// for the sake of those that show it again: they get the data.)
    fn pack(&self, oid: Oid, variant: &Variant, pack: &Pack, (gc, garbage): (bool, bool), after: &mut Vec<Variant>) {
        let there = &variant.revisions;
        let current = there.range(..=pack.upto).next_back();
        let whole = garbage || current.is_some_and(|(_, (value, _))| *value == Value::Gone);
        let younger = there.range(pack.upto.next()..).filter(|_| gc);
        let again: BTreeSet<Tid> = younger.filter_map(|(tid, _)| self.links.get(&(oid, *tid))).copied().collect();
        let goes = |tid: &&Tid| !again.contains(tid) && (whole || current.is_some_and(|(current, _)| *tid < current));
        let mut left = there.clone();
        let mut push = |revisions: &Revisions, is_last| {
            let since = variant.since.max(pack.began);
            let same = after.iter_mut().find(|other| other.revisions == *revisions);
            match same {
                Some(same) => {
                    same.since = same.since.min(since);
                    same.is_last |= is_last;
                }
                None => after.push(Variant { since, revisions: revisions.clone(), is_last }),
            }
        };
        for tid in there.range(..=pack.upto).map(|(tid, _)| tid).filter(goes) {
            push(&left, false);
            left.remove(tid);
        }
        push(&left, true);
    }
}

/// Whether an attempt may have voted while a pack went on.
fn beside(attempt: &Attempt, pack: &Pack) -> bool {
    let begins_after = pack.ended.is_some_and(|ended| attempt.began > ended);
    let ended_before = attempt.ended > Duration::ZERO && attempt.ended < pack.began;
    !begins_after && !ended_before
}
