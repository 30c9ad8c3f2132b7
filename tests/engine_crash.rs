//! RocksDB after crashes that the contract suite can't produce: a process killed while it writes, and a write-ahead log
//! of which the disk has only a part.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;
use zrs::engine::{Batch, Durability, Engine, Order, Rocks, Table};

const KEYS: Table = Table { index: 0, name: "keys", large_values: false, cached: true };
const VALUES: Table = Table { index: 1, name: "values", large_values: true, cached: true };
const TABLES: &[Table] = &[KEYS, VALUES];
const FOLDER: &str = "ZRS_TEST_KILLED_FOLDER";
const DURABILITY: &str = "ZRS_TEST_KILLED_DURABILITY";

fn write(engine: &Rocks, n: u32) {
    let mut batch = Batch::new();
    batch.put(KEYS, n.to_be_bytes(), "key");
    batch.put(VALUES, n.to_be_bytes(), vec![n as u8; 10 + (n as usize * 611) % 9000]);
    engine.write(batch).unwrap();
}

/// How many of the batches 0, 1, … are there; panics if a batch is torn, or missing before another.
fn count(folder: &Path, durability: Durability) -> u32 {
    let engine = Rocks::open(folder, TABLES, durability).unwrap();
    let count = engine.range(KEYS, b"", &[0xff; 5], Order::Ascending).count() as u32;
    for n in 0..count {
        assert!(engine.get(KEYS, &n.to_be_bytes()).unwrap().is_some(), "{n} is missing of {count}");
        let value = engine.get(VALUES, &n.to_be_bytes()).unwrap().expect("both tables have it");
        assert_eq!(value, vec![n as u8; 10 + (n as usize * 611) % 9000]);
    }
    assert_eq!(engine.range(VALUES, b"", &[0xff; 5], Order::Ascending).count() as u32, count);
    count
}

#[test]
fn a_killed_process_leaves_a_prefix_with_all_that_was_synced() {
    for durability in ["log", "flush"] {
        let home = TempDir::new().unwrap();
        let folder = home.path().join("engine");
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["the_process_that_is_killed", "--exact", "--ignored", "--nocapture"])
            .env(FOLDER, &folder)
            .env(DURABILITY, durability)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut synced = lines.filter_map(|line| line.strip_prefix("synced ").map(|n| n.parse::<u32>().unwrap()));
        let before = synced.nth(9).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let synced = synced.last().unwrap_or(before);
        let left = count(&folder, if durability == "log" { Durability::Log } else { Durability::Flush });
        assert!(left > synced, "{durability}: {left} are left, {synced} was synced");
    }
}

/// Not a test: the process that the test above kills.
#[test]
#[ignore = "run by a_killed_process_leaves_a_prefix_with_all_that_was_synced"]
fn the_process_that_is_killed() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let durability = if std::env::var(DURABILITY).unwrap() == "log" { Durability::Log } else { Durability::Flush };
    let engine = Rocks::open(&PathBuf::from(folder), TABLES, durability).unwrap();
    println!();
    for n in 0.. {
        write(&engine, n);
        if n % 7 == 0 {
            engine.sync().unwrap();
            println!("synced {n}");
            std::io::stdout().flush().unwrap();
        }
    }
}

/// The log with the greatest number: the one in use.
fn log_of(folder: &Path) -> PathBuf {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|ending| ending == "log")).max().unwrap()
}

#[test]
fn a_log_of_which_the_disk_has_a_part_is_a_prefix_from_the_sync_on() {
    let home = TempDir::new().unwrap();
    let folder = home.path().join("engine");
    let engine = Rocks::open(&folder, TABLES, Durability::Log).unwrap();
    (0..20).for_each(|n| write(&engine, n));
    engine.sync().unwrap();
    let synced = fs::metadata(log_of(&folder)).unwrap().len();
    (20..120).for_each(|n| write(&engine, n));
    engine.sync().unwrap();
    let whole = fs::metadata(log_of(&folder)).unwrap().len();
    assert!(whole > synced + 100_000);

    let mut counts = Vec::new();
    for part in 0..8 {
        let copy = home.path().join(format!("copy-{part}"));
        fs::create_dir(&copy).unwrap();
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, copy.join(path.file_name().unwrap())).unwrap();
        }
        let log = log_of(&copy);
        let cut = synced + (whole - synced) * part / 8 + part % 3;
        if part % 2 == 0 {
            File::options().write(true).open(&log).unwrap().set_len(cut).unwrap();
        } else {
            // A page that never reached the disk, and later ones that did.
            let mut bytes = fs::read(&log).unwrap();
            let hole = cut as usize..(cut as usize + 4096).min(bytes.len());
            bytes[hole].fill(0);
            fs::write(&log, bytes).unwrap();
        }
        counts.push(count(&copy, Durability::Log));
    }
    assert_eq!(counts[0], 20, "all that was synced, and nothing else");
    assert!(counts.is_sorted() && counts[7] < 120, "{counts:?}");
}
