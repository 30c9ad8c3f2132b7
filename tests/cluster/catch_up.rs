//! A node that was away for longer than the log goes back comes back by a copy of another one's database, whoever dies
//! meanwhile.

use std::collections::BTreeSet;

use zrs::client::Client;
use zrs::env::Env;
use zrs::zodb::Oid;

use serde_json::Value;

use crate::connect;
use crate::counters::Counters;
use crate::support::cluster::{Cluster, Node, signal};
use crate::support::{PATIENCE, wait_for};
use crate::times;

/// A log that is shortened at once.
pub const SHORT: [&str; 4] = ["--log-keep", "0", "--log-size", "1"];
/// The same, and fetching that takes seconds.
pub const SLOW: [&str; 6] = ["--log-keep", "0", "--log-size", "1", "--snapshot-rate", "3"];
const VALUE: usize = 1 << 20;

/// Commits `count` values of a megabyte, each to an object of its own.
async fn fill(client: &Client, from: u64, count: u64) {
    for n in from..from + count {
        loop {
            let transaction = client.begin().await.unwrap();
            let mut bytes = vec![0; VALUE];
            // (Not to be compressed away.)
            let mut state = n + 1;
            for byte in &mut bytes {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                *byte = (state >> 56) as u8;
            }
            transaction.write(Oid(1_000 + n), bytes);
            match transaction.commit("test", "fill").await {
                Ok(_) => break,
                Err(why) => println!("value {n}: {why}"),
            }
        }
    }
}

/// The same, by a client of its own.
pub fn commit(cluster: &Cluster, from: u64, count: u64) {
    let work = async { fill(&connect(cluster).await, from, count).await };
    tokio::runtime::Runtime::new().unwrap().block_on(Env::system().scope(work));
}

/// Fills the cluster while node `victim` is away, until no other log goes back to where that of the victim ends.
fn leave_behind(cluster: &mut Cluster, victim: usize, from: u64, count: u64) {
    let last = cluster.nodes[victim].status()["log"].as_u64().unwrap();
    cluster.nodes[victim].kill();
    commit(cluster, from, count);
    for other in (0..cluster.nodes.len()).filter(|other| *other != victim) {
        let node = &cluster.nodes[other];
        let purged = || node.status()["purged"].as_u64().filter(|purged| *purged > last);
        let found = wait_for(|| format!("a shorter log: {}", node.status()), PATIENCE, purged);
        println!("node {} has purged {found} entries, and node {} has {last}", node.number, victim + 1);
    }
}

/// Waits until node `victim` has a part of what it fetches -> from which node.
pub fn wait_fetching(cluster: &Cluster, victim: usize) -> u64 {
    let fetching = || {
        let fetching = cluster.nodes[victim].status()["fetching"].clone();
        fetching["done"].as_u64().filter(|done| *done > 0)?;
        fetching["from"].as_u64()
    };
    wait_for(|| format!("node {} to fetch: {}", victim + 1, cluster.situation()), PATIENCE, fetching)
}

/// Waits until all nodes have the same, and compares it by the digests.
pub fn wait_equal(cluster: &Cluster) {
    cluster.wait_ready();
    let stores = |status: &Value| status["storages"].to_string().replace("connections", "");
    let same = || {
        let statuses = cluster.wait_same();
        let of = |status: &Value| {
            let storage = &status["storages"][0];
            ["last_transaction", "objects", "bytes", "transactions"].map(|key| storage[key].clone())
        };
        statuses.iter().all(|status| of(status) == of(&statuses[0])).then_some(())
    };
    wait_for(|| stores(&cluster.nodes[0].status()), PATIENCE, same);
}

/// Three nodes, of which one was away while so many values were committed and the logs shortened: the cluster, its
/// primary, and the node that is behind and down.
fn left_behind(options: &[&str], count: u64) -> (Cluster, usize, usize) {
    let mut cluster = Cluster::with_options(3, options);
    cluster.start_all();
    let primary = cluster.wait_primary();
    cluster.wait_ready();
    let victim = (primary + 1) % 3;
    leave_behind(&mut cluster, victim, 0, count);
    (cluster, primary, victim)
}

#[test]
fn a_node_that_was_away_for_long_fetches_the_database_under_load() {
    let mut cluster = Cluster::with_options(3, &SHORT);
    cluster.start_all();
    let primary = cluster.wait_primary();
    cluster.wait_ready();
    let counters = Counters::start(&cluster);
    let victim = (primary + 1) % 3;
    leave_behind(&mut cluster, victim, 0, 12);
    cluster.start(victim);
    let pid = cluster.nodes[victim].pid();
    cluster.wait_ready();
    let said = cluster.nodes[victim].log_text();
    for words in ["fetching a database", "beginning again, with the database that was fetched", "the log begins behind"]
    {
        assert!(said.contains(words), "{words:?} in: {said}");
    }
    assert_eq!(cluster.nodes[victim].pid(), pid);
    assert!(cluster.nodes[victim].is_running(), "in the same process");
    counters.wait_progress(&cluster);
    counters.check(&cluster);
    wait_equal(&cluster);
    for left in ["incoming", "made", "old"] {
        assert!(!cluster.nodes[victim].data.join(left).exists(), "{left}/ is left");
    }

    // What it has got this way is worth as much: it leads, and the others follow.
    let ended = cluster.nodes[primary].terminate();
    assert!(ended.success(), "{ended}");
    cluster.wait_primary();
    commit(&cluster, 100, 1);
    cluster.start(primary);
    wait_equal(&cluster);
}

#[test]
fn a_receiver_that_is_killed_again_and_again_goes_on() {
    let (mut cluster, _, victim) = left_behind(&SLOW, 24);
    let (mut done, mut senders) = (0, BTreeSet::new());
    for round in 0..times(4, 10) {
        cluster.start(victim);
        senders.insert(wait_fetching(&cluster, victim));
        let further = || {
            let now = cluster.nodes[victim].status()["fetching"]["done"].as_u64()?;
            (now > done).then_some(now)
        };
        done = wait_for(|| format!("round {round}: more than {done} bytes"), PATIENCE, further);
        cluster.nodes[victim].kill();
    }
    cluster.start(victim);
    wait_equal(&cluster);
    let made = |node: &Node| node.log_text().matches("made a checkpoint").count();
    let checkpoints: Vec<usize> = cluster.nodes.iter().map(made).collect();
    assert!(checkpoints.iter().all(|made| *made <= 1), "the same one served all rounds: {checkpoints:?}");
    let all: usize = checkpoints.iter().sum();
    assert!((1..=senders.len()).contains(&all), "{checkpoints:?} of {senders:?}");
}

#[test]
fn a_sender_that_is_killed_is_replaced_by_another_one() {
    let (mut cluster, _, victim) = left_behind(&SLOW, 24);
    cluster.start(victim);
    wait_fetching(&cluster, victim);
    for _ in 0..times(3, 10) {
        // (A busy machine may take longer over a kill than the victim over what it lacks.)
        let fetching = || {
            let node = &cluster.nodes[victim];
            let sender = node.status()["fetching"]["from"].as_u64().map(|from| from as usize - 1);
            (sender.is_some() || node.is_ready()).then_some(sender)
        };
        let what = || format!("node {} to fetch: {}", victim + 1, cluster.situation());
        let Some(sender) = wait_for(what, PATIENCE, fetching) else { break };
        cluster.nodes[sender].kill();
        // (Without it nothing can be committed: the node that is behind is half of what is left.)
        cluster.start(sender);
        let ready = || cluster.nodes[sender].is_ready().then_some(());
        wait_for(|| format!("node {}: {}", sender + 1, cluster.situation()), PATIENCE, ready);
    }
    wait_equal(&cluster);
}

#[test]
fn a_secondary_sends_its_database_though_the_primary_dies() {
    let (mut cluster, primary, victim) = left_behind(&SLOW, 18);
    let third = (primary + 2) % 3;
    cluster.start(victim);
    assert_eq!(wait_fetching(&cluster, victim), cluster.nodes[third].number, "the primary has enough to do");
    // The primary knows of it, and keeps its log from there on.
    let number = cluster.nodes[victim].number;
    let told = |index: usize| {
        let status = cluster.nodes[index].status();
        let members = status["members"].as_array()?;
        let member = members.iter().find(|member| member["node"] == number)?;
        member["fetching"]["done"].as_u64().filter(|done| *done > 0)
    };
    wait_for(|| format!("the primary to be told: {}", cluster.situation()), PATIENCE, || told(primary));
    cluster.nodes[primary].kill();
    cluster.wait_primary();
    cluster.start(primary);
    commit(&cluster, 100, 1);
    wait_equal(&cluster);
    let checkpoints = |index: usize| cluster.nodes[index].log_text().matches("made a checkpoint").count();
    assert_eq!([checkpoints(primary), checkpoints(third)], [0, 1], "it goes on where it was");
}

#[test]
fn a_receiver_without_room_says_so_and_goes_on_when_there_is_some() {
    let (mut cluster, _, victim) = left_behind(&SHORT, 6);
    // (As if the disk were nearly full: more than any disk has is to stay free.)
    let options = cluster.nodes[victim].options.clone();
    cluster.nodes[victim].options.extend(["--disk-reserve", "999999999"].map(str::to_owned));
    cluster.start(victim);
    let alarm = || {
        let status = cluster.nodes[victim].status();
        let mut alarms = status["alarms"].as_array()?.iter().filter_map(Value::as_str);
        alarms.find(|alarm| alarm.contains("can't fetch a database") && alarm.contains("make room")).map(str::to_owned)
    };
    let said = wait_for(|| format!("an alarm: {}", cluster.situation()), PATIENCE, alarm);
    println!("it says: {said}");
    commit(&cluster, 100, 1);
    let status = cluster.nodes[victim].status();
    assert!(status["fault"].is_null() && !cluster.nodes[victim].is_ready(), "{status}");
    assert!(cluster.nodes[victim].terminate().success());
    cluster.nodes[victim].options = options;
    cluster.start(victim);
    wait_equal(&cluster);
}

#[test]
fn a_receiver_that_is_told_to_stop_stops() {
    let (mut cluster, _, victim) = left_behind(&SLOW, 12);
    cluster.start(victim);
    wait_fetching(&cluster, victim);
    assert!(cluster.nodes[victim].terminate().success());

    // Also in the very moment in which it begins again.
    cluster.start(victim);
    let words = "stopping, to begin again";
    let stops = || cluster.nodes[victim].log_text().contains(words).then_some(());
    wait_for(|| format!("{words:?}: {}", cluster.nodes[victim].log_text()), PATIENCE, stops);
    let pid = cluster.nodes[victim].pid().unwrap();
    signal(pid, "TERM");
    let ends = || (!cluster.nodes[victim].is_running()).then_some(());
    wait_for(|| "the end".into(), PATIENCE, ends);
    cluster.nodes[victim].kill();
    cluster.start(victim);
    wait_equal(&cluster);
}

#[test]
fn a_node_with_an_empty_folder_waits_to_be_let_in_and_then_fetches() {
    let (mut cluster, _, victim) = left_behind(&SHORT, 6);
    cluster.nodes[victim].empty();
    cluster.start(victim);
    // (One answer has both: a moment later it may be let in.)
    let says = || Some(cluster.nodes[victim].status()).filter(|status| status["waiting"].is_string());
    let status = wait_for(|| format!("a reason: {}", cluster.situation()), PATIENCE, says);
    println!("it says: {}", status["waiting"]);
    assert_eq!(status["applied"], 0, "{status}");
    wait_equal(&cluster);
    assert!(!cluster.nodes[victim].data.join("incoming").exists());
}
