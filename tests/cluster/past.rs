//! A node whose data folder is an older copy takes no part: it says so, and so do the others.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::counters::Counters;
use crate::support::cluster::Cluster;
use crate::support::{PATIENCE, wait_for};

/// Copies a folder into another one that may be there: files of the same name are written over, and so stay the files
/// that they were; others are removed.
fn copy_over(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(to).unwrap().map(Result::unwrap) {
        let there = entry.path();
        match (from.join(entry.file_name()).exists(), there.is_dir()) {
            (true, _) => {}
            (false, true) => fs::remove_dir_all(there).unwrap(),
            (false, false) => fs::remove_file(there).unwrap(),
        }
    }
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (here, there) = (entry.path(), to.join(entry.file_name()));
        match here.is_dir() {
            true => copy_over(&here, &there),
            false => fs::write(there, fs::read(here).unwrap()).unwrap(),
        }
    }
}

/// Starts a node, and waits until it says that it takes no part, with these words. -> its status
fn assert_excluded(cluster: &mut Cluster, index: usize, words: &[&str]) -> Value {
    cluster.start(index);
    let excluded = |cluster: &Cluster| {
        let status = cluster.nodes[index].status();
        (status["role"] == "excluded").then_some(status)
    };
    let status = wait_for(|| format!("an excluded node: {}", cluster.situation()), PATIENCE, || excluded(cluster));
    let fault = status["fault"].as_str().expect("the status says why");
    println!("{fault}");
    for word in words {
        assert!(fault.contains(word), "{word:?} in: {fault}");
        let said = || cluster.nodes[index].log_text().contains(word).then_some(());
        wait_for(|| format!("the log to say {word:?}"), PATIENCE, said);
    }
    assert_eq!(cluster.nodes[index].get("/healthz"), Some(503));
    status
}

/// Waits until the status of node `at` tells why node `of` was refused.
fn assert_refused(cluster: &Cluster, at: usize, of: usize, words: &str) {
    let number = cluster.nodes[of].number;
    let told = || {
        let status = cluster.nodes[at].status();
        let members = status["members"].as_array()?;
        let member = members.iter().find(|member| member["node"].as_u64() == Some(number))?;
        member["refusal"].as_str().filter(|why| why.contains(words)).map(str::to_owned)
    };
    println!("{}", wait_for(|| format!("a refusal of node {number}: {}", cluster.situation()), PATIENCE, told));
}

#[test]
fn a_node_with_an_older_folder_is_refused_by_all_who_remember() {
    let mut cluster = Cluster::started(3);
    let counters = Counters::start(&cluster);
    let primary = cluster.wait_primary();
    let (victim, other) = ((primary + 1) % 3, (primary + 2) % 3);
    let data = cluster.nodes[victim].data.clone();
    let backup = tempfile::tempdir().unwrap();
    let (older, newest) = (backup.path().join("older"), backup.path().join("newest"));
    assert!(cluster.nodes[victim].terminate().success());
    copy_over(&data, &older);
    cluster.start(victim);
    let applied = cluster.nodes[primary].applied().expect("the primary answers");
    let newer = |cluster: &Cluster| cluster.nodes[victim].applied().is_some_and(|mine| mine > applied).then_some(());
    wait_for(|| cluster.situation(), PATIENCE, || newer(&cluster));
    assert!(cluster.nodes[victim].terminate().success());
    copy_over(&data, &newest);

    // Under load, and the primary remembers.
    let number = cluster.nodes[victim].number;
    let words = format!("node {number}'s data is older than what it had shown to node");
    copy_over(&older, &data);
    assert_excluded(&mut cluster, victim, &[&words, "takes no part"]);
    assert_refused(&cluster, primary, victim, &words);
    counters.wait_progress(&cluster);
    // The node has noted it: it keeps out also where nobody could remember.
    cluster.nodes[victim].kill();
    assert_excluded(&mut cluster, victim, &[&words]);
    cluster.nodes[victim].kill();

    // What was remembered outlives those who remember. (The third node would make a majority with the older folder.)
    copy_over(&newest, &data);
    cluster.start(victim);
    cluster.wait_ready();
    counters.check(&cluster);
    for index in [primary, other, victim] {
        assert!(cluster.nodes[index].terminate().success());
    }
    copy_over(&older, &data);
    cluster.start(primary);
    assert_excluded(&mut cluster, victim, &[&words]);
    assert_eq!(cluster.primary(), None, "one node is no majority");
    cluster.start(other);
    wait_for(|| cluster.situation(), PATIENCE, || cluster.primary());
    assert_eq!(cluster.nodes[victim].status()["role"], "excluded");
}

#[test]
fn a_copied_folder_is_known_by_itself_until_it_is_adopted() {
    let mut cluster = Cluster::started(3);
    let counters = Counters::start(&cluster);
    let primary = cluster.wait_primary();
    let victim = (primary + 1) % 3;
    let data = cluster.nodes[victim].data.clone();
    cluster.nodes[victim].kill();
    let copy = data.with_extension("copy");
    assert!(Command::new("cp").args(["-a".as_ref(), data.as_os_str(), copy.as_os_str()]).status().unwrap().success());
    fs::rename(&data, data.with_extension("original")).unwrap();
    fs::rename(&copy, &data).unwrap();
    let words = format!("the data folder of node {} is a copy", cluster.nodes[victim].number);
    assert_excluded(&mut cluster, victim, &[&words, "log/slots", "zrsctl adopt --data DIR"]);
    assert_refused(&cluster, primary, victim, &words);
    counters.wait_progress(&cluster);

    // In use, and without a word of agreement, nothing is adopted.
    let adopt = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_zrsctl"));
        let done = command.args(["adopt", "--data"]).arg(&data).args(more).output().unwrap();
        let said = String::from_utf8(done.stdout).unwrap() + &String::from_utf8(done.stderr).unwrap();
        println!("{said}");
        (done.status.success(), said)
    };
    let (done, said) = adopt(&["--yes"]);
    assert!(!done && said.contains("in use"), "{said}");
    cluster.nodes[victim].kill();
    let (done, said) = adopt(&[]);
    assert!(
        !done && said.contains("This is the newest folder of the node") && said.contains("nothing was changed"),
        "{said}"
    );
    assert_excluded(&mut cluster, victim, &[&words]);
    cluster.nodes[victim].kill();
    let (done, said) = adopt(&["--yes"]);
    assert!(done && said.contains("adopted"), "{said}");
    let (done, said) = adopt(&["--yes"]);
    assert!(!done && said.contains("is no copy"), "{said}");
    cluster.start(victim);
    cluster.wait_ready();
    counters.check(&cluster);
}

#[test]
fn nothing_is_adopted_that_no_node_has_used() {
    let folder = tempfile::tempdir().unwrap();
    let done =
        Command::new(env!("CARGO_BIN_EXE_zrsctl")).args(["adopt", "--yes", "--data"]).arg(folder.path()).output();
    let done = done.unwrap();
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(!done.status.success() && said.contains("is not a zrs data folder"), "{said}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was made there");
}
