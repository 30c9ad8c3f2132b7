//! What a client remembers: revisions, and for which tids each is the state of its object.
//!
//! A revision is valid in `[tid, end)`; one without an end is current *at the view*, the tid up to which the server has
//! told everything. The view moves only together with the invalidations that lead to it, so what is current here was
//! current there.
//!
//! ```text
//!   view 10   object 1: [7, …)                 at(1, 10) = revision 7
//!   invalidate(12, [1])   object 1: [7, 12)    at(1, 10) = revision 7    at(1, 12) = unknown
//!   keep(1, 12, None)     [7, 12) and [12, …)  at(1, 10) = revision 7    at(1, 12) = revision 12
//! ```
//!
//! **Promises.** It never says what is not so: what it does not know for certain it does not know. Its revisions take no
//! more than the bytes it was given; what was not used for longest goes first.
//!
//! **Left out.** A file on disk, and the knowledge that an object does not exist.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::zodb::{Oid, Tid};

/// What a revision costs beside its data: two entries of maps, and the data's own allocation.
const ENTRY_COST: usize = 160;

/// A revision of an object, and how long it was the object's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The object's pickles.
    pub data: Bytes,
    /// The transaction that wrote it.
    pub tid: Tid,
    /// The transaction that replaced it; `None`: none up to the client's view when it was read.
    pub end: Option<Tid>,
}

struct Held {
    data: Bytes,
    end: Option<Tid>,
    used: u64,
}

/// A bounded map from (object, tid) to its state.
pub struct Cache {
    capacity: usize,
    bytes: usize,
    view: Tid,
    revisions: BTreeMap<(Oid, Tid), Held>,
    /// By when they were last used.
    recency: BTreeMap<u64, (Oid, Tid)>,
    uses: u64,
}

impl Cache {
    pub fn new(capacity: usize) -> Cache {
        Cache { capacity, bytes: 0, view: Tid::ZERO, revisions: BTreeMap::new(), recency: BTreeMap::new(), uses: 0 }
    }

    /// Up to where everything is known that has changed.
    pub fn view(&self) -> Tid {
        self.view
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The state of `oid` after transaction `at`, which is not younger than the view.
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

    /// Remembers what the server said at the view: that `oid` was in this state from `tid` to `end` (or to the view).
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
        // A copy: a slice would keep the whole buffer that it was received in.
        let data = Bytes::copy_from_slice(data);
        self.bytes += cost(&data);
        self.revisions.insert(key, Held { data, end, used: self.uses });
        self.recency.insert(self.uses, key);
        while self.bytes > self.capacity {
            let (_, oldest) = self.recency.first_key_value().expect("what takes bytes was used once");
            self.drop_one(*oldest);
        }
    }

    /// Transaction `tid` has changed `oids`: the view moves to it. `false`, and nothing happens, if that is no news.
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

    /// Between the view and `tid` these have changed, at unknown tids; `None`: anything may have.
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

    fn newest(&mut self, oid: Oid) -> Option<((Oid, Tid), &mut Held)> {
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
