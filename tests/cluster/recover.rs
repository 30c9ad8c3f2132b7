//! A majority is gone for good: what is left becomes the beginning of a new cluster.

use std::process::{Command, Output};

use crate::counters::Counters;
use crate::support::cluster::{Cluster, Node};
use crate::support::zrsctl::done;
use crate::support::{PATIENCE, wait_for};

fn recover(node: &Node, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zrsctl"));
    command.arg("recover").arg("--data").arg(&node.data).args(more).output().unwrap()
}

#[test]
fn the_one_node_that_is_left_begins_a_new_cluster() {
    let mut cluster = Cluster::started(3);
    cluster.wait_ready();
    let counters = Counters::start(&cluster);
    let former = cluster.nodes[0].status()["cluster"].clone();
    counters.wait_progress(&cluster);
    // (Before the disaster, so that every node has what was answered.)
    let told = counters.stop();
    cluster.wait_same();
    cluster.kill_all();
    cluster.nodes[1].empty();
    cluster.nodes[2].empty();

    let asked = recover(&cluster.nodes[0], &[]);
    let words = String::from_utf8_lossy(&asked.stdout);
    assert_eq!(asked.status.code(), Some(1), "{asked:?}");
    for expected in ["node 1 of cluster ", "its log ends with entry ", "storage s1: ", "may be missing here"] {
        assert!(words.contains(expected), "{expected:?} in: {words}");
    }
    assert!(String::from_utf8_lossy(&asked.stderr).contains("say --yes"), "{asked:?}");
    // Nothing has changed by that. A recovery that was cut off goes on, and a start in between is refused.
    std::fs::rename(cluster.nodes[0].data.join("log"), cluster.nodes[0].data.join("log.recovering")).unwrap();
    let done_so = recover(&cluster.nodes[0], &["--yes"]);
    assert!(done_so.status.success(), "{done_so:?}");
    println!("{}", String::from_utf8_lossy(&done_so.stdout));
    assert!(cluster.nodes[0].data.join("log.lost").is_dir());

    cluster.nodes[0].forgets_peers = true;
    cluster.start_all();
    wait_for(
        || format!("a primary: {}", cluster.situation()),
        PATIENCE,
        || cluster.nodes[0].is_primary().then_some(()),
    );
    assert_ne!(cluster.nodes[0].status()["cluster"], former);
    for index in 1..3 {
        let waits = || cluster.nodes[index].status()["waiting"].as_str().map(str::to_owned);
        wait_for(|| cluster.situation(), PATIENCE, waits);
        let place = format!("{}={}", index + 1, cluster.nodes[index].address());
        done(&cluster.nodes[0], &["member", "add", &place, "--wait"]);
    }
    cluster.wait_ready();
    told.check(&cluster);

    // What was recovered once is an ordinary folder.
    cluster.kill_all();
    let again = recover(&cluster.nodes[1], &[]);
    assert!(String::from_utf8_lossy(&again.stdout).contains("node 2 of cluster "), "{again:?}");
}
