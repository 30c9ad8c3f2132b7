//! A fault: an item of the menu.

use std::ops::Range;
use std::time::Duration;

use crate::chance::Chance;
use crate::cluster::Cluster;

/// One thing that goes wrong, and comes right again.
pub struct Fault {
    /// The fault's name in the summary; its streams of chance have the same name.
    pub name: &'static str,
    pub when: When,
    /// How often the fault begins per minute, in a run that has it enabled.
    pub rate: u64,
    /// For how many milliseconds the fault lasts.
    pub lasts: Range<u64>,
    /// Begins the fault and gives its end; `None` if the fault is impossible now: a node that is down can't be killed.
    pub begin: fn(&mut Cluster, &mut Chance) -> Option<EndFault>,
}

/// When a fault begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// At any time after the cluster has formed.
    Running,
    /// The same; but first the fault waits for a moment, and says by itself when it has come.
    Moment,
    /// Once, while the cluster forms.
    Forming,
}

/// Ends a fault. Called when the fault's time is over, and then each millisecond until the end says that it is done.
pub type EndFault = Box<dyn FnMut(&mut Cluster) -> bool>;

/// The node that a fault hits: the primary four times in five, as that is where most can go wrong.
pub fn victim(cluster: &Cluster, chance: &mut Chance) -> u64 {
    match cluster.primary() {
        Some(primary) if !chance.once_in(5) => primary,
        _ => chance.one_of(&cluster.nodes()),
    }
}

/// The same, for faults of nodes that run: `None` if it does not.
pub fn victim_that_runs(cluster: &Cluster, chance: &mut Chance) -> Option<u64> {
    let node = victim(cluster, chance);
    cluster.is_up(node).then_some(node)
}

/// Waits until `choose` names a node, for `patience` at most, and has `hit` hit it up to `within` milliseconds later:
/// that says how long it lasts, and gives the end; `None`: the node can't be hit any more.
pub fn aim(
    cluster: &Cluster,
    chance: &Chance,
    patience: Duration,
    within: u64,
    choose: impl Fn(&Cluster, &mut Chance) -> Option<u64> + 'static,
    hit: impl Fn(&mut Cluster, u64, &mut Chance) -> Option<(Duration, EndFault)> + 'static,
) -> Option<EndFault> {
    let deadline = cluster.elapsed() + patience;
    let mut chance = chance.clone();
    let mut aim: Option<(Duration, u64)> = None;
    let mut rest: Option<(Duration, EndFault)> = None;
    Some(Box::new(move |cluster| {
        let now = cluster.elapsed();
        if let Some((due, end)) = &mut rest {
            return (now >= *due || cluster.is_over()) && end(cluster);
        }
        if cluster.is_over() {
            return true;
        }
        let Some((at, node)) = aim else {
            aim = choose(cluster, &mut chance).map(|node| (now + chance.millis(0..within), node));
            return aim.is_none() && now > deadline;
        };
        if now < at {
            return false;
        }
        rest = hit(cluster, node, &mut chance).map(|(lasts, end)| (now + lasts, end));
        rest.is_none()
    }))
}
