//! A stack machine that reads a pickle into a [`Value`].
//!
//! Reading takes two steps. First the opcodes make *nodes* (`nodes`). Then the tree below the last node is copied out;
//! in this step the depth limit ends a cycle, and the limit of values ends shared lists that would unfold without end.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::super::value::{Undecodable, Value, undecodable};
use super::construct;
use super::globals;
use super::nodes::{Id, Node, Nodes};
use crate::config::limits;

/// The pairs of the dictionary that the pickle makes, with all that can be told of it: texts as Python 2 wrote them,
/// and where a key or value is no plain data, a text in `<>` that says what stands there.
pub fn read_pairs(bytes: &[u8], values: usize) -> Result<Vec<(Value<'_>, Value<'_>)>, Undecodable> {
    let mut unpickler = Unpickler::new(bytes, values);
    unpickler.lenient = true;
    let root = unpickler.run()?;
    unpickler.nodes.set_budget(values);
    let Node::Dict(pairs) = unpickler.nodes.get(root) else { return Err(undecodable("no dictionary")) };
    let pairs = pairs.clone();
    let mut read = Vec::with_capacity(pairs.len());
    for (key, value) in pairs {
        let key = unpickler.tree_or_words(key);
        let key = if key.is_hashable() { key } else { Value::Text(key.to_text().into()) };
        read.push((key, unpickler.tree_or_words(value)));
    }
    Ok(read)
}

/// Reads the pickle that `bytes` begin with, of at most `values` values. Bytes after the pickle are ignored, as by
/// Python's `loads`.
pub fn read(bytes: &[u8], values: usize) -> Result<Value<'_>, Undecodable> {
    let mut unpickler = Unpickler::new(bytes, values);
    let root = unpickler.run()?;
    unpickler.nodes.set_budget(values);
    unpickler.nodes.spend(1)?;
    unpickler.tree(root, limits::NESTING)
}

/// The machine.
pub(super) struct Unpickler<'a> {
    input: &'a [u8],
    at: usize,
    /// Whether anything goes that Python reads: then what is no plain data becomes words.
    lenient: bool,
    pub(super) nodes: Nodes<'a>,
    stack: Vec<Id>,
    /// The heights of the stack at its marks. Only opcodes that go back to a mark take nodes from below the last one.
    marks: Vec<usize>,
    memo: BTreeMap<u32, Id>,
    /// Bytes that the texts of the tree may still have together: a memo can name one text many times.
    copied: usize,
}

impl<'a> Unpickler<'a> {
    fn new(input: &'a [u8], values: usize) -> Unpickler<'a> {
        Unpickler {
            input,
            at: 0,
            lenient: false,
            nodes: Nodes::new(values),
            stack: Vec::with_capacity(16),
            marks: Vec::new(),
            memo: BTreeMap::new(),
            copied: input.len() + limits::SHARED_BYTES,
        }
    }

    /// Runs the program -> its result.
    fn run(&mut self) -> Result<Id, Undecodable> {
        loop {
            match self.byte()? {
                b'.' => return self.pop(),
                op => self.step(op)?,
            }
        }
    }

    fn step(&mut self, op: u8) -> Result<(), Undecodable> {
        match op {
            0x80 => match self.byte()? {
                0..=5 => Ok(()),
                _ => Err(undecodable("an unknown pickle protocol")),
            },
            0x95 => self.take(8).map(drop),
            b'N' | 0x88 | 0x89 | b'K' | b'M' | b'J' | 0x8a | 0x8b | b'G' => self.number(op),
            b'C' | b'B' | 0x8e | b'X' | 0x8c | 0x8d | b'U' | b'T' => self.string(op),
            b'(' => {
                self.nodes.spend(1)?;
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
                self.nodes.spend(1)?;
                self.stack.push(top);
                Ok(())
            }
            b'c' | 0x93 | b'R' | 0x81 | b'b' => self.global(op),
            _ if self.lenient => self.old(op),
            _ => Err(unknown(op, self.at - 1)),
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
            _ => usize::try_from(u64::from_le_bytes(self.array()?))
                .map_err(|_| undecodable("a string that is too long"))?,
        };
        let bytes = self.take(len)?;
        let value = match op {
            b'C' | b'B' | 0x8e => Value::Bytes(Cow::Borrowed(bytes)),
            // A Python 2 string is text if it is ASCII, as zodbpickle reads it.
            b'U' | b'T' if self.lenient => python2_string(bytes.into()),
            b'U' | b'T' if !bytes.is_ascii() => return Err(undecodable("a Python 2 string that is not ASCII")),
            _ if self.lenient => Value::Text(String::from_utf8_lossy(bytes)),
            _ => Value::Text(Cow::Borrowed(
                std::str::from_utf8(bytes).map_err(|_| undecodable("text that is not UTF-8"))?,
            )),
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
        match (op, self.nodes.get_mut(target)) {
            (b'a' | b'e', Node::List(list)) => list.extend(items),
            (b's' | b'u', Node::Dict(dict)) => dict.extend(pairs(&items)?),
            (0x90, Node::Set(set)) => set.extend(items),
            (_, Node::Words(_)) => {}
            _ => return Err(undecodable("items for something that is not a container")),
        }
        Ok(())
    }

    fn remember(&mut self, op: u8) -> Result<(), Undecodable> {
        let key = match op {
            b'q' | b'h' => u32::from(self.byte()?),
            b'r' | b'j' => u32::from_le_bytes(self.array()?),
            _ => u32::try_from(self.memo.len()).map_err(|_| undecodable("a memo that is too large"))?,
        };
        self.recall(key, matches!(op, b'h' | b'j'))
    }

    /// Pushes the entry `key` of the memo, or makes it.
    pub(super) fn recall(&mut self, key: u32, there: bool) -> Result<(), Undecodable> {
        self.nodes.spend(1)?;
        if there {
            let id = *self.memo.get(&key).ok_or_else(|| undecodable("an entry of the memo that was not made"))?;
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
                self.named(module, name)?
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (self.nodes.get(module), self.nodes.get(name)) {
                    (Node::Leaf(Value::Text(module)), Node::Leaf(Value::Text(name))) => self.named(module, name)?,
                    _ => return Err(undecodable("a global without a name")),
                }
            }
            b'b' => {
                let state = self.pop()?;
                let target = self.top()?;
                match construct::prefix_path(&mut self.nodes, target, state) {
                    Ok(path) => *self.nodes.get_mut(target) = Node::Prefix(Some(path)),
                    // (Words need no state; plain data with a state are those of a subclass.)
                    Err(_) if self.lenient => {}
                    Err(why) => return Err(why),
                }
                return Ok(());
            }
            _ => {
                let (args, callee) = (self.pop()?, self.pop()?);
                match construct::construct(&mut self.nodes, callee, args, op == 0x81) {
                    Err(_) if self.lenient => self.called(callee, args),
                    made => made?,
                }
            }
        };
        self.push(node)
    }

    /// The global of that name; words for it, where that is allowed and the name is no plain data's.
    pub(super) fn named(&self, module: &str, name: &str) -> Result<Node<'a>, Undecodable> {
        match globals::find(module, name) {
            Ok(global) => Ok(Node::Global(global)),
            Err(_) if self.lenient => Ok(Node::Words(format!("<{module:.100}.{name:.100}>"))),
            Err(why) => Err(why),
        }
    }

    /// [`Unpickler::tree`], or words for why there is none.
    fn tree_or_words(&mut self, id: Id) -> Value<'a> {
        let tree = self.nodes.spend(1).and_then(|()| self.tree(id, limits::NESTING));
        tree.unwrap_or_else(|Undecodable(why)| Value::Text(format!("<{why}>").into()))
    }

    /// Copies out the tree below a node, whose own value is counted already.
    fn tree(&mut self, id: Id, depth: usize) -> Result<Value<'a>, Undecodable> {
        let depth = depth.checked_sub(1).ok_or_else(|| undecodable("nested too deep"))?;
        Ok(match self.nodes.get(id) {
            Node::Leaf(_) => self.leaf(id)?,
            Node::Tuple(_) => Value::Tuple(self.trees(id, depth)?),
            Node::List(_) => Value::List(self.trees(id, depth)?),
            Node::Set(_) => Value::Set(self.hashable(id, depth)?),
            Node::FrozenSet(_) => Value::FrozenSet(self.hashable(id, depth)?),
            Node::Dict(pairs) => {
                let len = pairs.len();
                self.nodes.spend(2 * len)?;
                let mut dict = Vec::with_capacity(len);
                for at in 0..len {
                    let Node::Dict(pairs) = self.nodes.get(id) else { break };
                    let (key, value) = pairs[at];
                    let key = self.tree(key, depth)?;
                    if !key.is_hashable() {
                        return Err(undecodable("a key that is not hashable"));
                    }
                    dict.push((key, self.tree(value, depth)?));
                }
                Value::Dict(dict)
            }
            &Node::Prefix(Some(path)) => {
                self.nodes.spend(1)?;
                construct::prefix(self.tree(path, depth)?)?
            }
            Node::Prefix(None) => return Err(undecodable("a Prefix without a path")),
            Node::Words(words) => Value::Text(words.clone().into()),
            Node::Global(_) => return Err(undecodable("a class as a value")),
        })
    }

    fn leaf(&mut self, id: Id) -> Result<Value<'a>, Undecodable> {
        let Node::Leaf(value) = self.nodes.get(id) else { return Err(undecodable("a container as a leaf")) };
        let value = value.clone();
        let bytes = match &value {
            Value::Bytes(bytes) | Value::Long(bytes) => bytes.len(),
            Value::Text(text) => text.len(),
            Value::Prefix(path) => {
                self.nodes.spend(path.len())?;
                path.iter().map(|step| step.len()).sum()
            }
            _ => 0,
        };
        self.copied = self.copied.checked_sub(bytes).ok_or_else(|| undecodable("texts that are named too often"))?;
        Ok(value)
    }

    fn trees(&mut self, id: Id, depth: usize) -> Result<Vec<Value<'a>>, Undecodable> {
        let len = self.nodes.items(id).len();
        self.nodes.spend(len)?;
        let mut values = Vec::with_capacity(len);
        for at in 0..len {
            let item = self.nodes.items(id)[at];
            values.push(self.tree(item, depth)?);
        }
        Ok(values)
    }

    fn hashable(&mut self, id: Id, depth: usize) -> Result<Vec<Value<'a>>, Undecodable> {
        let values = self.trees(id, depth)?;
        if values.iter().all(Value::is_hashable) {
            Ok(values)
        } else {
            Err(undecodable("an item of a set that is not hashable"))
        }
    }

    pub(super) fn push(&mut self, node: Node<'a>) -> Result<(), Undecodable> {
        let id = self.nodes.add(node)?;
        self.stack.push(id);
        Ok(())
    }

    pub(super) fn pop(&mut self) -> Result<Id, Undecodable> {
        if self.marks.last() == Some(&self.stack.len()) {
            return Err(empty());
        }
        self.stack.pop().ok_or_else(empty)
    }

    pub(super) fn top(&self) -> Result<Id, Undecodable> {
        if self.marks.last() == Some(&self.stack.len()) {
            return Err(empty());
        }
        self.stack.last().copied().ok_or_else(empty)
    }

    /// Takes the nodes above the last mark, and the mark.
    pub(super) fn marked(&mut self) -> Result<Vec<Id>, Undecodable> {
        let mark = self.marks.pop().ok_or_else(|| undecodable("no mark"))?;
        Ok(self.stack.split_off(mark))
    }

    /// How far the pickle is read.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn byte(&mut self) -> Result<u8, Undecodable> {
        let byte = *self.input.get(self.at).ok_or_else(|| undecodable("the pickle ends too early"))?;
        self.at += 1;
        Ok(byte)
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], Undecodable> {
        let bytes = self.input[self.at..].get(..len).ok_or_else(|| undecodable("the pickle ends too early"))?;
        self.at += len;
        Ok(bytes)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Undecodable> {
        Ok(self.take(N)?.try_into().expect("take gives as many bytes as asked for"))
    }

    /// A length of four bytes, which is signed: no string has 2 GiB or more.
    fn length4(&mut self) -> Result<usize, Undecodable> {
        usize::try_from(i32::from_le_bytes(self.array()?)).map_err(|_| undecodable("a negative length"))
    }

    fn line(&mut self) -> Result<&'a str, Undecodable> {
        std::str::from_utf8(self.raw_line()?).map_err(|_| undecodable("text that is not UTF-8"))
    }

    pub(super) fn raw_line(&mut self) -> Result<&'a [u8], Undecodable> {
        let rest = &self.input[self.at..];
        let end = rest.iter().position(|byte| *byte == b'\n').ok_or_else(|| undecodable("a line without an end"))?;
        self.at += end + 1;
        Ok(&rest[..end])
    }
}

/// The error of an opcode that is not understood.
pub(super) fn unknown(op: u8, at: usize) -> Undecodable {
    undecodable(format!("pickle opcode {op:#04x} at {at}"))
}

/// A string of Python 2 as zodbpickle reads it: text if it is ASCII.
pub(super) fn python2_string(bytes: Cow<'_, [u8]>) -> Value<'_> {
    if !bytes.is_ascii() {
        return Value::Bytes(bytes);
    }
    Value::Text(match bytes {
        Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
        Cow::Owned(bytes) => String::from_utf8_lossy(&bytes).into_owned().into(),
    })
}

fn pairs(items: &[Id]) -> Result<Vec<(Id, Id)>, Undecodable> {
    if !items.len().is_multiple_of(2) {
        return Err(undecodable("a key without a value"));
    }
    Ok(items.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
}

fn empty() -> Undecodable {
    undecodable("the stack is empty")
}
