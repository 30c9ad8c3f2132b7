//! Wall clocks that jump. (That they differ, by up to five seconds, and that waits are too long or too short, is no
//! fault but how hosts are: `sim/host.rs`.)

use super::fault::{Fault, victim};

/// A node's wall clock is set ahead or back, and later set right again.
pub const CLOCK_STEP: Fault = Fault {
    name: "clock_step",
    rate: 6,
    lasts: 500..10_000,
    begin: |cluster, chance| {
        let node = victim(cluster, chance);
        let millis = chance.below(20_000) as i64 - 10_000;
        cluster.step_clock(node, millis);
        Some(Box::new(move |cluster| {
            cluster.step_clock(node, -millis);
            true
        }))
    },
};
