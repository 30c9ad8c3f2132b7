//! The cache of a client of the protocol, as Python's keeps it: current revisions, each until it is told that the
//! object has changed. The cache outlives its connections.

use std::collections::BTreeMap;

use zrs::zodb::{Oid, Tid};

use crate::value::{Found, Value};

/// Current revisions.
#[derive(Default)]
pub struct Cache {
    /// The tid up to which the cache was told of all changes; zero: of none yet.
    pub told: Tid,
    current: BTreeMap<Oid, (Tid, Found)>,
}

impl Cache {
    /// The current revision of an object, with its serial, if it is here.
    pub fn get(&self, oid: Oid) -> Option<&(Tid, Found)> {
        self.current.get(&oid)
    }

    pub fn is_empty(&self) -> bool {
        self.current.is_empty()
    }

    /// A revision that is current.
    pub fn keep(&mut self, oid: Oid, serial: Tid, found: Found) {
        if found.0 != Value::Gone {
            self.current.insert(oid, (serial, found));
        }
    }

    /// These objects have changed, by transactions up to `told`.
    pub fn changed<'a>(&mut self, told: Tid, oids: impl IntoIterator<Item = &'a Oid>) {
        self.told = told;
        oids.into_iter().for_each(|oid| drop(self.current.remove(oid)));
    }

    /// Anything may have changed.
    pub fn clear(&mut self, told: Tid) {
        self.told = told;
        self.current.clear();
    }
}
