//! A `Data.fs` goes in and comes out the same; nothing half-done is left of what can't; and clusters start on it.
//!
//! FileStorage itself makes the files and compares them (`tests/python/workers/datafs.py`).

#[path = "filestorage/odd.rs"]
mod odd;
mod support;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::Value;
use tempfile::TempDir;

use support::cluster::{Cluster, signal};
use support::{PATIENCE, python, wait_for};
use zrs::engine::SimDisk;
use zrs::filestorage::{
    self, Cut, EndReason, Export, Import, Imported, MissingBlobs, Phase, Progress, Warning, Writer,
};
use zrs::storage::{self, Store};
use zrs::zodb::{Oid, Tid, TransactionMeta};

fn zrsctl(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_zrsctl")).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// -> what it printed.
fn done(arguments: &[&str]) -> String {
    let output = zrsctl(arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "zrsctl {arguments:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned() + &errors
}

/// -> why.
fn refused(arguments: &[&str]) -> String {
    let output = zrsctl(arguments);
    assert_eq!(output.status.code(), Some(1), "zrsctl {arguments:?} was to refuse");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A folder, and paths in it.
struct Place(TempDir);

impl Place {
    fn new() -> Place {
        Place(tempfile::Builder::new().prefix("zrs-datafs-").tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// The names of its entries.
    fn names(&self) -> Vec<String> {
        names_in(self.0.path())
    }

    /// A file with everything that a FileStorage can have: `made/Data.fs`, `made/blobs`.
    fn make(&self) -> Value {
        python::run("datafs.py", &["make", &self.text("made")])
    }

    /// The Plone site: `plone-site/Data.fs`.
    fn plone(&self) -> Value {
        let data = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
        let unpacked =
            Command::new("tar").arg("-xf").arg(data("plone-site.tar.xz")).arg("-C").arg(self.0.path()).status();
        assert!(unpacked.unwrap().success());
        let truth = fs::read_to_string(data("plone-site.truth.json")).unwrap();
        serde_json::from_str::<Value>(&truth).unwrap()["as_made"].take()
    }
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn assert_same(one: [&str; 2], other: [&str; 2]) -> Value {
    let found = python::run("datafs.py", &["compare", one[0], one[1], other[0], other[1]]);
    assert_eq!(found["differences"], Value::Array(vec![]), "{found}");
    found["counts"].clone()
}

#[test]
fn everything_that_filestorage_writes_goes_in_and_comes_out() {
    let place = Place::new();
    let made = place.make();
    let [file, blobs] = [place.text("made/Data.fs"), place.text("made/blobs")];
    let said = done(&["import", &file, "--blobs", &blobs, "--data", &place.text("data")]);
    assert!(said.contains(made["last_tid"].as_str().unwrap()), "{said}");
    let [back, back_blobs] = [place.text("Back.fs"), place.text("back-blobs")];
    done(&["export", "--data", &place.text("data"), &back, "--blobs", &back_blobs]);
    let counts = assert_same([&file, &blobs], [&back, &back_blobs]);
    println!("{counts}");
    for (count, least) in [("transactions", 15), ("records", 3000), ("blobs", 7), ("pointers", 5), ("absent", 3)] {
        assert!(counts[count].as_u64().unwrap() >= least, "{count}: {counts}");
    }
    // And once more, into a storage of another name.
    done(&["import", &back, "--blobs", &back_blobs, "--data", &place.text("again"), "--storage", "main"]);
    let third = place.text("Third.fs");
    let why = refused(&["export", "--data", &place.text("again"), &third, "--without-blobs"]);
    assert!(why.contains("there is no storage \"1\", but \"main\""), "{why}");
    done(&["export", "--data", &place.text("again"), &third, "--without-blobs", "--storage", "main"]);
    assert_same([&file, ""], [&third, ""]);
}

#[test]
fn a_plone_site_goes_in_at_its_digests_and_comes_out_to_the_byte() {
    let place = Place::new();
    let truth = place.plone();
    let [file, blobs] = [place.text("plone-site/Data.fs"), place.text("plone-site/blobs")];
    let mut cluster = Cluster::new(1);
    done(&["import", &file, "--blobs", &blobs, "--data", &cluster.nodes[0].data.display().to_string()]);
    cluster.start_all();
    cluster.wait_primary();
    let found = python::run("site.py", &["digest", &file, &cluster.addresses()[0]]);
    assert_eq!(found["differences"], Value::Array(vec![]), "{found}");
    let keys = ["transactions", "records", "objects", "loadable", "record_bytes", "last_tid", "history_sha256"];
    for key in keys.iter().chain(&["current_sha256"]) {
        assert_eq!(found[key], truth[key], "{key}");
    }
    assert!(cluster.nodes[0].terminate().success());
    let data = cluster.nodes[0].data.display().to_string();
    done(&["export", "--data", &data, &place.text("Back.fs"), "--blobs", &place.text("back-blobs")]);
    assert!(fs::read(&file).unwrap() == fs::read(place.path("Back.fs")).unwrap(), "Data.fs is another one");
    assert_same([&file, &blobs], [&place.text("Back.fs"), &place.text("back-blobs")]);
}

#[test]
fn what_was_packed_stays_packed() {
    let mut cluster = Cluster::started(1);
    let over_zeo = python::run("datafs.py", &["pack", &cluster.addresses()[0]]);
    assert!(cluster.nodes[0].terminate().success());
    let place = Place::new();
    let data = cluster.nodes[0].data.display().to_string();
    let [file, again] = [place.text("Data.fs"), place.text("Again.fs")];
    done(&["export", "--data", &data, &file]);
    let in_file = python::run("datafs.py", &["undoable", &file]);
    let statuses = |found: &Value| -> Vec<String> {
        let pairs = found["statuses"].as_array().unwrap().iter();
        pairs.map(|pair| pair[1].as_str().unwrap().to_owned()).collect()
    };
    let told = statuses(&in_file);
    assert!(told.iter().filter(|status| *status == "p").count() >= 2, "{in_file}");
    assert_eq!(told[told.len() - 2..], [" ", " "], "{in_file}");
    assert_eq!(in_file, over_zeo);
    assert_eq!(in_file["undo"].as_array().unwrap().len(), 2, "{in_file}");
    done(&["import", &file, "--data", &place.text("again")]);
    done(&["export", "--data", &place.text("again"), &again]);
    assert!(fs::read(file).unwrap() == fs::read(again).unwrap(), "another file");
    let store = import(&place.path("Data.fs")).unwrap().1;
    assert_eq!(store.summary(store.storage("1").unwrap()).packed, packed_upto(&in_file));
}

/// The last transaction that says that it was packed.
fn packed_upto(found: &Value) -> Tid {
    let packed = found["statuses"].as_array().unwrap().iter().rfind(|pair| pair[1] == "p").unwrap();
    Tid(u64::from_str_radix(packed[0].as_str().unwrap(), 16).unwrap())
}

#[test]
fn three_nodes_start_on_one_import_and_go_on() {
    let place = Place::new();
    let made = place.make();
    let [file, blobs] = [place.text("made/Data.fs"), place.text("made/blobs")];
    let mut cluster = Cluster::new(3);
    let mut arguments = vec!["import", &file, "--blobs", &blobs];
    let folders: Vec<String> = cluster.nodes.iter().map(|node| node.data.display().to_string()).collect();
    folders.iter().for_each(|folder| arguments.extend(["--data", folder]));
    done(&arguments);
    cluster.start_all();
    cluster.wait_primary();
    cluster.wait_ready();
    for status in cluster.wait_same() {
        assert_eq!(status["last_tid"], made["last_tid"], "{status}");
    }
    let mut arguments = vec!["client", &file, &blobs];
    let addresses = cluster.addresses();
    arguments.extend(addresses.iter().map(String::as_str));
    let written = python::run("datafs.py", &arguments);
    assert_eq!(written["differences"], Value::Array(vec![]), "{written}");
    assert!(written["counts"]["blobs"].as_u64().unwrap() >= 7, "{written}");
    for status in cluster.wait_same() {
        assert_eq!(status["last_tid"], written["last_tid"], "{status}");
    }
    // Commits that the store loses in a crash are applied again, on top of the import.
    cluster.kill_all();
    cluster.start_all();
    cluster.wait_primary();
    cluster.wait_ready();
    for status in cluster.wait_same() {
        assert_eq!(status["last_tid"], written["last_tid"], "{status}");
    }
    let mut sizes = Vec::new();
    for (node, folder) in folders.iter().enumerate() {
        assert!(cluster.nodes[node].terminate().success());
        let back = place.text(&format!("Back{node}.fs"));
        let blobs = place.text(&format!("back{node}-blobs"));
        // (The node that stops last may have the beginning of an election in its log.)
        let said = done(&["export", "--data", folder, &back, "--blobs", &blobs, "--as-it-is"]);
        assert!(said.contains(written["last_tid"].as_str().unwrap()), "{said}");
        sizes.push(fs::read(back).unwrap());
    }
    assert!(sizes[0] == sizes[1] && sizes[1] == sizes[2], "the nodes export different files");
}

#[test]
fn nodes_that_begin_with_different_data_form_no_cluster_and_say_which_is_odd() {
    let place = Place::new();
    small(&place.path("one.fs"), 3);
    small(&place.path("two.fs"), 4);
    let mut cluster = Cluster::new(3);
    for (node, file) in [(0, "one.fs"), (2, "two.fs")] {
        done(&["import", &place.text(file), "--data", &cluster.nodes[node].data.display().to_string()]);
    }
    cluster.start_all();
    let waits = |cluster: &Cluster, for_what: &str| {
        for node in &cluster.nodes {
            let waiting = || node.status()["waiting"].as_str().filter(|w| w.contains(for_what)).map(str::to_owned);
            println!("{}", wait_for(|| format!("{for_what}: {}", node.status()), PATIENCE, waiting));
        }
    };
    waits(&cluster, "the nodes do not begin with the same data: node 1 has storage \"1\" with 3 transactions");
    // Node 3 gets the right import; node 2 has no data yet.
    let data = cluster.nodes[2].data.display().to_string();
    cluster.nodes[2].kill();
    cluster.nodes[2].empty();
    done(&["import", &place.text("one.fs"), "--data", &data]);
    cluster.start(2);
    waits(&cluster, "the nodes do not begin with the same data: node 2 has no data, nodes 1 and 3 have storage");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(cluster.primary(), None);
    let data = cluster.nodes[1].data.display().to_string();
    cluster.nodes[1].kill();
    cluster.nodes[1].empty();
    done(&["import", &place.text("one.fs"), "--data", &data]);
    cluster.start(1);
    cluster.wait_primary();
    cluster.wait_ready();
    // A folder whose store is exchanged or gone is refused.
    cluster.kill_all();
    let store = cluster.nodes[1].data.join("store");
    fs::rename(&store, place.path("store")).unwrap();
    cluster.start(1);
    let node = &mut cluster.nodes[1];
    wait_for(|| "node 2 to refuse".into(), PATIENCE, || (!node.is_running()).then_some(()));
    let log = node.log_text();
    assert!(log.contains("store is not the one that its cluster began with; it has no data"), "{log}");
}

#[test]
fn a_copy_of_a_folder_that_was_used_is_no_member() {
    let place = Place::new();
    small(&place.path("Data.fs"), 3);
    let mut cluster = Cluster::new(3);
    let folders: Vec<String> = cluster.nodes.iter().map(|node| node.data.display().to_string()).collect();
    done(&["import", &place.text("Data.fs"), "--data", &folders[0], "--data", &folders[1]]);
    cluster.start(0);
    wait_for(|| cluster.situation(), PATIENCE, || (!cluster.nodes[0].status().is_null()).then_some(()));
    cluster.nodes[0].kill();
    let copied = Command::new("cp").args(["-r", &folders[0], &folders[2]]).status().unwrap();
    assert!(copied.success());
    cluster.start_all();
    for (node, key, words) in
        [(0, "waiting", "has a copy of node 1"), (2, "fault", "the data folder of node 3 is a copy")]
    {
        let node = &cluster.nodes[node];
        let said = || node.status()[key].as_str().filter(|w| w.contains(words)).map(str::to_owned);
        println!("{}", wait_for(|| format!("a word: {}", node.status()), PATIENCE, said));
    }
    // Without its log, in which the copied incarnation stands, the copy is a member like any other.
    cluster.nodes[2].kill();
    fs::remove_dir_all(cluster.nodes[2].data.join("log")).unwrap();
    cluster.start(2);
    cluster.wait_primary();
    cluster.wait_ready();
}

#[test]
fn what_is_unusual_in_a_file_is_told() {
    let place = Place::new();
    let path = place.path("Data.fs");
    small(&path, 2);
    let whole = fs::read(&path).unwrap();
    let mut changed = whole.clone();
    changed[..4].copy_from_slice(b"FS21");
    changed[20] = b'u';
    fs::write(&path, &changed).unwrap();
    let (imported, _) = import(&path).unwrap();
    assert_eq!(
        (imported.transactions, imported.warnings),
        (1, vec![Warning::Python2, Warning::Undone(1), Warning::Previous(2)])
    );

    // A pointer into a transaction of status u shows its data all the same, as for FileStorage.
    small(&place.path("three.fs"), 3);
    let mut changed = fs::read(place.path("three.fs")).unwrap();
    changed[16 + whole.len() - (whole.len() - 4) / 2] = b'u';
    fs::write(&path, &changed).unwrap();
    let (imported, store) = import(&path).unwrap();
    assert_eq!((imported.transactions, &imported.warnings[0]), (2, &Warning::Undone(1)));
    let loaded = store.load_before(store.storage("1").unwrap(), Oid(2), Tid::MAX, Tid::MAX).unwrap().unwrap().unwrap();
    assert_eq!((loaded.data.as_ref(), loaded.tid), (&b"a pickle of 20 bytes"[..], Tid(103)));

    // An object twice in one transaction, with different data: the last counts.
    let mut writer = Writer::create(&place.path("twice.fs")).unwrap();
    writer.begin(Tid(5), &TransactionMeta { status: b'p', ..TransactionMeta::default() }).unwrap();
    for data in ["first", "second", "second"] {
        writer.record(Oid(1), data.len() as u64).unwrap();
        writer.data(data.as_bytes()).unwrap();
    }
    writer.end().unwrap();
    writer.finish().unwrap();
    let (imported, store) = import(&place.path("twice.fs")).unwrap();
    assert_eq!((imported.records, imported.warnings), (3, vec![Warning::Replaced(1)]));
    let storage = store.storage("1").unwrap();
    let loaded = store.load_before(storage, Oid(1), Tid::MAX, Tid::MAX).unwrap().unwrap().unwrap();
    assert_eq!(loaded.data, "second");
    let listing = store.listing(storage, Tid::ZERO).unwrap().unwrap();
    assert_eq!((listing.oids, listing.meta.status), (vec![Oid(1); 3], b'p'));
}

/// A file of `count` transactions.
fn small(path: &Path, count: u64) {
    let mut writer = Writer::create(path).unwrap();
    for n in 1..=count {
        let meta =
            TransactionMeta { status: b' ', user: b"jim".to_vec(), description: b"did".to_vec(), extension: vec![] };
        writer.begin(Tid(100 + n), &meta).unwrap();
        for oid in [n, 0, 7] {
            writer.record(Oid(oid), 20).unwrap();
            writer.data(b"a pickle of 20 bytes").unwrap();
        }
        if n > 2 {
            writer.same_as(Oid(n - 1), Tid(100 + n - 1)).unwrap();
            writer.absent(Oid(n - 2)).unwrap();
        }
        writer.end().unwrap();
    }
    writer.finish().unwrap();
}

/// Imports into a store in memory.
fn import(file: &Path) -> std::io::Result<(Imported, Store)> {
    import_or_salvage(file, false)
}

fn import_or_salvage(file: &Path, salvage: bool) -> std::io::Result<(Imported, Store)> {
    let engine = SimDisk::new().open(storage::TABLES).unwrap();
    let store = Store::open(Arc::new(engine)).unwrap();
    let import =
        Import { file: file.into(), blobs: None, storage: "1".into(), missing_blobs: MissingBlobs::Refuse, salvage };
    let imported = import.run(&store, &mut |_| true)?;
    Ok((imported, store))
}

#[test]
fn a_file_that_is_cut_anywhere_has_what_filestorage_leaves_of_it() {
    let place = Place::new();
    let path = place.path("Data.fs");
    small(&path, 3);
    let whole = fs::read(&path).unwrap();
    // The ends of the transactions, by the lengths in their headers.
    let mut ends = vec![4];
    while *ends.last().unwrap() < whole.len() {
        let at = *ends.last().unwrap();
        ends.push(at + 8 + u64::from_be_bytes(whole[at + 8..at + 16].try_into().unwrap()) as usize);
    }
    assert_eq!((ends.len(), ends[3]), (4, whole.len()));
    let file = place.path("cut.fs");
    for length in 0..whole.len() {
        fs::write(&file, &whole[..length]).unwrap();
        if (1..4).contains(&length) {
            let why = import(&file).unwrap_err().to_string();
            assert!(why.contains("cut.fs: byte 0: the file is too short"), "{why}");
            continue;
        }
        let (imported, _) = import(&file).unwrap();
        let count = ends.iter().filter(|end| **end <= length).count().saturating_sub(1);
        assert_eq!(imported.transactions, count as u64, "{length}");
        let at = ends[count];
        let cut = |why| {
            let bytes = (length - at) as u64;
            vec![Warning::Cut(Cut { at: at as u64, bytes, why, transactions: false })]
        };
        match length {
            0 => assert_eq!(imported.warnings, [Warning::Empty]),
            _ if at == length => assert_eq!(imported.warnings, []),
            _ => assert_eq!(imported.warnings, cut(EndReason::CutShort), "{length}"),
        }
        // The same file as a crash between vote and finish leaves it.
        if length > ends[2] + 16 {
            let mut voted = whole[..length].to_vec();
            voted[ends[2] + 16] = b'c';
            fs::write(&file, &voted).unwrap();
            let (imported, _) = import(&file).unwrap();
            assert_eq!((imported.transactions, imported.warnings), (2, cut(EndReason::Unfinished)));
        }
    }
}

#[test]
fn what_is_wrong_is_named_with_the_way_out() {
    let place = Place::new();
    let path = place.path("Data.fs");
    small(&path, 3);
    let whole = fs::read(&path).unwrap();
    let size = u64::from_be_bytes(whole[12..20].try_into().unwrap());
    // The first transaction is at byte 4, its records at 33, 95 and 157. (Where --salvage keeps something: how many
    // records of the whole file, and how many losses are listed.)
    // Place, bytes, words, and what --salvage keeps.
    type Case<'a> = (usize, &'a [u8], &'a str, Option<(u64, u64)>);
    let cases: [Case; 7] = [
        (0, b"FS20", "byte 0: this is no Data.fs: it begins with FS20", None),
        (12, &[0; 8], "byte 12: a transaction of 0 bytes can't have a header", Some((11, 1))),
        (
            12,
            &(size - 1).to_be_bytes(),
            "byte 191: a record of object 0000000000000007 says that it has 20 bytes",
            Some((11, 1)),
        ),
        (21, &[0xff, 0xff], "byte 12: a transaction of", Some((11, 1))),
        (
            33 + 34,
            &[0xff; 8],
            "byte 67: a record of object 0000000000000001 says that it has 1844674407",
            Some((10, 1)),
        ),
        (95 + 34, &[0; 8], "byte 195: transaction 0000000000000065 has 24 bytes left", Some((10, 2))),
        (4 + size as usize, &[7; 8], "byte 219: transaction 0000000000000065 (byte 4) has", Some((11, 1))),
    ];
    for (at, bytes, expected, kept) in cases {
        let mut wrong = whole.clone();
        wrong[at..at + bytes.len()].copy_from_slice(bytes);
        fs::write(&path, &wrong).unwrap();
        let why = import(&path).unwrap_err().to_string();
        assert!(why.contains(expected), "{at}: {why}");
        let Some((kept, lost)) = kept else { continue };
        assert!(why.contains("--salvage"), "{at}: {why}");
        let (imported, _) = import_or_salvage(&path, true).unwrap();
        println!("{}", imported.lost.join("\n"));
        assert_eq!((imported.transactions, imported.records, imported.lost_count), (3, kept, lost), "{at}");
    }
    // Bytes that were put in: all that follows is in another place, and pointers lead nowhere.
    fs::write(&path, [&whole[..4], &[0xee; 300], &whole[4..]].concat()).unwrap();
    assert!(import(&path).unwrap_err().to_string().contains("byte 20: a transaction has status"));
    let (imported, _) = import_or_salvage(&path, true).unwrap();
    assert_eq!((imported.transactions, imported.records, imported.lost_count), (3, 10, 2), "{:?}", imported.lost);
    assert!(imported.warnings.contains(&Warning::Astray(11)), "{:?}", imported.warnings);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// A file with any bytes changed is refused, or imported, and then exported as it was.
    #[test]
    fn changed_bytes_are_refused_or_kept(
        changes in prop::collection::vec((0usize..1000, any::<u8>()), 1..4),
        cut in 0usize..2000,
    ) {
        let place = Place::new();
        let path = place.path("Data.fs");
        small(&path, 4);
        let mut bytes = fs::read(&path).unwrap();
        for (at, to) in changes {
            let length = bytes.len();
            bytes[at % length] = to;
        }
        bytes.truncate(cut.max(4));
        fs::write(&path, &bytes).unwrap();
        match import(&path) {
            Err(why) => prop_assert!(why.to_string().contains("Data.fs: byte "), "{}", why),
            Ok((imported, store)) => {
                let left_out: u64 = imported.warnings.iter().map(|warning| match warning {
                    Warning::Shadowed(count) => *count,
                    _ => 0,
                }).sum();
                let (summary, recount) = store.recount(store.storage("1").unwrap()).unwrap();
                prop_assert!(recount.agrees(&summary));
                let back = place.path("Back.fs");
                let export = Export { file: back.clone(), blobs: None, storage: "1".into(), without_blobs: true };
                let exported = export.run(&store, &mut |_| true).unwrap();
                let records = imported.records - left_out;
                prop_assert_eq!((exported.transactions, exported.records), (imported.transactions, records));
                let (again, other) = import(&back).unwrap();
                // (A status that FileStorage does not know is written as a blank.)
                if exported.strange_status == 0 {
                    prop_assert_eq!(other.summaries(), store.summaries());
                }
                prop_assert!(!again.warnings.iter().any(|warning| !matches!(warning, Warning::Python2)));
            }
        }
        // Something of it can be salvaged whatever it is.
        if bytes[..4] == *b"FS30" {
            let (imported, store) = import_or_salvage(&path, true).unwrap();
            let (summary, recount) = store.recount(store.storage("1").unwrap()).unwrap();
            prop_assert!(recount.agrees(&summary));
            prop_assert_eq!(summary.transactions, imported.transactions);
        }
    }
}

#[test]
fn nothing_is_left_of_an_import_that_fails() {
    let place = Place::new();
    small(&place.path("Data.fs"), 3);
    let mut bytes = fs::read(place.path("Data.fs")).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(place.path("damaged.fs"), &bytes).unwrap();
    let [good, damaged, data] = [place.text("Data.fs"), place.text("damaged.fs"), place.text("data")];
    let why = refused(&["import", &damaged, "--data", &data, "--data", &place.text("data2")]);
    assert!(why.contains("damaged.fs: byte "), "{why}");
    assert_eq!(place.names(), ["Data.fs", "damaged.fs"]);
    fs::create_dir(place.path("data")).unwrap();
    refused(&["import", &damaged, "--data", &data]);
    assert_eq!(fs::read_dir(place.path("data")).unwrap().count(), 0);
    refused(&["import", &place.text("none.fs"), "--data", &data]);
    assert_eq!(fs::read_dir(place.path("data")).unwrap().count(), 0);

    // Earlier content of a folder stays: other files, and a database.
    fs::write(place.path("data/letter"), "dear").unwrap();
    let why = refused(&["import", &good, "--data", &data]);
    assert!(why.contains("is not empty and not a zrs data folder"), "{why}");
    fs::remove_file(place.path("data/letter")).unwrap();
    done(&["import", &good, "--data", &data]);
    let why = refused(&["import", &good, "--data", &data]);
    assert!(why.contains("there is a storage \"1\" already"), "{why}");
    let why = refused(&["import", &damaged, "--data", &data, "--storage", "other"]);
    assert!(why.contains("damaged.fs: byte "), "{why}");
    assert_eq!(names_in(&place.path("data")), ["ZRS", "lock", "store"]);
    // (Two folders, of which one can't be used.)
    let why = refused(&["import", &good, "--data", &place.text("data2"), "--data", &data]);
    assert!(why.contains("holds a database already") && !place.path("data2").exists(), "{why}");

    // Another storage beside the first.
    small(&place.path("other.fs"), 5);
    done(&["import", &place.text("other.fs"), "--data", &data, "--storage", "other"]);
    assert_eq!(names_in(&place.path("data")), ["ZRS", "lock", "store"]);
    for (storage, file) in [("other", "other.fs"), ("1", "Data.fs")] {
        done(&["export", "--data", &data, &place.text("Same.fs"), "--storage", storage]);
        assert!(fs::read(place.path("Same.fs")).unwrap() == fs::read(place.path(file)).unwrap());
        fs::remove_file(place.path("Same.fs")).unwrap();
    }

    // The same for exports.
    let why = refused(&["export", "--data", &data, &good]);
    assert!(why.contains("is there already"), "{why}");
    let why = refused(&["export", "--data", &place.text("nowhere"), &place.text("Back.fs")]);
    assert!(why.contains("no data folder with a database") && !place.path("nowhere").exists(), "{why}");
    let before = place.names();
    let why = refused(&["export", "--data", &data, &place.text("none/Back.fs")]);
    assert!(why.contains("No such file"), "{why}");
    assert_eq!(place.names(), before);
}

/// Waits until an import has something in the folder.
fn wait_begun(place: &Place, import: &mut Child) {
    wait_for(|| "the import to begin".into(), PATIENCE, || place.path("data/new/store/CURRENT").exists().then_some(()));
    assert!(import.try_wait().unwrap().is_none(), "the import is over");
}

#[test]
fn an_import_that_is_stopped_leaves_nothing_and_one_that_is_killed_is_found_out() {
    let place = Place::new();
    small(&place.path("Data.fs"), 40_000);
    let [file, data, data2] = [place.text("Data.fs"), place.text("data"), place.text("data2")];
    let arguments = ["import", &file, "--data", &data, "--data", &data2];
    let start = || {
        let mut import = Command::new(env!("CARGO_BIN_EXE_zrsctl"));
        let mut import = import.args(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        wait_begun(&place, &mut import);
        import
    };
    let import = start();
    signal(import.id(), "INT");
    let output = import.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("stopped, as asked"), "{said}");
    assert_eq!(place.names(), ["Data.fs"]);

    let mut import = start();
    import.kill().unwrap();
    assert!(!import.wait().unwrap().success(), "it was done before it was killed");
    for data in [&data, &data2] {
        let arguments = ["--data", data, "--listen", "127.0.0.1:0"].map(str::to_owned);
        let output = Cluster::refused(&arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("an import into it was cut off: import again"), "{said}");
    }
    // (An import of another file replaces the one that was cut off.)
    small(&place.path("small.fs"), 3);
    done(&["import", &place.text("small.fs"), "--data", &data, "--data", &data2]);
    for (data, back) in [(&data, "Back.fs"), (&data2, "Back2.fs")] {
        assert_eq!(names_in(Path::new(data)), ["ZRS", "lock", "store"]);
        done(&["export", "--data", data, &place.text(back)]);
        assert!(fs::read(place.path(back)).unwrap() == fs::read(place.path("small.fs")).unwrap());
    }
}

#[test]
fn an_import_or_export_that_is_stopped_anywhere_leaves_nothing() {
    let place = Place::new();
    small(&place.path("Data.fs"), 5);
    let import = Import {
        file: place.path("Data.fs"),
        blobs: None,
        storage: "1".into(),
        missing_blobs: MissingBlobs::Refuse,
        salvage: false,
    };
    let folders = [place.path("data"), place.path("data2")];
    let (_, store) = self::import(&place.path("Data.fs")).unwrap();
    let export = Export { file: place.path("Back.fs"), blobs: None, storage: "1".into(), without_blobs: true };
    for steps in 0..5 {
        let limited = || {
            let mut left = steps;
            move |_| {
                left -= 1;
                left >= 0
            }
        };
        let why = filestorage::create(&folders, |store| import.run(store, &mut limited())).unwrap_err();
        assert_eq!(why.kind(), ErrorKind::Interrupted, "{steps}: {why}");
        let why = export.run(&store, &mut limited()).unwrap_err();
        assert_eq!(why.kind(), ErrorKind::Interrupted, "{steps}: {why}");
        assert_eq!(place.names(), ["Data.fs"], "{steps}");
    }
    filestorage::create(&folders, |store| import.run(store, &mut |_| true)).unwrap();
    export.run(&store, &mut |_| true).unwrap();
    assert_eq!(place.names(), ["Back.fs", "Data.fs", "data", "data2"]);
}

#[test]
fn missing_blobs_are_counted_and_left_out_only_if_asked() {
    let place = Place::new();
    place.make();
    let [file, blobs, data] = [place.text("made/Data.fs"), place.text("made/blobs"), place.text("data")];
    let why = refused(&["import", &file, "--data", &data]);
    assert!(why.contains("say with --blobs where they are"), "{why}");
    fs::remove_dir_all(place.path("made/blobs/0x00")).unwrap();
    let why = refused(&["import", &file, "--blobs", &blobs, "--data", &data]);
    assert!(why.contains("blobs are missing: ") && why.contains("0x00/0x00/0x00"), "{why}");
    assert!(!place.path("data").exists());
    let said = done(&["import", &file, "--blobs", &blobs, "--data", &data, "--missing-blobs", "ignore"]);
    assert!(said.contains(" blobs are missing"), "{said}");
    done(&["export", "--data", &data, &place.text("Back.fs")]);
    assert_same([&file, ""], [&place.text("Back.fs"), ""]);
}

#[test]
fn blobs_come_in_without_the_hidden_marker_of_their_folder() {
    let place = Place::new();
    place.make();
    let [file, blobs] = [place.text("made/Data.fs"), place.text("made/blobs")];
    let marker = place.path("made/blobs/.layout");
    // As `cp blobs/*` leaves the folder; and as FileStorage does that was started on such a copy.
    for (n, wrong) in [None, Some("lawn")].into_iter().enumerate() {
        fs::remove_file(&marker).unwrap();
        if let Some(wrong) = wrong {
            fs::write(&marker, wrong).unwrap();
        }
        let data = place.text(&format!("data{n}"));
        let said = done(&["import", &file, "--blobs", &blobs, "--data", &data]);
        assert!(!said.contains("missing"), "{said}");
        let [back, back_blobs] = [place.text(&format!("Back{n}.fs")), place.text(&format!("back-blobs{n}"))];
        done(&["export", "--data", &data, &back, "--blobs", &back_blobs]);
        fs::write(&marker, "bushy").unwrap();
        assert_same([&file, &blobs], [&back, &back_blobs]);
    }
    // A blob that is really missing, in a folder without a marker.
    fs::remove_file(&marker).unwrap();
    fs::remove_dir_all(place.path("made/blobs/0x00")).unwrap();
    let why = refused(&["import", &file, "--blobs", &blobs, "--data", &place.text("data")]);
    assert!(why.contains("has no .layout, a hidden file that a copy may have left behind"), "{why}");
    assert!(why.contains("To lose these blobs for good: --missing-blobs ignore"), "{why}");
}

#[test]
fn progress_counts_the_bytes_of_the_file_and_of_its_blobs() {
    let place = Place::new();
    place.make();
    let (file, blobs) = (place.path("made/Data.fs"), place.path("made/blobs"));
    let import = Import {
        file: file.clone(),
        blobs: Some(blobs.clone()),
        storage: "1".into(),
        missing_blobs: MissingBlobs::Refuse,
        salvage: false,
    };
    let engine = SimDisk::new().open(storage::TABLES).unwrap();
    let mut told = Vec::new();
    let overseer = &mut |progress: Progress| {
        told.push(progress);
        true
    };
    import.run(&Store::open(Arc::new(engine)).unwrap(), overseer).unwrap();
    let sum = Command::new("find").arg(&blobs).args(["-name", "*.blob", "-printf", "%s\\n"]).output().unwrap();
    let lengths = String::from_utf8(sum.stdout).unwrap();
    let of_blobs: u64 = lengths.lines().map(|line| line.parse::<u64>().unwrap()).sum();
    let of_file = fs::metadata(&file).unwrap().len();
    assert!(of_blobs > of_file / 4, "{of_blobs} of blobs, {of_file} of the file");
    for (phase, total) in [(Phase::Looking, of_file), (Phase::Copying, of_file + of_blobs)] {
        let told: Vec<&Progress> = told.iter().filter(|progress| progress.phase == phase).collect();
        assert!(told.iter().all(|progress| progress.total == total && progress.done <= total), "{told:?}");
        assert!(told.windows(2).all(|pair| pair[0].done <= pair[1].done), "{told:?}");
        // (The first four bytes belong to no transaction.)
        assert_eq!(told.last().unwrap().done, total - 4, "{phase:?}");
    }
    // A large transaction is told of while it is copied.
    let largest = |phase| {
        let steps = told.windows(2).filter(|pair| pair[0].phase == phase && pair[1].phase == phase);
        steps.map(|pair| pair[1].done - pair[0].done).max().unwrap()
    };
    assert!(largest(Phase::Looking) > 16 << 20 && largest(Phase::Copying) < 16 << 20, "{told:?}");
}

#[test]
fn a_node_that_was_killed_is_not_exported_as_if_it_had_everything() {
    let mut cluster = Cluster::started(1);
    let addresses = cluster.addresses();
    let written = python::run("count.py", &["setup", "a", &addresses[0]]);
    let data = cluster.nodes[0].data.display().to_string();
    let place = Place::new();
    let why = refused(&["export", "--data", &data, &place.text("Back.fs")]);
    assert!(why.contains("is in use by process"), "{why}");
    cluster.kill_all();
    let why = refused(&["export", "--data", &data, &place.text("Back.fs")]);
    assert!(why.contains("was not stopped properly") && why.contains("--as-it-is"), "{why}");
    cluster.start_all();
    cluster.wait_primary();
    assert!(cluster.nodes[0].terminate().success());
    let said = done(&["export", "--data", &data, &place.text("Back.fs")]);
    assert!(said.contains(written["last_tid"].as_str().unwrap()), "{said}");
    let opened = python::run("datafs.py", &["refused", &place.text("Back.fs")]);
    assert_eq!(opened["last_tid"], written["last_tid"]);
}
