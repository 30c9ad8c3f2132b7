//! Disks in trouble: calls that fail, no room, slowness, stalls.
//!
//! A node whose disk fails may end by itself; it is then started again after a while. (That a power loss tears the last
//! write is no fault of its own: each power loss does, `src/journal/simfiles.rs`.)

use zrs::config::Config;
use zrs::engine::DiskFaults;
use zrs::journal::FileFaults;

use super::fault::{Fault, When, victim_that_runs};
use crate::cluster::tell;

/// Reads, writes or syncs of a node's log or store that fail from some call on, for a while.
pub const DISK_FAILS: Fault = Fault {
    name: "disk_fails",
    when: When::Running,
    rate: 10,
    lasts: 100..2_500,
    begin: |cluster, chance| {
        let node = victim_that_runs(cluster, chance)?;
        let after = Some(chance.below(8));
        let (log, store, text) = match chance.below(6) {
            0 => (FileFaults { reads_after: after, ..FileFaults::default() }, None, "log can't be read"),
            1 => (FileFaults { writes_after: after, ..FileFaults::default() }, None, "log can't be written"),
            2 => (FileFaults { syncs_after: after, ..FileFaults::default() }, None, "log can't be synced"),
            3 => (FileFaults::default(), Some(reads(after)), "store can't be read"),
            4 => (FileFaults::default(), Some(writes(after)), "store can't be written"),
            _ => (FileFaults::default(), Some(syncs(after)), "store can't be synced"),
        };
        tell(node, "disk fails", &[], &format!("has a disk whose {text}"));
        cluster.excuse(node);
        cluster.node(node).folder().set_faults(log, store.unwrap_or_default());
        Some(Box::new(move |cluster| {
            tell(node, "disk works", &[], "has a disk that works again");
            cluster.node(node).folder().set_faults(FileFaults::default(), DiskFaults::default());
            cluster.excuse_no_more(node);
            true
        }))
    },
};

fn reads(after: Option<u64>) -> DiskFaults {
    DiskFaults { reads_after: after, ..DiskFaults::default() }
}

fn writes(after: Option<u64>) -> DiskFaults {
    DiskFaults { writes_after: after, ..DiskFaults::default() }
}

fn syncs(after: Option<u64>) -> DiskFaults {
    DiskFaults { syncs_after: after, ..DiskFaults::default() }
}

/// A disk, or several, with too little room for a while: less than is kept free, or nothing at all.
pub const DISK_FULL: Fault = Fault {
    name: "disk_full",
    when: When::Running,
    rate: 8,
    lasts: 1_500..6_000,
    begin: |cluster, chance| {
        let node = victim_that_runs(cluster, chance)?;
        let reserve = Config::default().disk_reserve;
        let is_free = |node: &u64| cluster.is_up(*node) && cluster.node(*node).host.free().is_none();
        let mut full: Vec<u64> = if chance.once_in(4) { cluster.nodes() } else { vec![node] };
        full.retain(is_free);
        if full.is_empty() {
            return None;
        }
        let left = chance.one_of(&[reserve - 1, reserve / 2 - 1, 0]);
        for node in &full {
            tell(*node, "disk full", &left.to_be_bytes(), &format!("has a disk with {left} bytes left"));
            cluster.node(*node).host.set_free(Some(left));
        }
        Some(Box::new(move |cluster| {
            for node in &full {
                tell(*node, "room", &[], "has room on its disk again");
                cluster.node(*node).host.set_free(None);
            }
            true
        }))
    },
};

/// A disk that something else has filled up: writes fail that need more of it.
pub const DISK_FILLED: Fault = Fault {
    name: "disk_filled",
    when: When::Running,
    rate: 6,
    lasts: 500..4_000,
    begin: |cluster, chance| {
        let node = victim_that_runs(cluster, chance)?;
        let folder = cluster.node(node).folder();
        let used: u64 = folder.log.names().iter().map(|(_, size)| size).sum();
        let (log, store) = (used + chance.below(20_000), folder.store.size() + chance.below(20_000));
        tell(node, "disk filled", &[], "has a disk that fills up");
        cluster.excuse(node);
        folder.set_faults(
            FileFaults { space: Some(log), ..FileFaults::default() },
            DiskFaults { space: Some(store), ..DiskFaults::default() },
        );
        Some(Box::new(move |cluster| {
            tell(node, "room", &[], "has room on its disk again");
            cluster.node(node).folder().set_faults(FileFaults::default(), DiskFaults::default());
            cluster.excuse_no_more(node);
            true
        }))
    },
};

/// Disks of a node that take up to a second for each call.
pub const SLOW_DISK: Fault = Fault {
    name: "slow_disk",
    when: When::Running,
    rate: 8,
    lasts: 500..4_000,
    begin: |cluster, chance| {
        let node = victim_that_runs(cluster, chance)?;
        let millis = chance.one_of(&[20, 200, 1_000]);
        tell(node, "slow disk", &[], &format!("has disks that take up to {millis} ms more"));
        cluster.node(node).host.slow_disks(millis);
        Some(Box::new(move |cluster| {
            tell(node, "fast disk", &[], "has disks that are fast again");
            cluster.node(node).host.slow_disks(0);
            true
        }))
    },
};

/// Disks of a node that answer nothing for a while.
pub const STALLED_DISK: Fault = Fault {
    name: "stalled_disk",
    when: When::Running,
    rate: 8,
    lasts: 200..5_000,
    begin: |cluster, chance| {
        let node = victim_that_runs(cluster, chance)?;
        tell(node, "stalled disk", &[], "has disks that answer nothing");
        cluster.node(node).host.stall_disks(true);
        Some(Box::new(move |cluster| {
            tell(node, "disk answers", &[], "has disks that answer again");
            cluster.node(node).host.stall_disks(false);
            true
        }))
    },
};
