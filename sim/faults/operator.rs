//! Operators' actions while clients work: a node is stopped and started again, or hands the primary's role over.

use std::time::Duration;

use super::fault::{EndFault, Fault, When, victim_that_runs};

/// How long a stopping node may take; then it is killed.
const STOPPING: Duration = Duration::from_secs(15);

/// A node gets SIGTERM, hands over, ends by itself, and is started again. (Operators do this while enough others run:
/// more at a time are for other faults.)
pub const STOP: Fault = Fault {
    name: "stop",
    when: When::Running,
    rate: 6,
    lasts: 200..3_000,
    begin: |cluster, chance| {
        let node = victim_that_runs(cluster, chance)?;
        let nodes = cluster.nodes();
        let others = nodes.iter().filter(|other| **other != node && cluster.is_up(**other)).count();
        if nodes.len() > 1 && others <= nodes.len() / 2 {
            return None;
        }
        cluster.stop(node);
        let deadline = cluster.elapsed() + STOPPING;
        Some(Box::new(move |cluster| {
            // (Another fault may have ended it meanwhile, and started it again.)
            let done = cluster.node(node).up || cluster.has_stopped(node) || cluster.elapsed() > deadline;
            if done {
                cluster.restart(node);
            }
            done
        }))
    },
};

/// The primary is told to hand its role over, while everything goes on.
pub const HAND_OVER: Fault = Fault {
    name: "hand_over",
    when: When::Running,
    rate: 8,
    lasts: 0..1,
    begin: |cluster, _| {
        let node = cluster.primary()?;
        cluster.is_up(node).then(|| -> EndFault {
            cluster.hand_over(node);
            Box::new(|_| true)
        })
    },
};
