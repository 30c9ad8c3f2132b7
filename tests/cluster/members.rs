//! Nodes come and go while clients work: wiped ones come back by themselves, operators let others in and take them out.

use std::time::Duration;

use serde_json::Value;

use crate::catch_up::{SHORT, SLOW, commit, wait_equal, wait_fetching};
use crate::counters::Counters;
use crate::support::cluster::Cluster;
use crate::support::zrsctl::{done, handed_over, refused, refused_as, zrsctl};
use crate::support::{PATIENCE, wait_for};

/// Waits until the members are as wanted, and these nodes vote, at every node that runs.
pub fn wait_voters(cluster: &Cluster, voters: &[u64]) {
    wait_voters_at(cluster, &(0..cluster.nodes.len()).collect::<Vec<_>>(), voters);
}

/// The same at those of these nodes that run. (One that was taken out does not hear of it.)
fn wait_voters_at(cluster: &Cluster, nodes: &[usize], voters: &[u64]) {
    let settled = || {
        let statuses = nodes.iter().map(|node| cluster.nodes[*node].status());
        let statuses = statuses.filter(|status| status["members"].is_array());
        let found: Vec<(Value, Vec<u64>)> =
            statuses.map(|status| (status["changes"].clone(), voting(&status))).collect();
        let all =
            found.iter().all(|(changes, voting)| changes.as_array().is_some_and(Vec::is_empty) && voting == voters);
        (all && !found.is_empty()).then_some(())
    };
    wait_for(|| format!("voters {voters:?}: {}", cluster.situation()), PATIENCE, settled);
}

fn voting(status: &Value) -> Vec<u64> {
    let members = status["members"].as_array().into_iter().flatten();
    members.filter(|member| member["part"] == "voter").filter_map(|member| member["node"].as_u64()).collect()
}

fn wait_dead_is_known(cluster: &Cluster, dead: usize) {
    let number = cluster.nodes[dead].number;
    let known = || {
        let primary = cluster.primary()?;
        let status = cluster.nodes[primary].status();
        let silent = |member: &&Value| member["node"] == number;
        status["members"].as_array()?.iter().find(silent)?["silence_ms"].as_u64().filter(|ms| *ms > 5_500)
    };
    wait_for(|| format!("node {number} to be missed: {}", cluster.situation()), PATIENCE, known);
}

/// Starts one node more, with an empty folder -> its index, and its number and address as `zrsctl` takes them.
fn newcomer(cluster: &mut Cluster) -> (usize, String) {
    let index = cluster.add_node();
    cluster.start(index);
    await_answer(cluster, index);
    (index, place(cluster, index))
}

fn place(cluster: &Cluster, index: usize) -> String {
    format!("{}={}", cluster.nodes[index].number, cluster.nodes[index].address())
}

fn await_answer(cluster: &Cluster, index: usize) {
    let node = &cluster.nodes[index];
    wait_for(|| format!("node {} to answer", node.number), PATIENCE, || node.get("/status"));
}

/// Kills a node, empties its folder and starts it, until it answers. (Nobody misses it before that.)
pub fn wipe(cluster: &mut Cluster, victim: usize) {
    cluster.nodes[victim].kill();
    cluster.nodes[victim].empty();
    cluster.start(victim);
    await_answer(cluster, victim);
}

#[test]
fn a_wiped_secondary_comes_back_by_itself_and_votes_again() {
    let mut cluster = Cluster::started(3);
    cluster.wait_ready();
    let primary = cluster.wait_primary();
    let (victim, third) = ((primary + 1) % 3, (primary + 2) % 3);
    let counters = Counters::start(&cluster);
    wipe(&mut cluster, victim);
    wait_voters(&cluster, &[1, 2, 3]);
    cluster.wait_ready();
    counters.wait_progress(&cluster);
    // (Whichever was primary then.)
    let said: String = cluster.nodes.iter().map(|node| node.log_text()).collect();
    let number = cluster.nodes[victim].number;
    for words in ["joins as an observer", "in place of its former data folder", "becomes a voter, one of 3"] {
        assert!(said.contains(words), "{words:?} in: {said}");
    }
    // It counts as much as before: without the third node it is half of what is left.
    cluster.nodes[third].kill();
    counters.wait_progress(&cluster);
    handed_over(&cluster, &cluster.nodes[primary], number);
    counters.wait_progress(&cluster);
    cluster.start(third);
    counters.check(&cluster);
}

#[test]
fn a_wiped_node_comes_back_whoever_dies_meanwhile() {
    let mut cluster = Cluster::with_options(3, &SLOW);
    cluster.start_all();
    let primary = cluster.wait_primary();
    cluster.wait_ready();
    commit(&cluster, 0, 24);
    let victim = (primary + 1) % 3;
    wipe(&mut cluster, victim);
    for _ in 0..3 {
        wait_fetching(&cluster, victim);
        cluster.nodes[victim].kill();
        cluster.start(victim);
    }
    // Its disk, once more: another folder is let in, and what was fetched is gone.
    wait_fetching(&cluster, victim);
    wipe(&mut cluster, victim);
    let sender = wait_fetching(&cluster, victim) as usize - 1;
    // (Without it too few voters are there until it is back.)
    cluster.nodes[sender].kill();
    cluster.start(sender);
    wait_voters(&cluster, &[1, 2, 3]);
    wait_equal(&cluster);
    assert!(!cluster.nodes[victim].data.join("incoming").exists());
}

#[test]
fn a_wiped_primary_comes_back_by_itself() {
    let mut cluster = Cluster::started(3);
    cluster.wait_ready();
    let primary = cluster.wait_primary();
    let counters = Counters::start(&cluster);
    wipe(&mut cluster, primary);
    counters.wait_progress(&cluster);
    wait_voters(&cluster, &[1, 2, 3]);
    counters.wait_progress(&cluster);
    // A restart of all changes nothing: each comes with what it is on its disk.
    cluster.kill_all();
    cluster.start_all();
    cluster.wait_ready();
    wait_voters(&cluster, &[1, 2, 3]);
    counters.check(&cluster);
}

#[test]
fn two_wiped_nodes_of_three_form_nothing_of_their_own() {
    let mut cluster = Cluster::started(3);
    cluster.wait_ready();
    let known = cluster.nodes[0].status()["cluster"].clone();
    cluster.nodes[2].kill();
    wipe(&mut cluster, 0);
    wipe(&mut cluster, 1);
    for node in 0..2 {
        let waits = || cluster.nodes[node].status()["waiting"].is_string().then_some(());
        wait_for(|| format!("a node that waits: {}", cluster.situation()), PATIENCE, waits);
    }
    std::thread::sleep(Duration::from_secs(2));
    for node in 0..2 {
        let status = cluster.nodes[node].status();
        assert!(status["cluster"].is_null() && !status["waiting"].is_null(), "{status}");
    }
    // The one that has the data is no majority, and says so.
    cluster.start(2);
    let waits = || {
        let status = cluster.nodes[0].status();
        status["waiting"].as_str().filter(|why| why.contains("no primary is known")).map(str::to_owned)
    };
    let why = wait_for(|| format!("a reason: {}", cluster.situation()), PATIENCE, waits);
    println!("it says: {why}");
    assert_eq!(cluster.nodes[2].status()["cluster"], known);
    assert_eq!(cluster.primary(), None);
}

#[test]
fn one_node_grows_to_three_and_three_shrink_to_one() {
    let mut cluster = Cluster::started(1);
    let counters = Counters::start(&cluster);
    let first = cluster.nodes[0].http_address();
    for _ in 2..=3 {
        let index = cluster.add_node();
        let place = place(&cluster, index);
        // Who is not there is not let in.
        refused_as(&cluster.nodes[0], &["member", "add", &place], &["Nothing is changed: ", "does not answer at"]);
        cluster.start(index);
        let there = || {
            let status = cluster.nodes[index].status();
            status["waiting"].as_str().filter(|why| !why.is_empty()).map(str::to_owned)
        };
        println!("it waits: {}", wait_for(|| cluster.situation(), PATIENCE, there));
        let said = done(&cluster.nodes[0], &["member", "add", &place, "--wait"]);
        println!("{said}");
        assert!(
            said.contains("votes once it has caught up.") && said.ends_with("The members are as wanted.\n"),
            "{said}"
        );
        counters.wait_progress(&cluster);
    }
    cluster.wait_ready();
    wait_voters(&cluster, &[1, 2, 3]);
    println!("{}", done(&cluster.nodes[2], &["member", "list"]));
    counters.wait_progress(&cluster);
    refused_as(&cluster.nodes[1], &["member", "add", &format!("2={first}")], &["there is a node 2 already"]);
    for number in ["3", "2"] {
        let said = done(&cluster.nodes[0], &["member", "remove", number, "--wait"]);
        assert!(said.contains(&format!("Node {number} leaves.")), "{said}");
        counters.wait_progress(&cluster);
        let mut gone = cluster.nodes.pop().unwrap();
        let left: Vec<u64> = cluster.nodes.iter().map(|node| node.number).collect();
        wait_voters(&cluster, &left);
        gone.kill();
    }
    refused_as(&cluster.nodes[0], &["member", "remove", "1"], &["nobody who votes would be left"]);
    counters.check(&cluster);
}

#[test]
fn an_observer_has_all_and_never_votes_until_it_is_promoted() {
    let mut cluster = Cluster::started(3);
    cluster.wait_ready();
    let (_, place) = newcomer(&mut cluster);
    done(&cluster.nodes[1], &["member", "add", &place, "--observer", "--wait"]);
    cluster.wait_ready();
    wait_voters(&cluster, &[1, 2, 3]);
    let counters = Counters::start(&cluster);
    let primary = cluster.wait_primary();
    let others: Vec<usize> = (0..3).filter(|node| *node != primary).collect();
    // It can't take over, and its disk counts for nobody.
    refused_as(&cluster.nodes[primary], &["transfer", "--to", "4"], &["it is an observer, which never votes"]);
    for other in &others {
        cluster.nodes[*other].kill();
    }
    let none = || cluster.primary().is_none().then_some(());
    wait_for(|| "the end of the reign".into(), PATIENCE, none);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(cluster.primary(), None);
    cluster.start_all();
    cluster.wait_primary();
    cluster.wait_ready();
    counters.wait_progress(&cluster);
    // As a voter it counts.
    done(&cluster.nodes[0], &["member", "promote", "4", "--wait"]);
    wait_voters(&cluster, &[1, 2, 3, 4]);
    done(&cluster.nodes[0], &["member", "observer", "2", "--wait"]);
    wait_voters(&cluster, &[1, 3, 4]);
    cluster.wait_primary();
    counters.wait_progress(&cluster);
    counters.check(&cluster);
}

/// A node whose log does not know the new primary yet has to hear it all the same.
#[test]
fn a_node_that_was_away_meanwhile_follows_a_primary_it_has_never_heard_of() {
    let mut cluster = Cluster::started(3);
    cluster.wait_ready();
    let primary = cluster.wait_primary();
    let (away, other) = ((primary + 1) % 3, (primary + 2) % 3);
    let index = cluster.add_node();
    let counters = Counters::start(&cluster);
    cluster.nodes[away].kill();
    cluster.start(index);
    await_answer(&cluster, index);
    let (place, number) = (place(&cluster, index), cluster.nodes[primary].number.to_string());
    done(&cluster.nodes[other], &["member", "replace", &number, &place, "--planned", "--wait"]);
    let mut voters = [cluster.nodes[away].number, cluster.nodes[other].number, 4];
    voters.sort();
    wait_voters_at(&cluster, &[other, index], &voters);
    cluster.nodes[primary].kill();
    let leads = || {
        let _ = zrsctl(&cluster.nodes[other], &["transfer", "--to", "4"]);
        cluster.nodes[index].is_primary().then_some(())
    };
    wait_for(|| format!("node 4 to lead: {}", cluster.situation()), PATIENCE, leads);
    cluster.start(away);
    let ready = || cluster.nodes[away].is_ready().then_some(());
    wait_for(|| format!("the one that was away: {}", cluster.situation()), PATIENCE, ready);
    counters.wait_progress(&cluster);
    // The two of them are a majority.
    cluster.nodes[other].kill();
    counters.wait_progress(&cluster);
    cluster.start(other);
    cluster.nodes.remove(primary);
    counters.check(&cluster);
}

#[test]
fn a_node_that_is_gone_is_replaced_and_one_that_moves_is_found() {
    let mut cluster = Cluster::started(3);
    cluster.wait_ready();
    let primary = cluster.wait_primary();
    let (dead, moved) = ((primary + 1) % 3, (primary + 2) % 3);
    let counters = Counters::start(&cluster);
    let (_, place) = newcomer(&mut cluster);
    let old = cluster.nodes[dead].number.to_string();
    let why = refused(&cluster.nodes[primary], &["member", "replace", &old, &place]);
    assert!(why.contains("give --planned"), "{why}");
    cluster.nodes[dead].kill();
    wait_dead_is_known(&cluster, dead);
    done(&cluster.nodes[primary], &["member", "replace", &old, &place, "--wait"]);
    counters.wait_progress(&cluster);

    // (Its clients know its former address; they have the others.)
    cluster.nodes[moved].kill();
    cluster.nodes[moved].moves();
    cluster.start(moved);
    await_answer(&cluster, moved);
    let (number, address) = (cluster.nodes[moved].number.to_string(), cluster.nodes[moved].address());
    let asked = cluster.wait_primary();
    done(&cluster.nodes[asked], &["member", "address", &number, &address, "--wait"]);
    cluster.nodes.remove(dead);
    cluster.wait_ready();
    let voters: Vec<u64> = cluster.nodes.iter().map(|node| node.number).collect();
    wait_voters(&cluster, &voters);
    counters.wait_progress(&cluster);
    counters.check(&cluster);
}

/// Its new address can't be written into the log before it is found: without it nobody leads.
#[test]
fn a_voter_that_has_moved_is_found_though_nobody_can_lead() {
    let mut cluster = Cluster::started(3);
    cluster.wait_ready();
    let primary = cluster.wait_primary();
    let (moved, lost) = ((primary + 1) % 3, (primary + 2) % 3);
    let counters = Counters::start(&cluster);
    cluster.nodes[moved].kill();
    counters.wait_progress(&cluster);
    // (The primary has entries that the one that moves lacks: it can't lead itself.)
    cluster.nodes[lost].kill();
    cluster.nodes[moved].moves();
    cluster.start(moved);
    counters.wait_progress(&cluster);
    let asked = cluster.wait_primary();
    let (number, address) = (cluster.nodes[moved].number.to_string(), cluster.nodes[moved].address());
    done(&cluster.nodes[asked], &["member", "address", &number, &address, "--wait"]);
    cluster.start(lost);
    cluster.wait_ready();
    counters.check(&cluster);
}

/// Each looks for the others where the log has them, where nobody is: their own `--peers` alone know.
#[test]
fn two_of_three_that_move_at_the_same_time_find_each_other() {
    let mut cluster = Cluster::started(3);
    cluster.wait_ready();
    // (Stock clients drop an address whose connection ends before they are registered, as long as another one is
    // tried: those that run now might be left with the two that nobody is at any more.)
    let told = Counters::start(&cluster).stop();
    cluster.kill_all();
    // (The third one stays away until the others have found each other.)
    for index in 0..2 {
        cluster.nodes[index].moves();
    }
    cluster.start(0);
    cluster.start(1);
    cluster.wait_primary();
    cluster.start(2);
    cluster.wait_ready();
    let asked = cluster.wait_primary();
    for index in 0..2 {
        let (number, address) = (cluster.nodes[index].number.to_string(), cluster.nodes[index].address());
        done(&cluster.nodes[asked], &["member", "address", &number, &address, "--wait"]);
    }
    told.check(&cluster);
    Counters::start(&cluster).check(&cluster);
}

/// All that it knows as members are gone, and no log goes back to where its own ends.
#[test]
fn an_observer_that_was_away_while_all_others_were_replaced_comes_back() {
    let mut cluster = Cluster::with_options(3, &SHORT);
    cluster.start_all();
    cluster.wait_ready();
    let (observer, place_of_it) = newcomer(&mut cluster);
    done(&cluster.nodes[0], &["member", "add", &place_of_it, "--observer", "--wait"]);
    // (Where it is let in, that may be known before it has begun to take part itself.)
    cluster.wait_ready();
    let last = cluster.nodes[observer].status()["log"].as_u64().unwrap();
    cluster.nodes[observer].kill();
    for old in 0..3 {
        let (new, place) = newcomer(&mut cluster);
        let number = cluster.nodes[old].number.to_string();
        // (The one that was let in before.)
        let asked = if old == 0 { 2 } else { new - 1 };
        done(&cluster.nodes[asked], &["member", "replace", &number, &place, "--planned", "--wait"]);
        cluster.nodes[old].kill();
    }
    cluster.nodes.drain(..3);
    wait_voters_at(&cluster, &[1, 2, 3], &[5, 6, 7]);
    commit(&cluster, 0, 8);
    let purged = || cluster.nodes[1..].iter().all(|node| node.status()["purged"].as_u64() > Some(last)).then_some(());
    wait_for(|| format!("shorter logs: {}", cluster.situation()), PATIENCE, purged);
    cluster.start(0);
    wait_equal(&cluster);
    assert!(cluster.nodes[0].log_text().contains("fetched the database of node"), "{}", cluster.nodes[0].log_text());
}

#[test]
fn all_three_machines_are_replaced_under_load() {
    let mut cluster = Cluster::started(3);
    cluster.wait_ready();
    // (Clients know the old nodes and the new ones.)
    for _ in 0..3 {
        cluster.add_node();
    }
    let counters = Counters::start(&cluster);
    for old in 0..3 {
        let new = old + 3;
        cluster.start(new);
        await_answer(&cluster, new);
        let place = place(&cluster, new);
        let number = cluster.nodes[old].number.to_string();
        let said = done(&cluster.nodes[new - 1], &["member", "replace", &number, &place, "--planned", "--wait"]);
        println!("{said}");
        counters.wait_progress(&cluster);
        assert!(cluster.nodes[old].is_running());
        cluster.nodes[old].kill();
        counters.wait_progress(&cluster);
    }
    cluster.nodes.drain(..3);
    wait_voters(&cluster, &[4, 5, 6]);
    counters.check(&cluster);
}
