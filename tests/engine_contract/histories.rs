//! Random histories of writes, syncs, openings and crashes, beside a model.

use std::collections::BTreeMap;

use proptest::prelude::*;
use zrs::engine::{Batch, Durability, Engine, Order, Pair, SimDisk};

use crate::disks::{Disk, OnRocks, Simulated, TABLES, all};

#[derive(Clone, Debug)]
enum Step {
    Write(Vec<Change>),
    Sync,
    Reopen,
    Crash(u64),
    Look(Vec<u8>, Vec<u8>),
}

#[derive(Clone, Debug)]
enum Change {
    Put(usize, Vec<u8>, usize),
    Delete(usize, Vec<u8>),
    DeleteRange(usize, Vec<u8>, Vec<u8>),
}

fn keys() -> impl Strategy<Value = Vec<u8>> {
    // Few enough to meet again; around the length of the filters' prefix, and with the bytes where orders go wrong.
    let short = proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(0x7f), Just(0xff)], 0..3);
    (short, prop_oneof![Just(0usize), Just(10), Just(12)]).prop_map(|(tail, zeros)| [vec![0; zeros], tail].concat())
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let change = prop_oneof![
        5 => (0..2usize, keys(), prop_oneof![Just(0usize), Just(3), Just(5000)]).prop_map(|(t, k, n)| Change::Put(t, k, n)),
        2 => (0..2usize, keys()).prop_map(|(t, k)| Change::Delete(t, k)),
        1 => (0..2usize, keys(), keys()).prop_map(|(t, a, b)| Change::DeleteRange(t, a, b)),
    ];
    let step = prop_oneof![
        8 => proptest::collection::vec(change, 1..5).prop_map(Step::Write),
        2 => Just(Step::Sync),
        1 => Just(Step::Reopen),
        1 => any::<u64>().prop_map(Step::Crash),
        6 => (keys(), keys()).prop_map(|(a, b)| Step::Look(a, b)),
    ];
    proptest::collection::vec(step, 1..40)
}

type Model = [BTreeMap<Vec<u8>, Vec<u8>>; 2];

fn change(model: &mut Model, batch: &mut Batch, changes: &[Change], filler: u8) {
    for change in changes {
        match change.clone() {
            Change::Put(table, key, length) => {
                batch.put(TABLES[table], key.clone(), vec![filler; length]);
                model[table].insert(key, vec![filler; length]);
            }
            Change::Delete(table, key) => {
                batch.delete(TABLES[table], key.clone());
                model[table].remove(&key);
            }
            Change::DeleteRange(table, from, until) => {
                batch.delete_range(TABLES[table], from.clone(), until.clone());
                model[table].retain(|key, _| *key < from || *key >= until);
            }
        }
    }
}

fn content(engine: &dyn Engine) -> Model {
    TABLES.iter().map(|table| all(engine, *table).into_iter().collect()).collect::<Vec<_>>().try_into().unwrap()
}

fn live(name: &str, disk: &mut dyn Disk, steps: &[Step]) {
    let mut engine = disk.open().unwrap();
    // The states that a crash may leave: those from the last sync on.
    let mut states: Vec<Model> = vec![Model::default()];
    for (n, step) in steps.iter().enumerate() {
        match step {
            Step::Write(changes) => {
                let mut model = states.last().unwrap().clone();
                let mut batch = Batch::new();
                change(&mut model, &mut batch, changes, n as u8);
                engine.write(batch).unwrap();
                states.push(model);
            }
            Step::Sync => {
                engine.sync().unwrap();
                states.drain(..states.len() - 1);
            }
            Step::Reopen => {
                engine.sync().unwrap();
                drop(engine);
                engine = disk.open().unwrap();
                states.drain(..states.len() - 1);
            }
            Step::Crash(chance) => {
                disk.crash(engine, *chance);
                engine = disk.open().unwrap();
                let left = content(&*engine);
                assert!(states.contains(&left), "{name}: not a state between the last sync and the crash");
                states = vec![left];
            }
            Step::Look(from, until) => {
                for (table, model) in TABLES.iter().zip(states.last().unwrap()) {
                    let inside = model.iter().filter(|(key, _)| *key >= from && *key < until);
                    let inside: Vec<Pair> = inside.map(|(key, value)| (key.clone(), value.clone())).collect();
                    let read =
                        |order| -> Vec<Pair> { engine.range(*table, from, until, order).map(Result::unwrap).collect() };
                    assert_eq!(engine.first(*table, from, until).unwrap().as_ref(), inside.first(), "{name}");
                    assert_eq!(read(Order::Ascending), inside, "{name}");
                    let backward: Vec<Pair> = inside.into_iter().rev().collect();
                    assert_eq!(read(Order::Descending), backward, "{name}");
                    assert_eq!(engine.get(*table, from).unwrap().as_ref(), model.get(from), "{name}");
                }
            }
        }
    }
    assert_eq!(&content(&*engine), states.last().unwrap(), "{name}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn random_histories_on_the_simulated_disk(steps in steps()) {
        live("the simulated disk", &mut Simulated(SimDisk::new()), &steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn random_histories_on_rocksdb(steps in steps()) {
        live("RocksDB with a log", &mut OnRocks::new(Durability::Log), &steps);
        live("RocksDB with flushes", &mut OnRocks::new(Durability::Flush), &steps);
    }
}
