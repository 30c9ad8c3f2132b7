//! The promises of every engine, tested on RocksDB (durable by its log, and by flushes) and on the simulated disk.
//!
//! A crash of RocksDB is a copy of its folder, taken while RocksDB is open: the copy lacks what the process holds in
//! memory. `tests/engine_crash.rs` kills a real process, and takes back what the kernel had not written.

mod disks;
mod histories;
mod shelves;

use std::fs;
use std::io;

use tempfile::TempDir;
use zrs::engine::{Batch, DiskFaults, Durability, Engine, Order, Pair, Rocks, SimDisk, Table};

use disks::{Disk, END, LARGE, OnRocks, SMALL, Simulated, TABLES, all, each, pair, put};

#[test]
fn a_batch_is_seen_whole_and_its_later_edits_prevail() {
    each(|name, disk| {
        let engine = disk.open().unwrap();
        put(&*engine, SMALL, &[("x", "0"), ("y", "0")]);
        let mut batch = Batch::new();
        batch.put(SMALL, "a", "1");
        batch.put(SMALL, "a", "2");
        batch.put(LARGE, "a", "other table");
        batch.put(SMALL, "b", "gone");
        batch.delete(SMALL, "b");
        batch.delete(SMALL, "never there");
        batch.delete_range(SMALL, "x", "z");
        batch.put(SMALL, "y", "back");
        engine.write(batch).unwrap();
        assert_eq!(all(&*engine, SMALL), [pair("a", "2"), pair("y", "back")], "{name}");
        assert_eq!(engine.get(LARGE, b"a").unwrap().unwrap(), b"other table", "{name}");
        assert_eq!(engine.get(SMALL, b"b").unwrap(), None, "{name}");
        assert_eq!(engine.get(LARGE, b"y").unwrap(), None, "{name}");
    });
}

#[test]
fn ranges_have_their_first_key_and_not_their_last() {
    each(|name, disk| {
        let engine = disk.open().unwrap();
        put(&*engine, SMALL, &[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")]);
        let range = |from: &str, until: &str, order| -> Vec<Pair> {
            engine.range(SMALL, from.as_bytes(), until.as_bytes(), order).map(Result::unwrap).collect()
        };
        assert_eq!(range("b", "d", Order::Ascending), [pair("b", "2"), pair("c", "3")], "{name}");
        assert_eq!(range("b", "d", Order::Descending), [pair("c", "3"), pair("b", "2")], "{name}");
        assert_eq!(range("b1", "c1", Order::Descending), [pair("c", "3")], "{name}");
        assert_eq!(range("", "z", Order::Descending).len(), 4, "{name}");
        for (from, until) in [("b", "b"), ("c", "b"), ("e", "z"), ("", "")] {
            assert_eq!(range(from, until, Order::Ascending), [], "{name} {from} {until}");
            assert_eq!(range(from, until, Order::Descending), [], "{name} {from} {until}");
            assert_eq!(engine.first(SMALL, from.as_bytes(), until.as_bytes()).unwrap(), None, "{name}");
        }
        assert_eq!(engine.first(SMALL, b"b1", b"z").unwrap(), Some(pair("c", "3")), "{name}");
        assert_eq!(engine.first(SMALL, b"b1", b"c").unwrap(), None, "{name}");
    });
}

#[test]
fn empty_and_backward_ranges_delete_nothing() {
    each(|name, disk| {
        let engine = disk.open().unwrap();
        put(&*engine, SMALL, &[("a", "1"), ("b", "2")]);
        let mut batch = Batch::new();
        batch.delete_range(SMALL, "b", "a");
        batch.delete_range(SMALL, "a", "a");
        engine.write(batch).unwrap();
        assert_eq!(all(&*engine, SMALL).len(), 2, "{name}");
    });
}

/// Keys as the storage has them: the filters by prefix must not hide anything, in memory or in files.
#[test]
fn first_finds_the_newest_revision_within_and_across_prefixes() {
    fn key(oid: u64, tid: u64) -> Vec<u8> {
        [&1u32.to_be_bytes()[..], &oid.to_be_bytes(), &(!tid).to_be_bytes()].concat()
    }
    each(|name, disk| {
        let engine = disk.open().unwrap();
        for tid in 1..40u64 {
            let mut batch = Batch::new();
            for oid in (0..200u64).filter(|oid| oid % 3 == 0 && oid % tid == 0) {
                batch.put(LARGE, key(oid, tid), tid.to_be_bytes());
            }
            engine.write(batch).unwrap();
            if tid % 13 == 0 {
                engine.sync().unwrap();
            }
        }
        for oid in 0..200u64 {
            for before in [u64::MAX, 40, 20, 3, 1] {
                let expected = (1..40u64.min(before)).rev().find(|tid| oid % 3 == 0 && oid % tid == 0);
                for until in [key(oid + 1, u64::MAX), key(oid + 1, u64::MAX)[..12].to_vec(), key(oid, 0)] {
                    let found = engine.first(LARGE, &key(oid, before - 1), &until).unwrap();
                    let found = found.map(|(_, tid)| u64::from_be_bytes(tid.try_into().unwrap()));
                    assert_eq!(found, expected, "{name}: oid {oid} before {before}");
                }
            }
            let next = engine.first(LARGE, &key(oid, u64::MAX), END).unwrap().map(|(key, _)| key[4..12].to_vec());
            let expected = oid.next_multiple_of(3);
            assert_eq!(next, (expected < 200).then(|| expected.to_be_bytes().to_vec()), "{name}: after {oid}");
        }
    });
}

#[test]
fn a_prefix_of_all_ones_is_no_special_case() {
    each(|name, disk| {
        let engine = disk.open().unwrap();
        let mut batch = Batch::new();
        batch.put(SMALL, [0xff; 14], "in");
        engine.write(batch).unwrap();
        engine.sync().unwrap();
        assert_eq!(engine.first(SMALL, &[0xff; 13], END).unwrap().unwrap().1, b"in", "{name}");
    });
}

#[test]
fn a_range_shows_the_state_of_its_moment() {
    each(|name, disk| {
        let engine = disk.open().unwrap();
        put(&*engine, SMALL, &[("a", "1"), ("b", "2"), ("c", "3")]);
        let mut fresh = engine.range(SMALL, b"", END, Order::Descending);
        let mut begun = engine.range(SMALL, b"", END, Order::Ascending);
        assert_eq!(begun.next().unwrap().unwrap(), pair("a", "1"), "{name}");
        put(&*engine, SMALL, &[("b", "changed"), ("bb", "new"), ("d", "new")]);
        let mut batch = Batch::new();
        batch.delete_range(SMALL, "c", "d");
        engine.write(batch).unwrap();
        engine.sync().unwrap();
        assert_eq!(begun.next().unwrap().unwrap(), pair("b", "2"), "{name}");
        assert_eq!(begun.next().unwrap().unwrap(), pair("c", "3"), "{name}");
        assert!(begun.next().is_none() && begun.next().is_none(), "{name}");
        assert_eq!(fresh.next().unwrap().unwrap(), pair("c", "3"), "{name}");
        assert_eq!(all(&*engine, SMALL).len(), 4, "{name}");
    });
}

#[test]
fn values_of_any_size_come_back() {
    each(|name, disk| {
        for size in [0, 1, 4095, 4096, 100_000, 20 << 20] {
            let value: Vec<u8> = (0..size as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
            for table in TABLES {
                let engine = disk.open().unwrap();
                let mut batch = Batch::new();
                batch.put(*table, "key", value.clone());
                engine.write(batch).unwrap();
                engine.sync().unwrap();
                assert!(engine.get(*table, b"key").unwrap().unwrap() == value, "{name} {size}");
                drop(engine);
                let engine = disk.open().unwrap();
                assert!(engine.first(*table, b"", END).unwrap().unwrap().1 == value, "{name} {size}");
            }
        }
    });
}

#[test]
fn what_was_synced_survives_and_the_rest_is_a_prefix() {
    each(|name, disk| crash_three_times(name, disk, 1));
    for chance in 2..24 {
        crash_three_times("the simulated disk", &mut Simulated(SimDisk::new()), chance);
    }
}

fn crash_three_times(name: &str, disk: &mut dyn Disk, chance: u64) {
    let mut least = 0u32;
    let mut engine = disk.open().unwrap();
    for round in 1..4u32 {
        for n in least + 1..least + 20 {
            let mut batch = Batch::new();
            batch.put(SMALL, n.to_be_bytes(), "small");
            batch.put(LARGE, n.to_be_bytes(), vec![n as u8; 9000]);
            engine.write(batch).unwrap();
            if n % 20 == round * 4 {
                engine.sync().unwrap();
                least = n;
            }
        }
        disk.crash(engine, chance * 7 + u64::from(round));
        engine = disk.open().unwrap();
        let small: Vec<Vec<u8>> = all(&*engine, SMALL).into_iter().map(|pair| pair.0).collect();
        let large: Vec<Vec<u8>> = all(&*engine, LARGE).into_iter().map(|pair| pair.0).collect();
        assert_eq!(small, large, "{name}: a batch was torn");
        let count = u32::try_from(small.len()).unwrap();
        let prefix: Vec<Vec<u8>> = (1..=count).map(|n| n.to_be_bytes().to_vec()).collect();
        assert_eq!(small, prefix, "{name}: not a prefix");
        assert!(count >= least, "{name}: {count} batches are left of {least} that were synced");
        least = count;
    }
}

#[test]
fn what_an_opening_shows_survives_another_crash() {
    each(|name, disk| {
        for chance in 0..6 {
            let engine = disk.open().unwrap();
            let count = all(&*engine, SMALL).len() as u32;
            put(&*engine, SMALL, &[(&format!("{count:04}"), "unsynced")]);
            disk.crash(engine, chance);
            let engine = disk.open().unwrap();
            let shown = all(&*engine, SMALL);
            disk.crash(engine, 0);
            let engine = disk.open().unwrap();
            assert_eq!(all(&*engine, SMALL), shown, "{name}");
        }
    });
}

#[test]
fn a_clean_close_loses_nothing_that_was_synced() {
    each(|name, disk| {
        let engine = disk.open().unwrap();
        put(&*engine, SMALL, &[("a", "1")]);
        engine.sync().unwrap();
        drop(engine);
        let engine = disk.open().unwrap();
        assert_eq!(all(&*engine, SMALL), [pair("a", "1")], "{name}");
    });
}

#[test]
fn a_checkpoint_opens_as_an_engine_with_the_content_of_its_moment() {
    each(|name, disk| {
        let engine = disk.open().unwrap();
        put(&*engine, SMALL, &[("a", "synced")]);
        engine.sync().unwrap();
        put(&*engine, SMALL, &[("b", "not synced")]);
        let mut batch = Batch::new();
        batch.put(LARGE, "l", vec![7; 50_000]);
        engine.write(batch).unwrap();
        let folder = disk.beside("checkpoint");
        engine.checkpoint(&folder).unwrap();
        put(&*engine, SMALL, &[("c", "later")]);
        let error = engine.checkpoint(&folder).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists, "{name}");

        let copy = disk.open_checkpoint(&folder).unwrap();
        assert_eq!(all(&*copy, SMALL), [pair("a", "synced"), pair("b", "not synced")], "{name}");
        assert_eq!(copy.get(LARGE, b"l").unwrap().unwrap(), [7; 50_000], "{name}");
        put(&*copy, SMALL, &[("d", "its own")]);
        assert_eq!(all(&*engine, SMALL).len(), 3, "{name}");
    });
}

#[test]
fn a_disk_is_open_once_at_a_time() {
    each(|name, disk| {
        let engine = disk.open().unwrap();
        let error = disk.open().err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy, "{name}: {error}");
        drop(engine);
        disk.open().unwrap();
    });
}

#[test]
fn other_tables_are_refused() {
    const MORE: Table = Table { index: 2, name: "more", large_values: false, cached: true };
    each(|name, disk| {
        let engine = disk.open_tables(&TABLES[..1]).unwrap();
        drop(engine);
        let engine = disk.open().expect("tables may be added while there is nothing in the others");
        put(&*engine, LARGE, &[("a", "1")]);
        drop(engine);
        for tables in [&TABLES[..1], &[SMALL, LARGE, MORE]] {
            let error = disk.open_tables(tables).err().unwrap();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{name}: {error}");
            let culprit = if tables.len() == 1 { "large" } else { "more" };
            assert!(error.to_string().contains(culprit), "{name}: {error}");
        }
        assert_eq!(all(&*disk.open().unwrap(), LARGE).len(), 1, "{name}");
    });
}

#[test]
fn writers_readers_and_syncers_work_side_by_side() {
    each(|name, disk| {
        let engine = disk.open().unwrap();
        std::thread::scope(|scope| {
            for writer in 0..3u8 {
                let engine = &engine;
                scope.spawn(move || {
                    for n in 0..100u8 {
                        let mut batch = Batch::new();
                        batch.put(SMALL, [writer, n], "x");
                        batch.put(LARGE, [writer, n], "x");
                        engine.write(batch).unwrap();
                        if n % 25 == 0 {
                            engine.sync().unwrap();
                        }
                    }
                });
            }
            let engine = &engine;
            scope.spawn(move || {
                for _ in 0..100 {
                    for writer in 0..3u8 {
                        let large = engine.range(LARGE, &[writer], &[writer + 1], Order::Ascending).count();
                        let small = engine.range(SMALL, &[writer], &[writer + 1], Order::Ascending).count();
                        assert!(small >= large, "a batch is seen in all tables at once");
                    }
                }
            });
        });
        assert_eq!(all(&*engine, SMALL).len(), 300, "{name}");
    });
}

#[test]
fn a_damaged_folder_says_what_to_do() {
    for durability in [Durability::Log, Durability::Flush] {
        let disk = OnRocks::new(durability);
        let engine = disk.open().unwrap();
        put(&*engine, SMALL, &[("a", "1")]);
        engine.sync().unwrap();
        drop(engine);
        for entry in fs::read_dir(disk.folder()).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap().to_string_lossy().starts_with("MANIFEST") {
                fs::write(path, b"not a manifest at all, but long enough to be read as one").unwrap();
            }
        }
        let error = disk.open().err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        assert!(error.to_string().contains("move the folder away"), "{error}");
    }
}

#[test]
fn a_folder_that_is_a_file_is_refused() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("file");
    fs::write(&path, "").unwrap();
    let error = Rocks::open(&path, TABLES, Durability::Log).err().unwrap();
    assert!(error.to_string().contains("file"), "{error}");
}

#[test]
fn the_simulated_disk_fails_when_told_to() {
    let disk = SimDisk::new();
    let engine = disk.open(TABLES).unwrap();
    put(&engine, SMALL, &[("a", "1")]);
    disk.set_faults(DiskFaults { reads_after: Some(1), ..DiskFaults::default() });
    assert!(engine.get(SMALL, b"a").is_ok());
    assert!(engine.get(SMALL, b"a").is_err());
    assert!(engine.range(SMALL, b"", END, Order::Ascending).next().unwrap().is_err());
    disk.set_faults(DiskFaults { space: Some(10), ..DiskFaults::default() });
    let mut batch = Batch::new();
    batch.put(SMALL, "b", vec![0; 100]);
    assert_eq!(engine.write(batch).unwrap_err().kind(), io::ErrorKind::StorageFull);
    disk.set_faults(DiskFaults { syncs_after: Some(0), ..DiskFaults::default() });
    assert!(engine.sync().is_err());
    disk.set_faults(DiskFaults::default());
    assert!(engine.sync().is_err(), "a disk that lost a write does not say so twice");
    disk.crash(0);
    assert!(engine.get(SMALL, b"a").is_err(), "the host is gone");
    let engine = disk.open(TABLES).unwrap();
    assert_eq!(engine.get(SMALL, b"a").unwrap(), None);
    assert_eq!((disk.counters().lost, disk.counters().syncs), (1, 0));
    engine.sync().unwrap();
}

#[test]
fn the_simulated_disk_loses_by_chance_but_the_same_by_the_same_chance() {
    let left = |chance| {
        let disk = SimDisk::new();
        let engine = disk.open(TABLES).unwrap();
        for key in ["a", "b", "c", "d"] {
            put(&engine, SMALL, &[(key, "1")]);
        }
        disk.crash(chance);
        all(&disk.open(TABLES).unwrap(), SMALL).len()
    };
    let outcomes: Vec<usize> = (0..40).map(left).collect();
    assert_eq!(outcomes, (0..40).map(left).collect::<Vec<_>>());
    assert!((0..=4).all(|count| outcomes.contains(&count)), "{outcomes:?}");
}

#[test]
fn the_disk_gets_back_the_space_of_what_was_removed() {
    // (By itself RocksDB leaves a database alone that nobody writes to.)
    let disk = OnRocks::new(Durability::Flush);
    let engine = disk.open().unwrap();
    let key = |n: u32| n.to_be_bytes();
    // (The one that stays has files of its own: RocksDB rewrites a blob file for others only if it is of the oldest.)
    for n in (1..64).chain([0]) {
        for (table, size) in [(LARGE, 1 << 20), (SMALL, 1 << 10)] {
            let mut batch = Batch::new();
            for part in 0..(1 << 20) / size {
                batch.put(table, [key(n), key(part)].concat(), noise(n << 10 | part, size as usize));
            }
            engine.write(batch).unwrap();
        }
        if n == 63 || n == 0 {
            engine.sync().unwrap();
        }
    }
    let used = || -> u64 {
        fs::read_dir(disk.folder()).unwrap().map(|file| file.unwrap().metadata().map_or(0, |about| about.len())).sum()
    };
    assert!(used() > 120 << 20, "{}", used());
    let mut batch = Batch::new();
    batch.delete_range(LARGE, key(1), key(64));
    for n in 1..64 {
        (0..1 << 10).for_each(|part: u32| batch.delete(SMALL, [key(n), key(part)].concat()));
    }
    engine.write(batch).unwrap();
    engine.reclaim(&|| false).unwrap();
    assert!(used() > 120 << 20, "it was told not to go on");
    engine.reclaim(&|| true).unwrap();
    assert!(used() < 8 << 20, "{} bytes are left", used());
    assert_eq!((all(&*engine, LARGE).len(), all(&*engine, SMALL).len()), (1, 1 << 10));
}

/// Bytes that can't be compressed.
fn noise(seed: u32, size: usize) -> Vec<u8> {
    let mut state = u64::from(seed) << 32 | 1;
    let mut step = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..size).map(|_| step()).collect()
}
