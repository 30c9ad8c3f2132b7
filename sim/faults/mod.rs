//! The faults of the simulation, and when they begin.
//!
//! Each seed enables some of the faults of the [`MENU`]: about half of them, a quarter or an eighth. What one fault
//! hides (a cluster that is down most of the time meets no conflicts), a run without it shows. An enabled fault begins
//! again and again, at its rate, whatever else goes wrong at that time; so faults meet.
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
//!                 ├──────┤ the cluster forms                                     ├ all ends; then it has to heal
//! ```
//!
//! While the cluster forms, only those faults begin that are meant for that, each once.

mod aimed;
mod clock;
mod death;
mod disk;
mod fault;
mod folder;
mod forming;
mod host;
mod members;
mod moves;
mod network;
mod operator;
mod wipe;

use std::time::Duration;

use crate::chance::Chance;
use crate::checks::few_unknown::PLANNED;
use crate::checks::locks_let_go::HARMLESS;
use crate::cluster::{Cluster, HOSTS, NODES};
use crate::excerpt::{Excerpt, called};
use crate::seen;
use fault::{EndFault, Fault, When};

/// All faults.
static MENU: [Fault; 45] = [
    death::KILL,
    death::POWER_LOSS,
    death::POWER_LOSS_OF_ALL,
    network::CUT_FROM_NODES,
    network::CUT_FROM_ALL,
    network::CUT_ONE_WAY,
    network::CUT_LINK,
    network::CUT_CLIENT,
    network::FLAPPING_LINK,
    network::RESET,
    network::STALL_AND_RESET,
    host::PAUSE,
    host::SUSPEND,
    clock::CLOCK_STEP,
    clock::CLOCK_FAR_OFF,
    clock::CLOCK_DRIFT,
    disk::DISK_FAILS,
    disk::DISK_FULL,
    disk::DISK_FILLED,
    disk::SLOW_DISK,
    disk::STALLED_DISK,
    folder::FLIPPED_BIT,
    folder::OLD_COPY,
    wipe::WIPE,
    wipe::WIPE_AND_KILL,
    wipe::AT_RETURN,
    wipe::AT_PACK,
    members::MEMBERS,
    members::DARE,
    moves::MOVE_OF_ALL,
    operator::STOP,
    operator::HAND_OVER,
    aimed::AT_SLOTS,
    aimed::AT_ENTRIES,
    aimed::AT_TRUNCATION,
    aimed::AT_SEGMENT,
    aimed::AT_APPLY,
    aimed::AT_FLUSH,
    aimed::AFTER_RESTART,
    aimed::AT_HAND_OVER,
    aimed::AT_ELECTION,
    aimed::AT_REIGN,
    forming::FORMING_DEATH,
    forming::FORMING_CUT,
    forming::FORMING_PAUSE,
];

/// In one run of so many nothing fails, but for what operators do on purpose: that must cost clients nothing. In every
/// other one of these, not even that happens: what a client waits for then, another client has caused.
const QUIET: u64 = 8;
/// How much more often they do it then.
const OFTEN: u64 = 4;
/// How long only those faults begin that are meant for it: the cluster forms.
const CALM: Duration = Duration::from_millis(1_500);
/// Of how many faults a seed enables one.
const ENABLED: [u64; 3] = [2, 4, 8];

/// The names of all faults.
pub fn names() -> Vec<&'static str> {
    MENU.iter().map(|fault| fault.name).collect()
}

/// The faults of a run: those to come, and those that last.
pub struct Faults {
    seed: u64,
    /// What of that may happen.
    excerpt: Excerpt,
    /// What has begun, by name and number.
    begun: Vec<String>,
    enabled: Vec<Upcoming>,
    lasting: Vec<Lasting>,
}

/// The fault's stream of chance, if the seed enables it.
fn enabled(seed: u64, fault: &Fault) -> Option<Chance> {
    let may_begin = match seed % (2 * QUIET) {
        0 => HARMLESS.contains(&fault.name),
        QUIET => PLANNED.contains(&fault.name),
        _ => true,
    };
    let one_in = if seed.is_multiple_of(QUIET) { 1 } else { Chance::of(seed, "faults").one_of(&ENABLED) };
    let mut chance = Chance::of(seed, &format!("fault {}", fault.name));
    (may_begin && chance.once_in(one_in)).then_some(chance)
}

/// The hosts of a run: more than form the cluster, if others may join it.
pub fn hosts(seed: u64) -> &'static [u64] {
    if enabled(seed, &members::MEMBERS).is_some() { &HOSTS } else { &NODES }
}

/// A fault that begins again and again.
struct Upcoming {
    fault: &'static Fault,
    /// Draws the pauses.
    chance: Chance,
    next: Duration,
    /// How many times its pause was over.
    times: u64,
    /// How many times a minute it begins.
    rate: u64,
}

/// A fault that has begun and not ended.
struct Lasting {
    due: Duration,
    end: EndFault,
}

impl Upcoming {
    /// `None` if the seed does not enable the fault.
    fn of(seed: u64, fault: &'static Fault) -> Option<Upcoming> {
        let chance = enabled(seed, fault)?;
        seen::fault(fault.name, 0);
        let next = if fault.when == When::Forming { Duration::ZERO } else { CALM };
        let rate = fault.rate * if seed.is_multiple_of(QUIET) { OFTEN } else { 1 };
        let mut upcoming = Upcoming { fault, chance, next, times: 0, rate };
        upcoming.pause();
        Some(upcoming)
    }

    /// Moves on to the next time.
    fn pause(&mut self) {
        self.next += match self.fault.when {
            When::Forming if self.times > 0 => Duration::MAX / 2,
            When::Forming => self.chance.millis(0..CALM.as_millis() as u64),
            When::Running | When::Moment => self.chance.millis(0..2 * 60_000 / self.rate),
        };
    }
}

impl Faults {
    pub fn new(seed: u64, excerpt: Excerpt) -> Faults {
        let enabled = MENU.iter().filter_map(|fault| Upcoming::of(seed, fault)).collect();
        Faults { seed, excerpt, begun: Vec::new(), enabled, lasting: Vec::new() }
    }

    /// The faults that have begun, by name and number.
    pub fn begun(&self) -> &[String] {
        &self.begun
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
            let may_begin = self.excerpt.has(fault.name, *times);
            if let Some(end) = may_begin.then(|| (fault.begin)(cluster, &mut chance)).flatten() {
                self.begun.push(called(fault.name, *times));
                if fault.when != When::Moment {
                    seen::fault(fault.name, 1);
                }
                self.lasting.push(Lasting { due, end });
            }
            upcoming.times += 1;
            upcoming.pause();
        }
    }

    /// Ends everything. It is to be called again, a millisecond later, until nothing lasts any more, which it returns.
    pub fn end(&mut self, cluster: &mut Cluster) -> bool {
        cluster.end_faults();
        self.end_those_due(Duration::MAX, cluster);
        self.lasting.is_empty()
    }

    fn end_those_due(&mut self, now: Duration, cluster: &mut Cluster) {
        self.lasting.retain_mut(|lasting| lasting.due > now || !(lasting.end)(cluster));
    }
}
