//! `zrsctl dump` shows what is in a folder, to the last transaction, and changes no byte of it.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use serde_json::{Value, json};

use support::cluster::Cluster;
use zrs::client::{Client, Options};
use zrs::env::Env;
use zrs::filestorage::Writer;
use zrs::net::Tcp;
use zrs::zodb::{Oid, Tid, TransactionMeta};

fn zrsctl(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_zrsctl")).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// `zrsctl dump ... --data FOLDER` -> what it printed; and the folder is as before.
fn dump(folder: &Path, arguments: &[&str]) -> String {
    let before = fingerprint(folder);
    let output = zrsctl(&[&["dump", "--data", folder.to_str().unwrap()], arguments].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "zrsctl dump {arguments:?}: {errors}");
    assert_eq!(fingerprint(folder), before, "zrsctl dump {arguments:?} has changed the folder");
    String::from_utf8(output.stdout).unwrap()
}

/// The same as JSON, a document a line.
fn documents(folder: &Path, arguments: &[&str]) -> Vec<Value> {
    let text = dump(folder, &[arguments, &["--json"]].concat());
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}"))).collect()
}

fn summary(folder: &Path) -> Value {
    serde_json::from_str(&dump(folder, &["--json"])).unwrap()
}

/// Why a dump was refused; and the folder is as before.
fn refused(folder: &Path, arguments: &[&str]) -> String {
    let before = fingerprint(folder);
    let output = zrsctl(&[&["dump", "--data", folder.to_str().unwrap()], arguments].concat());
    assert_eq!(output.status.code(), Some(1), "zrsctl dump {arguments:?} was to refuse: {output:?}");
    assert_eq!(fingerprint(folder), before, "zrsctl dump {arguments:?} has changed the folder");
    String::from_utf8(output.stderr).unwrap()
}

/// The traits by which a changed file is told: its content's hash, length, time of change, and number.
type Traits = (String, u64, i64, i64, u64);

/// Everything below a folder, and the folder itself.
fn fingerprint(folder: &Path) -> BTreeMap<PathBuf, Traits> {
    let mut found = BTreeMap::new();
    let mut paths = vec![folder.to_owned()];
    while let Some(path) = paths.pop() {
        let Ok(about) = fs::metadata(&path) else { continue };
        let mut hash = String::new();
        if about.is_dir() {
            paths.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            hash = blake3::hash(&fs::read(&path).unwrap()).to_string();
        }
        found.insert(path, (hash, about.len(), about.mtime(), about.mtime_nsec(), about.ino()));
    }
    found
}

fn numbers(array: &Value) -> Vec<u64> {
    array.as_array().unwrap().iter().map(|number| number.as_u64().unwrap()).collect()
}

fn tid(n: u64) -> String {
    Tid(n).to_string()
}

/// An imported folder: object 1 has three revisions, of which the last shows the first again, object 2 was deleted.
fn imported(place: &Path) -> PathBuf {
    let mut writer = Writer::create(&place.join("Data.fs")).unwrap();
    for n in 1..=3 {
        let description = format!("number {n}\nof three").into_bytes();
        let meta = TransactionMeta { status: b' ', user: b"jim".to_vec(), description, extension: vec![] };
        writer.begin(Tid(100 + n), &meta).unwrap();
        match n {
            3 => writer.same_as(Oid(1), Tid(101)).unwrap(),
            _ => {
                writer.record(Oid(1), 10 * n).unwrap();
                writer.data(&vec![b'x'; 10 * n as usize]).unwrap();
            }
        }
        match n {
            1 => {
                writer.record(Oid(2), 3).unwrap();
                writer.data(b"two").unwrap();
            }
            2 => writer.absent(Oid(2)).unwrap(),
            _ => {}
        }
        writer.end().unwrap();
    }
    writer.finish().unwrap();
    let data = place.join("data");
    let output = zrsctl(&[
        "import",
        place.join("Data.fs").to_str().unwrap(),
        "--data",
        data.to_str().unwrap(),
        "--storage",
        "main",
    ]);
    assert!(output.status.success(), "{output:?}");
    data
}

#[test]
fn an_imported_folder_is_shown_with_its_objects_and_transactions() {
    let place = tempfile::tempdir().unwrap();
    let data = imported(place.path());
    let text = dump(&data, &[]);
    for expected in ["log", "none: no node has started on this folder", "nothing of a log", "storage \"main\" (s1)"] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let found = summary(&data);
    let storage = &found["storages"][0];
    assert_eq!(
        (&storage["last_tid"], &storage["last_time"]),
        (&json!(tid(103)), &json!("1900-01-01T00:00:00.000001Z"))
    );
    let counts = ["transactions", "objects", "revisions", "bytes", "staged"].map(|key| storage[key].as_u64().unwrap());
    assert_eq!(counts, [3, 2, 5, 33, 0], "{found:#}");
    assert_eq!((storage["history"].as_str().unwrap().len(), &storage["packed"]), (64, &json!(tid(0))));
    assert_eq!((&found["log"], &found["applied"]["index"]), (&Value::Null, &json!(0)));
    assert!(refused(&data, &["log"]).contains("no node has started on it"));

    let revisions = documents(&data, &["store", "--storage", "main", "--oid", "1"]);
    let tids: Vec<&str> = revisions.iter().map(|revision| revision["tid"].as_str().unwrap()).collect();
    assert_eq!(tids, [tid(103), tid(102), tid(101)]);
    assert_eq!((&revisions[0]["same_as"], &revisions[0]["kind"]), (&json!(tid(101)), &json!("03")));
    assert_eq!((&revisions[1]["data"], &revisions[2]["data"]), (&json!(20), &json!(10)));
    assert_eq!(revisions[2]["transaction"]["description"], "number 1\nof three");
    let lines = dump(&data, &["store", "--storage", "main", "--oid", "0x0002"]);
    let [absent, written] = lines.lines().collect::<Vec<_>>()[..] else { panic!("{lines}") };
    assert!(absent.starts_with(&tid(102)) && absent.contains("absent"), "{lines}");
    assert!(written.contains("data, 3 bytes") && written.contains("description \"number 1\\nof three\""), "{lines}");

    let one = documents(&data, &["store", "--storage", "main", "--tid", "66"]);
    assert_eq!((&one[0]["tid"], &one[0]["user"], &one[0]["objects"]), (&json!(tid(102)), &json!("jim"), &json!(2)));
    assert_eq!((&one[1]["oid"], &one[1]["data"]), (&json!(Oid(1).to_string()), &json!(20)));
    assert_eq!((&one[2]["oid"], &one[2]["absent"]), (&json!(Oid(2).to_string()), &json!(true)));
    let newest = documents(&data, &["store", "--storage", "main", "--transactions", "--last", "2"]);
    assert_eq!(newest.iter().map(|found| found["tid"].as_str().unwrap()).collect::<Vec<_>>(), [tid(103), tid(102)]);
    assert_eq!(documents(&data, &["store", "--storage", "main"]).len(), 3);

    assert!(refused(&data, &["store"]).contains("there is no storage \"1\", but \"main\""));
    assert!(refused(&data, &["store", "--storage", "main", "--oid", "3"]).contains("has no revision"));
    assert!(refused(&data, &["store", "--storage", "main", "--tid", "64"]).contains("there is no transaction"));
    // After a dump the folder's transactions are still there.
    assert!(dump(&data, &["store", "--storage", "main", "--transactions"]).lines().count() == 3);
}

/// Commits two objects, of which one goes through the log in pieces.
fn commit_two(cluster: &Cluster) -> Tid {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let options = Options { addresses: cluster.addresses(), ..Options::default() };
    runtime.block_on(async {
        let client = Client::connect(options, Env::system(), Arc::new(Tcp)).await.unwrap();
        let transaction = client.begin().await.unwrap();
        let new = transaction.new_oid().await.unwrap();
        transaction.write(Oid(0), "root");
        transaction.write(new, vec![b'x'; 3 << 20]);
        transaction.commit("jim", "the first").await.unwrap()
    })
}

#[test]
fn the_log_of_a_node_that_was_killed_is_shown_entry_by_entry() {
    let mut cluster = Cluster::started(1);
    let committed = commit_two(&cluster);
    let data = cluster.nodes[0].data.clone();
    let running = zrsctl(&["dump", "--data", data.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&running.stderr).into_owned();
    assert_eq!(running.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("is in use by process {}: stop it", cluster.nodes[0].pid().unwrap())), "{said}");

    cluster.kill_all();
    let found = summary(&data);
    let [first, last] = ["first", "last"].map(|end| found["log"][end]["index"].as_u64().unwrap());
    let entries = documents(&data, &["log"]);
    let indexes: Vec<u64> = entries.iter().map(|entry| entry["index"].as_u64().unwrap()).collect();
    assert_eq!((first, indexes.clone()), (1, (1..=last).collect::<Vec<_>>()), "all of the log, in order");
    let of_kind = |kind: &str| {
        entries.iter().find(|entry| entry["kind"] == kind).unwrap_or_else(|| panic!("{kind}: {entries:#?}"))
    };
    assert_eq!(of_kind("membership")["voters"], json!([[1]]));
    assert_eq!((&of_kind("barrier")["reign"], &of_kind("create_storage")["name"]), (&json!("1.1"), &json!("1")));
    assert!(of_kind("reserve_oids")["count"].as_u64() > Some(0));
    let staged = entries.iter().filter(|entry| entry["kind"] == "stage").flat_map(|entry| numbers(&entry["pieces"]));
    assert_eq!(staged.sum::<u64>(), 4 + (3 << 20), "both records went ahead, the older one first");
    let commit = of_kind("commit");
    assert_eq!((&commit["tid"], &commit["user"]), (&json!(committed.to_string()), &json!("jim")));
    assert_eq!(commit["description"], "the first");
    let objects = commit["objects"].as_array().unwrap();
    assert_eq!(objects.iter().map(|object| object["data"].as_u64().unwrap()).collect::<Vec<_>>(), [4, 3 << 20]);
    assert_eq!((&objects[0]["oid"], &objects[0]["serial"]), (&json!(Oid(0).to_string()), &json!(tid(0))));
    let at = commit["index"].as_u64().unwrap().to_string();
    let line = dump(&data, &["log", "--from", &at, "--to", &at]);
    assert!(line.lines().count() == 1 && line.contains(&format!("s1 commit {committed}")), "{line}");

    // The store of a killed node is behind its log; after a proper stop it is not.
    let address = cluster.nodes[0].address();
    assert_eq!((&found["log"]["node"], &found["log"]["stamp"]["members"]["1"]), (&json!(1), &json!(address)));
    assert_eq!((&found["log"]["vote"]["node"], &found["log"]["vote"]["won"]), (&json!(1), &json!(true)));
    assert_eq!(found["applied"]["index"].as_u64(), Some(0), "the store was never flushed");
    assert!(dump(&data, &[]).contains(&format!("{last} entries of the log not applied")));
    assert!(refused(&data, &["store"]).contains("the store is empty"));
    cluster.start_all();
    cluster.wait_primary();
    assert!(cluster.nodes[0].terminate().success());
    let found = summary(&data);
    assert_eq!(found["applied"], found["log"]["last"]);
    assert_eq!(
        (&found["storages"][0]["last_tid"], &found["storages"][0]["revisions"]),
        (&json!(committed.to_string()), &json!(2))
    );
    let one = documents(&data, &["store", "--tid", &committed.to_string()]);
    assert_eq!(one[2]["data"].as_u64().unwrap(), 3 << 20, "{one:#?}");
    let pieces: u64 = one[2]["pieces"].as_array().unwrap().iter().map(|span| span["count"].as_u64().unwrap()).sum();
    assert!(pieces >= 3, "{one:#?}");

    // A store that has some of the log, and lost a commit.
    let flushed = found["applied"]["index"].as_u64().unwrap();
    cluster.start_all();
    cluster.wait_primary();
    let later = commit_two(&cluster);
    cluster.kill_all();
    let found = summary(&data);
    assert_eq!(
        (&found["applied"]["index"], &found["storages"][0]["last_tid"]),
        (&json!(flushed), &json!(committed.to_string()))
    );
    let log = dump(&data, &["log", "--from", &(flushed + 1).to_string()]);
    assert!(log.contains(&later.to_string()) && !log.contains(&committed.to_string()), "{log}");
}

#[test]
fn what_is_no_folder_of_a_stopped_node_is_refused_in_words() {
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name);
    assert!(refused(&path("none"), &[]).contains("none: is not there"));
    assert!(!path("none").exists());
    fs::create_dir(path("empty")).unwrap();
    assert!(refused(&path("empty"), &[]).contains("is not a zrs data folder: it has no file ZRS"));
    fs::create_dir(path("other")).unwrap();
    fs::write(path("other/Data.fs"), "FS30").unwrap();
    assert!(refused(&path("other"), &["store"]).contains("is not a zrs data folder"));

    let data = imported(place.path());
    fs::create_dir(data.join("new")).unwrap();
    assert!(refused(&data, &[]).contains("an import into it was cut off"));
    fs::remove_dir(data.join("new")).unwrap();
    let marker = fs::read_to_string(data.join("ZRS")).unwrap();
    fs::write(data.join("ZRS"), marker.replace("format 2", "format 9")).unwrap();
    assert!(refused(&data, &[]).contains("has format 9"));
    fs::write(data.join("ZRS"), &marker).unwrap();
    fs::rename(data.join("store"), path("store")).unwrap();
    assert!(refused(&data, &[]).contains("has no database"));
    fs::create_dir(data.join("store")).unwrap();
    let why = refused(&data, &[]);
    assert!(why.contains("opening the store"), "{why}");

    for wrong in
        [&["dump"][..], &["dump", "--data", "x", "store", "--oid", "y"], &["dump", "store", "--oid", "1", "--tid", "1"]]
    {
        assert_eq!(zrsctl(wrong).status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn a_reader_that_has_enough_is_no_error() {
    let place = tempfile::tempdir().unwrap();
    let data = imported(place.path());
    let mut child = Command::new(env!("CARGO_BIN_EXE_zrsctl"))
        .args(["dump", "--data", data.to_str().unwrap()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}
