//! What a pack knows of the transactions beside it: which garbage they refer to again.
//!
//! A granted vote [shows](Watch::show) its records before it is answered. Until it is known what is garbage, all that they refer to is
//! noted, and kept; a record that can't be read ends the pack, as it may refer to anything. From then on what is garbage and would go is in doubt: it is [pardoned](Watch::pardon), with all that it leads
//! to, or the vote is refused, as some of that has gone; so is one with a record that can't be read.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::env::Env;
use crate::storage::pack::{Fate, Oids, Plan, references};
use crate::zodb::{Oid, Refusal};

/// What a pack has to know of the transactions beside it.
#[derive(Default)]
pub struct Watch {
    seen: Mutex<Seen>,
    /// Held by whoever decides about garbage.
    pub verdict: tokio::sync::Mutex<()>,
}

/// What it knows.
#[derive(Default)]
pub enum Seen {
    /// Nothing matters: no garbage is collected.
    #[default]
    Nothing,
    /// It is not known yet what is garbage.
    Shown(Shown),
    /// What is not `kept` is garbage if it is as old as the pack time.
    Judged { plan: Plan, kept: Oids, gone: Oids },
}

/// All that was referred to.
pub struct Shown {
    /// Of what there is: other references lead to nothing that could be removed.
    pub oids: Oids,
    /// The first object whose record could not be read, and why. It may refer to anything.
    pub unclear: Option<(Oid, String)>,
    plan: Plan,
}

impl Shown {
    /// Nothing yet; `plan` looks at the store.
    pub fn new(plan: Plan) -> Shown {
        Shown { oids: Oids::default(), unclear: None, plan }
    }

    /// What was shown up to now, which is noted no longer.
    pub fn take(&mut self) -> Shown {
        let plan = self.plan.clone();
        std::mem::replace(self, Shown::new(plan))
    }
}

/// What a transaction that shows its references is told.
pub enum Told {
    /// It may go on.
    Fine,
    /// These would go: they have to be pardoned first.
    Doubt(Vec<Oid>),
    /// It refers to what has gone.
    Gone(Oid),
    /// Nobody can tell what this object would refer to.
    Unclear(Oid, String),
}

impl Watch {
    /// Whether it matters to this pack what transactions refer to.
    pub fn is_looking(&self) -> bool {
        !matches!(*self.seen(), Seen::Nothing)
    }

    /// A transaction that holds its locks shows a record that it writes, of object `of`; `is_own` are the objects that it writes.
    pub fn show(&self, of: Oid, record: &[u8], is_own: impl Fn(Oid) -> bool) -> Told {
        if !self.is_looking() {
            return Told::Fine;
        }
        let found = references(record).map(|mut found| {
            found.sort_unstable();
            found.dedup();
            found
        });
        // What is not noted yet, and who can tell whether it is there: that is found out without the lock.
        let (plan, mut fresh) = match (&mut *self.seen(), &found) {
            (Seen::Nothing, _) => return Told::Fine,
            (Seen::Shown(shown), Err(why)) => {
                // It may never commit, but nobody knows.
                shown.unclear.get_or_insert_with(|| (of, why.to_string()));
                return Told::Fine;
            }
            (Seen::Judged { .. }, Err(why)) => return Told::Unclear(of, why.to_string()),
            (Seen::Shown(shown), Ok(found)) => {
                let fresh: Vec<Oid> = found.iter().filter(|oid| !shown.oids.contains(**oid)).copied().collect();
                (shown.plan.clone(), fresh)
            }
            (Seen::Judged { plan, .. }, Ok(_)) => (plan.clone(), Vec::new()),
        };
        // What can't be read is taken to be there.
        fresh.retain(|oid| plan.is_there(*oid).unwrap_or(true));
        let (plan, unknown) = match (&mut *self.seen(), found) {
            (Seen::Shown(shown), Ok(_)) => {
                for oid in fresh {
                    shown.oids.insert(oid);
                }
                return Told::Fine;
            }
            // Perhaps since right now: then nothing of this was noted.
            (Seen::Judged { plan, kept, .. }, Ok(found)) => {
                let unknown: Vec<Oid> = found.into_iter().filter(|oid| !kept.contains(*oid) && !is_own(*oid)).collect();
                (plan.clone(), unknown)
            }
            (Seen::Nothing, _) | (_, Err(_)) => return Told::Fine,
        };
        let mut doubts = Vec::new();
        for oid in unknown {
            match plan.fate(oid) {
                Ok(Fate::Going) => doubts.push(oid),
                // It stays without being kept, which would keep its old revision too, and not what that leads to.
                Ok(Fate::Alive) => {}
                Ok(Fate::Absent) if self.has_taken(oid) => return Told::Gone(oid),
                // It never was there, or was deleted by somebody else: that is not for a pack to judge.
                Ok(Fate::Absent) => {}
                Err(fault) => {
                    tracing::error!(%oid, %fault, "an object that is referred to could not be read");
                    doubts.push(oid);
                }
            }
        }
        if doubts.is_empty() { Told::Fine } else { Told::Doubt(doubts) }
    }

    /// Keeps these objects and all that they lead to; refused if something of that has gone.
    pub async fn pardon(self: &Arc<Watch>, env: &Env, oids: Vec<Oid>) -> Result<(), Refusal> {
        let _verdict = self.verdict.lock().await;
        let plan = match &*self.seen() {
            Seen::Judged { plan, .. } => plan.clone(),
            Seen::Nothing | Seen::Shown(_) => return Ok(()),
        };
        if let Some(oid) = oids.iter().find(|oid| self.has_taken(**oid)) {
            return Err(Refusal::NoObject(*oid));
        }
        let watch = self.clone();
        let walk = move || plan.led_to(oids, |oid| watch.keeps(oid), |oid| watch.has_taken(oid));
        let found = match env.offload(walk).await {
            Ok(found) => found,
            // If the pack is over, nobody has seen whether all is there that these lead to: it is refused, too.
            Err(fault) => return Err(Refusal::BadValue(format!("while a pack is going on, {fault}"))),
        };
        if let Some(oid) = found.iter().find(|oid| self.has_taken(*oid)) {
            return Err(Refusal::NoObject(oid));
        }
        found.iter().for_each(|oid| self.keep(oid));
        Ok(())
    }

    fn keep(&self, oid: Oid) {
        if let Seen::Judged { kept, .. } = &mut *self.seen() {
            kept.insert(oid);
        }
    }

    fn has_taken(&self, oid: Oid) -> bool {
        matches!(&*self.seen(), Seen::Judged { gone, .. } if gone.contains(oid))
    }

    /// Whether an object is known to stay.
    pub fn keeps(&self, oid: Oid) -> bool {
        match &*self.seen() {
            Seen::Judged { kept, .. } => kept.contains(oid),
            Seen::Nothing | Seen::Shown(_) => true,
        }
    }

    /// What it knows, to be changed.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Base, Change, Command, Commit, Content, Outcome, PackStep, Removal, Write};
    use crate::engine::SimDisk;
    use crate::storage::{Position, Store, TABLES};
    use crate::zodb::{StorageId, Tid, TransactionMeta};

    const S: StorageId = StorageId(1);

    fn record(references: &[u64]) -> Vec<u8> {
        let mut pickle = b"\x80\x03N.\x80\x03(".to_vec();
        for oid in references {
            pickle.extend_from_slice(&[&b"C\x08"[..], &oid.to_be_bytes(), b"\x85Q"].concat());
        }
        [&pickle[..], b"t."].concat()
    }

    fn apply(store: &Store, change: Change) -> Outcome {
        let at = Position { index: store.applied().index + 1, ..store.applied() };
        store.apply(at, &Command { reign: store.reign(), change }).unwrap()
    }

    fn commit(store: &Store, tid: u64, objects: &[(u64, &[u64])]) {
        let write = |(oid, references): &(u64, &[u64])| Write {
            oid: Oid(*oid),
            base: Base::Any,
            content: Content::Data(record(references).into()),
            blob: None,
        };
        let writes = objects.iter().map(write).collect();
        let meta = TransactionMeta { status: b' ', ..TransactionMeta::default() };
        let commit = Commit { storage: S, tid: Tid(tid), meta, writes };
        assert_eq!(apply(store, Change::Commit(commit)), Outcome::Committed(Tid(tid)));
    }

    /// A root that refers to nothing, and garbage: 1 leads to 2, 3 to 4.
    fn judged() -> (Store, Arc<Watch>) {
        let store = Store::open(Arc::new(SimDisk::new().open(TABLES).unwrap())).unwrap();
        apply(&store, Change::CreateStorage { name: "1".into() });
        commit(&store, 1, &[(0, &[]), (1, &[2]), (2, &[]), (3, &[4]), (4, &[])]);
        let plan = Plan::new(&store, S, Tid(1), true);
        let mut kept = Oids::default();
        plan.reach(&mut kept).unwrap();
        let watch = Watch::default();
        *watch.seen() = Seen::Judged { plan, kept, gone: Oids::default() };
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
        let (_store, watch) = judged();
        assert_eq!(doubts(watch.show(Oid(0), &record(&[0, 1, 9]), |_| false)), [1]);
        assert!(!watch.keeps(Oid(1)));
        watch.pardon(&Env::system(), vec![Oid(1)]).await.unwrap();
        assert!(watch.keeps(Oid(1)) && watch.keeps(Oid(2)) && !watch.keeps(Oid(3)));
        assert_eq!(doubts(watch.show(Oid(0), &record(&[1, 2]), |_| false)), [0u64; 0]);
        // Who writes an object anew does not need what it was.
        assert_eq!(doubts(watch.show(Oid(0), &record(&[3]), |oid| oid == Oid(3))), [0u64; 0]);
    }

    #[tokio::test]
    async fn what_has_gone_cannot_be_had_again_nor_what_leads_to_it() {
        let (store, watch) = judged();
        if let Seen::Judged { gone, .. } = &mut *watch.seen() {
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
        // It was stored anew since.
        commit(&store, 2, &[(4, &[])]);
        assert_eq!(doubts(watch.show(Oid(0), &record(&[4]), |_| false)), [0u64; 0]);
    }

    #[test]
    fn before_the_judgement_everything_that_is_there_is_noted() {
        let (store, _) = judged();
        let watch = Watch::default();
        assert!(!watch.is_looking());
        assert_eq!(doubts(watch.show(Oid(0), &record(&[3]), |_| false)), [0u64; 0]);
        *watch.seen() = Seen::Shown(Shown::new(Plan::new(&store, S, Tid(1), true)));
        assert!(watch.is_looking());
        assert_eq!(doubts(watch.show(Oid(0), &record(&[3, 3, 1 << 40, u64::MAX]), |_| false)), [0u64; 0]);
        let Seen::Shown(shown) = &mut *watch.seen() else { panic!("nobody has judged") };
        let shown = shown.take();
        assert_eq!(shown.oids.iter().collect::<Vec<_>>(), [Oid(3)]);
        assert_eq!(shown.unclear, None);
    }

    #[tokio::test]
    async fn what_cannot_be_read_may_refer_to_anything() {
        let (store, watch) = judged();
        assert!(matches!(watch.show(Oid(8), b"junk", |_| false), Told::Unclear(Oid(8), _)));
        *watch.seen() = Seen::Shown(Shown::new(Plan::new(&store, S, Tid(1), true)));
        assert_eq!(doubts(watch.show(Oid(8), b"junk", |_| false)), [0u64; 0]);
        assert_eq!(doubts(watch.show(Oid(9), b"junk", |_| false)), [0u64; 0]);
        let Seen::Shown(shown) = &*watch.seen() else { panic!("nobody has judged") };
        assert_eq!(shown.unclear.as_ref().map(|(oid, _)| *oid), Some(Oid(8)));
    }

    #[tokio::test]
    async fn a_walk_that_was_stopped_pardons_nothing() {
        let (store, watch) = judged();
        // Longer than what is read between two looks.
        let chain: Vec<[u64; 1]> = (100..600).map(|oid| [oid + 1]).collect();
        let objects: Vec<(u64, &[u64])> = (100..600).zip(&chain).map(|(oid, to)| (oid, &to[..])).collect();
        commit(&store, 2, &objects);
        let plan = Plan::new(&store, S, Tid(2), true);
        plan.stop();
        *watch.seen() = Seen::Judged { plan, kept: Oids::default(), gone: Oids::default() };
        assert!(matches!(watch.pardon(&Env::system(), vec![Oid(100)]).await, Err(Refusal::BadValue(_))));
    }

    #[test]
    fn what_has_changed_since_is_not_kept_by_a_reference() {
        let (store, watch) = judged();
        // 1 led to 2 at the pack time, and does not any more.
        commit(&store, 2, &[(1, &[])]);
        assert_eq!(doubts(watch.show(Oid(0), &record(&[1]), |_| false)), [0u64; 0]);
        assert!(!watch.keeps(Oid(1)) && !watch.keeps(Oid(2)));
    }
}
