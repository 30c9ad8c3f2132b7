//! The undos of one transaction: the undone transactions, the objects that they touched, and the states these get.

use std::collections::BTreeMap;

use crate::storage::Undone;
use crate::tpc::Read;
use crate::zodb::{Oid, Tid};

/// The undos of one transaction.
#[derive(Debug, Default)]
pub struct Undos {
    /// The transactions to undo, in order.
    tids: Vec<Tid>,
    /// How many objects had been stored when each undo was asked for.
    after: Vec<usize>,
    /// For objects that were stored after the first undo: how many undos came before the last store.
    stored: BTreeMap<Oid, usize>,
    /// The objects of the undone transactions.
    touched: Touched,
    /// The objects as undone, but for those that are stored afterwards.
    undone: BTreeMap<Oid, Undone>,
}

/// The objects of the undone transactions, in order, each once.
#[derive(Debug, Default)]
pub struct Touched {
    pub oids: Vec<Oid>,
    /// For each undo, where its objects end in `oids`. An object of several belongs to the first.
    pub ends: Vec<usize>,
}

impl Undos {
    /// Adds the undo of `tid`, after so many objects were stored.
    pub fn push(&mut self, tid: Tid, stored: usize) {
        self.tids.push(tid);
        self.after.push(stored);
    }

    /// Whether nothing is undone.
    pub fn is_empty(&self) -> bool {
        self.tids.is_empty()
    }

    /// The transactions to undo, in order.
    pub fn tids(&self) -> &[Tid] {
        &self.tids
    }

    /// Notes that `oid` is stored: after all undos that there are by now.
    pub fn stored(&mut self, oid: Oid) {
        if !self.tids.is_empty() {
            self.stored.insert(oid, self.tids.len());
        }
    }

    /// How many undos came before the last store of `oid`.
    pub fn before_store_of(&self, oid: Oid) -> usize {
        self.stored.get(&oid).copied().unwrap_or(0)
    }

    /// Notes which objects the undos touch.
    pub fn touch(&mut self, touched: Touched) {
        self.touched = touched;
    }

    /// The objects that the undos touch.
    pub fn touched(&self) -> &[Oid] {
        &self.touched.oids
    }

    /// Notes the objects as the undos leave them.
    pub fn set_undone(&mut self, undone: BTreeMap<Oid, Undone>) {
        self.undone = undone;
    }

    /// An object as the undos leave it.
    pub fn undone(&self, oid: Oid) -> Option<&Undone> {
        self.undone.get(&oid)
    }

    /// Everything that a transaction writes, in the order in which it was asked for: `stores`, and at the place of
    /// each undo the objects that it touches. `is_stored`: the transaction stores that object itself.
    pub fn weave(
        &self,
        stores: impl Iterator<Item = (Oid, Read)>,
        is_stored: impl Fn(Oid) -> bool,
    ) -> Vec<(Oid, Read)> {
        let mut stores = stores.fuse();
        let mut all = Vec::new();
        let (mut stored, mut from) = (0, 0);
        for (&after, &end) in self.after.iter().zip(&self.touched.ends) {
            all.extend(stores.by_ref().take(after - stored));
            let touched = self.touched.oids[from..end].iter().filter(|oid| !is_stored(**oid));
            all.extend(touched.map(|oid| (*oid, Read::Current)));
            (stored, from) = (after, end);
        }
        all.extend(stores);
        all
    }
}
