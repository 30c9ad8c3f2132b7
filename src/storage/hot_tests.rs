use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use super::super::testing::*;
use super::super::{Loaded, Store, TABLES};
use super::*;
use crate::command::{Change, Command, Content, Outcome, PackStep, Removal};
use crate::engine::{DiskFaults, SimDisk};
use crate::zodb::Refusal;

const OID: Oid = Oid(1);
/// Room for everything.
const ROOMY: u64 = 1 << 20;

/// A store with a cache and the object [`OID`], whose revision 4 is in the cache; and its disk.
fn example() -> (Store, SimDisk) {
    let disk = SimDisk::new();
    let store = Store::open_with_cache(Arc::new(disk.open(TABLES).unwrap()), ROOMY).unwrap();
    apply(&store, create("1"));
    apply(&store, commit(4, vec![over(0, 1, data("at 4"))]));
    assert_eq!(load(&store, Tid::MAX, 4), shown(4, None));
    (store, disk)
}

fn load(store: &Store, before: Tid, view: u64) -> Result<Option<Loaded>, Refusal> {
    store.load_before(S, OID, before, Tid(view)).unwrap()
}

fn shown(tid: u64, end: Option<u64>) -> Result<Option<Loaded>, Refusal> {
    Ok(Some(Loaded { data: format!("at {tid}").into(), tid: Tid(tid), end: end.map(Tid) }))
}

/// What a load gives, and how often it has read the disk.
fn counted(disk: &SimDisk, load: impl FnOnce() -> Result<Option<Loaded>, Refusal>) -> (Option<u64>, u64) {
    let before = disk.counters().reads;
    let found = load().ok().flatten().map(|loaded| loaded.tid.0);
    (found, disk.counters().reads - before)
}

fn held(store: &Store) -> Option<u64> {
    store.hot().get(S, OID, |_| true).map(|held| held.tid.0)
}

#[test]
fn the_second_load_reads_no_disk() {
    let (store, disk) = example();
    assert_eq!(counted(&disk, || load(&store, Tid::MAX, 4)), (Some(4), 0));
    let counts = store.cache_counts();
    assert_eq!((counts.hits, counts.misses, counts.objects), (1, 1, 1));
    assert_eq!(counts.bytes, ENTRY + 4);
}

#[test]
fn a_commit_takes_the_place_of_what_is_here() {
    let (store, disk) = example();
    apply(&store, commit(7, vec![over(4, 1, data("at 7"))]));
    assert_eq!(counted(&disk, || load(&store, Tid::MAX, 7)), (Some(7), 0));
    assert_eq!(load(&store, Tid::MAX, 7), shown(7, None));
    // Whoever was told less, or looks back, gets what was there then.
    assert_eq!(load(&store, Tid::MAX, 6), shown(4, None));
    assert_eq!(load(&store, Tid(7), 7), shown(4, Some(7)));
    assert_eq!(load(&store, Tid(7), 6), shown(4, None));
    assert_eq!(load(&store, Tid(4), 7), Ok(None));
    // None of these has put the older revision here.
    assert_eq!(counted(&disk, || load(&store, Tid(8), 7)), (Some(7), 0));
    // What nobody has loaded is not put here by a commit.
    apply(&store, commit(8, vec![over(0, 2, data("at 8"))]));
    assert_eq!(store.cache_counts().objects, 1);
}

#[test]
fn an_entry_answers_whoever_looks_back_no_further_than_to_it() {
    let (store, disk) = example();
    apply(&store, commit(9, vec![over(0, 2, data("another"))]));
    assert_eq!(counted(&disk, || load(&store, Tid(5), 9)), (Some(4), 0));
    assert_eq!(load(&store, Tid(5), 9), shown(4, None));
    assert_eq!(load(&store, Tid(4), 9), Ok(None));
    assert_eq!(load(&store, Tid::ZERO, 9), Ok(None));
    assert_eq!(load(&store, Tid::MAX, 3), Err(Refusal::NoObject(OID)));
    assert_eq!(store.load_serial(S, OID, Tid(4), Tid(9)).unwrap(), Ok("at 4".into()));
    assert_eq!(store.load_serial(S, OID, Tid(9), Tid(9)).unwrap(), Err(Refusal::NoObject(OID)));
    assert_eq!(store.load_serial(S, OID, Tid(4), Tid(3)).unwrap(), Err(Refusal::NoObject(OID)));
}

#[test]
fn a_deletion_and_an_undo_take_away_what_is_here() {
    let (store, _) = example();
    apply(&store, commit(7, vec![over(4, 1, Content::Absent)]));
    assert_eq!(load(&store, Tid::MAX, 7), Err(Refusal::NoObject(OID)));
    assert_eq!(load(&store, Tid::MAX, 6), shown(4, None));
    assert_eq!(held(&store), None);
    apply(&store, commit(8, vec![over(7, 1, Content::SameAs(Tid(4)))]));
    let again = Ok(Some(Loaded { data: "at 4".into(), tid: Tid(8), end: None }));
    assert_eq!(load(&store, Tid::MAX, 8), again);
    assert_eq!(held(&store), Some(8));
    apply(&store, commit(9, vec![over(8, 1, Content::SameAs(Tid(8)))]));
    assert_eq!(held(&store), None);
    assert_eq!(load(&store, Tid::MAX, 9).unwrap().unwrap().tid, Tid(9));
}

#[test]
fn a_transaction_that_is_refused_takes_nothing_away() {
    let (store, _) = example();
    let refused = apply(&store, commit(7, vec![over(3, 1, data("too late"))]));
    assert_eq!(refused, Outcome::conflict(OID, Tid(4), Tid(3)));
    assert_eq!(held(&store), Some(4));
}

#[test]
fn a_pack_takes_away_what_it_removes() {
    let (store, _) = example();
    apply(&store, commit(6, vec![over(0, 2, data("another"))]));
    assert_eq!(apply(&store, Change::PackBegin { storage: S, upto: Tid(6) }), Outcome::Done);
    let removal = Removal { oid: OID, current: Tid(4), tids: vec![Tid(4)], heirs: vec![] };
    let step = PackStep { storage: S, objects: vec![removal], transactions: vec![] };
    assert_eq!(apply(&store, Change::PackStep(step)), Outcome::Done);
    assert_eq!(load(&store, Tid::MAX, 6), Err(Refusal::NoObject(OID)));
}

#[test]
fn what_was_read_before_a_change_is_not_kept_after_it() {
    let (store, _) = example();
    apply(&store, commit(5, vec![over(4, 1, data("at 5"))]));
    store.hot().entries.as_ref().unwrap().clear();
    // A reader has found revision 5, and is overtaken by a commit.
    let ticket = store.hot().ticket(S, OID);
    assert!(ticket.is_some());
    apply(&store, commit(7, vec![over(5, 1, data("at 7"))]));
    store.hot().keep(ticket, Tid(5), &"at 5".into());
    assert_eq!(held(&store), None);
    assert_eq!(load(&store, Tid::MAX, 7), shown(7, None));
    // With another ticket it would be kept.
    store.hot().entries.as_ref().unwrap().clear();
    store.hot().keep(store.hot().ticket(S, OID), Tid(7), &"at 7".into());
    assert_eq!(held(&store), Some(7));
}

#[test]
fn nothing_is_here_or_comes_while_a_change_goes_on() {
    let (store, _) = example();
    let before = store.hot().ticket(S, OID);
    let mut batch = Batch::new();
    let key = keys::object(S, OID);
    batch.put(keys::OBJECTS, key, Current { tid: Tid(7), absent: false }.encode(&key));
    let changing = store.hot().begin(&batch);
    assert_eq!(held(&store), None);
    store.hot().keep(before, Tid(4), &"at 4".into());
    assert!(store.hot().ticket(S, OID).is_none());
    store.hot().keep(store.hot().ticket(S, OID), Tid(4), &"at 4".into());
    assert_eq!(held(&store), None);
    store.hot().end(changing);
    assert_eq!(held(&store), None);
    store.hot().keep(before, Tid(4), &"at 4".into());
    assert_eq!(held(&store), None);
    assert!(store.hot().ticket(S, OID).is_some());
}

#[test]
fn a_small_cache_keeps_the_largest_records_too() {
    let store = Store::open_with_cache(engine(), 1 << 20).unwrap();
    apply(&store, create("1"));
    apply(&store, commit(4, vec![over(0, OID.0, data(&"x".repeat(limits::CACHED_RECORD)))]));
    for _ in 0..2 {
        store.load_before(S, OID, Tid::MAX, Tid(4)).unwrap().unwrap();
    }
    assert_eq!(store.cache_counts().hits, 1);
    assert_eq!(held(&store), Some(4));
}

#[test]
fn after_a_failed_write_nothing_of_its_objects_is_kept() {
    let (store, disk) = example();
    disk.set_faults(DiskFaults { writes_after: Some(0), ..DiskFaults::default() });
    let command = Command { reign: store.reign(), change: commit(7, vec![over(4, 1, data("at 7"))]) };
    assert!(store.apply(next(&store), &command).is_err());
    // (Whether the disk has it is unknown.)
    disk.set_faults(DiskFaults::default());
    assert_eq!(load(&store, Tid::MAX, 4), shown(4, None));
    assert_eq!(held(&store), None);
}

#[test]
fn the_last_edit_of_an_object_prevails() {
    let (store, _) = example();
    let mut batch = Batch::new();
    for tid in [7, 8] {
        let (revision, object) = (keys::revision(S, OID, Tid(tid)), keys::object(S, OID));
        let record = value::Stored::Data(format!("at {tid}").into());
        batch.put(keys::REVISIONS, revision, record.encode(&revision));
        batch.put(keys::OBJECTS, object, Current { tid: Tid(tid), absent: false }.encode(&object));
    }
    let changing = store.hot().begin(&batch);
    store.hot().end(changing);
    assert_eq!(held(&store), Some(8));
}

#[test]
fn it_is_never_larger_than_allowed() {
    for bytes in [200, 1_500, 20_000] {
        let store = Store::open_with_cache(engine(), bytes).unwrap();
        apply(&store, create("1"));
        for tid in 1..200 {
            apply(&store, commit(tid, vec![over(0, tid, data(&"x".repeat(tid as usize)))]));
            for oid in 1..=tid {
                store.load_before(S, Oid(oid), Tid::MAX, Tid(tid)).unwrap().unwrap();
                let counts = store.cache_counts();
                assert!(counts.bytes <= bytes, "{counts:?} of {bytes}");
            }
        }
        assert!(store.cache_counts().objects > 0, "{bytes}");
    }
}

#[test]
fn large_records_and_those_of_a_store_without_a_cache_are_not_kept() {
    let large = "x".repeat(limits::CACHED_RECORD + 1);
    let (store, _) = example();
    apply(&store, commit(7, vec![over(4, 1, data(&large))]));
    assert_eq!(held(&store), None);
    load(&store, Tid::MAX, 7).unwrap();
    assert_eq!(held(&store), None);
    let store = super::super::testing::store();
    apply(&store, commit(4, vec![over(0, 1, data("at 4"))]));
    assert_eq!(load(&store, Tid::MAX, 4), shown(4, None));
    assert_eq!(load(&store, Tid::MAX, 4), shown(4, None));
    assert_eq!(store.cache_counts(), CacheCounts::default());
}

#[test]
fn a_scan_does_not_push_out_what_is_read_again_and_again() {
    let store = Store::open_with_cache(engine(), 40 * (ENTRY + 10)).unwrap();
    apply(&store, create("1"));
    let writes = (0..1_000).map(|oid| over(0, oid, data("ten bytes."))).collect();
    apply(&store, commit(1, writes));
    let load = |oid| drop(store.load_before(S, Oid(oid), Tid::MAX, Tid(1)).unwrap());
    for _ in 0..5 {
        (0..10).for_each(load);
    }
    (100..1_000).for_each(load);
    let before = store.cache_counts();
    (0..10).for_each(load);
    assert_eq!(store.cache_counts().hits - before.hits, 10);
}

/// Each reader loads at views that move on, while the objects change, so that entries come and go.
#[test]
fn readers_beside_apply_never_see_what_their_view_has_not() {
    const OBJECTS: u64 = 5;
    // (Room for three of the objects.)
    for bytes in [3 * (ENTRY + 16) + 50, ROOMY] {
        let store = Store::open_with_cache(engine(), bytes).unwrap();
        apply(&store, create("1"));
        // Transaction n writes object n % 5.
        let written = |tid: u64| over(tid.saturating_sub(OBJECTS), tid % OBJECTS, data(&Tid(tid).to_string()));
        for tid in 1..=OBJECTS {
            assert_eq!(apply(&store, commit(tid, vec![written(tid)])), Outcome::Committed(Tid(tid)));
        }
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for reader in 0..2 {
                let (store, done) = (&store, &done);
                scope.spawn(move || {
                    let feed = store.feed(S);
                    let mut n = 0;
                    while !done.load(SeqCst) {
                        n += 1;
                        // One reader is told late.
                        let view = Tid(feed.latest().0.saturating_sub(reader * (n % 3)).max(OBJECTS));
                        for oid in (0..OBJECTS).chain([n % OBJECTS]) {
                            let newest = view.0 - (view.0 + OBJECTS - oid) % OBJECTS;
                            let loaded = store.load_before(S, Oid(oid), Tid::MAX, view).unwrap().unwrap().unwrap();
                            assert_eq!((loaded.tid, loaded.end), (Tid(newest), None), "object {oid}, view {view}");
                            assert_eq!(loaded.data, Tid(newest).to_string());
                        }
                    }
                });
            }
            for tid in OBJECTS + 1..3_000 {
                assert_eq!(apply(&store, commit(tid, vec![written(tid)])), Outcome::Committed(Tid(tid)));
            }
            done.store(true, SeqCst);
        });
        let counts = store.cache_counts();
        assert!(counts.hits > 0 && counts.misses > 0, "{counts:?}");
    }
}
