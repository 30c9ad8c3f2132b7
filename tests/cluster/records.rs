//! A record that can't be read on the primary: an alarm, and another node takes the role and answers.

use std::fs;
use std::path::Path;
use std::time::Duration;

use zrs::env::Env;
use zrs::zodb::Oid;

use crate::connect;
use crate::support::cluster::Cluster;
use crate::support::zrsctl::handed_over;
use crate::support::{PATIENCE, chance, wait_for};

/// Flips a bit of `bytes` wherever a file of the folder has them. -> how often
fn flip(folder: &Path, bytes: &[u8]) -> usize {
    let mut flipped = 0;
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let mut content = fs::read(entry.path()).unwrap();
        let found: Vec<usize> =
            content.windows(bytes.len()).enumerate().filter(|(_, part)| *part == bytes).map(|(at, _)| at).collect();
        for at in &found {
            content[at + bytes.len() / 2] ^= 1;
        }
        if !found.is_empty() {
            fs::write(entry.path(), content).unwrap();
        }
        flipped += found.len();
    }
    flipped
}

#[test]
fn a_damaged_record_is_an_alarm_and_another_node_answers() {
    let mut random = chance();
    let record: Vec<u8> = (0..4000).map(|_| random(256) as u8).collect();
    let mut cluster = Cluster::started(3);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let work = async {
        let client = connect(&cluster).await;
        let transaction = client.begin().await.unwrap();
        transaction.write(Oid(7), record.clone());
        transaction.commit("test", "write").await.unwrap();
    };
    runtime.block_on(Env::system().scope(work));
    cluster.wait_same();
    // (By SIGTERM, which flushes the stores.)
    for node in &mut cluster.nodes {
        assert!(node.terminate().success());
    }
    let store = cluster.nodes[0].data.join("store");
    assert!(flip(&store, &record[1000..1064]) > 0, "the record lies in {}", store.display());
    cluster.start_all();
    cluster.wait_ready();
    let primary = cluster.wait_primary();
    handed_over(&cluster, &cluster.nodes[primary], 1);
    wait_for(|| cluster.situation(), PATIENCE, || cluster.nodes[0].is_primary().then_some(()));

    let read = async {
        let client = connect(&cluster).await;
        loop {
            match client.load(Oid(7)).await {
                Ok(loaded) => return loaded.data,
                Err(fault) => println!("not yet: {fault}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let read = runtime.block_on(Env::system().scope(async { tokio::time::timeout(PATIENCE, read).await }));
    assert!(read.expect("an answer") == record, "the record is right");
    let next = cluster.wait_primary();
    assert_ne!(next, 0, "the node with the damaged record leads no more");
    let status = cluster.nodes[0].status();
    let alarm = status["alarms"][0].as_str().unwrap_or_default();
    assert!(alarm.contains("a record of its database could not be read"), "{status}");
    // (It says so once it has heard of the next primary, which may have answered before.)
    let said = || cluster.nodes[0].log_text();
    let says = || said().contains("handed the primary's role to node").then_some(());
    wait_for(|| format!("word of the hand-over: {}", said()), PATIENCE, says);
}
