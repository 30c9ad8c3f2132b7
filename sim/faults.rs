//! What goes wrong, and when: drawn by the seed, one thing after another, sometimes two at a time.
//!
//! | fault | ends with |
//! |---|---|
//! | the primary (or another node, or all) is killed, or loses its power | its restart |
//! | the primary (or another) is cut off from the other nodes, or from the clients too | the cut heals |
//! | a node is stopped as an operator would (SIGTERM) | its restart |
//! | a node's wall clock is set ahead or back | nothing: it stays so |

use std::time::Duration;

use turmoil::Sim;

use crate::chance::Chance;
use crate::cluster::{Cluster, Death, NODES, all_others, name, other_nodes};
use crate::trace;

/// How long a stopping node may take.
const STOPPING: Duration = Duration::from_secs(15);

pub struct Faults {
    chance: Chance,
    /// When the next thing goes wrong.
    next: Duration,
    ending: Vec<(Duration, Ending)>,
    /// What happened, for people.
    pub story: Vec<String>,
}

#[derive(Clone, Debug)]
enum Ending {
    Restart(u64),
    Heal(u64, Vec<String>),
}

impl Faults {
    pub fn new(seed: u64) -> Faults {
        let mut chance = Chance::of(seed, "faults");
        let next = chance.millis(1_500..3_500);
        Faults { chance, next, ending: Vec::new(), story: Vec::new() }
    }

    /// Does what is due.
    pub fn step(&mut self, sim: &mut Sim<'_>, cluster: &mut Cluster) {
        self.end_those_before(sim.elapsed(), sim, cluster);
        if sim.elapsed() >= self.next {
            self.begin(sim, cluster);
            let pause = if self.chance.once_in(4) { 50..500 } else { 1_500..4_000 };
            self.next = sim.elapsed() + self.chance.millis(pause);
        }
    }

    /// Ends everything. Call it until it says that nothing is left.
    pub fn end(&mut self, sim: &mut Sim<'_>, cluster: &mut Cluster) -> bool {
        self.end_those_before(Duration::MAX, sim, cluster);
        self.ending.is_empty()
    }

    fn end_those_before(&mut self, until: Duration, sim: &mut Sim<'_>, cluster: &mut Cluster) {
        let now = sim.elapsed();
        for (at, ending) in std::mem::take(&mut self.ending) {
            let due = at <= until;
            match &ending {
                // A node that is still stopping is given its time.
                Ending::Restart(node) if due && (cluster.has_stopped(*node) || now > at + STOPPING) => {
                    self.tell(sim, format!("{} restarts", name(*node)));
                    cluster.restart(sim, *node);
                }
                Ending::Heal(node, from) if due => {
                    self.tell(sim, format!("{} is whole again", name(*node)));
                    trace::event(&name(*node), "heal", from.join(" ").as_bytes());
                    from.iter().for_each(|other| sim.release(name(*node), other.as_str()));
                }
                _ => self.ending.push((at, ending)),
            }
        }
    }

    fn begin(&mut self, sim: &mut Sim<'_>, cluster: &mut Cluster) {
        let node = match cluster.primary() {
            Some(primary) if !self.chance.once_in(5) => primary,
            _ => self.chance.one_of(&NODES),
        };
        let until = |chance: &mut Chance| sim.elapsed() + chance.millis(200..3_000);
        match self.chance.below(20) {
            0 => {
                self.tell(sim, "all nodes lose their power".to_owned());
                for node in NODES {
                    self.kill(sim, cluster, node, Death::Power);
                }
            }
            1..=7 => {
                let death = if self.chance.once_in(2) { Death::Power } else { Death::Killed };
                self.tell(sim, format!("{} dies: {death:?}", name(node)));
                self.kill(sim, cluster, node, death);
            }
            8..=9 if cluster.is_up(node) => {
                self.tell(sim, format!("{} is stopped", name(node)));
                cluster.stop(node);
                let at = until(&mut self.chance);
                self.ending.push((at, Ending::Restart(node)));
            }
            10..=11 => {
                let millis = self.chance.below(20_000) as i64 - 10_000;
                self.tell(sim, format!("the clock of {} is set by {millis} ms", name(node)));
                cluster.step_clock(node, millis);
            }
            _ if cluster.is_up(node) && !self.is_cut(node) => {
                let from = if self.chance.once_in(2) { all_others(node) } else { other_nodes(node) };
                self.tell(sim, format!("{} is cut off from {}", name(node), from.join(" ")));
                trace::event(&name(node), "cut", from.join(" ").as_bytes());
                from.iter().for_each(|other| sim.hold(name(node), other.as_str()));
                let at = until(&mut self.chance);
                self.ending.push((at, Ending::Heal(node, from)));
            }
            _ => {}
        }
    }

    fn kill(&mut self, sim: &mut Sim<'_>, cluster: &mut Cluster, node: u64, death: Death) {
        if cluster.is_up(node) {
            cluster.crash(sim, node, death);
            let at = sim.elapsed() + self.chance.millis(200..3_000);
            self.ending.push((at, Ending::Restart(node)));
        }
    }

    fn is_cut(&self, node: u64) -> bool {
        self.ending.iter().any(|(_, ending)| matches!(ending, Ending::Heal(cut, _) if *cut == node))
    }

    fn tell(&mut self, sim: &Sim<'_>, what: String) {
        self.story.push(format!("{:>7.3} {what}", sim.elapsed().as_secs_f64()));
    }
}
