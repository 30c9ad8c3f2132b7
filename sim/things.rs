//! The objects that all clients share: few, so that they meet.

use std::collections::BTreeMap;

use zrs::zodb::Oid;

use crate::value::Value;

/// What an account has at first.
pub const DEPOSIT: u64 = 1_000;

/// The shared objects; none before the first client has created them.
///
/// The root refers to all of them but the mortals, so that no pack takes them for garbage.
#[derive(Clone, Debug, Default)]
pub struct Things {
    /// Each transaction that writes a counter adds one to it.
    pub counters: Vec<Oid>,
    /// Amounts go from one to another; the sum stays.
    pub accounts: Vec<Oid>,
    /// Lists that attempts append their marks to.
    pub registers: Vec<Oid>,
    /// Always written together, and always equal.
    pub pair: Vec<Oid>,
    /// Of these at least one is 1. A transaction that writes one of them checks that the other has not changed.
    pub watch: Vec<Oid>,
    /// Numbers that others check while they write something else.
    pub flags: Vec<Oid>,
    /// Objects that are deleted and come again.
    pub mortals: Vec<Oid>,
    /// Each refers to its mortal while there is one.
    pub holders: Vec<Oid>,
    /// Each refers to objects that clients create, cut off and graft on again.
    pub branches: Vec<Oid>,
    /// Each refers to an object of its own, or to none; what is done to them is undone now and then.
    pub pages: Vec<Oid>,
    /// Numbers at first, and then blobs.
    pub files: Vec<Oid>,
}

impl Things {
    /// How many objects there are beside the root.
    pub const COUNT: usize = 5 + 4 + 2 + 2 + 2 + 2 + 3 + 3 + 3 + 2 + 2;

    /// Gives each thing one of the ids.
    pub fn of(oids: Vec<Oid>) -> Things {
        let mut oids = oids.into_iter();
        let mut some = |count| oids.by_ref().take(count).collect();
        Things {
            counters: some(5),
            accounts: some(4),
            registers: some(2),
            pair: some(2),
            watch: some(2),
            flags: some(2),
            mortals: some(3),
            holders: some(3),
            branches: some(3),
            pages: some(2),
            files: some(2),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.counters.is_empty()
    }

    /// All objects but the root.
    pub fn all(&self) -> Vec<Oid> {
        let Things { counters, accounts, registers, pair, watch, flags, mortals, holders, branches, pages, files } =
            self;
        let kinds = [counters, accounts, registers, pair, watch, flags, mortals, holders, branches, pages, files];
        kinds.into_iter().flatten().copied().collect()
    }

    /// The states that all objects begin with.
    pub fn at_first(&self) -> BTreeMap<Oid, Value> {
        let mut values: BTreeMap<Oid, Value> = self.all().into_iter().map(|oid| (oid, Value::Number(0))).collect();
        values.extend(self.accounts.iter().map(|oid| (*oid, Value::Number(DEPOSIT))));
        values.extend(self.registers.iter().map(|oid| (*oid, Value::List(Vec::new()))));
        values.extend(self.watch.iter().map(|oid| (*oid, Value::Number(1))));
        let held = self.holders.iter().zip(&self.mortals);
        values.extend(held.map(|(holder, mortal)| (*holder, Value::node(vec![*mortal]))));
        values.extend(self.branches.iter().chain(&self.pages).map(|oid| (*oid, Value::node(Vec::new()))));
        let kept = self.all().into_iter().filter(|oid| !self.mortals.contains(oid));
        values.insert(Oid::ROOT, Value::node(kept.collect()));
        values
    }
}
