//! The packs that are going on in a reign: one at a time for each storage.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::pack_watch::PackWatch;
use crate::server::counts::PackCounters;
use crate::storage::pack::Plan;
use crate::zodb::StorageId;

/// The packs of a reign; clones are the same.
#[derive(Clone)]
pub struct Packs {
    /// Whether packs collect garbage.
    pub gc: bool,
    /// How many revisions a step may remove.
    pub most: usize,
    pub counters: PackCounters,
    running: Arc<Mutex<BTreeMap<StorageId, Arc<PackWatch>>>>,
    /// The storages whose last pack has failed, and may have left what it should have removed.
    failed: Arc<Mutex<BTreeSet<StorageId>>>,
}

/// One pack. Dropping this handle ends the pack, and stops the reads that are still made for it.
pub struct PackGuard {
    packs: Packs,
    storage: StorageId,
    pub watch: Arc<PackWatch>,
    /// The plan of the pack, once made.
    pub plan: Option<Plan>,
}

impl Packs {
    /// No pack is going on.
    pub fn new(gc: bool, most: usize, counters: PackCounters) -> Packs {
        Packs { gc, most, counters, running: Arc::default(), failed: Arc::default() }
    }

    /// The watch of this storage's pack, if one is going on.
    pub fn watch(&self, storage: StorageId) -> Option<Arc<PackWatch>> {
        self.running().get(&storage).cloned()
    }

    /// Notes how a pack has ended.
    pub fn note_end(&self, storage: StorageId, is_complete: bool) {
        let mut failed = self.failed();
        if is_complete {
            failed.remove(&storage);
        } else {
            failed.insert(storage);
        }
    }

    /// Whether the storage's last pack of this reign has failed.
    pub fn has_failed(&self, storage: StorageId) -> bool {
        self.failed().contains(&storage)
    }

    fn failed(&self) -> MutexGuard<'_, BTreeSet<StorageId>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a pack, unless one of this storage is going on.
    /// `resumed`: an earlier reign has begun it.
    pub fn begin(&self, storage: StorageId, resumed: bool) -> Option<PackGuard> {
        let mut running = self.running();
        if running.contains_key(&storage) {
            return None;
        }
        let watch = Arc::new(PackWatch::new(resumed));
        running.insert(storage, watch.clone());
        Some(PackGuard { packs: self.clone(), storage, watch, plan: None })
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<StorageId, Arc<PackWatch>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for PackGuard {
    fn drop(&mut self) {
        self.packs.running().remove(&self.storage);
        self.watch.end();
        if let Some(plan) = &self.plan {
            plan.stop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::limits;

    #[test]
    fn a_storage_has_one_pack_at_a_time() {
        let packs = Packs::new(true, limits::PACK_REVISIONS, PackCounters::default());
        let guard = packs.begin(StorageId(1), false).unwrap();
        assert!(packs.begin(StorageId(1), false).is_none());
        assert!(packs.begin(StorageId(2), false).is_some(), "another storage has its own");
        drop(guard);
        assert!(packs.watch(StorageId(1)).is_none());
        assert!(packs.begin(StorageId(1), false).is_some());
    }
}
