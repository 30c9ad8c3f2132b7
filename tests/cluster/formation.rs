//! A cluster forms once, by itself, in whatever order its nodes start and wherever they crash on the way.

use std::time::Duration;

use serde_json::Value;

use crate::support::cluster::Cluster;
use crate::support::{PATIENCE, chance, python, wait_for};
use crate::times;

fn pause(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}

/// All nodes name the same cluster -> its id.
fn cluster_id(cluster: &Cluster) -> String {
    cluster.wait_ready();
    let ids: Vec<Value> = cluster.nodes.iter().map(|n| n.status()["cluster"].clone()).collect();
    assert!(ids.iter().all(|id| *id == ids[0] && id.is_string()), "{}", cluster.situation());
    ids[0].as_str().expect("just looked").to_owned()
}

/// A client writes, and every node has it.
fn assert_serves(cluster: &Cluster) {
    let addresses = cluster.addresses();
    let mut arguments = vec!["setup", "a"];
    arguments.extend(addresses.iter().map(String::as_str));
    let written = python::run("count.py", &arguments);
    for status in cluster.wait_same() {
        assert_eq!(status["last_tid"], written["last_tid"], "{status}");
    }
}

#[test]
fn a_cluster_forms_in_any_order_and_only_once() {
    let mut chance = chance();
    let orders = [[0, 1, 2], [2, 1, 0], [1, 2, 0], [0, 2, 1], [1, 0, 2], [2, 0, 1]];
    for order in orders.iter().take(times(3, 6)) {
        let mut cluster = Cluster::new(3);
        for index in order {
            cluster.start(*index);
            pause(chance(400));
        }
        cluster.wait_primary();
        let id = cluster_id(&cluster);
        // A restart does not form the cluster again.
        cluster.kill_all();
        cluster.start_all();
        cluster.wait_primary();
        assert_eq!(cluster_id(&cluster), id);
        assert_serves(&cluster);
    }
}

#[test]
fn formation_waits_for_all_nodes_and_says_for_which() {
    let mut cluster = Cluster::new(3);
    cluster.start(0);
    cluster.start(1);
    let node = &cluster.nodes[0];
    let waiting = || node.status()["waiting"].as_str().filter(|w| !w.is_empty()).map(str::to_owned);
    let says = wait_for(|| format!("the node to say what it waits for: {}", node.status()), PATIENCE, waiting);
    println!("waiting: {says}");
    pause(1500);
    assert_eq!(cluster.primary(), None, "{}", cluster.situation());
    cluster.start(2);
    cluster.wait_primary();
    cluster_id(&cluster);
}

#[test]
fn a_crash_in_the_middle_of_formation_does_no_harm() {
    let mut chance = chance();
    for _ in 0..times(5, 50) {
        let mut cluster = Cluster::new(3);
        for _ in 0..2 {
            cluster.start_all();
            pause(chance(900));
            // One, two or all of the nodes.
            let victims = 1 + chance(7);
            for index in 0..3 {
                if victims & (1 << index) != 0 {
                    cluster.nodes[index].kill();
                    pause(chance(60));
                }
            }
            pause(chance(200));
        }
        cluster.start_all();
        cluster.wait_primary();
        cluster_id(&cluster);
        assert_serves(&cluster);
    }
}

#[test]
fn an_emptied_node_that_meets_its_cluster_does_not_vote_and_says_so() {
    let mut cluster = Cluster::started(3);
    let id = cluster_id(&cluster);
    assert_serves(&cluster);
    let emptied = cluster.wait_primary();
    let (other, third) = ((emptied + 1) % 3, (emptied + 2) % 3);
    cluster.nodes[emptied].kill();
    cluster.nodes[emptied].empty();
    // If the emptied node voted, it and the node that is left would be a majority. (With a primary it would be let in
    // before long, and vote.)
    cluster.nodes[third].kill();
    let left = &cluster.nodes[other];
    wait_for(|| cluster.situation(), PATIENCE, || (!left.is_primary()).then_some(()));
    cluster.start(emptied);
    let node = &cluster.nodes[emptied];
    let waiting = || {
        let status = node.status();
        status["waiting"].as_str().filter(|why| why.contains("no primary is known")).map(str::to_owned)
    };
    println!(
        "waiting: {}",
        wait_for(|| format!("the node to say what it waits for: {}", node.status()), PATIENCE, waiting)
    );
    for _ in 0..20 {
        pause(150);
        assert_eq!(cluster.primary(), None, "{}", cluster.situation());
    }
    cluster.start(third);
    cluster.wait_primary();
    assert_eq!(cluster.nodes[other].status()["cluster"], Value::String(id));
}

fn wait_for_line(cluster: &Cluster, index: usize, part: &str) {
    let log = || cluster.nodes[index].log_text();
    wait_for(
        || format!("{part:?} in the log of node {}: {}", index + 1, log()),
        PATIENCE,
        || log().contains(part).then_some(()),
    );
}

#[test]
fn a_node_that_was_started_without_peers_is_named_by_all() {
    let mut cluster = Cluster::new(3);
    cluster.nodes[2].forgets_peers = true;
    cluster.start_all();
    let says = "node 3 is a cluster of its own, started without --peers?";
    for index in 0..3 {
        wait_for_line(&cluster, index, says);
    }
    assert!(cluster.nodes[0].log_text().contains(&format!("waiting for node 3 at {}: ", cluster.nodes[2].address())));
    // With its list it still has the data of a cluster of its own, and says so.
    cluster.nodes[2].forgets_peers = false;
    assert!(cluster.nodes[2].terminate().success());
    cluster.start(2);
    wait_for_line(&cluster, 2, "this node is a cluster of its own and does not join the others in --peers");
    // The cure that all have named.
    assert!(cluster.nodes[2].terminate().success());
    cluster.nodes[2].empty();
    cluster.start(2);
    cluster.wait_primary();
    cluster_id(&cluster);
    // A member needs the list no more, but those who start it do.
    cluster.nodes[2].forgets_peers = true;
    assert!(cluster.nodes[2].terminate().success());
    cluster.start(2);
    wait_for_line(&cluster, 2, "--peers is missing: this data folder is that of node 3 in a cluster of 3");
    cluster.wait_ready();
}

#[test]
fn a_node_that_was_started_without_its_number_and_peers_is_named_by_all() {
    let mut cluster = Cluster::new(3);
    cluster.nodes[2].forgets_peers = true;
    cluster.start(0);
    cluster.start(1);
    cluster.nodes[2].number = 1;
    cluster.start(2);
    let says = "node 3 should be here, and this is node 1, a cluster of its own, started without --node and --peers?";
    for index in [0, 1, 2] {
        wait_for_line(&cluster, index, says);
    }
}
