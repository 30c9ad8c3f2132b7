//! Packs of random histories, against a model that says of each revision whether it stays.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;

use super::{Fault, Oids, Plan};
use crate::command::{Change, Content, Outcome, PackStep};
use crate::storage::Store;
use crate::storage::testing::*;
use crate::zodb::{Oid, State, Tid};

/// A record that says `text` and refers to these objects.
fn record(text: u8, references: &[u64]) -> Content {
    let mut pickle = b"\x80\x03N.\x80\x03(C\x01".to_vec();
    pickle.push(text);
    for oid in references {
        pickle.extend_from_slice(b"C\x08");
        pickle.extend_from_slice(&oid.to_be_bytes());
        pickle.extend_from_slice(b"\x85Q");
    }
    pickle.extend_from_slice(b"t.");
    Content::Data(pickle.into())
}

/// Packs as a primary does while there are no clients, in steps of `most` revisions.
fn pack(store: &Store, upto: u64, gc: bool, most: usize) -> Result<(), Fault> {
    assert_eq!(apply(store, Change::PackBegin { storage: S, upto: Tid(upto) }), Outcome::Done);
    let plan = Plan::new(store, S, store.summary(S).packing, gc).in_steps_of(most);
    let done = remove(store, &plan, gc);
    assert_eq!(apply(store, Change::PackEnd { storage: S }), Outcome::Done);
    done
}

fn remove(store: &Store, plan: &Plan, gc: bool) -> Result<(), Fault> {
    let mut kept = Oids::default();
    if gc {
        plan.reach(&mut kept)?;
        plan.beyond(&mut kept)?;
    }
    let step = |objects, transactions| {
        let step = PackStep { storage: S, objects, transactions };
        assert_eq!(apply(store, Change::PackStep(step)), Outcome::Done);
    };
    let mut from = Some(Oid::ROOT);
    while let Some(at) = from {
        let page = plan.page(at, |oid| kept.contains(oid))?;
        for planned in page.planned {
            step(vec![planned.removal], vec![]);
        }
        from = page.next;
    }
    let mut from = Some(Tid::ZERO);
    while let Some(at) = from {
        let (transactions, next) = plan.transactions(at)?;
        step(vec![], transactions);
        from = next;
    }
    Ok(())
}

#[test]
fn a_record_that_cannot_be_read_ends_a_pack_however_young() {
    for young in [false, true] {
        let store = store();
        let root = if young { record(0, &[]) } else { data("junk") };
        apply(&store, commit(1, vec![over(0, 0, root), over(0, 1, record(0, &[]))]));
        apply(&store, commit(2, vec![over(1, 1, if young { data("junk") } else { record(0, &[]) })]));
        let Err(Fault::Unreadable(oid, tid, _)) = pack(&store, 1, true, 8) else { panic!("it was read") };
        assert_eq!((oid, tid), if young { (Oid(1), Tid(2)) } else { (Oid(0), Tid(1)) });
        assert_eq!(store.history(S, Oid(1), 10, Tid::MAX).unwrap().unwrap().len(), 2);
        assert!(pack(&store, 1, false, 8).is_ok());
    }
}

#[test]
fn a_step_reads_no_more_than_it_may() {
    let store = store();
    let large = "x".repeat(crate::config::limits::PACK_BYTES as usize / 3);
    for tid in 1..=3 {
        apply(&store, commit(tid, vec![over(tid - 1, 0, data(&format!("{tid}{}", &large[1..])))]));
    }
    // To remove one of these revisions, the older record that it shows is read.
    apply(&store, commit(4, vec![over(3, 0, Content::SameAs(Tid(1)))]));
    apply(&store, commit(5, vec![over(4, 0, Content::SameAs(Tid(2)))]));
    apply(&store, commit(6, vec![over(5, 0, data("new"))]));
    apply(&store, Change::PackBegin { storage: S, upto: Tid(6) });
    let planned = Plan::new(&store, S, Tid(6), false).object(Oid(0), true).unwrap();
    let tids = planned.iter().map(|part| part.removal.tids.iter().map(|tid| tid.0).collect::<Vec<_>>());
    assert_eq!(tids.collect::<Vec<_>>(), [vec![1, 2, 3], vec![4, 5]]);
    assert_eq!(planned.iter().map(|part| part.read / large.len() as u64).collect::<Vec<_>>(), [3, 2]);
}

#[test]
fn what_never_was_is_not_noted() {
    let store = store();
    apply(
        &store,
        commit(1, vec![over(0, 0, record(0, &[])), over(0, 1, record(0, &[2, 9])), over(0, 2, record(0, &[]))]),
    );
    apply(&store, commit(2, vec![over(0, 3, record(0, &[1, 1 << 40, u64::MAX]))]));
    let plan = Plan::new(&store, S, Tid(1), true);
    let mut kept = Oids::default();
    plan.beyond(&mut kept).unwrap();
    assert_eq!(kept.iter().collect::<Vec<_>>(), [Oid(1), Oid(2)]);
    let led_to = |taken: u64| {
        let found = plan.led_to(vec![Oid(1), Oid(7)], |_| false, |oid| oid == Oid(taken)).unwrap();
        found.iter().map(|oid| oid.0).collect::<Vec<_>>()
    };
    assert_eq!(led_to(7), [1, 2, 7]);
    assert_eq!(led_to(9), [1, 2, 9]);
    assert_eq!(led_to(4), [1, 2]);
}

#[derive(Clone, Debug)]
enum Left {
    Data {
        text: u8,
        references: Vec<u64>,
    },
    Absent,
    /// `SameAs` the object's nth revision, counted round and round.
    SameAs(usize),
}

/// A revision, as the model knows it.
#[derive(Clone, Debug, PartialEq)]
struct Shown {
    data: Option<(Bytes, Vec<u64>)>,
    link: Option<u64>,
}

/// The objects that are written; references may lead beyond.
const OIDS: u64 = 6;

#[derive(Default)]
struct Model {
    /// By object, by transaction.
    revisions: BTreeMap<u64, BTreeMap<u64, Shown>>,
    transactions: BTreeSet<u64>,
    packed: u64,
}

impl Model {
    fn commit(&mut self, store: &Store, tid: u64, writes: &[(u64, Left)]) {
        let mut commits = Vec::new();
        for (oid, left) in writes {
            let revisions = self.revisions.entry(*oid).or_default();
            let base = revisions.keys().next_back().copied().unwrap_or(0);
            let (content, shown) = match left {
                Left::Data { text, references } => {
                    let Content::Data(data) = record(*text, references) else { unreachable!("a record is data") };
                    (Content::Data(data.clone()), Shown { data: Some((data, references.clone())), link: None })
                }
                Left::Absent => (Content::Absent, Shown { data: None, link: None }),
                Left::SameAs(_) if revisions.is_empty() => continue,
                Left::SameAs(nth) => {
                    let (at, shown) = revisions.iter().nth(nth % revisions.len()).unwrap();
                    (Content::SameAs(Tid(*at)), Shown { data: shown.data.clone(), link: Some(*at) })
                }
            };
            revisions.insert(tid, shown);
            commits.push(over(base, *oid, content));
        }
        self.revisions.retain(|_, revisions| !revisions.is_empty());
        self.transactions.insert(tid);
        assert_eq!(apply(store, commit(tid, commits)), Outcome::Committed(Tid(tid)));
    }

    /// The revision of an object that is current at a time; `None`: the object is absent then.
    fn at(&self, oid: u64, upto: u64) -> Option<(u64, &Shown)> {
        let (tid, shown) = self.revisions.get(&oid)?.range(..=upto).next_back()?;
        shown.data.is_some().then_some((*tid, shown))
    }

    /// Adds the objects that `oid` leads to. If `strict`, the error is an object that is referred to and missing.
    fn reach(&self, oid: u64, upto: u64, strict: bool, reached: &mut BTreeSet<u64>) -> Result<(), u64> {
        let mut todo = vec![oid];
        while let Some(oid) = todo.pop() {
            if !reached.insert(oid) {
                continue;
            }
            match self.at(oid, upto) {
                Some((_, shown)) => todo.extend(&shown.data.as_ref().unwrap().1),
                None if strict => return Err(oid),
                None => {}
            }
        }
        Ok(())
    }

    fn pack(&mut self, upto: u64, gc: bool) -> Result<(), u64> {
        let mut reached = BTreeSet::new();
        if gc && (0..OIDS).any(|oid| self.at(oid, upto).is_some()) {
            self.reach(0, upto, true, &mut reached)?;
            let young = self.revisions.values().flat_map(|revisions| revisions.range(upto + 1..));
            let roots: Vec<u64> =
                young.filter_map(|(_, shown)| shown.data.as_ref()).flat_map(|d| d.1.clone()).collect();
            for oid in roots {
                self.reach(oid, upto, false, &mut reached).unwrap();
            }
        }
        let mut removed = false;
        for oid in 0..OIDS {
            let current = self.at(oid, upto).filter(|_| !gc || reached.contains(&oid)).map(|(tid, _)| tid);
            let Some(revisions) = self.revisions.get_mut(&oid) else { continue };
            let linked: BTreeSet<u64> = revisions.range(upto + 1..).filter_map(|(_, shown)| shown.link).collect();
            let before = revisions.len();
            revisions.retain(|tid, _| *tid > upto || Some(*tid) == current || (gc && linked.contains(tid)));
            removed |= revisions.len() < before;
        }
        self.revisions.retain(|_, revisions| !revisions.is_empty());
        let before = self.transactions.len();
        let left: BTreeSet<u64> = self.revisions.values().flat_map(|revisions| revisions.keys().copied()).collect();
        self.transactions.retain(|tid| *tid > upto || left.contains(tid));
        if removed || self.transactions.len() < before {
            self.packed = self.packed.max(upto);
        }
        Ok(())
    }

    fn compare(&self, store: &Store) {
        let (summary, recount) = store.recount(S).unwrap();
        assert!(recount.agrees(&summary), "{summary:?} {recount:?}");
        assert_eq!((summary.packed, summary.packing), (Tid(self.packed), Tid::ZERO));
        assert_eq!(summary.objects, self.revisions.len() as u64);
        let (mut tids, mut from) = (BTreeSet::new(), Tid::ZERO);
        while let Some((tid, meta)) = store.transaction_at(S, from, Tid(1 << 60)).unwrap() {
            assert_eq!(meta.status == b'p', tid.0 <= self.packed);
            from = tid.next();
            tids.insert(tid.0);
        }
        assert_eq!(tids, self.transactions);
        for &tid in &self.transactions {
            let (mut n, mut found) = (0, BTreeMap::new());
            while let Some((at, revision)) = store.record_at(S, Tid(tid), n).unwrap() {
                n = at + 1;
                found.insert(revision.oid.0, (revision.state, revision.data_tid));
            }
            let wanted = self.revisions.iter().filter_map(|(oid, revisions)| {
                let shown = revisions.get(&tid)?;
                let state = shown.data.clone().map_or(State::Absent, |(data, _)| State::Data(data));
                let link = shown.link.filter(|link| tid > self.packed && revisions.contains_key(link));
                Some((*oid, (state, link.map(Tid))))
            });
            assert_eq!(found, wanted.collect(), "transaction {tid}");
        }
        for oid in 0..OIDS {
            let revisions = self.revisions.get(&oid);
            let newest = revisions.and_then(|revisions| revisions.last_key_value());
            let current = store.current(S, Oid(oid)).unwrap().map(|current| (current.tid.0, current.absent));
            assert_eq!(current, newest.map(|(tid, shown)| (*tid, shown.data.is_none())));
            let history = store.history(S, Oid(oid), 100, Tid::MAX).unwrap().unwrap_or_default();
            let tids: Vec<u64> = history.iter().rev().map(|entry| entry.tid.0).collect();
            assert_eq!(tids, revisions.map_or(vec![], |revisions| revisions.keys().copied().collect()));
        }
    }
}

fn commits() -> impl Strategy<Value = Vec<Vec<(u64, Left)>>> {
    let left = prop_oneof![
        6 => (any::<u8>(), prop::collection::vec(0..OIDS, 0..3)).prop_map(|(text, references)| Left::Data { text, references }),
        1 => Just(Left::Absent),
        3 => (0..30usize).prop_map(Left::SameAs)
    ];
    let oids = prop::sample::subsequence((0..OIDS).collect::<Vec<_>>(), 0..4);
    let commit = (oids, prop::collection::vec(left, 4)).prop_map(|(oids, left)| oids.into_iter().zip(left).collect());
    prop::collection::vec(commit, 1..14)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_stays_is_what_the_model_says(
        mut before in commits(),
        after in commits(),
        packs in prop::collection::vec((0..30u64, any::<bool>()), 1..3),
        most in 1..4usize,
    ) {
        let store = store();
        let mut model = Model::default();
        // All objects are stored at the beginning, so that fewer references lead nowhere.
        let all = (0..OIDS).map(|oid| (oid, Left::Data { text: 0, references: vec![(oid + 1) % OIDS] }));
        before.insert(0, all.collect());
        for (tid, writes) in (1..).zip(before.iter().chain(&after)) {
            model.commit(&store, tid, writes);
        }
        for (upto, gc) in packs {
            let upto = upto.clamp(1, store.last_tid(S).0);
            if Plan::new(&store, S, Tid(upto), gc).is_idle().unwrap() {
                continue;
            }
            match (pack(&store, upto, gc, most), model.pack(upto, gc)) {
                (Ok(()), Ok(())) => {}
                // If several objects are missing, the order of reading decides which one is told.
                (Err(Fault::Missing(_)), Err(_)) => {}
                (found, wanted) => prop_assert!(false, "{:?}, but {:?}", found, wanted),
            }
            model.compare(&store);
        }
    }
}
