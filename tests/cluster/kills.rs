//! `kill -9` and worse, while stock clients count: no answered commit is lost, no update is lost.

use std::time::Duration;

use crate::counters::Counters;
use crate::support::cluster::Cluster;
use crate::times;

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
