//! Tests of `apply`, entry by entry.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::super::TABLES;
use super::super::testing::*;
use super::*;
use crate::command::Reign;
use crate::engine::{DiskFaults, SimDisk};

fn reserve(count: u32) -> Change {
    Change::ReserveOids { storage: S, count, from: Oid(0) }
}

fn oids(first: u64, count: u32) -> Outcome {
    Outcome::Oids { first: Oid(first), count }
}

fn refusal(outcome: Outcome) -> Refusal {
    match outcome {
        Outcome::Refused(refusal) => refusal,
        other => panic!("{other:?} is no refusal"),
    }
}

#[test]
fn a_storage_is_created_once() {
    let store = store();
    assert_eq!(apply(&store, create("1")), Outcome::Storage(S));
    assert_eq!(apply(&store, create("temp")), Outcome::Storage(StorageId(2)));
    assert_eq!(store.storages(), [(S, "1".to_owned()), (StorageId(2), "temp".to_owned())]);
    assert_eq!(store.storage("temp"), Some(StorageId(2)));
    assert_eq!(store.storage("none"), None);
    for name in ["", &"x".repeat(256)] {
        assert!(matches!(refusal(apply(&store, create(name))), Refusal::BadValue(_)));
    }
}

#[test]
fn a_storage_is_dropped_while_it_is_empty_and_its_number_is_not_given_again() {
    let disk = SimDisk::new();
    let open = || Store::open(Arc::new(disk.open(TABLES).unwrap())).unwrap();
    let store = open();
    apply(&store, create("1"));
    let typo = StorageId(2);
    assert_eq!(apply(&store, create("typo")), Outcome::Storage(typo));
    assert_eq!(apply(&store, Change::ReserveOids { storage: typo, count: 5, from: Oid(0) }), oids(1, 5));
    let pieces = vec![Bytes::from_static(b"on its way")];
    assert_eq!(apply(&store, Change::Stage { storage: typo, pieces }), Outcome::Staged(1));
    let feed = store.feed(typo);
    apply(&store, commit(5, vec![over(0, 1, data("kept"))]));

    assert!(
        matches!(refusal(apply(&store, drop_storage("1"))), Refusal::BadValue(why) if why.ends_with("it has 1 transaction"))
    );
    let unknown = Refusal::NoStorage { name: "tpyo".into(), known: Vec::new() };
    assert_eq!(refusal(apply(&store, drop_storage("tpyo"))), unknown);
    assert!(!*feed.dropped().look());
    assert_eq!(apply(&store, drop_storage("typo")), Outcome::Done);
    assert!(*feed.dropped().look());

    let check = |store: &Store| {
        assert_eq!(store.storages(), [(S, "1".to_owned())]);
        assert_eq!((store.storage("typo"), store.summaries().1.len()), (None, 1));
        // Readers who still have its number find nothing there.
        assert_eq!((store.last_tid(typo), store.count_unclaimed(typo, 9).unwrap()), (Tid::ZERO, 0));
        assert!(store.piece(typo, 1).is_err());
        assert_eq!(store.load_before(typo, Oid(1), Tid::MAX, Tid(9)).unwrap(), Err(Refusal::NoObject(Oid(1))));
    };
    check(&store);
    let late = Change::ReserveOids { storage: typo, count: 1, from: Oid(0) };
    assert!(matches!(refusal(apply(&store, late)), Refusal::NoStorage { .. }));
    drop(store);
    let store = open();
    check(&store);
    assert!(matches!(refusal(apply(&store, drop_storage("typo"))), Refusal::NoStorage { .. }));
    assert_eq!(apply(&store, create("typo")), Outcome::Storage(StorageId(3)));
    assert_eq!(store.summary(StorageId(3)), Summary::default());
}

#[test]
fn oids_begin_after_the_root_and_jump_over_what_is_stored() {
    let store = store();
    assert_eq!(apply(&store, reserve(3)), oids(1, 3));
    assert_eq!(apply(&store, reserve(0)), oids(4, 0));
    apply(&store, commit(1, vec![over(0, 2, data("inside")), restore(10, data("beyond"))]));
    assert_eq!(apply(&store, reserve(2)), oids(11, 2));
    let far = |from, count| Change::ReserveOids { storage: S, count, from: Oid(from) };
    assert_eq!(apply(&store, far(9, 2)), oids(13, 2));
    assert_eq!(apply(&store, far(20, 2)), oids(20, 2));
}

#[test]
fn ids_of_the_upper_half_do_not_end_the_supply_and_at_its_end_there_are_fewer() {
    let store = store();
    let last = Oid::NOT_GIVEN.0 - 1;
    let stored = [u64::MAX, u64::MAX - 1, last + 1].map(|oid| restore(oid, data("far")));
    apply(&store, commit(1, stored.into()));
    assert_eq!(apply(&store, reserve(2)), oids(1, 2));
    apply(&store, commit(2, vec![restore(last - 2, data("near"))]));
    assert_eq!(apply(&store, reserve(7)), oids(last - 1, 2));
    assert!(matches!(refusal(apply(&store, reserve(1))), Refusal::BadValue(_)));
    apply(&store, commit(3, vec![restore(last, data("the last that is given"))]));
    assert!(matches!(refusal(apply(&store, reserve(1))), Refusal::BadValue(_)));
}

#[test]
fn a_barrier_opens_only_a_greater_reign_and_what_is_older_is_stale() {
    let store = store();
    let reign = |term, number| Reign { term, number };
    assert_eq!(apply_in(&store, reign(2, 1), Change::Barrier), Outcome::Done);
    assert_eq!(apply_in(&store, reign(2, 1), Change::Barrier), Outcome::Stale);
    assert_eq!(apply_in(&store, reign(1, 9), Change::Barrier), Outcome::Stale);
    assert_eq!(store.reign(), reign(2, 1));
    assert_eq!(apply_in(&store, reign(2, 1), reserve(1)), oids(1, 1));
    assert_eq!(apply_in(&store, reign(2, 0), reserve(1)), Outcome::Stale);
    assert_eq!(apply_in(&store, reign(2, 2), Change::Barrier), Outcome::Done);
    let late = commit(1, vec![over(0, 0, data("root"))]);
    assert_eq!(apply_in(&store, reign(2, 1), late), Outcome::Stale);
    assert_eq!(store.last_tid(S), Tid::ZERO);
    // No barrier has opened this reign.
    assert_eq!(apply_in(&store, reign(2, 3), reserve(1)), Outcome::Stale);
}

#[test]
fn a_refused_transaction_leaves_nothing_but_its_position() {
    let store = store();
    apply(&store, commit(5, vec![over(0, 1, data("a"))]));
    let before = store.summary(S);
    let tried = [
        (commit(5, vec![]), "a tid again"),
        (commit(4, vec![]), "an older tid"),
        (commit(Tid::MAX.0, vec![]), "a tid that no view can be above"),
        (commit(6, vec![over(0, 2, data("b")), over(0, 2, data("c"))]), "an object twice"),
        (commit(6, vec![restore(2, Content::SameAs(Tid(6)))]), "a repetition of nothing"),
        (commit(6, vec![over(0, 2, data("b")), over(0, 1, data("c"))]), "a lost update"),
        (commit(6, vec![over(4, 2, data("b"))]), "a base that never was"),
        (commit(6, vec![over(0, 2, data("b")), over(5, 1, Content::SameAs(Tid(4)))]), "no such revision"),
    ];
    for (change, why) in tried {
        let index = store.applied().index;
        assert!(matches!(apply(&store, change), Outcome::Refused(_)), "{why}");
        assert_eq!(store.applied().index, index + 1, "{why}");
        assert_eq!(store.summary(S), before, "{why}");
        assert_eq!(store.current(S, Oid(2)).unwrap(), None, "{why}");
    }
    assert_eq!(store.feed(S).latest(), Tid(5));
}

#[test]
fn a_repeated_record_is_listed_twice_and_stored_once() {
    let store = store();
    let writes = vec![restore(1, data("blob")), restore(2, data("x")), restore(1, Content::SameAs(Tid(5)))];
    assert_eq!(apply(&store, commit(5, writes)), Outcome::Committed(Tid(5)));
    let listed: Vec<_> = (0..4).map_while(|n| Some(store.record_at(S, Tid(5), n).unwrap()?.1)).collect();
    assert_eq!(listed.iter().map(|record| record.oid.0).collect::<Vec<_>>(), [1, 2, 1]);
    assert_eq!(listed[0], listed[2]);
    assert_eq!(listed[2].data_tid, None);
    assert_eq!(store.changed_since(S, Tid::ZERO, Tid(5), 9).unwrap(), Some(vec![Oid(1), Oid(2)]));
    let (summary, recount) = store.recount(S).unwrap();
    assert!(recount.agrees(&summary));
    assert_eq!(summary.objects, 2);
}

#[test]
fn the_first_write_that_meets_another_is_the_conflict() {
    let store = store();
    apply(&store, commit(5, vec![over(0, 1, data("a")), over(0, 2, data("a"))]));
    let writes = vec![over(5, 1, data("b")), over(4, 2, data("b")), over(3, 3, data("b"))];
    assert_eq!(apply(&store, commit(6, writes)), Outcome::conflict(Oid(2), Tid(5), Tid(4)));
    // A restore asks for no serial.
    let writes = vec![restore(1, data("b")), restore(2, Content::Absent)];
    assert_eq!(apply(&store, commit(7, writes)), Outcome::Committed(Tid(7)));
    assert_eq!(apply(&store, commit(8, vec![over(7, 2, data("c"))])), Outcome::Committed(Tid(8)));
}

#[test]
fn an_unknown_storage_is_refused() {
    let store = empty();
    let unknown = Refusal::NoStorage { name: "s1".into(), known: Vec::new() };
    assert_eq!(refusal(apply(&store, reserve(1))), unknown);
    assert_eq!(refusal(apply(&store, commit(1, vec![]))), unknown);
}

#[test]
fn positions_membership_and_reign_are_there_after_reopening() {
    let disk = SimDisk::new();
    let open = || Store::open(Arc::new(disk.open(TABLES).unwrap())).unwrap();
    let store = open();
    assert_eq!(store.applied(), Position::default());
    store.set_membership(Position { index: 1, term: 0 }, b"first").unwrap();
    store.pass(Position { index: 2, term: 3 }).unwrap();
    let at = Position { index: 3, term: 3 };
    store.set_membership(at, b"second").unwrap();
    apply_in(&store, Reign { term: 3, number: 4 }, Change::Barrier);
    drop(store);
    let store = open();
    assert_eq!(store.applied(), Position { index: 4, ..at });
    assert_eq!(store.membership(), Some((at, b"second".to_vec())));
    assert_eq!(store.reign(), Reign { term: 3, number: 4 });
}

#[test]
#[should_panic(expected = "entry 3 is to be applied after 1")]
fn an_entry_left_out_stops_everything() {
    let store = store();
    let _ = store.pass(Position { index: 3, ..Position::default() });
}

#[test]
fn after_a_failed_write_nothing_is_applied_any_more() {
    let disk = SimDisk::new();
    let store = Store::open(Arc::new(disk.open(TABLES).unwrap())).unwrap();
    apply(&store, create("1"));
    disk.set_faults(DiskFaults { writes_after: Some(0), ..DiskFaults::default() });
    let at = next(&store);
    let command = Command { reign: store.reign(), change: commit(1, vec![over(0, 0, data("root"))]) };
    assert!(store.apply(at, &command).is_err());
    disk.set_faults(DiskFaults::default());
    assert!(store.apply(at, &command).is_err());
    assert_eq!(store.last_tid(S), Tid::ZERO);
    assert_eq!(store.feed(S).latest(), Tid::ZERO);
}

#[test]
fn readers_beside_apply_see_whole_transactions() {
    let store = store();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let feed = store.feed(S);
                while !done.load(Ordering::SeqCst) {
                    let view = feed.latest();
                    if view == Tid::ZERO {
                        continue;
                    }
                    assert!(store.last_tid(S) >= view);
                    for oid in 0..4 {
                        let loaded = store.load_before(S, Oid(oid), Tid::MAX, view).unwrap().unwrap().unwrap();
                        assert_eq!((loaded.tid, loaded.end), (view, None));
                        assert_eq!(loaded.data, view.to_string());
                    }
                }
            });
        }
        for tid in 1..300 {
            let writes = (0..4).map(|oid| over(tid - 1, oid, data(&Tid(tid).to_string()))).collect();
            assert_eq!(apply(&store, commit(tid, writes)), Outcome::Committed(Tid(tid)));
        }
        done.store(true, Ordering::SeqCst);
    });
}

#[tokio::test]
async fn the_watch_tells_when_an_entry_was_applied() {
    let store = store();
    let mut watching = store.applied_watch();
    apply(&store, commit(1, vec![]));
    watching.changed().await.unwrap();
    assert_eq!(*watching.look(), store.applied().index);
}
