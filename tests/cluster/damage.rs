//! A node whose log is damaged takes no part, says what is wrong and where, and changes nothing on its disk; the other
//! nodes go on without it. With the bytes as they were, it comes back, and with an empty folder as well.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::counters::Counters;
use crate::members::{wait_voters, wipe};
use crate::support::cluster::Cluster;
use crate::support::{PATIENCE, wait_for};

type Files = BTreeMap<PathBuf, Vec<u8>>;

fn read(folder: &Path) -> Files {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.map(|path| (path.clone(), fs::read(&path).unwrap())).collect()
}

/// Puts back what the files held. (They stay the files that they were: a folder of other ones is a copy.)
fn write(folder: &Path, files: &Files) {
    let extra = read(folder).into_keys().filter(|path| !files.contains_key(path));
    extra.for_each(|path| fs::remove_file(path).unwrap());
    files.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
}

/// The first segment of the log, and where what was written to it ends.
fn first_segment(files: &Files) -> (PathBuf, usize) {
    let is_segment = |path: &Path| path.extension().is_some_and(|ending| ending == "log");
    let (path, bytes) = files.iter().find(|(path, _)| is_segment(path)).expect("the log has a segment");
    (path.clone(), bytes.iter().rposition(|byte| *byte != 0).expect("the segment has entries"))
}

/// Starts a node that must end by itself and say all of `words`.
fn assert_kept_out(cluster: &mut Cluster, index: usize, words: &[&str]) {
    let said_before = cluster.nodes[index].log_text().len();
    cluster.start(index);
    let node = &mut cluster.nodes[index];
    wait_for(
        || format!("the node to end, which should say {words:?}"),
        PATIENCE,
        || (!node.is_running()).then_some(()),
    );
    node.kill();
    let said = node.log_text().split_off(said_before);
    println!("{said}");
    for word in words {
        assert!(said.contains(word), "the node says {word:?}: {said}");
    }
}

/// The same with `files` as the log, which the node must leave as they are.
fn assert_damage(cluster: &mut Cluster, index: usize, files: &Files, words: &[&str]) {
    let folder = cluster.nodes[index].data.join("log");
    write(&folder, files);
    assert_kept_out(cluster, index, words);
    assert!(read(&folder) == *files, "the node changed its log");
}

#[test]
fn a_damaged_log_is_named_and_its_node_kept_out() {
    let mut cluster = Cluster::started(3);
    let counters = Counters::start(&cluster);
    let primary = cluster.wait_primary();
    let victim = (primary + 1) % 3;
    cluster.nodes[victim].kill();
    let folder = cluster.nodes[victim].data.join("log");
    let older = read(&folder);
    // (It has more to lose then, and its store is newer than that copy.)
    cluster.start(victim);
    let applied = cluster.nodes[primary].applied().expect("the primary answers");
    let newer = |cluster: &Cluster| cluster.nodes[victim].applied().is_some_and(|mine| mine > applied).then_some(());
    wait_for(|| cluster.situation(), PATIENCE, || newer(&cluster));
    // (By SIGTERM, which flushes the store.)
    assert!(cluster.nodes[victim].terminate().success());
    counters.wait_progress(&cluster);

    let whole = read(&folder);
    let (segment, end) = first_segment(&whole);
    let name = segment.file_name().unwrap().to_str().unwrap().to_owned();
    let takes_no_part = "takes no part";

    // One bit, in the middle of what was synced long ago.
    let mut flipped = whole.clone();
    flipped.get_mut(&segment).unwrap()[end / 2] ^= 0x10;
    assert_damage(&mut cluster, victim, &flipped, &[&name, "byte", "entry", takes_no_part]);
    counters.wait_progress(&cluster);

    // The end is gone: as zeros, and as a shorter file.
    let mut zeroed = whole.clone();
    zeroed.get_mut(&segment).unwrap()[end / 2..].fill(0);
    assert_damage(&mut cluster, victim, &zeroed, &[&name, "entry", takes_no_part]);
    let mut cut = whole.clone();
    cut.get_mut(&segment).unwrap().truncate(end / 2);
    assert_damage(&mut cluster, victim, &cut, &[&name, takes_no_part]);

    // The whole segment is gone.
    let mut without = whole.clone();
    without.remove(&segment);
    assert_damage(&mut cluster, victim, &without, &[takes_no_part]);
    counters.wait_progress(&cluster);

    // A log that was put back from an older copy, below a store that is newer.
    write(&folder, &older);
    assert_kept_out(&mut cluster, victim, &["do not belong together"]);
    counters.wait_progress(&cluster);

    write(&folder, &whole);
    cluster.start(victim);
    cluster.wait_ready();

    // Without them it comes back once its folder is emptied, which is how it is told to.
    assert!(cluster.nodes[victim].terminate().success());
    write(&folder, &flipped);
    assert_kept_out(&mut cluster, victim, &[takes_no_part]);
    wipe(&mut cluster, victim);
    wait_voters(&cluster, &[1, 2, 3]);
    cluster.wait_ready();
    counters.check(&cluster);
}

#[test]
fn who_is_away_is_said_once() {
    // (What a busy machine does to nodes is news as well, and not meant here: nobody is away for as little as that.)
    let mut cluster = Cluster::with_options(3, &["--election-timeout", "2000"]);
    cluster.start_all();
    cluster.wait_primary();
    cluster.wait_ready();
    let primary = cluster.wait_primary();
    let (victim, other) = ((primary + 1) % 3, (primary + 2) % 3);
    let away = format!("node {} unreachable since", cluster.nodes[victim].number);
    let back = format!("node {} has caught up", cluster.nodes[victim].number);
    let lines = |cluster: &Cluster, index: usize| cluster.nodes[index].log_text().lines().count();
    let (before, before_other) = (lines(&cluster, primary), lines(&cluster, other));
    cluster.nodes[victim].kill();
    let says = |cluster: &Cluster, words: &str| cluster.nodes[primary].log_text().contains(words).then_some(());
    wait_for(|| format!("the primary to say {away:?}"), PATIENCE, || says(&cluster, &away));
    assert!(cluster.nodes[primary].log_text().contains("2 of 3 remain, one more loss stops all writing"));
    // (What would be said again and again has been said a few times by then.)
    std::thread::sleep(Duration::from_secs(3));
    cluster.start(victim);
    wait_for(|| format!("the primary to say {back:?}"), PATIENCE, || says(&cluster, &back));
    let name = format!("node {}", cluster.nodes[victim].number);
    let of_it = |index: usize, from: usize| {
        let text = cluster.nodes[index].log_text();
        let said = text.lines().skip(from).filter(|line| line.contains(&name) || line.contains("openraft"));
        said.map(str::to_owned).collect::<Vec<_>>()
    };
    let said = of_it(primary, before);
    assert_eq!(said.len(), 3, "gone, back, caught up: {said:?}");
    assert_eq!(of_it(other, before_other), [""; 0], "a secondary says nothing of other secondaries");
}
