//! Every question is asked of the store and of its model, after random histories: the answers must be the same.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::model::*;
use super::testing::{S, next};
use super::{HistoryEntry, Position, Store, TABLES};
use crate::engine::{Durability, Engine, Rocks, SimDisk};
use crate::zodb::{Oid, Refusal, Revision, State, StorageId, Tid, TransactionMeta};

/// Asks store and model everything.
fn compare(store: &Store, model: &Model) {
    let mut tids: Vec<Tid> = (0..=model.last().0 + 1).map(Tid).collect();
    tids.push(Tid::MAX);
    for oid in (0..=OIDS).map(Oid) {
        for &view in &tids {
            compare_object(store, model, oid, view, &tids);
        }
    }
    for &after in &tids {
        compare_spans(store, model, after, &tids);
    }
    compare_transactions(store, model);
    compare_undo_log(store, model);
    compare_summary(store, model);
    let numbered = model.storages.iter().zip(1..);
    let wanted: Vec<_> = numbered.filter_map(|(name, n)| Some((StorageId(n), name.clone()?))).collect();
    assert_eq!(store.storages(), wanted);
}

fn compare_object(store: &Store, model: &Model, oid: Oid, view: Tid, tids: &[Tid]) {
    for &before in tids {
        let found = store.load_before(S, oid, before, view).unwrap();
        assert_eq!(found, model.load_before(oid, before, view), "load_before({oid}, {before}, {view})");
        let revisions = model.revisions(oid, view);
        let of_tid = revisions.iter().find(|(tid, _)| *tid == before).and_then(|(_, shown)| shown.data.clone());
        let found = store.load_serial(S, oid, before, view).unwrap();
        assert_eq!(found, of_tid.ok_or(Refusal::NoObject(oid)), "load_serial({oid}, {before}, {view})");
    }
    let revisions = model.revisions(oid, view);
    let entries = revisions.iter().rev().map(|(tid, shown)| HistoryEntry {
        tid: *tid,
        meta: model.transactions[tid].0.clone(),
        size: if shown.data_tid.is_none() { shown.data.as_ref().map_or(0, Bytes::len) as u64 } else { 0 },
    });
    for size in [0, 1, 2, 100] {
        let wanted = match revisions.is_empty() {
            true => Err(Refusal::NoObject(oid)),
            false => Ok(entries.clone().take(size).collect()),
        };
        assert_eq!(store.history(S, oid, size, view).unwrap(), wanted, "history({oid}, {size}, {view})");
    }
    let wanted = revisions.last().filter(|(_, shown)| shown.data.is_some()).map(|(tid, _)| *tid);
    assert_eq!(store.get_tid(S, oid, view).unwrap(), wanted.ok_or(Refusal::NoObject(oid)));

    let mut present = model.present(view).into_iter().skip_while(|(present, ..)| *present < oid);
    let wanted = present.next().map(|(oid, tid, data)| (oid, tid, data, present.next().map(|(oid, ..)| oid)));
    assert_eq!(store.next_object(S, oid, view).unwrap(), wanted, "next_object({oid}, {view})");
}

fn compare_spans(store: &Store, model: &Model, from: Tid, tids: &[Tid]) {
    for &upto in tids {
        let spans = |tid: &Tid| *tid > from && *tid <= upto;
        let transactions = model.transactions.iter().filter(|(tid, _)| spans(tid));
        let oids: BTreeSet<Oid> = transactions.flat_map(|(_, (_, writes))| writes.iter().map(|w| w.0)).collect();
        let wanted = oids.into_iter().collect::<Vec<_>>();
        assert_eq!(store.changed_since(S, from, upto, usize::MAX).unwrap(), Some(wanted));
        let first = model.transactions.iter().find(|(tid, _)| **tid >= from && **tid <= upto);
        let status = |tid: &Tid, meta: &TransactionMeta| if *tid <= model.packed() { b'p' } else { meta.status };
        let first = first.map(|(tid, (meta, _))| (*tid, TransactionMeta { status: status(tid, meta), ..meta.clone() }));
        assert_eq!(store.transaction_at(S, from, upto).unwrap(), first, "transaction_at({from}, {upto})");
    }
}

fn compare_transactions(store: &Store, model: &Model) {
    for (&tid, (_, writes)) in &model.transactions {
        for (n, (oid, shown)) in writes.iter().enumerate() {
            let state = shown.data.clone().map_or(State::Absent, State::Data);
            // A packed revision has no data_tid.
            let data_tid = shown.data_tid.filter(|_| tid > model.packed());
            let wanted = Revision { oid: *oid, tid, state, data_tid };
            assert_eq!(store.record_at(S, tid, n).unwrap(), Some((n, wanted)));
        }
        assert_eq!(store.record_at(S, tid, writes.len()).unwrap(), None);
        assert_eq!(store.record_at(S, tid.next().next().next().next(), 600).unwrap(), None);
    }
}

fn compare_undo_log(store: &Store, model: &Model) {
    for view in (0..=model.last().0 + 1).map(Tid) {
        let undoable = model.transactions.range(..=view).rev().filter(|(tid, _)| **tid > model.packed());
        let undoable: Vec<_> = undoable.map(|(tid, (meta, _))| (*tid, meta.clone())).collect();
        for (first, last) in [(0, 100), (0, 3), (2, 5), (-2, 2), (3, 2), (0, 0)] {
            for odd in [false, true] {
                let found = store
                    .undo_log(S, view, first, last, &super::Stop::default(), |entry| !odd || entry.tid.0 % 2 == 1)
                    .unwrap();
                let found: Vec<_> = found.into_iter().map(|entry| (entry.tid, entry.meta)).collect();
                let wanted = undoable.iter().filter(|(tid, _)| !odd || tid.0 % 2 == 1).take(last as usize);
                let wanted: Vec<_> = wanted.skip(first.max(0) as usize).cloned().collect();
                assert_eq!(found, wanted, "undo_log({view}, {first}, {last}, {odd})");
            }
        }
    }
}

fn compare_summary(store: &Store, model: &Model) {
    let (summary, recount) = store.recount(S).unwrap();
    assert!(recount.agrees(&summary), "{summary:?} {recount:?}");
    assert_eq!(summary, store.summary(S));
    assert_eq!(summary.last_tid, model.last());
    assert_eq!(summary.next_oid, Oid(model.next_oid));
    assert_eq!(summary.transactions, model.transactions.len() as u64);
    let writes = || model.transactions.values().flat_map(|(_, writes)| writes);
    assert_eq!(summary.objects, writes().map(|w| w.0).collect::<BTreeSet<_>>().len() as u64);
    let own = writes().filter(|(_, shown)| shown.data_tid.is_none());
    assert_eq!(summary.bytes, own.map(|(_, shown)| shown.data.as_ref().map_or(0, Bytes::len) as u64).sum::<u64>());
    for oid in (0..OIDS).map(Oid) {
        let newest = model.revisions(oid, Tid::MAX).pop().map(|(tid, shown)| (tid, shown.data.is_none()));
        assert_eq!(store.current(S, oid).unwrap().map(|current| (current.tid, current.absent)), newest);
    }
}

fn compare_feed(store: &Store, model: &Model) {
    let feed = store.feed(S);
    assert_eq!(feed.latest(), model.last());
    let told = feed.after(Tid::ZERO).unwrap();
    let told: Vec<_> = told.iter().map(|applied| (applied.storage, applied.tid, applied.oids.clone())).collect();
    let oids = |writes: &[(Oid, Shown)]| writes.iter().map(|w| w.0).collect::<Vec<_>>();
    let wanted: Vec<_> = model.transactions.iter().map(|(tid, (_, writes))| (S, *tid, oids(writes))).collect();
    assert_eq!(told, wanted);
}

/// Everything in which two stores must be equal.
fn essence(store: &Store) -> String {
    format!("{:?}", (store.summaries(), store.reign(), store.membership(), store.storages()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_answers_like_the_model(steps in steps(), cache in prop::sample::select(&[0, 600, 1 << 20])) {
        let disk = SimDisk::new();
        let store = Store::open_with_cache(Arc::new(disk.open(TABLES).unwrap()), cache).unwrap();
        let (model, _) = run(&store, &steps);
        compare(&store, &model);
        compare_feed(&store, &model);
        drop(store);
        compare(&Store::open(Arc::new(disk.open(TABLES).unwrap())).unwrap(), &model);
    }

    #[test]
    fn a_crash_in_the_middle_and_a_replay_come_to_the_same(
        steps in steps(),
        flush: prop::sample::Index,
        crash: prop::sample::Index,
        chance: u64,
    ) {
        let steady = super::testing::empty();
        let (model, log) = run(&steady, &steps);

        let disk = SimDisk::new();
        let store = Store::open(Arc::new(disk.open(TABLES).unwrap())).unwrap();
        let crash = crash.index(log.len()) + 1;
        let flush = flush.index(crash);
        let mut flushed = Position::default();
        for (n, entry) in log[..crash].iter().enumerate() {
            apply(&store, next(&store), entry);
            if n == flush {
                flushed = store.flush().unwrap();
            }
        }
        drop(store);
        disk.crash(chance);

        let store = Store::open(Arc::new(disk.open(TABLES).unwrap())).unwrap();
        let applied = store.applied();
        prop_assert!(applied >= flushed, "{:?} was flushed, {:?} is there", flushed, applied);
        for entry in &log[applied.index as usize..] {
            apply(&store, next(&store), entry);
        }
        prop_assert_eq!(essence(&store), essence(&steady));
        compare(&store, &model);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn on_rocksdb_too(steps in steps()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let open = || -> Arc<dyn Engine> { Arc::new(Rocks::open(&path, TABLES, Durability::Flush).unwrap()) };
        let store = Store::open_with_cache(open(), 1 << 20).unwrap();
        let (model, _) = run(&store, &steps);
        compare(&store, &model);
        store.flush().unwrap();
        let before = essence(&store);
        drop(store);
        let store = Store::open(open()).unwrap();
        prop_assert_eq!(essence(&store), before);
        compare(&store, &model);
    }
}
