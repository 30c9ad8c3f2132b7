//! The results of calling the known globals: still nodes, as no class is ever called.

use std::borrow::Cow;

use super::super::value::{Undecodable, Value, undecodable};
use super::globals::Global;
use super::nodes::{Id, Node, Nodes};

/// The result of `callee(*args)`, or of `callee.__new__(callee, *args)` if `bare`.
pub(super) fn construct<'a>(nodes: &mut Nodes<'a>, callee: Id, args: Id, bare: bool) -> Result<Node<'a>, Undecodable> {
    let (&Node::Global(global), Node::Tuple(args)) = (nodes.get(callee), nodes.get(args)) else {
        return Err(undecodable("a call of something that is not a known class"));
    };
    match (global, args.as_slice()) {
        (Global::Reconstructor, &[class, base, state]) => {
            let (&Node::Global(class), Node::Global(_)) = (nodes.get(class), nodes.get(base)) else {
                return Err(undecodable("a class that is not known"));
            };
            convert(nodes, class, Some(state))
        }
        (Global::Prefix, []) if bare => Ok(Node::Prefix(None)),
        (Global::Prefix, &[path]) => match nodes.get(path) {
            &Node::Leaf(Value::Text(Cow::Borrowed(path))) => {
                nodes.spend(path.split('/').count())?;
                Ok(Node::Leaf(Value::Prefix(path.split('/').map(Cow::Borrowed).collect())))
            }
            _ => Err(undecodable("a Prefix of something that is not text")),
        },
        // `dict.__new__`, `list.__new__` and `set.__new__` ignore their arguments; SETITEMS or APPENDS bring the
        // contents.
        (Global::Dict | Global::List | Global::Set, _) if bare => convert(nodes, global, None),
        (_, &[]) => convert(nodes, global, None),
        (_, &[value]) => convert(nodes, global, Some(value)),
        _ => Err(undecodable("too many arguments")),
    }
}

/// `list(value)`, `dict(value)` and so on; without a value, `list()`, `dict()` and so on.
fn convert<'a>(nodes: &mut Nodes<'a>, global: Global, value: Option<Id>) -> Result<Node<'a>, Undecodable> {
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
            Global::Object | Global::Reconstructor | Global::Prefix => {
                return Err(undecodable("an object without plain data"));
            }
        });
    };
    match (global, nodes.get(value)) {
        (Global::Bytes, Node::Leaf(Value::Bytes(_)))
        | (Global::Text, Node::Leaf(Value::Text(_)))
        | (Global::Int, Node::Leaf(Value::Int(_) | Value::Long(_)))
        | (Global::Float, Node::Leaf(Value::Float(_)))
        | (Global::Bool, Node::Leaf(Value::Bool(_))) => Ok(nodes.get(value).clone()),
        (Global::Dict, Node::Dict(pairs)) => {
            let pairs = pairs.clone();
            nodes.spend(2 * pairs.len())?;
            Ok(Node::Dict(pairs))
        }
        (Global::Dict, Node::Tuple(_) | Node::List(_)) => {
            let mut pairs = Vec::new();
            for item in nodes.items(value) {
                let &[key, value] = nodes.items(*item) else {
                    return Err(undecodable("an item of a dictionary that is not a pair"));
                };
                pairs.push((key, value));
            }
            nodes.spend(pairs.len())?;
            Ok(Node::Dict(pairs))
        }
        (_, Node::Tuple(_) | Node::List(_) | Node::Set(_) | Node::FrozenSet(_)) => {
            nodes.spend(nodes.items(value).len())?;
            let items = nodes.items(value).to_vec();
            match global {
                Global::List => Ok(Node::List(items)),
                Global::Tuple => Ok(Node::Tuple(items)),
                Global::Set => Ok(Node::Set(items)),
                Global::FrozenSet => Ok(Node::FrozenSet(items)),
                _ => Err(undecodable("a conversion that is not plain data")),
            }
        }
        _ => Err(undecodable("a conversion that is not plain data")),
    }
}

/// The path that BUILD gives to a `Prefix`: `state["path"]`.
pub(super) fn prefix_path(nodes: &mut Nodes<'_>, target: Id, state: Id) -> Result<Id, Undecodable> {
    let (Node::Prefix(_), Node::Dict(pairs)) = (nodes.get(target), nodes.get(state)) else {
        return Err(undecodable("the state of an object"));
    };
    // A memo can give one large state to many objects.
    nodes.spend(pairs.len())?;
    let Node::Dict(state) = nodes.get(state) else { return Err(undecodable("the state of an object")) };
    let named = |key: Id| matches!(nodes.get(key), Node::Leaf(Value::Text(key)) if key == "path");
    state
        .iter()
        .find(|(key, _)| named(*key))
        .map(|(_, path)| *path)
        .ok_or_else(|| undecodable("a Prefix without a path"))
}

/// The `Prefix` with this path, which must be a list of texts.
pub(super) fn prefix(path: Value<'_>) -> Result<Value<'_>, Undecodable> {
    let Value::List(steps) = path else { return Err(undecodable("a path that is not a list")) };
    let step = |step| match step {
        Value::Text(text) => Ok(text),
        _ => Err(undecodable("a path with something that is not text")),
    };
    Ok(Value::Prefix(steps.into_iter().map(step).collect::<Result<_, _>>()?))
}
