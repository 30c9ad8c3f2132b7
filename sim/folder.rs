//! The data folder of a node: its log and its store, on disks that outlive the node.

use zrs::engine::{DiskFaults, SimDisk};
use zrs::journal::{FileFaults, SimFiles};

/// A node's data. Clones are the same data.
#[derive(Clone, Default)]
pub struct Folder {
    pub log: SimFiles,
    pub store: SimDisk,
}

/// How a node goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// `kill -9`: the kernel closes its connections; nothing that was written is lost.
    Killed,
    /// A lost power supply: its connections fall silent, and its disks lose unsynced writes.
    PowerLost,
}

impl Folder {
    /// Ends the use of the folder by the node that runs: its calls only give errors from now on. Of what was written
    /// and not synced, `chance` decides what a power loss leaves.
    pub fn crash(&self, death: Death, chance: u64) {
        match death {
            Death::Killed => {
                // (What was written is with the kernel, whether it is on the disk or not. Only a later power loss
                // decides about that; the store's next opening takes all of it to the disk.)
                drop(self.log.open());
                self.store.crash(1);
            }
            Death::PowerLost => {
                self.log.crash(chance);
                self.store.crash(chance.rotate_left(32));
            }
        }
    }

    /// Another folder with the same data, on disks that work.
    pub fn copy(&self) -> Folder {
        let copy = Folder { log: self.log.copy(), store: self.store.copy() };
        copy.set_faults(FileFaults::default(), DiskFaults::default());
        copy
    }

    /// Sets which calls fail from now on.
    pub fn set_faults(&self, log: FileFaults, store: DiskFaults) {
        self.log.set_faults(log);
        self.store.set_faults(store);
    }
}
