//! Moments at which a fault may hit a node: right when its disks are between two steps of something.
//!
//! The disks of a node (`disk`) tell each such moment before they go on. A *trap* waits for one of them: it lets some
//! pass, then springs, once. So a fault hits in the middle of what a node does, where one that goes by the clock alone
//! comes too seldom.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::folder::{Death, Folder};
use crate::host::{Host, name};
use crate::network::Fabric;

/// What a node's disks are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The slots (with the vote) were written in one of their two places, and are not synced there.
    SlotsWritten,
    /// The slots were synced in one of their two places; nobody knows.
    SlotsSynced,
    /// Entries were written to the log, and are not synced.
    EntriesWritten,
    /// Entries were synced; nobody knows.
    EntriesSynced,
    /// Any step of a truncation of the log.
    Truncating,
    /// A new segment of the log is about to be synced under its name.
    SegmentBegun,
    /// A command was applied to the store.
    Applied,
    /// The store is about to be synced.
    Flushing,
    /// The store was synced; nobody knows.
    Flushed,
}

/// What a trap does to its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// The node dies; of what was not synced, a power loss leaves what the number decides.
    Die(Death, u64),
    /// The node stands still.
    StandStill,
    /// The call fails.
    Fail,
    /// Nothing yet; but the node loses its power a while later, when what the moment has left must be on its disk.
    PowerLater,
}

/// A trap: at the first of these moments after it has let `pass` of them pass.
#[derive(Clone, Debug)]
pub struct Trap {
    /// The node that it waits for; `None`: any.
    pub node: Option<u64>,
    pub moment: Moment,
    pub pass: u64,
    pub deed: Deed,
}

/// The traps of a run; clones share them.
#[derive(Clone, Default)]
pub struct Traps(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    set: u64,
    waiting: Vec<(u64, Trap)>,
    /// By number, those that have sprung: the node and the deed.
    sprung: Vec<(u64, u64, Deed)>,
    /// The nodes that were hit since the last look.
    hit: Vec<(u64, Deed)>,
    /// The nodes that no trap may hit.
    spared: BTreeSet<u64>,
}

impl Traps {
    /// Sets a trap, and gives its number.
    pub fn set(&self, trap: Trap) -> u64 {
        let mut state = self.state();
        state.set += 1;
        let number = state.set;
        state.waiting.push((number, trap));
        number
    }

    /// The node and the deed of a trap that has sprung; after that it is forgotten.
    pub fn sprung(&self, number: u64) -> Option<(u64, Deed)> {
        let mut state = self.state();
        let at = state.sprung.iter().position(|(sprung, ..)| *sprung == number)?;
        let (_, node, deed) = state.sprung.remove(at);
        Some((node, deed))
    }

    /// Takes a trap away.
    pub fn disarm(&self, number: u64) {
        self.state().waiting.retain(|(waiting, _)| *waiting != number);
    }

    /// The nodes that traps have hit since the last call.
    pub fn hit(&self) -> Vec<(u64, Deed)> {
        std::mem::take(&mut self.state().hit)
    }

    /// Sets whether no trap may hit a node.
    pub fn spare(&self, node: u64, spare: bool) {
        if spare {
            self.state().spared.insert(node)
        } else {
            self.state().spared.remove(&node)
        };
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// The deed of the trap that springs now, if one does.
    fn spring(&self, node: u64, moment: Moment) -> Option<Deed> {
        let mut state = self.state();
        if state.spared.contains(&node) {
            return None;
        }
        let mut springs = None;
        for (at, (_, trap)) in state.waiting.iter_mut().enumerate() {
            if trap.moment != moment || trap.node.is_some_and(|wanted| wanted != node) {
                continue;
            }
            if trap.pass > 0 {
                trap.pass -= 1;
            } else if springs.is_none() {
                springs = Some(at);
            }
        }
        let (number, trap) = state.waiting.remove(springs?);
        state.sprung.push((number, node, trap.deed));
        state.hit.push((node, trap.deed));
        Some(trap.deed)
    }
}

/// Tells the moments of one node, in one of its lives.
#[derive(Clone)]
pub struct Teller {
    pub node: u64,
    pub host: Host,
    pub folder: Folder,
    pub fabric: Fabric,
    pub traps: Traps,
}

impl Teller {
    /// A moment has come: an error if the disk's call fails for that.
    pub fn now(&self, moment: Moment) -> io::Result<()> {
        if self.host.is_dead() || self.host.stands_still() {
            return Ok(());
        }
        match self.traps.spring(self.node, moment) {
            Some(Deed::Die(death, chance)) => {
                self.host.die();
                self.fabric.silence(&name(self.node), true);
                self.folder.crash(death, chance);
                Err(io::Error::new(io::ErrorKind::NotConnected, "simulated: the host has died"))
            }
            Some(Deed::StandStill) => {
                self.host.stand_still();
                Ok(())
            }
            Some(Deed::Fail) => Err(io::Error::other(format!("simulated: the disk failed ({moment:?})"))),
            Some(Deed::PowerLater) | None => Ok(()),
        }
    }
}
