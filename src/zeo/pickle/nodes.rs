//! The nodes that a pickle's opcodes make: values, and containers that name their contents by number.
//!
//! Numbers and not references, because a memo may name a list that is still growing, one list twice, or a list that
//! holds itself.

use super::super::value::{Undecodable, Value, undecodable};
use super::globals::Global;

/// A node's number.
pub(super) type Id = u32;

/// One entry of the stack, the memo, or a container.
#[derive(Clone, Debug)]
pub(super) enum Node<'a> {
    Leaf(Value<'a>),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Set(Vec<Id>),
    FrozenSet(Vec<Id>),
    Global(Global),
    /// Words for something that is no plain data.
    Words(String),
    /// A `ZopeUndo.Prefix.Prefix`, whose path comes later, with BUILD.
    Prefix(Option<Id>),
}

/// All nodes of one pickle, and how many more values it may make.
pub(super) struct Nodes<'a> {
    all: Vec<Node<'a>>,
    budget: usize,
}

impl<'a> Nodes<'a> {
    pub(super) fn new(budget: usize) -> Nodes<'a> {
        Nodes { all: Vec::with_capacity(16), budget }
    }

    /// Counts values as made, so that a short pickle can't make many.
    pub(super) fn spend(&mut self, values: usize) -> Result<(), Undecodable> {
        self.budget = self.budget.checked_sub(values).ok_or_else(|| undecodable("too many values"))?;
        Ok(())
    }

    pub(super) fn set_budget(&mut self, budget: usize) {
        self.budget = budget;
    }

    pub(super) fn add(&mut self, node: Node<'a>) -> Result<Id, Undecodable> {
        self.spend(1)?;
        let id = Id::try_from(self.all.len()).map_err(|_| undecodable("too many values"))?;
        self.all.push(node);
        Ok(id)
    }

    pub(super) fn get(&self, id: Id) -> &Node<'a> {
        &self.all[id as usize]
    }

    pub(super) fn get_mut(&mut self, id: Id) -> &mut Node<'a> {
        &mut self.all[id as usize]
    }

    /// The contents of a tuple, list or set; nothing, for any other node.
    pub(super) fn items(&self, id: Id) -> &[Id] {
        match self.get(id) {
            Node::Tuple(items) | Node::List(items) | Node::Set(items) | Node::FrozenSet(items) => items,
            _ => &[],
        }
    }
}
