//! What a fault is: an item of the menu.

use std::ops::Range;

use crate::chance::Chance;
use crate::cluster::{Cluster, NODES};

/// One thing that goes wrong, and comes right again.
pub struct Fault {
    /// Its name in the summary; its streams of chance are named after it.
    pub name: &'static str,
    /// How often it begins per minute, in a run that has it enabled.
    pub rate: u64,
    /// For how many milliseconds it lasts.
    pub lasts: Range<u64>,
    /// Makes it happen and gives its end; `None` if it has no occasion now: a node that is down can't be killed.
    pub begin: fn(&mut Cluster, &mut Chance) -> Option<End>,
}

/// Ends a fault. It is called when the fault's time is over, and then each millisecond until it says that it is done.
pub type End = Box<dyn FnMut(&mut Cluster) -> bool>;

/// The node that a fault hits: the primary four times in five, as that is where most can go wrong.
pub fn victim(cluster: &Cluster, chance: &mut Chance) -> u64 {
    match cluster.primary() {
        Some(primary) if !chance.once_in(5) => primary,
        _ => chance.one_of(&NODES),
    }
}
