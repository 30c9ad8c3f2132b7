//! Partitions: nodes that other hosts don't reach. Whatever is sent meanwhile arrives when the partition heals.

use super::fault::{EndFault, Fault, victim};
use crate::cluster::{Cluster, all_others, other_nodes};

/// A node that the other nodes don't reach, but its clients do.
pub const CUT_FROM_NODES: Fault = Fault {
    name: "cut_from_nodes",
    rate: 12,
    lasts: 200..3_000,
    begin: |cluster, chance| {
        let node = victim(cluster, chance);
        cut(cluster, node, other_nodes(node))
    },
};

/// A node cut off from all other hosts.
pub const CUT_FROM_ALL: Fault = Fault {
    name: "cut_from_all",
    rate: 12,
    lasts: 200..3_000,
    begin: |cluster, chance| {
        let node = victim(cluster, chance);
        cut(cluster, node, all_others(node))
    },
};

fn cut(cluster: &mut Cluster, node: u64, from: Vec<String>) -> Option<EndFault> {
    cluster.is_up(node).then(|| -> EndFault {
        cluster.cut(node, &from);
        Box::new(move |cluster| {
            cluster.heal(node, &from);
            true
        })
    })
}
