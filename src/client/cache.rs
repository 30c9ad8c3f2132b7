//! The cache of a client: revisions of objects, and the span of tids in which each is current.
//!
//! A revision is current in `[tid, end)`; one without an end is current *at the view*, the tid up to which the server
//! has told all changes. The view moves only together with the invalidations that lead to it.
//!
//! ```text
//!   view 10   object 1: [7, …)                 at(1, 10) = revision 7
//!   invalidate(12, [1])   object 1: [7, 12)    at(1, 10) = revision 7    at(1, 12) = unknown
//!   keep(1, 12, None)     [7, 12) and [12, …)  at(1, 10) = revision 7    at(1, 12) = revision 12
//! ```
//!
//! **Promises.** The cache answers only where it is certain, else with `None`. Its revisions take no more bytes than
//! its capacity; the least recently used go first.
//!
//! **Left out.** A file on disk, and remembering that an object does not exist.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::zodb::{Oid, Tid};

/// Bytes that a revision takes besides its data: two entries of maps, and the data's own allocation.
const ENTRY_COST: usize = 160;

/// A revision of an object, and until when it was current.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The record: the object's pickles.
    pub data: Bytes,
    /// The transaction that wrote the revision.
    pub tid: Tid,
    /// The transaction that wrote the next revision; `None`: there was none up to the view when this one was read.
    pub end: Option<Tid>,
}

struct CachedRevision {
    data: Bytes,
    end: Option<Tid>,
    used: u64,
}

/// A bounded map from (object, tid) to the revision that is current then.
pub struct Cache {
    capacity: usize,
    bytes: usize,
    view: Tid,
    revisions: BTreeMap<(Oid, Tid), CachedRevision>,
    /// The keys of `revisions`, by their last use.
    recency: BTreeMap<u64, (Oid, Tid)>,
    uses: u64,
}

impl Cache {
    pub fn new(capacity: usize) -> Cache {
        Cache { capacity, bytes: 0, view: Tid::ZERO, revisions: BTreeMap::new(), recency: BTreeMap::new(), uses: 0 }
    }

    /// The tid up to which all changes are known.
    pub fn view(&self) -> Tid {
        self.view
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The revision of `oid` that is current at `at`; `None` if that is younger than the view, or not known.
    pub fn at(&mut self, oid: Oid, at: Tid) -> Option<Loaded> {
        if at > self.view {
            return None;
        }
        let (key, held) = self.revisions.range((oid, Tid::ZERO)..=(oid, at)).next_back()?;
        if held.end.is_some_and(|end| end <= at) {
            return None;
        }
        let (key, found) = (*key, Loaded { data: held.data.clone(), tid: key.1, end: held.end });
        self.touch(key);
        Some(found)
    }

    /// Remembers a revision of `oid` that the server gave: current from `tid` to `end`, or to the view.
    pub fn keep(&mut self, oid: Oid, tid: Tid, end: Option<Tid>, data: &Bytes) {
        if tid > self.view || cost(data) > self.capacity {
            return;
        }
        let key = (oid, tid);
        if let Some(held) = self.revisions.get_mut(&key) {
            held.end = held.end.or(end);
            return self.touch(key);
        }
        self.uses += 1;
        // A copy: a slice would keep the whole receive buffer in memory.
        let data = Bytes::copy_from_slice(data);
        self.bytes += cost(&data);
        self.revisions.insert(key, CachedRevision { data, end, used: self.uses });
        self.recency.insert(self.uses, key);
        while self.bytes > self.capacity {
            let (_, oldest) = self.recency.first_key_value().expect("every revision in the cache has a last use");
            self.drop_one(*oldest);
        }
    }

    /// Moves the view to transaction `tid`, which has changed `oids`. `false`, and nothing changes, if the view is
    /// there or further.
    #[must_use]
    pub fn invalidate(&mut self, tid: Tid, oids: &[Oid]) -> bool {
        if tid <= self.view {
            return false;
        }
        self.view = tid;
        for oid in oids {
            if let Some(held) = self.newest(*oid) {
                held.1.end.get_or_insert(tid);
            }
        }
        true
    }

    /// Moves the view to `tid`, after these objects have changed at unknown tids; `None`: any object may have.
    pub fn missed(&mut self, tid: Tid, changed: Option<&[Oid]>) {
        self.view = self.view.max(tid);
        match changed {
            None => {
                self.revisions.clear();
                self.recency.clear();
                self.bytes = 0;
            }
            Some(oids) => {
                for oid in oids {
                    if let Some((key, held)) = self.newest(*oid)
                        && held.end.is_none()
                    {
                        self.drop_one(key);
                    }
                }
            }
        }
    }

    fn newest(&mut self, oid: Oid) -> Option<((Oid, Tid), &mut CachedRevision)> {
        let (key, held) = self.revisions.range_mut((oid, Tid::ZERO)..=(oid, Tid::MAX)).next_back()?;
        Some((*key, held))
    }

    fn touch(&mut self, key: (Oid, Tid)) {
        self.uses += 1;
        if let Some(held) = self.revisions.get_mut(&key) {
            self.recency.remove(&held.used);
            held.used = self.uses;
            self.recency.insert(self.uses, key);
        }
    }

    fn drop_one(&mut self, key: (Oid, Tid)) {
        if let Some(held) = self.revisions.remove(&key) {
            self.recency.remove(&held.used);
            self.bytes -= cost(&held.data);
        }
    }
}

fn cost(data: &Bytes) -> usize {
    data.len() + ENTRY_COST
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
