//! The record of a run for people: which faults began and how often, how much each workload did, how much each check
//! had to look at, and the run's story.
//!
//! A fault that never begins, a workload that never gets anything done and a check that never has anything to look at
//! test nothing, and would go unnoticed.
//! [`Totals`] adds up the records of all seeds and knows what was never seen.
//!
//! Like the trace, the record of the run is its thread's own. It is not part of what `repeat` compares.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::trace;

/// The record of one run.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Seen {
    /// By each fault that the seed enabled: how often it began.
    pub faults: BTreeMap<String, u64>,
    /// By workload: how much it did, in its own unit.
    pub workloads: BTreeMap<String, u64>,
    /// By check and kind: how much the check has looked at.
    pub checks: BTreeMap<String, u64>,
    /// The story: the events that hit the nodes, each line with its time.
    pub story: Vec<String>,
}

thread_local! {
    static SEEN: RefCell<Seen> = RefCell::default();
}

/// Forgets the last run.
pub fn begin() {
    SEEN.take();
}

/// The record so far; it begins anew.
pub fn take() -> Seen {
    SEEN.take()
}

/// The fault `name` has begun `times` times more; 0 says that it is enabled.
pub fn fault(name: &str, times: u64) {
    SEEN.with_borrow_mut(|seen| add(&mut seen.faults, name, times));
}

/// The workload `name` has done `amount` more.
pub fn workload(name: &str, amount: u64) {
    SEEN.with_borrow_mut(|seen| add(&mut seen.workloads, name, amount));
}

/// A check has looked at `amount` more of the kind `name`.
pub fn check(name: &str, amount: u64) {
    SEEN.with_borrow_mut(|seen| add(&mut seen.checks, name, amount));
}

/// How often each fault has begun.
pub fn faults() -> BTreeMap<String, u64> {
    SEEN.with_borrow(|seen| seen.faults.clone())
}

/// Adds a line to the story.
pub fn tell(text: &str) {
    let at = trace::now().as_secs_f64();
    SEEN.with_borrow_mut(|seen| seen.story.push(format!("{at:>7.3} {text}")));
}

fn add(counts: &mut BTreeMap<String, u64>, name: &str, amount: u64) {
    *counts.entry(name.to_owned()).or_default() += amount;
}

impl Seen {
    /// The counts in three lines.
    pub fn lines(&self) -> [String; 3] {
        let line = |kind, counts| format!("{kind}: {}", list(counts));
        [line("faults", &self.faults), line("workloads", &self.workloads), line("checks", &self.checks)]
    }
}

fn list(counts: &BTreeMap<String, u64>) -> String {
    let each: Vec<String> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
    if each.is_empty() { "none".to_owned() } else { each.join(", ") }
}

/// The records of many runs together.
pub struct Totals {
    faults: Menu,
    workloads: Menu,
    checks: Menu,
}

/// By name, in the order of the menu: in how many runs, and how often (or how much) in all.
type Menu = Vec<(&'static str, u64, u64)>;

impl Totals {
    /// Totals of nothing yet, for the faults, workloads and checks of these names.
    pub fn new(faults: Vec<&'static str>, workloads: Vec<&'static str>, checks: Vec<&'static str>) -> Totals {
        let menu = |names: Vec<&'static str>| names.into_iter().map(|name| (name, 0, 0)).collect();
        Totals { faults: menu(faults), workloads: menu(workloads), checks: menu(checks) }
    }

    /// Adds the record of a run.
    pub fn add(&mut self, seen: &Seen) {
        let Totals { faults, workloads, checks } = self;
        for (menu, counts) in [(faults, &seen.faults), (workloads, &seen.workloads), (checks, &seen.checks)] {
            for (name, runs, times) in menu {
                let count = counts.get(*name).copied().unwrap_or(0);
                *runs += u64::from(count > 0);
                *times += count;
            }
        }
    }

    /// A table for people.
    pub fn table(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (kind, menu) in [("fault", &self.faults), ("workload", &self.workloads), ("check", &self.checks)] {
            lines.push(format!("{kind:<40} {:>8} {:>10}", "runs", "in all"));
            lines.extend(menu.iter().map(|(name, runs, times)| format!("  {name:<38} {runs:>8} {times:>10}")));
        }
        lines
    }

    /// The faults, workloads and checks that no run has seen.
    pub fn never(&self) -> Vec<String> {
        let of = |kind, menu: &Menu| {
            let never = menu.iter().filter(|(_, runs, _)| *runs == 0);
            never.map(|(name, _, _)| format!("the {kind} {name}")).collect::<Vec<_>>()
        };
        [of("fault", &self.faults), of("workload", &self.workloads), of("check", &self.checks)].concat()
    }
}
