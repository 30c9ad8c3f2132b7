//! Nodes that go down without a word, and start again.

use std::time::Duration;

use super::fault::{EndFault, Fault, When, victim};
use crate::cluster::{Cluster, Death};

/// `kill -9` of a node.
pub const KILL: Fault = Fault {
    name: "kill",
    when: When::Running,
    rate: 10,
    lasts: 200..3_000,
    begin: |cluster, chance| {
        let node = victim(cluster, chance);
        crash(cluster, node, Death::Killed)
    },
};

/// A node without power: its disks lose unsynced writes.
pub const POWER_LOSS: Fault = Fault {
    name: "power_loss",
    when: When::Running,
    rate: 10,
    lasts: 200..3_000,
    begin: |cluster, chance| {
        let node = victim(cluster, chance);
        crash(cluster, node, Death::PowerLost)
    },
};

/// All nodes without power at the same moment. They start again one by one.
pub const POWER_LOSS_OF_ALL: Fault = Fault {
    name: "power_loss_of_all",
    when: When::Running,
    rate: 4,
    lasts: 200..2_000,
    begin: |cluster, chance| {
        let nodes = cluster.nodes().into_iter();
        let ends = nodes.map(|node| (crash(cluster, node, Death::PowerLost), chance.millis(0..1_500)));
        let mut down: Vec<(EndFault, Duration)> = ends.filter_map(|(end, pause)| Some((end?, pause))).collect();
        let mut due = None;
        (!down.is_empty()).then_some(Box::new(move |cluster| {
            let now = cluster.elapsed();
            let due = *due.get_or_insert(now);
            down.retain_mut(|(end, pause)| now < due + *pause || !end(cluster));
            down.is_empty()
        }))
    },
};

/// Ends a node at once, until it is started again at the end.
pub fn crash(cluster: &mut Cluster, node: u64, death: Death) -> Option<EndFault> {
    cluster.is_up(node).then(|| -> EndFault {
        cluster.crash(node, death);
        start(node)
    })
}

/// Starts a node that is down at the end.
pub fn start(node: u64) -> EndFault {
    Box::new(move |cluster| {
        cluster.restart(node);
        true
    })
}
