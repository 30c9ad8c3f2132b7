//! A real Plone site goes in through a stock client, and comes back the same from every node, whatever happens.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::cluster::Cluster;
use crate::support::python;

fn test_data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// The site's Data.fs, unpacked.
fn data_fs(folder: &Path) -> String {
    let archive = test_data("plone-site.tar.xz");
    python::run("site.py", &["unpack", &archive.display().to_string(), &folder.display().to_string()]);
    folder.join("plone-site/Data.fs").display().to_string()
}

fn truth() -> Value {
    let text = std::fs::read_to_string(test_data("plone-site.truth.json")).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["as_made"].take()
}

/// Every record's tid, oid and data, every user, description and extension, as the clients of `addresses` see them.
fn assert_is_the_site(data_fs: &str, addresses: &[String]) {
    let mut arguments = vec!["digest", data_fs];
    arguments.extend(addresses.iter().map(String::as_str));
    let found = python::run("site.py", &arguments);
    let truth = truth();
    assert_eq!(found["differences"], Value::Array(vec![]), "{found}");
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
    let mut cluster = Cluster::started(3);
    let mut arguments = vec!["load".to_owned(), data_fs.clone()];
    arguments.extend(cluster.addresses());
    let loaded = python::run("site.py", &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    println!("loaded in {} s", loaded["seconds"]);
    assert_eq!(loaded["last_tid"], truth()["last_tid"]);
    assert_is_the_site(&data_fs, &cluster.addresses());

    cluster.kill_all();
    cluster.start_all();
    let primary = cluster.wait_primary();
    cluster.wait_ready();
    // From a node that is not the primary: what is in its own store.
    let secondary = (0..3).find(|i| *i != primary).expect("there are three");
    assert_is_the_site(&data_fs, &[format!("ro:{}", cluster.nodes[secondary].address())]);
    for status in cluster.wait_same() {
        assert_eq!(status["last_tid"], truth()["last_tid"], "{status}");
    }
}
