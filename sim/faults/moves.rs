//! Nodes that are at other addresses from one start to the next, all of them, so that nobody leads who could write that
//! down.

use std::time::Duration;

use super::fault::{Fault, When};
use crate::chance::Chance;
use crate::cluster::{Cluster, Death};

/// For how many milliseconds nodes are down while they move.
const DOWN: std::ops::Range<u64> = 0..800;
/// For how many milliseconds they stay where they are then.
const STAY: std::ops::Range<u64> = 1_500..4_000;

/// All nodes are killed and come back elsewhere, one by one; and the same again, back to where the log has them.
pub const MOVE_OF_ALL: Fault = Fault {
    name: "move_of_all",
    when: When::Running,
    rate: 6,
    lasts: 0..1,
    begin: |cluster, chance| {
        let nodes = cluster.nodes();
        let is_free = |node: &u64| cluster.is_up(*node) && !cluster.books.busy.contains(node);
        if !cluster.moved().is_empty() || !nodes.iter().all(is_free) {
            return None;
        }
        // (No operator is busy with one of them meanwhile.)
        cluster.books.busy.extend(&nodes);
        let mut chance = chance.clone();
        let mut coming = leave(cluster, &nodes, true, &mut chance);
        let mut back_at = cluster.elapsed() + chance.millis(STAY);
        let mut is_back = false;
        Some(Box::new(move |cluster| {
            let now = cluster.elapsed();
            if !is_back && (now >= back_at || cluster.is_over()) {
                // (Those that are down still come as well.)
                coming.extend(leave(cluster, &nodes, false, &mut chance));
                (is_back, back_at) = (true, now);
            }
            coming.retain(|(node, due)| {
                let waits = now < *due;
                if !waits {
                    cluster.restart(*node);
                }
                waits
            });
            let is_done = is_back && coming.is_empty();
            if is_done {
                cluster.books.busy.retain(|node| !nodes.contains(node));
            }
            is_done
        }))
    },
};

/// Takes nodes down that start at their other address next, or at their own -> when each starts. (Who is down already
/// does so as well, once what keeps it down is over.)
fn leave(cluster: &mut Cluster, nodes: &[u64], moves: bool, chance: &mut Chance) -> Vec<(u64, Duration)> {
    let mut coming = Vec::new();
    for node in nodes {
        if cluster.is_up(*node) {
            cluster.crash(*node, Death::Killed);
            coming.push((*node, cluster.elapsed() + chance.millis(DOWN)));
        }
        cluster.moves_to(*node, moves);
    }
    coming
}
