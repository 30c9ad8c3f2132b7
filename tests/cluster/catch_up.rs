//! A node that was away for longer than the log goes back comes back by a checkpoint of another one's database.

use zrs::client::Client;
use zrs::zodb::Oid;

use crate::connect;
use crate::counters::Counters;
use crate::support::cluster::Cluster;
use crate::support::{PATIENCE, wait_for};

/// A log that is shortened at once.
const SHORT: [&str; 4] = ["--log-keep", "1", "--log-size", "2"];
const VALUE: usize = 1 << 20;

/// Commits `count` values of a megabyte, each to an object of its own.
async fn fill(client: &Client, count: u64) {
    for n in 0..count {
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

/// Waits until the log of node `at` does not go back to where that of a stopped node ends, at entry `last`.
fn wait_shortened(cluster: &Cluster, at: usize, last: u64) {
    let purged = || cluster.nodes[at].status()["purged"].as_u64().filter(|purged| *purged > last);
    let found = wait_for(|| format!("a shorter log: {}", cluster.nodes[at].status()), PATIENCE, purged);
    println!("node {} has purged {found} entries, and the other one has {last}", cluster.nodes[at].number);
}

#[test]
fn a_node_that_was_away_for_long_fetches_a_checkpoint_under_load() {
    let mut cluster = Cluster::with_options(3, &SHORT);
    cluster.start_all();
    let primary = cluster.wait_primary();
    cluster.wait_ready();
    let counters = Counters::start(&cluster);
    counters.wait_progress(&cluster);
    let victim = (primary + 1) % 3;
    let last = cluster.nodes[victim].status()["log"].as_u64().unwrap();
    cluster.nodes[victim].kill();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let client = runtime.block_on(connect(&cluster));
    runtime.block_on(fill(&client, 12));
    // (Some entries more, so that what was filled is flushed and its files are full.)
    wait_shortened(&cluster, primary, last + 50);

    cluster.start(victim);
    let behind = |cluster: &Cluster| {
        let applied = cluster.nodes[victim].applied()?;
        (cluster.nodes[primary].applied()? < applied + 50).then_some(())
    };
    wait_for(|| cluster.situation(), PATIENCE, || behind(&cluster));
    let said = cluster.nodes[victim].log_text();
    for words in ["fetching its database", "beginning again, with the database that was fetched"] {
        assert!(said.contains(words), "{words:?} in: {said}");
    }
    counters.wait_progress(&cluster);
    counters.check(&cluster);

    // The same node in the middle of it, again and again: it goes on where it was, or begins anew.
    let last = cluster.nodes[victim].status()["log"].as_u64().unwrap();
    cluster.nodes[victim].kill();
    runtime.block_on(fill(&client, 24));
    wait_shortened(&cluster, primary, last + 50);
    for round in 0..5 {
        cluster.start(victim);
        let fetching = || (!cluster.nodes[victim].status()["fetching"].is_null()).then_some(());
        wait_for(|| format!("round {round}: {}", cluster.situation()), PATIENCE, fetching);
        cluster.nodes[victim].kill();
    }
    cluster.start(victim);
    cluster.wait_ready();
    cluster.wait_same();
}
