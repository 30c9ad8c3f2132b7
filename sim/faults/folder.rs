//! Data folders that are not what they were: a flipped bit, an older copy. The node must notice; then it gets the right
//! data back.

use std::time::Duration;

use zrs::journal::inspect;
use zrs::raft::Role;

use super::fault::{Fault, When, victim_that_runs};
use crate::chance::Chance;
use crate::cluster::{Cluster, Death, name, tell};
use crate::folder::Folder;

/// How long a node may take to notice that its log is damaged.
const NOTICING: Duration = Duration::from_secs(10);
/// Bytes before the first entry of a segment.
const HEADER: u64 = 4096;

/// A bit of a stopped node's log is flipped: the node refuses to start. Then the bit is flipped back.
pub const FLIPPED_BIT: Fault = Fault {
    name: "flipped_bit",
    when: When::Running,
    rate: 8,
    lasts: 20..500,
    begin: |cluster, chance| {
        let node = victim_that_runs(cluster, chance)?;
        if cluster.node(node).excuses > 0 {
            // (It might say that its disk fails.)
            return None;
        }
        let log = cluster.node(node).folder().log;
        let (file, bit) = some_bit(cluster, node, chance)?;
        cluster.crash(node, Death::Killed);
        take(cluster, node);
        log.flip(&file, bit);
        tell(node, "flip", &bit.to_be_bytes(), &format!("has a flipped bit: {bit} of {file}"));
        let mut deadline = None;
        Some(Box::new(move |cluster| {
            let Some(deadline) = deadline else {
                cluster.restart(node);
                deadline = Some(cluster.elapsed() + NOTICING);
                return false;
            };
            let why = cluster.node(node).last_words.clone();
            match why {
                Some(why) if why.contains(&file) => {}
                Some(why) => cluster.fail(format!("flipped_bit: node {node} does not name {file}: {why}")),
                None if cluster.elapsed() < deadline => return false,
                None => cluster.fail(format!("flipped_bit: node {node} has not noticed bit {bit} of {file}")),
            }
            end(cluster, node);
            log.flip(&file, bit);
            tell(node, "flip back", &[], "has its bit flipped back");
            give_back(cluster, node);
            cluster.restart(node);
            true
        }))
    },
};

/// A bit of an entry in a segment that is not the last, so that it was synced; `None`: there is none yet.
fn some_bit(cluster: &Cluster, node: u64, chance: &mut Chance) -> Option<(String, u64)> {
    let log = cluster.node(node).folder().copy().log;
    let mut segments: Vec<String> =
        log.names().into_iter().map(|(name, _)| name).filter(|name| name.ends_with(".log")).collect();
    // (One that is about to go, as all its entries were purged, counts no more.)
    let purged = inspect(log.open()).ok()??.purged.map_or(0, |(number, _)| number);
    let ends_later = |name: &String| name.trim_end_matches(".log").parse().is_ok_and(|first: u64| first > purged + 1);
    let begin = segments.iter().skip(1).position(ends_later).unwrap_or(0);
    segments.drain(..begin);
    segments.pop();
    let file = segments.get(chance.below(segments.len().max(1) as u64) as usize)?.clone();
    let open = log.open().open(&file).ok()?;
    let mut bytes = vec![0; open.size().ok()? as usize];
    open.read_at(0, &mut bytes).ok()?;
    let used = bytes.iter().rposition(|byte| *byte != 0)? as u64;
    (used > HEADER).then(|| (file, HEADER * 8 + chance.below((used - HEADER) * 8)))
}

/// How long a copy may get before it is put back, at least and at most, in milliseconds.
const OLD: std::ops::Range<u64> = 500..3_000;
/// How long a node on an old copy may take until it takes part or takes none.
const JUDGING: Duration = Duration::from_secs(4);

/// A node gets an older copy of its folder back, which lacks what it had shown to the others: it is excluded.
/// Then it gets the newest one back, or an empty one, with which it comes back by itself. (If one of the others
/// was cut off, and took the copy for the node, the newest one is excluded as well, until it is adopted; or, if the
/// copy has voted then, until it makes room for an empty one.) Who is cut off, or stands still, excludes nobody.
///
/// What a node had shown is remembered by the others, on their disks only a while later. So the copy goes away at once
/// if one of them ends meanwhile.
pub const OLD_COPY: Fault = Fault {
    name: "old_copy",
    when: When::Moment,
    rate: 20,
    lasts: 0..1,
    begin: |cluster, chance| {
        let node = victim_that_runs(cluster, chance)?;
        if !cluster.nodes().iter().all(|node| cluster.is_up(*node)) {
            return None;
        }
        let copy = cluster.node(node).folder().copy();
        let had = cluster.server(node)?.node().status().log;
        let all = deaths(cluster, cluster.nodes());
        let others = deaths(cluster, cluster.nodes().into_iter().filter(|other| *other != node).collect());
        let due = cluster.elapsed() + chance.millis(OLD);
        let is_wiped = chance.once_in(2);
        let (mut stage, mut is_apart) = (Stage::Waits, false);
        Some(Box::new(move |cluster| {
            is_apart |=
                matches!(stage, Stage::Judged { .. }) && others.iter().any(|(other, _)| lacks(cluster, node, *other));
            let is_alone = is_apart || deaths(cluster, others.iter().map(|(node, _)| *node).collect()) != others;
            match std::mem::replace(&mut stage, Stage::Waits) {
                Stage::Waits if cluster.is_over() || deaths(cluster, cluster.nodes()) != all => true,
                Stage::Waits if cluster.elapsed() < due => false,
                Stage::Waits => {
                    if !cluster.is_up(node) || shown(cluster, node).is_none_or(|shown| shown <= had) {
                        return true;
                    }
                    crate::seen::fault("old_copy", 1);
                    cluster.crash(node, Death::Killed);
                    take(cluster, node);
                    let newest = cluster.put_folder(node, copy.copy(), "gets an old copy of its folder");
                    cluster.restart(node);
                    stage = Stage::Judged { newest, until: cluster.elapsed() + JUDGING };
                    false
                }
                Stage::Judged { newest, until } => {
                    let role = cluster.server(node).map(|server| server.node().role().look().clone());
                    match role {
                        Some(Role::Primary(_) | Role::Secondary { caught_up: true, .. }) if !is_alone => {
                            cluster.fail(format!("old_copy: node {node} takes part: {role:?}"));
                        }
                        Some(Role::Excluded(_)) => tell(node, "excluded", &[], "takes no part"),
                        _ if is_alone || cluster.elapsed() > until => {}
                        _ => {
                            stage = Stage::Judged { newest, until };
                            return false;
                        }
                    }
                    end(cluster, node);
                    if is_wiped && cluster.may_lose(node) {
                        cluster.wipe(node, Death::Killed);
                        give_back(cluster, node);
                        cluster.restart(node);
                        return true;
                    }
                    cluster.put_folder(node, newest, "gets its newest folder back");
                    cluster.restart(node);
                    stage = Stage::Back { until: cluster.elapsed() + JUDGING };
                    false
                }
                Stage::Back { until } => {
                    let role = cluster.server(node).map(|server| server.node().role().look().clone());
                    match role {
                        Some(Role::Excluded(why)) if why.contains(TWO_COPIES) => {
                            adopt(cluster, node);
                            stage = Stage::Back { until: cluster.elapsed() + JUDGING };
                            return false;
                        }
                        Some(Role::Excluded(_)) if cluster.may_lose(node) => {
                            cluster.wipe(node, Death::Killed);
                            give_back(cluster, node);
                            cluster.restart(node);
                            return true;
                        }
                        Some(Role::Primary(_) | Role::Secondary { caught_up: true, .. }) => {}
                        Some(Role::Excluded(_)) => {
                            stage = Stage::Back { until };
                            return false;
                        }
                        _ if cluster.elapsed() > until => {}
                        _ => {
                            stage = Stage::Back { until };
                            return false;
                        }
                    }
                    give_back(cluster, node);
                    true
                }
            }
        }))
    },
};

/// How far a node with an old copy is.
enum Stage {
    /// The copy gets old.
    Waits,
    /// The node runs on the copy; its newest folder is put aside.
    Judged { newest: Folder, until: Duration },
    /// The node runs on its newest folder again.
    Back { until: Duration },
}

/// What a node is told that was met as its copy by one that had heard nothing newer.
const TWO_COPIES: &str = "two copies of it have run";

/// What an operator does who knows that the copy never comes back.
fn adopt(cluster: &mut Cluster, node: u64) {
    end(cluster, node);
    tell(node, "adopt", &[], "has its folder adopted");
    let log = cluster.node(node).folder().log.open();
    if let Err(fault) = zrs::raft::offline::adopt(log) {
        cluster.fail(format!("old_copy: node {node} can't be adopted: {fault}"));
    }
    cluster.restart(node);
}

/// Whether a node can't be met by another one now.
fn lacks(cluster: &Cluster, node: u64, other: u64) -> bool {
    cluster.node(other).host.stands_still() || cluster.is_cut(&name(node), &name(other))
}

/// How often each of these nodes has died.
fn deaths(cluster: &Cluster, nodes: Vec<u64>) -> Vec<(u64, u64)> {
    nodes.into_iter().map(|node| (node, cluster.node(node).deaths)).collect()
}

/// How many entries a node has shown to have on its disk, as the primary knows; `None` if it is primary itself.
fn shown(cluster: &Cluster, node: u64) -> Option<u64> {
    let primary = cluster.server(cluster.primary()?)?;
    let members = primary.node().status().members;
    members.into_iter().find(|member| member.node == node)?.log
}

/// Takes a node out of the reach of other faults, and of most checks.
fn take(cluster: &mut Cluster, node: u64) {
    cluster.node_mut(node).is_taken = true;
    cluster.traps.spare(node, true);
    cluster.excuse(node);
}

/// Ends a node that has not ended by itself.
fn end(cluster: &mut Cluster, node: u64) {
    if cluster.node(node).up {
        cluster.crash(node, Death::Killed);
    }
}

fn give_back(cluster: &mut Cluster, node: u64) {
    cluster.node_mut(node).is_taken = false;
    cluster.traps.spare(node, false);
    cluster.excuse_no_more(node);
}
