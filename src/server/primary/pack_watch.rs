//! The watch of a pack over concurrent transactions: which garbage these refer to again.
//!
//! A granted vote [shows](PackWatch::show) its records to the pack before it is answered.
//!
//! - **No gc**: what the record refers to does not matter.
//! - **Marking** (the pack is finding the garbage): the objects that the record refers to are noted, and kept. A
//!   record that can't be read ends the pack, as it may refer to anything.
//! - **Marking, resumed** (an earlier reign has removed some of the garbage, nobody knows what): a transaction that
//!   adds a reference to an object waits until the garbage is known. Until then it may lead to something that has gone.
//! - **Sweeping** (the garbage is known, and goes): an object that would go is in doubt. It is
//!   [pardoned](PackWatch::pardon), with all that it leads to, or the vote is refused, as some of that has gone. A
//!   vote with a record that can't be read is refused.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::env::Env;
use crate::storage::pack::{Fate, Fault, Oids, Plan, references};
use crate::zodb::{Oid, Refusal};

/// How often a transaction that waits for the sweep looks for it.
const LOOK: Duration = Duration::from_millis(10);

/// The watch of one pack: what the pack has seen of concurrent transactions.
#[derive(Default)]
pub struct PackWatch {
    /// An earlier reign has begun the pack, and may have removed any object that is not there.
    resumed: bool,
    marks: Mutex<Marks>,
    /// Held while garbage is pardoned, or a step takes its last look at its objects.
    pub verdict: tokio::sync::Mutex<()>,
}

/// The marks: which objects are garbage, as far as the pack knows.
#[derive(Default)]
pub enum Marks {
    /// The pack collects no garbage.
    #[default]
    NoGc,
    /// The pack is finding the garbage.
    Marking(Shown),
    /// An object that is not `kept` is garbage if it is as old as the pack time. `gone`: the garbage that was removed.
    Sweeping { plan: Plan, kept: Oids, gone: Oids },
}

/// The objects that votes have referred to.
pub struct Shown {
    /// The referenced objects that exist: other references lead to nothing that could be removed.
    pub oids: Oids,
    /// The first object whose record could not be read, and why. Such a record may refer to anything.
    pub unclear: Option<(Oid, String)>,
    plan: Plan,
}

impl Shown {
    /// Nothing yet; `plan` looks at the store.
    pub fn new(plan: Plan) -> Shown {
        Shown { oids: Oids::default(), unclear: None, plan }
    }

    /// Takes out the references shown up to now.
    pub fn take(&mut self) -> Shown {
        let plan = self.plan.clone();
        std::mem::replace(self, Shown::new(plan))
    }
}

/// The answer to a transaction that shows a record.
pub enum Told {
    /// The transaction may go on.
    Fine,
    /// These objects would go: they have to be pardoned first.
    Doubt(Vec<Oid>),
    /// The record refers to this object, which has gone.
    Gone(Oid),
    /// The references of this object's record can't be read, for the reason given.
    Unclear(Oid, String),
}

impl PackWatch {
    /// The watch of a pack that is about to begin, or to be begun again.
    pub fn new(resumed: bool) -> PackWatch {
        PackWatch { resumed, ..PackWatch::default() }
    }

    /// The pack is over: nobody has to wait for its sweep.
    pub fn end(&self) {
        let mut marks = self.marks();
        if let Marks::Marking(_) = *marks {
            *marks = Marks::NoGc;
        }
    }

    fn is_marking(&self) -> bool {
        matches!(*self.marks(), Marks::Marking(_))
    }

    /// Whether the references of transactions matter to this pack.
    pub fn collects(&self) -> bool {
        !matches!(*self.marks(), Marks::NoGc)
    }

    /// A transaction that holds its locks shows a record that it writes, of object `of`; `is_own` tells the objects
    /// that the transaction writes.
    pub fn show(&self, of: Oid, record: &[u8], is_own: impl Fn(Oid) -> bool) -> Told {
        if !self.collects() {
            return Told::Fine;
        }
        let found = references(record).map(|mut found| {
            found.sort_unstable();
            found.dedup();
            found
        });
        // The references that are not noted yet. Whether those objects exist is looked up without the lock.
        let (plan, mut fresh) = match (&mut *self.marks(), &found) {
            (Marks::NoGc, _) => return Told::Fine,
            (Marks::Marking(shown), Err(why)) => {
                // The transaction may never commit; its references count all the same.
                shown.unclear.get_or_insert_with(|| (of, why.to_string()));
                return Told::Fine;
            }
            (Marks::Sweeping { .. }, Err(why)) => return Told::Unclear(of, why.to_string()),
            (Marks::Marking(shown), Ok(found)) => {
                let fresh: Vec<Oid> = found.iter().filter(|oid| !shown.oids.contains(**oid)).copied().collect();
                (shown.plan.clone(), fresh)
            }
            (Marks::Sweeping { plan, .. }, Ok(_)) => (plan.clone(), Vec::new()),
        };
        // An object that can't be looked up is taken to exist.
        let is_there = |oid: &Oid| plan.is_there(*oid).unwrap_or(true);
        if self.resumed {
            if let Some(oid) = fresh.iter().find(|oid| !is_own(**oid) && !is_there(oid)) {
                return Told::Gone(*oid);
            }
            let before = plan.references_now(of).unwrap_or_default();
            let is_added = |oid: &Oid| !is_own(*oid) && !before.contains(oid);
            if fresh.iter().any(is_added) {
                fresh.retain(|oid| !is_own(*oid));
                return Told::Doubt(fresh);
            }
        }
        fresh.retain(is_there);
        let (plan, unknown) = match (&mut *self.marks(), found) {
            (Marks::Marking(shown), Ok(_)) => {
                for oid in fresh {
                    shown.oids.insert(oid);
                }
                return Told::Fine;
            }
            // If the sweep began a moment ago, none of these was noted.
            (Marks::Sweeping { plan, kept, .. }, Ok(found)) => {
                let unknown: Vec<Oid> = found.into_iter().filter(|oid| !kept.contains(*oid) && !is_own(*oid)).collect();
                (plan.clone(), unknown)
            }
            (Marks::NoGc, _) | (_, Err(_)) => return Told::Fine,
        };
        let mut doubts = Vec::new();
        for oid in unknown {
            match plan.fate(oid) {
                Ok(Fate::Going) => doubts.push(oid),
                // The object stays without being kept: keeping it would keep its old revision too.
                Ok(Fate::Alive) => {}
                Ok(Fate::Absent) if self.resumed || self.has_taken(oid) => return Told::Gone(oid),
                // The object never existed, or a client deleted it: a reference to that object is no concern of a
                // pack.
                Ok(Fate::Absent) => {}
                Err(fault) => {
                    tracing::error!(%oid, %fault, "an object that is referred to could not be read");
                    doubts.push(oid);
                }
            }
        }
        if doubts.is_empty() { Told::Fine } else { Told::Doubt(doubts) }
    }

    /// Keeps these objects and all that they lead to; refused if one of those has gone.
    pub async fn pardon(self: &Arc<PackWatch>, env: &Env, oids: Vec<Oid>) -> Result<(), Refusal> {
        while self.is_marking() {
            env.sleep(LOOK).await;
        }
        let _verdict = self.verdict.lock().await;
        let plan = match &*self.marks() {
            Marks::Sweeping { plan, .. } => plan.clone(),
            // The pack has ended before it knew what an earlier reign has left of the garbage.
            Marks::NoGc | Marks::Marking(_) if self.resumed => {
                let why = "a pack that an earlier primary had begun could not go on, and nobody knows whether all that this \
                           transaction refers to is still there";
                return Err(Refusal::BadValue(why.into()));
            }
            Marks::NoGc | Marks::Marking(_) => return Ok(()),
        };
        if let Some(oid) = oids.iter().find(|oid| self.has_taken(**oid)) {
            return Err(Refusal::NoObject(*oid));
        }
        let watch = self.clone();
        let walk = move || {
            let taken = |oid| watch.resumed || watch.has_taken(oid);
            let found = plan.led_to(oids, |oid| watch.keeps(oid), taken)?;
            let mut lost = None;
            for oid in found.iter().filter(|_| watch.resumed) {
                if plan.fate(oid)? == Fate::Absent {
                    lost = Some(oid);
                }
            }
            Ok::<_, Fault>((found, lost))
        };
        let (found, lost) = match env.offload(walk).await {
            Ok(found) => found,
            // If the pack is over, nothing has checked that all the objects led to exists: refused, too.
            Err(fault) => return Err(Refusal::BadValue(format!("while a pack is going on, {fault}"))),
        };
        if let Some(oid) = lost.or_else(|| found.iter().find(|oid| self.has_taken(*oid))) {
            return Err(Refusal::NoObject(oid));
        }
        found.iter().for_each(|oid| self.keep(oid));
        Ok(())
    }

    fn keep(&self, oid: Oid) {
        if let Marks::Sweeping { kept, .. } = &mut *self.marks() {
            kept.insert(oid);
        }
    }

    fn has_taken(&self, oid: Oid) -> bool {
        matches!(&*self.marks(), Marks::Sweeping { gone, .. } if gone.contains(oid))
    }

    /// Whether an object is known to stay.
    pub fn keeps(&self, oid: Oid) -> bool {
        match &*self.marks() {
            Marks::Sweeping { kept, .. } => kept.contains(oid),
            Marks::NoGc | Marks::Marking(_) => true,
        }
    }

    /// The marks, locked for reading and changing.
    pub fn marks(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Change, Outcome, PackStep, Removal};
    use crate::server::testing::{self, S, apply, store, write};
    use crate::storage::Store;
    use crate::zodb::Tid;

    fn record(references: &[u64]) -> Vec<u8> {
        let mut pickle = b"\x80\x03N.\x80\x03(".to_vec();
        for oid in references {
            pickle.extend_from_slice(&[&b"C\x08"[..], &oid.to_be_bytes(), b"\x85Q"].concat());
        }
        [&pickle[..], b"t."].concat()
    }

    fn commit(store: &Store, tid: u64, objects: &[(u64, &[u64])]) {
        let writes = objects.iter().map(|(oid, references)| write(*oid, record(references))).collect();
        testing::commit(store, tid, writes);
    }

    /// A root that refers to nothing, and garbage: 1 leads to 2, 3 to 4.
    fn sweeping() -> (Store, Arc<PackWatch>) {
        let store = store();
        commit(&store, 1, &[(0, &[]), (1, &[2]), (2, &[]), (3, &[4]), (4, &[])]);
        let plan = Plan::new(&store, S, Tid(1), true);
        let mut kept = Oids::default();
        plan.reach(&mut kept).unwrap();
        let watch = PackWatch::default();
        *watch.marks() = Marks::Sweeping { plan, kept, gone: Oids::default() };
        (store, Arc::new(watch))
    }

    fn doubts(told: Told) -> Vec<u64> {
        match told {
            Told::Fine => vec![],
            Told::Doubt(oids) => oids.into_iter().map(|oid| oid.0).collect(),
            Told::Gone(oid) => panic!("object {oid} has gone"),
            Told::Unclear(oid, why) => panic!("object {oid}: {why}"),
        }
    }

    #[tokio::test]
    async fn what_is_referred_to_again_is_kept_with_all_that_it_leads_to() {
        let (_store, watch) = sweeping();
        assert_eq!(doubts(watch.show(Oid(0), &record(&[0, 1, 9]), |_| false)), [1]);
        assert!(!watch.keeps(Oid(1)));
        watch.pardon(&Env::system(), vec![Oid(1)]).await.unwrap();
        assert!(watch.keeps(Oid(1)) && watch.keeps(Oid(2)) && !watch.keeps(Oid(3)));
        assert_eq!(doubts(watch.show(Oid(0), &record(&[1, 2]), |_| false)), [0u64; 0]);
        // A transaction that writes an object anew does not need its old revision.
        assert_eq!(doubts(watch.show(Oid(0), &record(&[3]), |oid| oid == Oid(3))), [0u64; 0]);
    }

    #[tokio::test]
    async fn what_has_gone_cannot_be_had_again_nor_what_leads_to_it() {
        let (store, watch) = sweeping();
        if let Marks::Sweeping { gone, .. } = &mut *watch.marks() {
            gone.insert(Oid(4));
        }
        // On its way, and applied.
        for applied in [false, true] {
            if applied {
                apply(&store, Change::PackBegin { storage: S, upto: Tid(1) });
                let removal = Removal { oid: Oid(4), current: Tid(1), tids: vec![Tid(1)], heirs: vec![] };
                let step = PackStep { storage: S, objects: vec![removal], transactions: vec![] };
                assert_eq!(apply(&store, Change::PackStep(step)), Outcome::Done);
                assert!(matches!(watch.show(Oid(0), &record(&[4]), |_| false), Told::Gone(Oid(4))));
            }
            assert_eq!(doubts(watch.show(Oid(0), &record(&[3]), |_| false)), [3]);
            let refused = watch.pardon(&Env::system(), vec![Oid(3)]).await;
            assert_eq!(refused, Err(Refusal::NoObject(Oid(4))));
            assert!(!watch.keeps(Oid(3)));
        }
        // The object was stored anew since.
        commit(&store, 2, &[(4, &[])]);
        assert_eq!(doubts(watch.show(Oid(0), &record(&[4]), |_| false)), [0u64; 0]);
    }

    #[tokio::test]
    async fn a_resumed_pack_takes_what_is_not_there_for_what_it_took() {
        let (store, _) = sweeping();
        apply(&store, Change::PackBegin { storage: S, upto: Tid(1) });
        let removal = Removal { oid: Oid(4), current: Tid(1), tids: vec![Tid(1)], heirs: vec![] };
        let step = PackStep { storage: S, objects: vec![removal], transactions: vec![] };
        assert_eq!(apply(&store, Change::PackStep(step)), Outcome::Done);

        let plan = Plan::new(&store, S, Tid(1), true);
        let watch = Arc::new(PackWatch::new(true));
        *watch.marks() = Marks::Marking(Shown::new(plan.clone()));
        assert!(matches!(watch.show(Oid(0), &record(&[4]), |_| false), Told::Gone(Oid(4))));
        assert_eq!(doubts(watch.show(Oid(1), &record(&[2]), |_| false)), [0u64; 0]);
        assert_eq!(doubts(watch.show(Oid(0), &record(&[1, 3]), |_| false)), [1, 3]);

        let mut kept = Oids::default();
        plan.reach(&mut kept).unwrap();
        *watch.marks() = Marks::Sweeping { plan, kept, gone: Oids::default() };
        assert_eq!(watch.pardon(&Env::system(), vec![Oid(3)]).await, Err(Refusal::NoObject(Oid(4))));
        assert_eq!(watch.pardon(&Env::system(), vec![Oid(1)]).await, Ok(()));
        assert!(matches!(watch.show(Oid(0), &record(&[4]), |_| false), Told::Gone(Oid(4))));
    }

    #[tokio::test]
    async fn what_a_resumed_pack_could_not_find_out_is_not_granted() {
        let (store, _) = sweeping();
        for (resumed, granted) in [(true, false), (false, true)] {
            let watch = Arc::new(PackWatch::new(resumed));
            *watch.marks() = Marks::Marking(Shown::new(Plan::new(&store, S, Tid(1), true)));
            watch.end();
            assert_eq!(watch.pardon(&Env::system(), vec![Oid(3)]).await.is_ok(), granted);
        }
    }

    #[test]
    fn before_the_judgement_everything_that_is_there_is_noted() {
        let (store, _) = sweeping();
        let watch = PackWatch::default();
        assert!(!watch.collects());
        assert_eq!(doubts(watch.show(Oid(0), &record(&[3]), |_| false)), [0u64; 0]);
        *watch.marks() = Marks::Marking(Shown::new(Plan::new(&store, S, Tid(1), true)));
        assert!(watch.collects());
        assert_eq!(doubts(watch.show(Oid(0), &record(&[3, 3, 1 << 40, u64::MAX]), |_| false)), [0u64; 0]);
        let Marks::Marking(shown) = &mut *watch.marks() else { panic!("the sweep has begun") };
        let shown = shown.take();
        assert_eq!(shown.oids.iter().collect::<Vec<_>>(), [Oid(3)]);
        assert_eq!(shown.unclear, None);
    }

    #[tokio::test]
    async fn what_cannot_be_read_may_refer_to_anything() {
        let (store, watch) = sweeping();
        assert!(matches!(watch.show(Oid(8), b"junk", |_| false), Told::Unclear(Oid(8), _)));
        *watch.marks() = Marks::Marking(Shown::new(Plan::new(&store, S, Tid(1), true)));
        assert_eq!(doubts(watch.show(Oid(8), b"junk", |_| false)), [0u64; 0]);
        assert_eq!(doubts(watch.show(Oid(9), b"junk", |_| false)), [0u64; 0]);
        let Marks::Marking(shown) = &*watch.marks() else { panic!("the sweep has begun") };
        assert_eq!(shown.unclear.as_ref().map(|(oid, _)| *oid), Some(Oid(8)));
    }

    #[tokio::test]
    async fn a_walk_that_was_stopped_pardons_nothing() {
        let (store, watch) = sweeping();
        // Longer than what is read between two looks.
        let chain: Vec<[u64; 1]> = (100..600).map(|oid| [oid + 1]).collect();
        let objects: Vec<(u64, &[u64])> = (100..600).zip(&chain).map(|(oid, to)| (oid, &to[..])).collect();
        commit(&store, 2, &objects);
        let plan = Plan::new(&store, S, Tid(2), true);
        plan.stop();
        *watch.marks() = Marks::Sweeping { plan, kept: Oids::default(), gone: Oids::default() };
        assert!(matches!(watch.pardon(&Env::system(), vec![Oid(100)]).await, Err(Refusal::BadValue(_))));
    }

    #[test]
    fn what_has_changed_since_is_not_kept_by_a_reference() {
        let (store, watch) = sweeping();
        // 1 led to 2 at the pack time, and does not any more.
        commit(&store, 2, &[(1, &[])]);
        assert_eq!(doubts(watch.show(Oid(0), &record(&[1]), |_| false)), [0u64; 0]);
        assert!(!watch.keeps(Oid(1)) && !watch.keeps(Oid(2)));
    }
}
