//! A real Plone site goes in through a stock client, and comes back the same from every node, whatever happens.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::catch_up::{SLOW, wait_fetching};
use crate::members::{wait_voters, wipe};
use crate::support::cluster::Cluster;
use crate::support::{PATIENCE, python, wait_for};

/// Three nodes with a primary whose reign outlives a busy machine: who copies a whole database in, or digests one, has
/// to begin anew after an election.
fn started() -> Cluster {
    let mut cluster = Cluster::with_options(3, &["--election-timeout", "1000"]);
    cluster.start_all();
    cluster.wait_primary();
    cluster
}

fn test_data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// The site's Data.fs, unpacked.
fn data_fs(folder: &Path) -> String {
    let archive = test_data("plone-site.tar.xz");
    python::run("site.py", &["unpack", &archive.display().to_string(), &folder.display().to_string()]);
    folder.join("plone-site/Data.fs").display().to_string()
}

/// The digests that a FileStorage has of the site: `as_made`, or `after_pack_now`.
fn truth(when: &str) -> Value {
    let text = std::fs::read_to_string(test_data("plone-site.truth.json")).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()[when].take()
}

/// Every record's tid, oid and data, every user, description and extension, as the clients of `addresses` see them.
fn assert_is_the_site(data_fs: &str, addresses: &[String]) {
    let mut arguments = vec!["digest", data_fs];
    arguments.extend(addresses.iter().map(String::as_str));
    let found = python::run("site.py", &arguments);
    assert_eq!(found["differences"], Value::Array(vec![]), "{found}");
    assert_is(&found, &truth("as_made"));
}

/// Compares the digests that both have.
fn assert_is(found: &Value, truth: &Value) {
    let keys = [
        "transactions",
        "records",
        "objects",
        "loadable",
        "record_bytes",
        "last_tid",
        "history_sha256",
        "current_sha256",
    ];
    for key in keys {
        assert_eq!(found[key], truth[key], "{key}");
    }
}

#[test]
fn a_plone_site_goes_in_and_comes_back_the_same_also_after_a_kill_of_all() {
    let folder = tempfile::tempdir().unwrap();
    let data_fs = data_fs(folder.path());
    let mut cluster = started();
    let mut arguments = vec!["load".to_owned(), data_fs.clone()];
    arguments.extend(cluster.addresses());
    let loaded = python::run("site.py", &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    println!("loaded in {} s", loaded["seconds"]);
    assert_eq!(loaded["last_tid"], truth("as_made")["last_tid"]);
    assert_is_the_site(&data_fs, &cluster.addresses());

    cluster.kill_all();
    cluster.start_all();
    let primary = cluster.wait_primary();
    cluster.wait_ready();
    // A secondary answers from its own store.
    let secondary = (0..3).find(|i| *i != primary).expect("there are three");
    assert_is_the_site(&data_fs, &[format!("ro:{}", cluster.nodes[secondary].address())]);
    for status in cluster.wait_same() {
        assert_eq!(status["last_tid"], truth("as_made")["last_tid"], "{status}");
    }
}

#[test]
fn a_packed_plone_site_is_what_a_file_storage_makes_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let data_fs = data_fs(folder.path());
    let mut cluster = started();
    let primary = cluster.wait_primary();
    let secondary = (0..3).find(|i| *i != primary).expect("there are three");
    let asked = format!("ro:{}", cluster.nodes[secondary].address());

    let mut load = vec!["load".to_owned(), data_fs.clone()];
    load.extend(cluster.addresses());
    python::run("site.py", &load.iter().map(String::as_str).collect::<Vec<_>>());
    // As `zeopack` does: a client that only reads, at any node; it is told the new size before the answer.
    let packed = python::run("site.py", &["pack", &asked]);
    let truth = truth("after_pack_now");
    assert_eq!(packed["length"], truth["objects"]);
    assert_eq!(packed["size"], truth["record_bytes"]);
    for status in cluster.wait_same() {
        assert_eq!(status["storages"][0]["objects"], truth["objects"], "{status}");
        assert_eq!(status["storages"][0]["transactions"], truth["transactions"], "{status}");
    }
    // Every node has removed the same.
    for node in 0..3 {
        let at = format!("ro:{}", cluster.nodes[node].address());
        assert_is(&python::run("site.py", &["digest", &data_fs, &at]), &truth);
    }
    // A second pack has nothing left to remove.
    let again = python::run("site.py", &["pack", &asked]);
    assert_eq!((&again["length"], &again["size"]), (&packed["length"], &packed["size"]));
}

#[test]
fn a_pack_beside_a_fetch_removes_the_same_everywhere() {
    let folder = tempfile::tempdir().unwrap();
    let data_fs = data_fs(folder.path());
    let mut cluster = Cluster::with_options(3, &SLOW);
    cluster.start_all();
    let primary = cluster.wait_primary();
    let mut load = vec!["load".to_owned(), data_fs.clone()];
    load.extend(cluster.addresses());
    python::run("site.py", &load.iter().map(String::as_str).collect::<Vec<_>>());
    // The copy is of before the pack, which reaches the node by the log.
    let victim = (primary + 1) % 3;
    wipe(&mut cluster, victim);
    wait_fetching(&cluster, victim);
    let asked = format!("ro:{}", cluster.nodes[primary].address());
    let packed = python::run("site.py", &["pack", &asked]);
    let truth = truth("after_pack_now");
    assert_eq!((&packed["length"], &packed["size"]), (&truth["objects"], &truth["record_bytes"]));
    wait_voters(&cluster, &[1, 2, 3]);
    cluster.wait_same();
    for node in 0..3 {
        let at = format!("ro:{}", cluster.nodes[node].address());
        assert_is(&python::run("site.py", &["digest", &data_fs, &at]), &truth);
    }
}

#[test]
fn a_new_primary_ends_the_pack_of_one_that_was_killed() {
    let folder = tempfile::tempdir().unwrap();
    let data_fs = data_fs(folder.path());
    let mut cluster = started();
    let mut load = vec!["load".to_owned(), data_fs.clone()];
    load.extend(cluster.addresses());
    python::run("site.py", &load.iter().map(String::as_str).collect::<Vec<_>>());
    let mut begin = vec!["pack-begin".to_owned()];
    begin.extend(cluster.addresses());
    let began = python::run("site.py", &begin.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(began["began"], true, "{began}");
    let primary = cluster.wait_primary();
    cluster.nodes[primary].kill();
    cluster.wait_primary();
    let truth = truth("after_pack_now");
    // (While it goes on, nodes are hardly ever seen in step.)
    let running: Vec<_> = cluster.nodes.iter().filter(|node| node.pid().is_some()).collect();
    let packed =
        || running.iter().all(|node| node.status()["storages"][0]["objects"] == truth["objects"]).then_some(());
    wait_for(|| format!("the end of the pack: {}", cluster.situation()), 2 * PATIENCE, packed);
}
