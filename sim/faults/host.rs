//! Hosts that stand still: no timer and no message is handled, while the clocks go on; and then all at once.

use super::fault::{EndFault, Fault, When, victim_that_runs};
use crate::cluster::{Cluster, tell};

/// A node whose process is stopped for a while, as by SIGSTOP, or by a machine that has no processor for it.
pub const PAUSE: Fault = Fault {
    name: "pause",
    when: When::Running,
    rate: 10,
    lasts: 50..4_000,
    begin: |cluster, chance| {
        let node = victim_that_runs(cluster, chance)?;
        pause(cluster, node)
    },
};

/// A node whose machine is suspended for a while, and says so.
pub const SUSPEND: Fault = Fault {
    name: "suspend",
    when: When::Running,
    rate: 8,
    lasts: 50..4_000,
    begin: |cluster, chance| {
        let node = victim_that_runs(cluster, chance)?;
        let since = cluster.elapsed();
        stand_still(cluster, node, "is suspended", move |cluster| (cluster.elapsed() - since).as_millis() as u64)
    },
};

/// Stops a node's process, until the end.
pub fn pause(cluster: &mut Cluster, node: u64) -> Option<EndFault> {
    stand_still(cluster, node, "stands still", |_| 0)
}

fn stand_still(
    cluster: &mut Cluster,
    node: u64,
    text: &str,
    suspended: impl Fn(&Cluster) -> u64 + 'static,
) -> Option<EndFault> {
    if cluster.node(node).host.stands_still() {
        return None;
    }
    tell(node, "still", &[], text);
    cluster.node(node).host.stand_still();
    Some(go_on(cluster, node, suspended))
}

/// Lets a node that stands still go on at the end, if it is still alive.
pub fn go_on(cluster: &Cluster, node: u64, suspended: impl Fn(&Cluster) -> u64 + 'static) -> EndFault {
    let life = cluster.node(node).deaths;
    Box::new(move |cluster| {
        if cluster.node(node).deaths == life {
            tell(node, "go on", &[], "goes on");
            cluster.node(node).host.go_on(suspended(cluster));
        }
        true
    })
}
