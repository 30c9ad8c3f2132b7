//! `kill -9` and worse, while stock clients count: no answered commit is lost, no update is lost.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::cluster::Cluster;
use crate::support::python::{self, Counting};
use crate::support::{PATIENCE, wait_for};
use crate::times;

const NAMES: [&str; 3] = ["one", "two", "three"];

/// Clients that count all the while.
struct Counters {
    clients: Vec<Counting>,
}

fn with_addresses<'a>(words: &[&'a str], addresses: &'a [String]) -> Vec<&'a str> {
    let mut arguments = words.to_vec();
    arguments.extend(addresses.iter().map(String::as_str));
    arguments
}

impl Counters {
    fn start(cluster: &Cluster) -> Counters {
        let addresses = cluster.addresses();
        python::run("count.py", &with_addresses(&["setup", &NAMES.join(",")], &addresses));
        let counters = Counters { clients: NAMES.iter().map(|name| Counting::start(name, &addresses)).collect() };
        counters.wait_progress(cluster);
        counters
    }

    /// Waits until every client was answered twice more: the second commit was begun after now. -> how long that took
    fn wait_progress(&self, cluster: &Cluster) -> Duration {
        let began = Instant::now();
        let wanted: Vec<u64> = self.clients.iter().map(|c| c.acknowledged() + 2).collect();
        wait_for(
            || format!("the clients to go on: {}", cluster.situation()),
            PATIENCE,
            || self.clients.iter().zip(&wanted).all(|(c, wanted)| c.acknowledged() >= *wanted).then_some(()),
        );
        began.elapsed()
    }

    /// Stops the clients and compares what they were told with what every node has.
    fn check(self, cluster: &Cluster) {
        let told: Vec<Value> = self.clients.into_iter().map(Counting::stop).collect();
        cluster.wait_ready();
        let statuses = cluster.wait_same();
        let mut views = vec![cluster.addresses()];
        views.extend(cluster.nodes.iter().map(|n| vec![format!("ro:{}", n.address())]));
        for view in &views {
            let found = python::run("count.py", &with_addresses(&["check", &NAMES.join(",")], view));
            assert_eq!(
                found["whole"],
                Value::Bool(true),
                "torn transactions or lost updates at {view:?}: {found} {told:?}"
            );
            for client in &told {
                let name = client["name"].as_str().unwrap();
                let own = found["own"][name].as_u64().unwrap();
                let (acknowledged, unknown) =
                    (client["acknowledged"].as_u64().unwrap(), client["unknown"].as_u64().unwrap());
                assert!(own >= acknowledged, "an answered commit is lost at {view:?}: {found} {client}");
                assert!(own <= acknowledged + unknown, "more than was ever sent at {view:?}: {found} {client}");
            }
        }
        for client in &told {
            println!("{client}");
            assert_eq!(client["errors"], Value::Array(vec![]), "clients get the errors that ZODB knows: {client}");
        }
        println!("{statuses:?}");
    }
}

#[test]
fn the_primary_is_killed_ten_times_under_load() {
    let mut cluster = Cluster::started(3);
    let counters = Counters::start(&cluster);
    let mut pauses = Vec::new();
    for _ in 0..times(10, 50) {
        let primary = cluster.wait_primary();
        cluster.nodes[primary].kill();
        pauses.push(counters.wait_progress(&cluster));
        cluster.start(primary);
        cluster.wait_ready();
    }
    counters.check(&cluster);
    pauses.sort();
    println!("all clients went on after: median {:?}, max {:?}", pauses[pauses.len() / 2], pauses[pauses.len() - 1]);
    assert!(pauses[pauses.len() / 2] < Duration::from_secs(6), "{pauses:?}");
}

#[test]
fn a_rolling_restart_loses_nothing() {
    let mut cluster = Cluster::started(3);
    let counters = Counters::start(&cluster);
    for _ in 0..times(1, 5) {
        for index in 0..3 {
            let ended = cluster.nodes[index].terminate();
            assert!(ended.success(), "{ended}");
            counters.wait_progress(&cluster);
            cluster.start(index);
            cluster.wait_ready();
        }
    }
    counters.check(&cluster);
}

#[test]
fn all_three_are_killed_at_once_under_load() {
    let mut cluster = Cluster::started(3);
    let counters = Counters::start(&cluster);
    for _ in 0..times(3, 20) {
        cluster.kill_all();
        cluster.start_all();
        cluster.wait_primary();
        counters.wait_progress(&cluster);
    }
    counters.check(&cluster);
}
