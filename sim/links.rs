//! The links between hosts: every cut and every lost power on a link, counted, and the state that follows.
//!
//! Faults overlap: a link may lie in two cuts, and one of its hosts may lose its power meanwhile. A link's state
//! follows from all of these, so that the end of one fault does not end another:
//!
//! | on the link | state | a message |
//! |---|---|---|
//! | a host without power | gone | is dropped, as are those under way |
//! | at least one cut | held | waits, as do those under way, and arrives when the last cut has healed |
//! | neither | whole | arrives after a drawn delay |

use std::collections::{BTreeMap, BTreeSet};

use turmoil::Sim;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Whole,
    Held,
    Gone,
}

/// Two hosts, by name, in order.
type Pair = (String, String);

/// The links between all hosts.
#[derive(Default)]
pub struct Links {
    /// How many cuts lie on a link.
    cuts: BTreeMap<Pair, u32>,
    /// The hosts without power.
    dark: BTreeSet<String>,
    /// The states that turmoil was told; a link that is missing here is whole.
    told: BTreeMap<Pair, State>,
}

fn pair(one: &str, other: &str) -> Pair {
    let (first, second) = if one < other { (one, other) } else { (other, one) };
    (first.to_owned(), second.to_owned())
}

impl Links {
    /// Lays one more cut on the link between two hosts.
    pub fn cut(&mut self, sim: &Sim<'_>, one: &str, other: &str) {
        *self.cuts.entry(pair(one, other)).or_default() += 1;
        self.update(sim, one, other);
    }

    /// Takes one cut off the link between two hosts.
    pub fn heal(&mut self, sim: &Sim<'_>, one: &str, other: &str) {
        let cuts = self.cuts.get_mut(&pair(one, other)).expect("only what was cut is healed");
        *cuts = cuts.checked_sub(1).expect("each cut is healed once");
        self.update(sim, one, other);
    }

    /// Takes the power from `host`, or gives it back; `others` are all that it has links to.
    pub fn power(&mut self, sim: &Sim<'_>, host: &str, on: bool, others: &[String]) {
        if on {
            self.dark.remove(host);
        } else {
            self.dark.insert(host.to_owned());
        }
        others.iter().for_each(|other| self.update(sim, host, other));
    }

    fn update(&mut self, sim: &Sim<'_>, one: &str, other: &str) {
        let pair = pair(one, other);
        let state = if self.dark.contains(one) || self.dark.contains(other) {
            State::Gone
        } else if self.cuts.get(&pair).is_some_and(|cuts| *cuts > 0) {
            State::Held
        } else {
            State::Whole
        };
        if self.told.insert(pair, state).unwrap_or_default() != state {
            match state {
                State::Whole => sim.release(one, other),
                State::Held => sim.hold(one, other),
                State::Gone => sim.partition(one, other),
            }
        }
    }
}
