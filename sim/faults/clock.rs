//! Wall clocks that jump, or run at a wrong speed. (That they differ, by up to five seconds, and that waits are too
//! long or too short, is no fault but how hosts are: `sim/host.rs`.)

use super::fault::{EndFault, Fault, When, victim};
use crate::cluster::{Cluster, tell};

/// A node's wall clock is set ahead or back, and later set right again.
pub const CLOCK_STEP: Fault = Fault {
    name: "clock_step",
    when: When::Running,
    rate: 6,
    lasts: 500..10_000,
    begin: |cluster, chance| {
        let node = victim(cluster, chance);
        let millis = chance.below(20_000) as i64 - 10_000;
        step(cluster, node, millis)
    },
};

/// The same by a minute and more: so far ahead that the node may not lead.
pub const CLOCK_FAR_OFF: Fault = Fault {
    name: "clock_far_off",
    when: When::Running,
    rate: 5,
    lasts: 1_500..10_000,
    begin: |cluster, chance| {
        let node = victim(cluster, chance);
        let millis = 40_000 + chance.below(100_000) as i64;
        step(cluster, node, if chance.once_in(4) { -millis } else { millis })
    },
};

/// A node's wall clock runs up to twice as fast, or nearly stands still; then it is set right.
pub const CLOCK_DRIFT: Fault = Fault {
    name: "clock_drift",
    when: When::Running,
    rate: 5,
    lasts: 1_000..8_000,
    begin: |cluster, chance| {
        let node = victim(cluster, chance);
        let fast = chance.below(1_900_000) as i64 - 950_000;
        tell(node, "drift", &fast.to_be_bytes(), &format!("has a clock that is too fast by {} percent", fast / 10_000));
        cluster.node(node).host.run_clock(fast);
        let since = cluster.elapsed();
        Some(Box::new(move |cluster| {
            let gained = (cluster.elapsed() - since).as_millis() as i64 * fast / 1_000_000;
            cluster.node(node).host.run_clock(-fast);
            set(cluster, node, -gained);
            true
        }))
    },
};

/// Sets a node's wall clock by so many milliseconds; its end sets it right.
fn step(cluster: &mut Cluster, node: u64, millis: i64) -> Option<EndFault> {
    set(cluster, node, millis);
    Some(Box::new(move |cluster| {
        set(cluster, node, -millis);
        true
    }))
}

fn set(cluster: &Cluster, node: u64, millis: i64) {
    tell(node, "clock", &millis.to_be_bytes(), &format!("has its clock set by {millis} ms"));
    cluster.node(node).host.step_clock(millis);
}
