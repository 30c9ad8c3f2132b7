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
//!
//! A cut may lie on one way of a link only. Turmoil knows no such thing: it holds the link, and what goes the other way
//! is delivered from here ([`Links::deliver`]).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use turmoil::Sim;

use crate::chance::Chance;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Whole,
    Held,
    Gone,
}

/// Two hosts, by name: in order, or from the one to the other.
type Pair = (String, String);

/// The links between all hosts.
pub struct Links {
    /// How many cuts lie on the way from one host to another.
    cuts: BTreeMap<Pair, u32>,
    /// The hosts without power.
    dark: BTreeSet<String>,
    /// The states that turmoil was told; a link that is missing here is whole.
    told: BTreeMap<Pair, State>,
    /// The ways that are open on links that are held for the other way.
    open: BTreeSet<(IpAddr, IpAddr)>,
    chance: Chance,
}

fn pair(one: &str, other: &str) -> Pair {
    let (first, second) = if one < other { (one, other) } else { (other, one) };
    (first.to_owned(), second.to_owned())
}

impl Links {
    pub fn new(seed: u64) -> Links {
        Links {
            cuts: BTreeMap::new(),
            dark: BTreeSet::new(),
            told: BTreeMap::new(),
            open: BTreeSet::new(),
            chance: Chance::of(seed, "links"),
        }
    }

    /// Lays one more cut on the way from one host to another.
    pub fn cut(&mut self, sim: &Sim<'_>, from: &str, to: &str) {
        *self.cuts.entry((from.to_owned(), to.to_owned())).or_default() += 1;
        self.update(sim, from, to);
    }

    /// Takes one cut off the way from one host to another.
    pub fn heal(&mut self, sim: &Sim<'_>, from: &str, to: &str) {
        let cuts = self.cuts.get_mut(&(from.to_owned(), to.to_owned())).expect("only what was cut is healed");
        *cuts = cuts.checked_sub(1).expect("each cut is healed once");
        self.update(sim, from, to);
    }

    /// Whether a cut lies on the way from one host to another.
    pub fn is_cut(&self, from: &str, to: &str) -> bool {
        self.cuts.get(&(from.to_owned(), to.to_owned())).is_some_and(|cuts| *cuts > 0)
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

    /// Delivers messages that go the open way of a link that is held for the other way; each waits a little, by chance.
    pub fn deliver(&mut self, sim: &Sim<'_>) {
        let Links { open, chance, .. } = self;
        if open.is_empty() {
            return;
        }
        sim.links(|links| {
            for sent in links.flatten() {
                let (from, to) = sent.pair();
                if open.contains(&(from.ip(), to.ip())) && chance.once_in(2) {
                    sent.deliver();
                }
            }
        });
    }

    fn update(&mut self, sim: &Sim<'_>, one: &str, other: &str) {
        let (there, back) = (self.is_cut(one, other), self.is_cut(other, one));
        let state = if self.dark.contains(one) || self.dark.contains(other) {
            State::Gone
        } else if there || back {
            State::Held
        } else {
            State::Whole
        };
        let (one_ip, other_ip) = (sim.lookup(one), sim.lookup(other));
        for (way, is_cut) in [((one_ip, other_ip), there), ((other_ip, one_ip), back)] {
            if state == State::Held && !is_cut {
                self.open.insert(way);
            } else {
                self.open.remove(&way);
            }
        }
        if self.told.insert(pair(one, other), state).unwrap_or_default() != state {
            match state {
                State::Whole => sim.release(one, other),
                State::Held => sim.hold(one, other),
                State::Gone => sim.partition(one, other),
            }
        }
    }
}
