//! Networks in trouble: hosts that others don't reach, in one way or in both, links that come and go, connections that
//! are reset. Whatever was held back arrives when a partition heals.

use super::fault::{EndFault, Fault, When, victim_that_runs};
use crate::chance::Chance;
use crate::cluster::{Cluster, EVERY_CLIENT, Ways, client_name, name, tell};

/// A node that the other nodes don't reach, but its clients do.
pub const CUT_FROM_NODES: Fault = Fault {
    name: "cut_from_nodes",
    when: When::Running,
    rate: 12,
    lasts: 200..3_000,
    begin: |cluster, chance| {
        let node = victim_that_runs(cluster, chance)?;
        let others = cluster.other_nodes(node);
        Some(cut(cluster, name(node), others, Ways::Both))
    },
};

/// A node cut off from all other hosts.
pub const CUT_FROM_ALL: Fault = Fault {
    name: "cut_from_all",
    when: When::Running,
    rate: 12,
    lasts: 200..3_000,
    begin: |cluster, chance| {
        let node = victim_that_runs(cluster, chance)?;
        let others = cluster.all_others(node);
        Some(cut(cluster, name(node), others, Ways::Both))
    },
};

/// A node of which nothing arrives at other hosts, or at which nothing arrives.
pub const CUT_ONE_WAY: Fault = Fault {
    name: "cut_one_way",
    when: When::Running,
    rate: 12,
    lasts: 200..3_000,
    begin: |cluster, chance| {
        let node = victim_that_runs(cluster, chance)?;
        let ways = chance.one_of(&[Ways::Out, Ways::In]);
        let from = match chance.below(3) {
            0 => cluster.all_others(node),
            1 => cluster.other_nodes(node),
            _ => vec![one_other(cluster, node, chance)?],
        };
        Some(cut(cluster, name(node), from, ways))
    },
};

/// Two nodes that don't reach each other, while both reach the third.
pub const CUT_LINK: Fault = Fault {
    name: "cut_link",
    when: When::Running,
    rate: 12,
    lasts: 200..4_000,
    begin: |cluster, chance| {
        let node = victim_that_runs(cluster, chance)?;
        let other = one_other(cluster, node, chance)?;
        Some(cut(cluster, name(node), vec![other], Ways::Both))
    },
};

/// A client that reaches one node only.
pub const CUT_CLIENT: Fault = Fault {
    name: "cut_client",
    when: When::Running,
    rate: 12,
    lasts: 200..4_000,
    begin: |cluster, chance| {
        let client = client_name(chance.below(EVERY_CLIENT as u64) as usize);
        let others = cluster.other_nodes(chance.one_of(&cluster.nodes()));
        Some(cut(cluster, client, others, Ways::Both))
    },
};

/// A link between two nodes that comes and goes.
pub const FLAPPING_LINK: Fault = Fault {
    name: "flapping_link",
    when: When::Running,
    rate: 8,
    lasts: 0..1,
    begin: |cluster, chance| {
        let node = victim_that_runs(cluster, chance)?;
        let from = if chance.once_in(3) { cluster.other_nodes(node) } else { vec![one_other(cluster, node, chance)?] };
        let ways = chance.one_of(&[Ways::Both, Ways::Both, Ways::Out, Ways::In]);
        let mut chance = chance.clone();
        let mut left = 3 + chance.below(12);
        let mut open: Option<EndFault> = None;
        let mut next = cluster.elapsed();
        Some(Box::new(move |cluster| {
            if cluster.elapsed() < next && !cluster.is_over() {
                return false;
            }
            match open.take() {
                Some(mut end) => {
                    end(cluster);
                    left -= 1;
                    if left == 0 || cluster.is_over() {
                        return true;
                    }
                }
                None if cluster.is_over() => return true,
                None => open = Some(cut(cluster, name(node), from.clone(), ways)),
            }
            next = cluster.elapsed() + chance.millis(5..400);
            false
        }))
    },
};

/// A connection that is reset.
pub const RESET: Fault = Fault {
    name: "reset",
    when: When::Running,
    rate: 60,
    lasts: 0..1,
    begin: |cluster, chance| {
        let node = victim_that_runs(cluster, chance)?;
        let reset = cluster.fabric.reset_one(&name(node), chance);
        reset.then(|| -> EndFault {
            tell(node, "reset", &[], "has a connection reset");
            Box::new(|_| true)
        })
    },
};

/// A node of which others hear nothing for a while; then their connections are reset, and the network is whole.
pub const STALL_AND_RESET: Fault = Fault {
    name: "stall_and_reset",
    when: When::Running,
    rate: 8,
    lasts: 200..3_000,
    begin: |cluster, chance| {
        let node = victim_that_runs(cluster, chance)?;
        let from = if chance.once_in(2) { cluster.all_others(node) } else { vec![one_other(cluster, node, chance)?] };
        let ways = chance.one_of(&[Ways::Both, Ways::Both, Ways::Out, Ways::In]);
        let mut end = cut(cluster, name(node), from.clone(), ways);
        Some(Box::new(move |cluster| {
            cluster.reset(&name(node), &from);
            end(cluster)
        }))
    },
};

/// The name of another node; `None`: there is none.
fn one_other(cluster: &Cluster, node: u64, chance: &mut Chance) -> Option<String> {
    let others = cluster.other_nodes(node);
    others.get(chance.below(others.len().max(1) as u64) as usize).cloned()
}

/// Cuts a host off, until the end.
pub fn cut(cluster: &mut Cluster, host: String, from: Vec<String>, ways: Ways) -> EndFault {
    cluster.cut(&host, &from, ways);
    Box::new(move |cluster| {
        cluster.heal(&host, &from, ways);
        true
    })
}
