//! A fault: an item of the menu.

use std::ops::Range;

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
