//! A plan for a transaction: the objects to read, the writes that follow from these, and what is done about a conflict.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use zrs::zodb::{Oid, Tid};

use crate::value::Value;

/// An object as a transaction has read it; an object that is not there is `Gone`, and has the serial zero.
#[derive(Clone, Debug)]
pub struct Read {
    pub value: Value,
    pub serial: Tid,
}

/// The writes that follow from what was read, by an attempt with this mark; none: nothing is to be done. `Gone`
/// deletes.
pub type Change = Box<dyn Fn(&BTreeMap<Oid, Read>, u64) -> BTreeMap<Oid, Value>>;

/// A transaction to be done; by default, one that writes nothing.
pub struct Plan {
    pub reads: Vec<Oid>,
    pub change: Change,
    /// Of the objects that are read, those that must not have changed though they are not written.
    pub checks: Vec<Oid>,
    /// Conflicts are resolved by [`merge`]; otherwise, all begins anew.
    pub resolves: bool,
    /// The transactions to be undone, one after the other.
    pub undoes: Vec<Tid>,
    /// The objects that these wrote.
    pub touches: BTreeSet<Oid>,
    /// The client begins a blob that it does not end, and perhaps is gone.
    pub leaves_a_part: bool,
    /// Others may undo the transaction: no rule speaks of what it writes.
    pub may_be_undone: bool,
    /// While it resolves conflicts, the client may add objects: more than it has locks for.
    pub adds: bool,
    /// The client takes its time now and then, between reads and writes, and with the locks in hand.
    pub lingers: bool,
    /// The client is often gone before its vote is answered,
    pub is_moody: bool,
    /// or waits for the answer for so many milliseconds.
    pub patience: Option<Range<u64>>,
    /// For how many milliseconds the client keeps its locks, always.
    pub holds: Range<u64>,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan {
            reads: Vec::new(),
            change: Box::new(|_, _| BTreeMap::new()),
            checks: Vec::new(),
            resolves: false,
            undoes: Vec::new(),
            touches: BTreeSet::new(),
            leaves_a_part: false,
            may_be_undone: false,
            adds: false,
            lingers: false,
            is_moody: false,
            patience: None,
            holds: 0..0,
        }
    }
}

/// The state to be written instead, of an object that was `old` when it was read, is `theirs` now, and was to be
/// `wanted`, by an attempt with this mark: a list has the mark at its end, a node is as it was
/// wanted, and to a number the same is added, as
/// `BTrees.Length` does.
pub fn merge(old: &Value, theirs: &Value, wanted: &Value, mark: u64) -> Value {
    match wanted {
        Value::Node { .. } => wanted.clone(),
        Value::List(_) => Value::List([theirs.list(), &[mark]].concat()),
        _ => Value::Number(theirs.number().wrapping_add(wanted.number().wrapping_sub(old.number()))),
    }
}
