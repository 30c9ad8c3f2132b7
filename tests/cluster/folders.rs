//! A data folder belongs to one node of one cluster, and one process uses it at a time; zrsd refuses anything else and
//! says why.

use std::path::Path;

use crate::support::cluster::Cluster;
use crate::support::ports::Port;
use crate::support::wait_for;

/// Starts a node with this folder, which zrsd has to refuse -> its error text.
fn refusal(node: u64, data: &Path, peers: &[String]) -> String {
    let (own, http) = (Port::free(), Port::free());
    let mut arguments = vec!["--node".to_owned(), node.to_string(), "--data".into(), data.display().to_string()];
    arguments.extend(["--http".into(), format!("127.0.0.1:{}", http.number)]);
    if peers.is_empty() {
        arguments.extend(["--listen".into(), format!("127.0.0.1:{}", own.number)]);
    } else {
        let listed = peers.iter().enumerate().map(|(i, address)| format!("{}={address}", i + 1));
        arguments.extend(["--peers".into(), listed.collect::<Vec<_>>().join(",")]);
    }
    let output = Cluster::refused(&arguments);
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    println!("{said}");
    assert!(said.contains("data folder"), "the error names the data folder: {said}");
    said
}

#[test]
fn a_second_use_is_refused() {
    let cluster = Cluster::started(1);
    let said = refusal(1, &cluster.nodes[0].data, &[]);
    assert!(said.contains("in use"), "{said}");
    assert!(cluster.nodes[0].is_primary());
}

#[test]
fn a_foreign_folder_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("Data.fs"), "FS21").unwrap();
    refusal(1, folder.path(), &[]);
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["Data.fs"]);
}

#[test]
fn a_folder_of_a_newer_program_is_refused() {
    let mut cluster = Cluster::started(1);
    cluster.kill_all();
    let data = cluster.nodes[0].data.clone();
    let marker = data.join("ZRS");
    let text = std::fs::read_to_string(&marker).unwrap();
    let newer: String =
        text.lines().map(|l| if l.starts_with("format ") { "format 999\n".into() } else { format!("{l}\n") }).collect();
    assert_ne!(newer, text);
    std::fs::write(&marker, newer).unwrap();
    let said = refusal(1, &data, &[]);
    assert!(said.contains("999"), "{said}");
    // With the old marker the folder works as before.
    std::fs::write(&marker, text).unwrap();
    cluster.start_all();
    cluster.wait_primary();
}

#[test]
fn another_nodes_folder_is_refused() {
    let mut cluster = Cluster::started(3);
    cluster.nodes[1].kill();
    let data = cluster.nodes[1].data.clone();
    // As node 3 of the same cluster.
    let peers = cluster.addresses();
    cluster.nodes[2].kill();
    let said = refusal(3, &data, &peers);
    assert!(said.contains('2') && said.contains('3'), "the error says whose folder it is: {said}");
    cluster.start_all();
    cluster.wait_primary();
    cluster.wait_ready();
}

#[test]
fn a_node_of_another_cluster_is_kept_out() {
    let mut ours = Cluster::started(3);
    let mut theirs = Cluster::started(3);
    // (Until then a node's folder may not belong to the cluster yet.)
    theirs.wait_ready();
    theirs.kill_all();
    ours.wait_ready();
    let id = ours.nodes[0].status()["cluster"].clone();
    // Node 3 of ours gets the folder of node 3 of theirs.
    ours.nodes[2].kill();
    let data = ours.nodes[2].data.clone();
    ours.nodes[2].empty();
    std::fs::rename(&theirs.nodes[2].data, &data).unwrap();
    ours.start(2);
    // The node's log says why.
    let node = &mut ours.nodes[2];
    let says = || node.log_text().contains("belongs to cluster").then_some(());
    wait_for(|| format!("the reason: {}", node.log_text()), super::support::PATIENCE, says);
    // Node 3 ends with an error, or runs and never takes part.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(3);
    while std::time::Instant::now() < deadline && node.is_running() {
        assert!(!node.is_ready(), "{}", node.status());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    node.kill();
    wait_for(|| ours.situation(), super::support::PATIENCE, || ours.primary());
    assert_eq!(ours.nodes[0].status()["cluster"], id);
}
