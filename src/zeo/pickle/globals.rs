//! The few globals that stand for plain data, and what calling them gives.
//!
//! ZEO's server lets clients name anything in five modules, `builtins` among them. Here a name is a word for a kind of
//! data, never something that is called.

use std::borrow::Cow;

use super::super::Undecodable;
use super::super::value::Value;
use super::read::{Id, Machine, Node, bad};

/// A constructor of plain data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Global {
    Dict,
    List,
    Tuple,
    Set,
    FrozenSet,
    /// `bytes`, `bytearray`, `zodbpickle.binary`.
    Bytes,
    Text,
    Int,
    Float,
    Bool,
    Object,
    /// `copyreg._reconstructor(class, base, state)`: how protocols 0 and 1 write a subclass of a builtin type.
    Reconstructor,
    Prefix,
}

pub(super) fn find(module: &str, name: &str) -> Result<Global, Undecodable> {
    Ok(match (module, name) {
        ("builtins" | "__builtin__", "dict") => Global::Dict,
        ("builtins" | "__builtin__", "list") => Global::List,
        ("builtins" | "__builtin__", "tuple") => Global::Tuple,
        ("builtins" | "__builtin__", "set") => Global::Set,
        ("builtins" | "__builtin__", "frozenset") => Global::FrozenSet,
        ("builtins" | "__builtin__", "bytes" | "bytearray") | ("zodbpickle", "binary") => Global::Bytes,
        ("builtins", "str") | ("__builtin__", "unicode") => Global::Text,
        ("builtins" | "__builtin__", "int") | ("__builtin__", "long") => Global::Int,
        ("builtins" | "__builtin__", "float") => Global::Float,
        ("builtins" | "__builtin__", "bool") => Global::Bool,
        ("builtins" | "__builtin__", "object") => Global::Object,
        ("copy_reg" | "copyreg", "_reconstructor") => Global::Reconstructor,
        ("ZopeUndo.Prefix", "Prefix") => Global::Prefix,
        _ => return Err(Undecodable(format!("a global that is not plain data: {module:.100}.{name:.100}"))),
    })
}

/// What `callee(*args)` is, or `callee.__new__(callee, *args)` if `bare`.
pub(super) fn construct<'a>(
    machine: &mut Machine<'a>,
    callee: Id,
    args: Id,
    bare: bool,
) -> Result<Node<'a>, Undecodable> {
    let (&Node::Global(global), Node::Tuple(args)) = (machine.node(callee), machine.node(args)) else {
        return Err(bad("a call of what can't be called"));
    };
    match (global, args.as_slice()) {
        (Global::Reconstructor, &[class, base, state]) => {
            let (&Node::Global(class), Node::Global(_)) = (machine.node(class), machine.node(base)) else {
                return Err(bad("a class that is not one"));
            };
            convert(machine, class, Some(state))
        }
        (Global::Prefix, []) if bare => Ok(Node::Prefix(None)),
        (Global::Prefix, &[path]) => match machine.node(path) {
            Node::Leaf(Value::Text(Cow::Borrowed(path))) => {
                Ok(Node::Leaf(Value::Prefix(path.split('/').map(Cow::Borrowed).collect())))
            }
            _ => Err(bad("a Prefix of what is not text")),
        },
        // `dict.__new__` and its like ignore their arguments; contents come with SETITEMS or APPENDS.
        (Global::Dict | Global::List | Global::Set, _) if bare => convert(machine, global, None),
        (_, &[]) => convert(machine, global, None),
        (_, &[value]) => convert(machine, global, Some(value)),
        _ => Err(bad("too many arguments")),
    }
}

/// `list(value)`, `dict(value)` and so on; without a value, the empty one.
fn convert<'a>(machine: &mut Machine<'a>, global: Global, value: Option<Id>) -> Result<Node<'a>, Undecodable> {
    let Some(value) = value else {
        return Ok(match global {
            Global::Dict => Node::Dict(Vec::new()),
            Global::List => Node::List(Vec::new()),
            Global::Tuple => Node::Tuple(Vec::new()),
            Global::Set => Node::Set(Vec::new()),
            Global::FrozenSet => Node::FrozenSet(Vec::new()),
            Global::Bytes => Node::Leaf(Value::Bytes(Cow::Borrowed(b""))),
            Global::Text => Node::Leaf(Value::Text(Cow::Borrowed(""))),
            Global::Int => Node::Leaf(Value::Int(0)),
            Global::Float => Node::Leaf(Value::Float(0.0)),
            Global::Bool => Node::Leaf(Value::Bool(false)),
            Global::Object | Global::Reconstructor | Global::Prefix => return Err(bad("an object")),
        });
    };
    match (global, machine.node(value)) {
        (Global::Bytes, Node::Leaf(Value::Bytes(_)))
        | (Global::Text, Node::Leaf(Value::Text(_)))
        | (Global::Int, Node::Leaf(Value::Int(_) | Value::Long(_)))
        | (Global::Float, Node::Leaf(Value::Float(_)))
        | (Global::Bool, Node::Leaf(Value::Bool(_))) => Ok(machine.node(value).clone()),
        (Global::Dict, Node::Dict(pairs)) => {
            let pairs = pairs.clone();
            machine.spend(pairs.len())?;
            Ok(Node::Dict(pairs))
        }
        (Global::Dict, Node::Tuple(_) | Node::List(_)) => {
            let mut pairs = Vec::new();
            for item in machine.items(value) {
                let &[key, value] = machine.items(*item) else { return Err(bad("a pair that is none")) };
                pairs.push((key, value));
            }
            machine.spend(pairs.len())?;
            Ok(Node::Dict(pairs))
        }
        (_, Node::Tuple(_) | Node::List(_) | Node::Set(_) | Node::FrozenSet(_)) => {
            machine.spend(machine.items(value).len())?;
            let items = machine.items(value).to_vec();
            match global {
                Global::List => Ok(Node::List(items)),
                Global::Tuple => Ok(Node::Tuple(items)),
                Global::Set => Ok(Node::Set(items)),
                Global::FrozenSet => Ok(Node::FrozenSet(items)),
                _ => Err(bad("a conversion that is not plain data")),
            }
        }
        _ => Err(bad("a conversion that is not plain data")),
    }
}

/// Where BUILD finds the path of a `Prefix`.
pub(super) fn prefix_path(machine: &Machine<'_>, target: Id, state: Id) -> Result<Id, Undecodable> {
    let (Node::Prefix(_), Node::Dict(state)) = (machine.node(target), machine.node(state)) else {
        return Err(bad("the state of an object"));
    };
    let named = |key: Id| matches!(machine.node(key), Node::Leaf(Value::Text(key)) if key == "path");
    state.iter().find(|(key, _)| named(*key)).map(|(_, path)| *path).ok_or_else(|| bad("a Prefix without a path"))
}

/// A `Prefix` of this path, a list of texts.
pub(super) fn prefix(path: Value<'_>) -> Result<Value<'_>, Undecodable> {
    let Value::List(steps) = path else { return Err(bad("a path that is no list")) };
    let step = |step| match step {
        Value::Text(text) => Ok(text),
        _ => Err(bad("a path of what is not text")),
    };
    Ok(Value::Prefix(steps.into_iter().map(step).collect::<Result<_, _>>()?))
}
