//! A stack machine that reads a pickle into a [`Value`].
//!
//! It works in two steps. First the opcodes make *nodes* that name each other by number: a memo may speak of a list
//! that is still growing, and of one list twice. Then the tree below the last node is copied out; here a cycle ends at
//! the depth limit, and a shared list that would unfold without end at the limit of values.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::super::Undecodable;
use super::super::value::Value;
use super::globals::{self, Global};
use crate::config::limits::NESTING;

/// A node's number.
pub(super) type Id = u32;

/// What lies on the stack.
#[derive(Clone, Debug)]
pub(super) enum Node<'a> {
    Leaf(Value<'a>),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Set(Vec<Id>),
    FrozenSet(Vec<Id>),
    Global(Global),
    /// A `ZopeUndo.Prefix.Prefix`; its path comes with BUILD.
    Prefix(Option<Id>),
}

/// The data that `bytes` begin with, of at most `values` values. What follows it is not looked at (Python's `loads` doesn't).
pub fn read(bytes: &[u8], values: usize) -> Result<Value<'_>, Undecodable> {
    let mut machine = Machine {
        input: bytes,
        at: 0,
        nodes: Vec::with_capacity(16),
        stack: Vec::with_capacity(16),
        marks: Vec::new(),
        memo: BTreeMap::new(),
        budget: values,
    };
    loop {
        let op = machine.byte()?;
        if op == b'.' {
            let root = machine.pop()?;
            machine.budget = values;
            return machine.tree(root, NESTING);
        }
        machine.step(op)?;
    }
}

pub(super) struct Machine<'a> {
    input: &'a [u8],
    at: usize,
    nodes: Vec<Node<'a>>,
    stack: Vec<Id>,
    /// Where on the stack the marks stand; no node can be taken from below the last one but by the opcodes that look for it.
    marks: Vec<usize>,
    memo: BTreeMap<u32, Id>,
    /// How many more values this pickle may make.
    budget: usize,
}

impl<'a> Machine<'a> {
    fn step(&mut self, op: u8) -> Result<(), Undecodable> {
        match op {
            0x80 => match self.byte()? {
                0..=5 => Ok(()),
                _ => Err(bad("a pickle protocol that is not known")),
            },
            0x95 => self.take(8).map(drop),
            b'N' | 0x88 | 0x89 | b'K' | b'M' | b'J' | 0x8a | 0x8b | b'G' => self.number(op),
            b'C' | b'B' | 0x8e | b'X' | 0x8c | 0x8d | b'U' | b'T' => self.string(op),
            b'(' => {
                self.spend(1)?;
                self.marks.push(self.stack.len());
                Ok(())
            }
            b')' | 0x85 | 0x86 | 0x87 | b't' | b']' | b'l' | b'}' | b'd' | 0x8f | 0x91 => self.container(op),
            b'a' | b'e' | b's' | b'u' | 0x90 => self.extend(op),
            b'q' | b'r' | 0x94 | b'h' | b'j' => self.remember(op),
            b'0' => self.pop().map(drop),
            b'1' => self.marked().map(drop),
            b'2' => {
                let top = self.top()?;
                self.spend(1)?;
                self.stack.push(top);
                Ok(())
            }
            b'c' | 0x93 | b'R' | 0x81 | b'b' => self.global(op),
            _ => Err(Undecodable(format!("pickle opcode {op:#04x} at {}", self.at - 1))),
        }
    }

    fn number(&mut self, op: u8) -> Result<(), Undecodable> {
        let value = match op {
            b'N' => Value::None,
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            b'K' => Value::Int(i64::from(self.byte()?)),
            b'M' => Value::Int(i64::from(u16::from_le_bytes(self.array()?))),
            b'J' => Value::Int(i64::from(i32::from_le_bytes(self.array()?))),
            0x8a => {
                let len = usize::from(self.byte()?);
                Value::integer(self.take(len)?)
            }
            0x8b => {
                let len = self.length4()?;
                Value::integer(self.take(len)?)
            }
            _ => Value::Float(f64::from_be_bytes(self.array()?)),
        };
        self.push(Node::Leaf(value))
    }

    fn string(&mut self, op: u8) -> Result<(), Undecodable> {
        let len = match op {
            b'C' | 0x8c | b'U' => usize::from(self.byte()?),
            b'B' | b'X' | b'T' => self.length4()?,
            _ => usize::try_from(u64::from_le_bytes(self.array()?)).map_err(|_| bad("a string that is too long"))?,
        };
        let bytes = self.take(len)?;
        let value = match op {
            b'C' | b'B' | 0x8e => Value::Bytes(Cow::Borrowed(bytes)),
            // Strings of Python 2 are text if they are ASCII; so zodbpickle reads them, too.
            b'U' | b'T' if !bytes.is_ascii() => return Err(bad("a Python 2 string that is not ASCII")),
            _ => Value::Text(Cow::Borrowed(std::str::from_utf8(bytes).map_err(|_| bad("text that is not UTF-8"))?)),
        };
        self.push(Node::Leaf(value))
    }

    fn container(&mut self, op: u8) -> Result<(), Undecodable> {
        let node = match op {
            b')' => Node::Tuple(Vec::new()),
            0x85..=0x87 => {
                let len = usize::from(op - 0x84);
                let floor = self.marks.last().copied().unwrap_or(0);
                let from = self.stack.len().checked_sub(len).filter(|from| *from >= floor).ok_or_else(empty)?;
                Node::Tuple(self.stack.split_off(from))
            }
            b't' => Node::Tuple(self.marked()?),
            b']' => Node::List(Vec::new()),
            b'l' => Node::List(self.marked()?),
            b'}' => Node::Dict(Vec::new()),
            b'd' => Node::Dict(pairs(&self.marked()?)?),
            0x8f => Node::Set(Vec::new()),
            _ => Node::FrozenSet(self.marked()?),
        };
        self.push(node)
    }

    fn extend(&mut self, op: u8) -> Result<(), Undecodable> {
        let items = match op {
            b'a' => vec![self.pop()?],
            b's' => {
                let value = self.pop()?;
                vec![self.pop()?, value]
            }
            _ => self.marked()?,
        };
        let target = self.top()?;
        match (op, &mut self.nodes[target as usize]) {
            (b'a' | b'e', Node::List(list)) => list.extend(items),
            (b's' | b'u', Node::Dict(dict)) => dict.extend(pairs(&items)?),
            (0x90, Node::Set(set)) => set.extend(items),
            _ => return Err(bad("items for something that has none")),
        }
        Ok(())
    }

    fn remember(&mut self, op: u8) -> Result<(), Undecodable> {
        let key = match op {
            b'q' | b'h' => u32::from(self.byte()?),
            b'r' | b'j' => u32::from_le_bytes(self.array()?),
            _ => u32::try_from(self.memo.len()).map_err(|_| bad("a memo that is too large"))?,
        };
        self.spend(1)?;
        if matches!(op, b'h' | b'j') {
            let id = *self.memo.get(&key).ok_or_else(|| bad("a memo that was not made"))?;
            self.stack.push(id);
        } else {
            let top = self.top()?;
            self.memo.insert(key, top);
        }
        Ok(())
    }

    fn global(&mut self, op: u8) -> Result<(), Undecodable> {
        let node = match op {
            b'c' => {
                let module = self.line()?;
                let name = self.line()?;
                Node::Global(globals::find(module, name)?)
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (self.node(module), self.node(name)) {
                    (Node::Leaf(Value::Text(module)), Node::Leaf(Value::Text(name))) => {
                        Node::Global(globals::find(module, name)?)
                    }
                    _ => return Err(bad("a global that has no name")),
                }
            }
            b'b' => {
                let state = self.pop()?;
                let target = self.top()?;
                let path = globals::prefix_path(self, target, state)?;
                self.nodes[target as usize] = Node::Prefix(Some(path));
                return Ok(());
            }
            _ => {
                let (args, callee) = (self.pop()?, self.pop()?);
                globals::construct(self, callee, args, op == 0x81)?
            }
        };
        self.push(node)
    }

    /// The tree below a node.
    fn tree(&mut self, id: Id, depth: usize) -> Result<Value<'a>, Undecodable> {
        let depth = depth.checked_sub(1).ok_or_else(|| bad("nested too deep"))?;
        self.spend(1)?;
        Ok(match self.node(id) {
            Node::Leaf(value) => value.clone(),
            Node::Tuple(_) => Value::Tuple(self.trees(id, depth)?),
            Node::List(_) => Value::List(self.trees(id, depth)?),
            Node::Set(_) => Value::Set(self.hashable(id, depth)?),
            Node::FrozenSet(_) => Value::FrozenSet(self.hashable(id, depth)?),
            Node::Dict(pairs) => {
                let mut dict = Vec::with_capacity(pairs.len().min(self.budget));
                for at in 0..pairs.len() {
                    let Node::Dict(pairs) = self.node(id) else { break };
                    let (key, value) = pairs[at];
                    let key = self.tree(key, depth)?;
                    if !key.is_hashable() {
                        return Err(bad("a key that is not hashable"));
                    }
                    dict.push((key, self.tree(value, depth)?));
                }
                Value::Dict(dict)
            }
            Node::Prefix(Some(path)) => globals::prefix(self.tree(*path, depth)?)?,
            Node::Prefix(None) => return Err(bad("a Prefix without a path")),
            Node::Global(_) => return Err(bad("a class as a value")),
        })
    }

    fn trees(&mut self, id: Id, depth: usize) -> Result<Vec<Value<'a>>, Undecodable> {
        let len = self.items(id).len();
        let mut values = Vec::with_capacity(len.min(self.budget));
        for at in 0..len {
            let item = self.items(id)[at];
            values.push(self.tree(item, depth)?);
        }
        Ok(values)
    }

    fn hashable(&mut self, id: Id, depth: usize) -> Result<Vec<Value<'a>>, Undecodable> {
        let values = self.trees(id, depth)?;
        if values.iter().all(Value::is_hashable) { Ok(values) } else { Err(bad("a set of what is not hashable")) }
    }

    /// What a tuple, list or set holds; nothing, for any other node.
    pub(super) fn items(&self, id: Id) -> &[Id] {
        match self.node(id) {
            Node::Tuple(items) | Node::List(items) | Node::Set(items) | Node::FrozenSet(items) => items,
            _ => &[],
        }
    }

    pub(super) fn node(&self, id: Id) -> &Node<'a> {
        &self.nodes[id as usize]
    }

    /// Counts what is made, so that it stays in proportion.
    pub(super) fn spend(&mut self, values: usize) -> Result<(), Undecodable> {
        self.budget = self.budget.checked_sub(values).ok_or_else(|| bad("too many values"))?;
        Ok(())
    }

    fn push(&mut self, node: Node<'a>) -> Result<(), Undecodable> {
        self.spend(1)?;
        let id = Id::try_from(self.nodes.len()).map_err(|_| bad("too many values"))?;
        self.nodes.push(node);
        self.stack.push(id);
        Ok(())
    }

    fn pop(&mut self) -> Result<Id, Undecodable> {
        if self.marks.last() == Some(&self.stack.len()) {
            return Err(empty());
        }
        self.stack.pop().ok_or_else(empty)
    }

    fn top(&self) -> Result<Id, Undecodable> {
        if self.marks.last() == Some(&self.stack.len()) {
            return Err(empty());
        }
        self.stack.last().copied().ok_or_else(empty)
    }

    /// What was pushed since the last mark.
    fn marked(&mut self) -> Result<Vec<Id>, Undecodable> {
        let mark = self.marks.pop().ok_or_else(|| bad("no mark"))?;
        Ok(self.stack.split_off(mark))
    }

    fn byte(&mut self) -> Result<u8, Undecodable> {
        let byte = *self.input.get(self.at).ok_or_else(|| bad("the pickle ends too early"))?;
        self.at += 1;
        Ok(byte)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Undecodable> {
        let bytes = self.input[self.at..].get(..len).ok_or_else(|| bad("the pickle ends too early"))?;
        self.at += len;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Undecodable> {
        Ok(self.take(N)?.try_into().expect("take gives as many bytes as asked for"))
    }

    /// Lengths of four bytes are signed: no string of 2 GiB or more.
    fn length4(&mut self) -> Result<usize, Undecodable> {
        usize::try_from(i32::from_le_bytes(self.array()?)).map_err(|_| bad("a negative length"))
    }

    fn line(&mut self) -> Result<&'a str, Undecodable> {
        let rest = &self.input[self.at..];
        let end = rest.iter().position(|byte| *byte == b'\n').ok_or_else(|| bad("a line that doesn't end"))?;
        self.at += end + 1;
        std::str::from_utf8(&rest[..end]).map_err(|_| bad("text that is not UTF-8"))
    }
}

fn pairs(items: &[Id]) -> Result<Vec<(Id, Id)>, Undecodable> {
    if !items.len().is_multiple_of(2) {
        return Err(bad("a key without a value"));
    }
    Ok(items.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
}

pub(super) fn bad(why: &'static str) -> Undecodable {
    Undecodable(why.to_owned())
}

fn empty() -> Undecodable {
    bad("the stack is empty")
}
