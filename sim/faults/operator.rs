//! Operators' actions while clients work: a node is stopped and started again.

use std::time::Duration;

use super::fault::{Fault, victim};

/// How long a stopping node may take; then it is killed.
const STOPPING: Duration = Duration::from_secs(15);

/// A node gets SIGTERM, hands over, ends by itself, and is started again.
pub const STOP: Fault = Fault {
    name: "stop",
    rate: 6,
    lasts: 200..3_000,
    begin: |cluster, chance| {
        let node = victim(cluster, chance);
        if !cluster.is_up(node) {
            return None;
        }
        cluster.stop(node);
        let deadline = cluster.elapsed() + STOPPING;
        Some(Box::new(move |cluster| {
            let done = cluster.has_stopped(node) || cluster.elapsed() > deadline;
            if done {
                cluster.restart(node);
            }
            done
        }))
    },
};
