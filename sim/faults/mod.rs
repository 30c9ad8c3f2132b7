//! The faults of the simulation, and when they begin.
//!
//! Each seed enables some of the faults of the [`MENU`], about half of them: what one fault hides (a cluster that is
//! down most of the time meets no conflicts), a run without it shows. An enabled fault begins again and again, at its
//! rate, whatever else goes wrong at that time; so faults meet.
//!
//! Each fault draws from streams of chance of its own: one for whether it is enabled and when it begins, and one for
//! each time that it begins (which node it hits, for how long). So a new fault changes nothing in the seeds that don't
//! enable it, and nothing of when the others begin in those that do.
//!
//! One run in eight has only those that operators begin on purpose, or not even those.
//!
//! ```text
//!  seconds        0        2        4        6        8       10       12       14
//!  kill                      n1├──┤               n3├─┤                  n1├───┤
//!  cut_from_all                 n2├─────┤                   n3├──┤
//!  clock_step       (not enabled by this seed)
//!                 ├──────┤ calm: the cluster forms                               ├ all ends; then it has to heal
//! ```
//!
//! **Left out**: faults while the cluster forms.

mod clock;
mod death;
mod fault;
mod network;
mod operator;

use std::time::Duration;

use crate::chance::Chance;
use crate::checks::few_unknown::PLANNED;
use crate::checks::locks_let_go::HARMLESS;
use crate::cluster::Cluster;
use crate::seen;
use fault::{EndFault, Fault};

/// All faults.
static MENU: [Fault; 7] = [
    death::KILL,
    death::POWER_LOSS,
    death::POWER_LOSS_OF_ALL,
    network::CUT_FROM_NODES,
    network::CUT_FROM_ALL,
    clock::CLOCK_STEP,
    operator::STOP,
];

/// In one run of so many nothing fails, but for what operators do on purpose: that must cost clients nothing. In every
/// other one of these, not even that happens: what a client waits for then, another client has caused.
const QUIET: u64 = 8;
/// How long nothing goes wrong at first.
const CALM: Duration = Duration::from_millis(1_500);

/// The names of all faults.
pub fn names() -> Vec<&'static str> {
    MENU.iter().map(|fault| fault.name).collect()
}

/// The faults of a run: those to come, and those that last.
pub struct Faults {
    seed: u64,
    enabled: Vec<Upcoming>,
    lasting: Vec<Lasting>,
}

/// A fault that begins again and again.
struct Upcoming {
    fault: &'static Fault,
    /// Draws the pauses.
    chance: Chance,
    next: Duration,
    /// How many times its pause was over.
    times: u64,
}

/// A fault that has begun and not ended.
struct Lasting {
    due: Duration,
    end: EndFault,
}

impl Upcoming {
    /// `None` if the seed does not enable the fault.
    fn of(seed: u64, fault: &'static Fault) -> Option<Upcoming> {
        let mut chance = Chance::of(seed, &format!("fault {}", fault.name));
        if chance.once_in(2) {
            return None;
        }
        seen::fault(fault.name, 0);
        let mut upcoming = Upcoming { fault, chance, next: CALM, times: 0 };
        upcoming.pause();
        Some(upcoming)
    }

    /// Moves on to the next time.
    fn pause(&mut self) {
        self.next += self.chance.millis(0..2 * 60_000 / self.fault.rate);
    }
}

impl Faults {
    pub fn new(seed: u64) -> Faults {
        let may_begin = |fault: &&Fault| match seed % (2 * QUIET) {
            0 => HARMLESS.contains(&fault.name),
            QUIET => PLANNED.contains(&fault.name),
            _ => true,
        };
        let enabled = MENU.iter().filter(may_begin).filter_map(|fault| Upcoming::of(seed, fault)).collect();
        Faults { seed, enabled, lasting: Vec::new() }
    }

    /// Ends and begins the faults that are due.
    pub fn step(&mut self, cluster: &mut Cluster) {
        let now = cluster.elapsed();
        self.end_those_due(now, cluster);
        for upcoming in &mut self.enabled {
            if now < upcoming.next {
                continue;
            }
            let Upcoming { fault, times, .. } = upcoming;
            let mut chance = Chance::of(self.seed, &format!("fault {} number {times}", fault.name));
            let due = now + chance.millis(fault.lasts.clone());
            if let Some(end) = (fault.begin)(cluster, &mut chance) {
                seen::fault(fault.name, 1);
                self.lasting.push(Lasting { due, end });
            }
            upcoming.times += 1;
            upcoming.pause();
        }
    }

    /// Ends everything. It is to be called again, a millisecond later, until nothing lasts any more, which it returns.
    pub fn end(&mut self, cluster: &mut Cluster) -> bool {
        self.end_those_due(Duration::MAX, cluster);
        self.lasting.is_empty()
    }

    fn end_those_due(&mut self, now: Duration, cluster: &mut Cluster) {
        self.lasting.retain_mut(|lasting| lasting.due > now || !(lasting.end)(cluster));
    }
}
