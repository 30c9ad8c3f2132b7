//! Operators ask any node of a cluster: how it is, to hand the role over, to drop a storage that a typo has made.

use std::sync::Arc;
use std::time::{Duration, Instant};

use zrs::client::{Client, Options};
use zrs::env::Env;
use zrs::net::Tcp;
use zrs::zodb::Oid;

use crate::support::cluster::{Cluster, Node};
use crate::support::zrsctl::{done, handed_over, refused, refused_as, zrsctl};
use crate::support::{PATIENCE, wait_for};

#[test]
fn any_node_hands_the_role_over_and_says_in_the_primarys_words_why_not() {
    let mut cluster = Cluster::started(3);
    cluster.wait_ready();
    let first = cluster.wait_primary();
    let (second, third) = ((first + 1) % 3, (first + 2) % 3);
    handed_over(&cluster, &cluster.nodes[third], cluster.nodes[second].number);
    wait_for(|| cluster.situation(), PATIENCE, || cluster.nodes[second].is_primary().then_some(()));
    cluster.wait_ready();
    // The node that is to take over is asked itself; and one that has the role already.
    let to = cluster.nodes[third].number;
    handed_over(&cluster, &cluster.nodes[third], to);
    cluster.wait_ready();
    let already = || {
        let said = handed_over(&cluster, &cluster.nodes[first], to);
        (said == format!("Node {to} is the primary already.\n")).then_some(())
    };
    wait_for(|| cluster.situation(), PATIENCE, already);
    let words = "Not handed over: node 9 is no member of this cluster; its members are 1, 2, 3.";
    for node in &cluster.nodes {
        refused_as(node, &["transfer", "--to", "9"], &[words]);
    }
    // Alone, a node knows no primary, and says so before long.
    cluster.nodes[third].kill();
    cluster.nodes[second].kill();
    let left = &cluster.nodes[first];
    wait_for(|| cluster.situation(), PATIENCE, || left.status()["primary"].is_null().then_some(()));
    let began = Instant::now();
    let why = refused(left, &["transfer"]);
    assert!(why.contains("No primary is known"), "{why}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn any_node_tells_which_node_is_dead_and_since_when() {
    let mut cluster = Cluster::started(3);
    cluster.wait_ready();
    let primary = cluster.wait_primary();
    let (asked, victim) = ((primary + 1) % 3, (primary + 2) % 3);
    // (A primary that has just begun has not heard of all of them, which is nothing wrong yet.)
    let healthy = || {
        let output = zrsctl(&cluster.nodes[asked], &["status"]);
        let text = String::from_utf8(output.stdout).unwrap();
        (output.status.success() && text.matches("secondary, up to date").count() == 2).then_some(text)
    };
    let text = wait_for(|| cluster.situation(), PATIENCE, healthy);
    assert_eq!(text.lines().count(), 5, "{text}");
    assert!(text.starts_with(&format!("node {} is primary;", primary + 1)), "{text}");

    cluster.nodes[victim].kill();
    let dead = format!("zrsctl: node {} at {} has not answered since ", victim + 1, cluster.nodes[victim].address());
    for index in [asked, primary] {
        let node = &cluster.nodes[index];
        let told = || Some(zrsctl(node, &["status"])).filter(|output| !output.status.success());
        let told = wait_for(|| cluster.situation(), PATIENCE, told);
        let why = String::from_utf8(told.stderr).unwrap();
        assert!(why.contains(&dead) && why.contains(" UTC ("), "{why}");
        assert!(why.contains("2 of 3 nodes are there: one more loss stops all writing"), "{why}");
        let text = String::from_utf8(told.stdout).unwrap();
        assert!(text.contains("no answer since ") && text.lines().count() == 5, "{text}");
        let json = zrsctl(node, &["status", "--json"]);
        assert_eq!(json.status.code(), Some(1));
        let document: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
        assert!(document["members"][victim]["silence_ms"].as_u64() > Some(3000), "{document:#}");
    }
    cluster.start(victim);
    wait_for(
        || cluster.situation(),
        PATIENCE,
        || zrsctl(&cluster.nodes[asked], &["status"]).status.success().then_some(()),
    );
}

/// A client of a storage.
async fn client(addresses: Vec<String>, storage: &str) -> Client {
    let options = Options { addresses, storage: storage.into(), wait: PATIENCE, ..Options::default() };
    Client::connect(options, Env::system(), Arc::new(Tcp)).await.unwrap()
}

/// Starts all nodes with these options, once those that run have ended.
fn start_with(cluster: &mut Cluster, options: &[&str]) {
    for node in &mut cluster.nodes {
        if node.is_running() {
            assert!(node.terminate().success());
        }
        node.options = options.iter().map(|option| (*option).to_owned()).collect();
    }
    cluster.start_all();
    cluster.wait_primary();
    cluster.wait_ready();
}

#[test]
fn a_storage_that_a_typo_made_is_dropped_at_any_node() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let run =
        |work: std::pin::Pin<Box<dyn Future<Output = Option<Client>>>>| runtime.block_on(Env::system().scope(work));
    let mut cluster = Cluster::new(3);
    start_with(&mut cluster, &["--storage", "1", "--storage", "mian"]);
    let addresses = cluster.addresses();
    let written = addresses.clone();
    run(Box::pin(async move {
        let client = client(written, "1").await;
        let transaction = client.begin().await.unwrap();
        transaction.write(Oid(0), "kept");
        transaction.commit("test", "write").await.unwrap();
        None
    }));
    // (A node that asks for the list may not have heard yet that both were made.)
    cluster.wait_same();
    let list = done(&cluster.nodes[0], &["storage", "list"]);
    assert!(list.contains("\nmian ") && list.contains("\n1 "), "{list}");

    // As long as it would be made again, it is not dropped.
    let primary = cluster.wait_primary();
    let secondary = (primary + 1) % 3;
    for node in &cluster.nodes {
        // (Those that are too busy to say it in time are not in the list.)
        let words = ["Not dropped: storage \"mian\" is named by --storage", "node 1, 2, 3"];
        refused_as(node, &["storage", "drop", "mian"], &words);
        refused_as(node, &["storage", "drop", "main"], &["there is no storage \"main\"; there are: 1, mian"]);
        refused_as(node, &["storage", "drop", "1"], &["storage \"1\" is not empty: it has 1 transaction."]);
    }

    // As long as it is open, it is not dropped either.
    start_with(&mut cluster, &[]);
    let open = run(Box::pin(async move { Some(client(addresses, "mian").await) }));
    let why = refused(&cluster.nodes[secondary], &["storage", "drop", "mian"]);
    assert!(why.contains("1 client has storage \"mian\" open: 1 at node "), "{why}");
    drop(open);

    let dropped = || {
        let output = zrsctl(&cluster.nodes[secondary], &["storage", "drop", "mian"]);
        let why = String::from_utf8(output.stderr).unwrap();
        let passes = ["1 client has", "No primary is known", "ask again"].iter().any(|words| why.contains(words));
        assert!(output.status.success() || passes, "{why}");
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    };
    let said = wait_for(|| cluster.situation(), PATIENCE, dropped);
    // (A node that was too busy to say whether it needs the storage is named as well.)
    assert!(said.starts_with("Storage \"mian\" is dropped."), "{said}");
    cluster.wait_same();
    let names = |node: &Node| -> Vec<String> {
        let status = node.status();
        let names =
            status["storages"].as_array().unwrap().iter().map(|storage| storage["name"].as_str().unwrap().into());
        names.collect()
    };
    for node in &cluster.nodes {
        assert_eq!(names(node), ["1"]);
        refused_as(node, &["storage", "drop", "mian"], &["there is no storage \"mian\"; there are: 1"]);
    }
    // Neither a kill nor a restart brings it back; a new one of that name is another storage.
    cluster.kill_all();
    start_with(&mut cluster, &[]);
    cluster.wait_same();
    assert!(cluster.nodes.iter().all(|node| names(node) == ["1"]));
    start_with(&mut cluster, &["--storage", "1", "--storage", "mian"]);
    wait_for(|| cluster.situation(), PATIENCE, || (names(&cluster.nodes[0]) == ["1", "mian"]).then_some(()));
}

#[test]
fn a_storage_is_dropped_while_a_node_is_away_which_is_said() {
    let mut cluster = Cluster::new(3);
    start_with(&mut cluster, &["--storage", "1", "--storage", "mian"]);
    start_with(&mut cluster, &[]);
    let victim = (cluster.wait_primary() + 1) % 3;
    cluster.nodes[victim].kill();
    let primary = cluster.wait_primary();
    let said = done(&cluster.nodes[primary], &["storage", "drop", "mian"]);
    assert!(said.starts_with("Storage \"mian\" is dropped."), "{said}");
    assert!(
        said.contains(&format!("Node {} did not answer: if it is started with --storage mian", victim + 1)),
        "{said}"
    );
    cluster.start(victim);
    cluster.wait_ready();
    for status in cluster.wait_same() {
        assert_eq!(status["storages"].as_array().unwrap().len(), 1, "{status:#}");
    }
}
