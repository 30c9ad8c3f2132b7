//! Plain data as ZEO's messages carry it, in either encoding.
//!
//! A [`Value`] borrows its bytes and texts from the frame it was read from. It is used where the shape of a message is
//! not known beforehand: for a call's arguments before they are checked, the values of a transaction's extension, a
//! reply on its way to the Rust client. The server writes its replies without it, except for extensions.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::config::limits::CALL_VALUES;
use crate::zodb::{Oid, Tid};

const _: () = assert!(CALL_VALUES * size_of::<Value<'static>>() <= 8 << 20, "a call's tree fits in a few megabytes");

/// Bytes that are not plain data, or not a message; the text says why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecodable(pub String);

pub(super) fn undecodable(why: impl Into<String>) -> Undecodable {
    Undecodable(why.into())
}

/// One piece of plain data.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// `None`, nil.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// An integer that fits in 64 bits with sign.
    Int(i64),
    /// Any other integer: two's complement, little-endian, as short as possible.
    Long(Cow<'a, [u8]>),
    /// A 64 bit float.
    Float(f64),
    /// `bytes`.
    Bytes(Cow<'a, [u8]>),
    /// `str`.
    Text(Cow<'a, str>),
    /// A tuple; with msgpack, any array.
    Tuple(Vec<Value<'a>>),
    /// A list.
    List(Vec<Value<'a>>),
    /// A dictionary, in the order in which it was written; of two equal keys, the last one counts.
    Dict(Vec<(Value<'a>, Value<'a>)>),
    /// A set.
    Set(Vec<Value<'a>>),
    /// A frozenset.
    FrozenSet(Vec<Value<'a>>),
    /// `ZopeUndo.Prefix.Prefix`, which `undoInfo` specifications may hold: equal to any path that begins with these
    /// steps.
    Prefix(Vec<Cow<'a, str>>),
}

impl<'a> Value<'a> {
    /// The integer whose two's complement is `le`, little-endian; empty is 0.
    pub fn integer(le: &'a [u8]) -> Value<'a> {
        match small(le) {
            Some(int) => Value::Int(int),
            None => Value::Long(Cow::Borrowed(&le[..shortest(le)])),
        }
    }

    /// An integer without sign.
    pub fn unsigned(value: u64) -> Value<'static> {
        match i64::try_from(value) {
            Ok(int) => Value::Int(int),
            Err(_) => {
                let mut le = value.to_le_bytes().to_vec();
                le.push(0);
                Value::Long(Cow::Owned(le))
            }
        }
    }

    /// Text that is copied.
    pub fn text(text: &str) -> Value<'static> {
        Value::Text(Cow::Owned(text.to_owned()))
    }

    /// The bytes of a `bytes`.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Value::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The text of a `str`.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The integer, if it fits; booleans are integers in Python.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Value::Int(int) => Some(*int),
            Value::Bool(truth) => Some(i64::from(*truth)),
            _ => None,
        }
    }

    /// The integer, if it fits in 64 bits without sign.
    pub fn as_unsigned(&self) -> Option<u64> {
        match self {
            Value::Long(le) if le.len() == 9 && le[8] == 0 => Some(u64::from_le_bytes(le[..8].try_into().ok()?)),
            other => u64::try_from(other.as_int()?).ok(),
        }
    }

    /// The number as a float.
    pub fn as_float(&self) -> Option<f64> {
        match self {
            Value::Float(float) => Some(*float),
            other => other.as_int().map(|int| int as f64),
        }
    }

    /// Whether Python's `if` takes the value for true.
    pub fn is_true(&self) -> bool {
        match self {
            Value::None => false,
            Value::Bool(truth) => *truth,
            Value::Int(int) => *int != 0,
            Value::Float(float) => *float != 0.0,
            Value::Bytes(bytes) => !bytes.is_empty(),
            Value::Text(text) => !text.is_empty(),
            Value::Tuple(items) | Value::List(items) | Value::Set(items) | Value::FrozenSet(items) => !items.is_empty(),
            Value::Dict(pairs) => !pairs.is_empty(),
            Value::Long(_) | Value::Prefix(_) => true,
        }
    }

    /// The items of a tuple or list.
    pub fn as_items(&self) -> Option<&[Value<'a>]> {
        match self {
            Value::Tuple(items) | Value::List(items) => Some(items),
            _ => None,
        }
    }

    /// The items of a tuple or list.
    pub fn into_items(self) -> Option<Vec<Value<'a>>> {
        match self {
            Value::Tuple(items) | Value::List(items) => Some(items),
            _ => None,
        }
    }

    /// The pairs of a dictionary.
    pub fn as_pairs(&self) -> Option<&[(Value<'a>, Value<'a>)]> {
        match self {
            Value::Dict(pairs) => Some(pairs),
            _ => None,
        }
    }

    /// The value of a dictionary's key that is text.
    pub fn get(&self, key: &str) -> Option<&Value<'a>> {
        self.as_pairs()?.iter().rev().find(|(k, _)| k.as_text() == Some(key)).map(|(_, value)| value)
    }

    /// Eight bytes, as an object id.
    pub fn as_oid(&self) -> Option<Oid> {
        Oid::from_bytes(self.as_bytes()?)
    }

    /// Eight bytes, as a transaction id.
    pub fn as_tid(&self) -> Option<Tid> {
        Tid::from_bytes(self.as_bytes()?)
    }

    /// The same value, with its own copies of bytes and texts.
    pub fn into_owned(self) -> Value<'static> {
        let all = |items: Vec<Value<'a>>| items.into_iter().map(Value::into_owned).collect();
        match self {
            Value::None => Value::None,
            Value::Bool(truth) => Value::Bool(truth),
            Value::Int(int) => Value::Int(int),
            Value::Long(le) => Value::Long(Cow::Owned(le.into_owned())),
            Value::Float(float) => Value::Float(float),
            Value::Bytes(bytes) => Value::Bytes(Cow::Owned(bytes.into_owned())),
            Value::Text(text) => Value::Text(Cow::Owned(text.into_owned())),
            Value::Tuple(items) => Value::Tuple(all(items)),
            Value::List(items) => Value::List(all(items)),
            Value::Set(items) => Value::Set(all(items)),
            Value::FrozenSet(items) => Value::FrozenSet(all(items)),
            Value::Dict(pairs) => {
                Value::Dict(pairs.into_iter().map(|(k, v)| (k.into_owned(), v.into_owned())).collect())
            }
            Value::Prefix(path) => Value::Prefix(path.into_iter().map(|step| Cow::Owned(step.into_owned())).collect()),
        }
    }

    /// Whether Python could use the value as a key of a dictionary.
    pub(crate) fn is_hashable(&self) -> bool {
        match self {
            Value::Tuple(items) | Value::FrozenSet(items) => items.iter().all(Value::is_hashable),
            Value::List(_) | Value::Dict(_) | Value::Set(_) | Value::Prefix(_) => false,
            _ => true,
        }
    }

    /// Python's `found == wanted`, as `undoInfo` needs it: `wanted` may be a `Prefix`, or a tuple or list with a
    /// `Prefix` in it.
    pub fn equals(&self, wanted: &Value<'_>) -> bool {
        let all = |a: &[Value<'_>], b: &[Value<'_>]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.equals(b));
        match (self, wanted) {
            (Value::Text(found), Value::Prefix(path)) => begins(found, path),
            (Value::Bytes(found), Value::Prefix(path)) => std::str::from_utf8(found).is_ok_and(|f| begins(f, path)),
            (Value::Tuple(a), Value::Tuple(b)) | (Value::List(a), Value::List(b)) => all(a, b),
            (Value::Float(_), _) | (_, Value::Float(_)) => match (self.as_float(), wanted.as_float()) {
                (Some(a), Some(b)) => a == b,
                _ => false,
            },
            (Value::Bool(_) | Value::Int(_), Value::Bool(_) | Value::Int(_)) => self.as_int() == wanted.as_int(),
            (Value::Dict(_) | Value::Set(_) | Value::FrozenSet(_), _) => self.likeness() == wanted.likeness(),
            (a, b) => a == b,
        }
    }

    /// Bytes that are the same for equal values, in any order of their dictionaries and sets: so dictionaries and sets
    /// are compared in less time than the square of their size.
    fn likeness(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.liken(&mut out);
        out
    }

    fn liken(&self, out: &mut Vec<u8>) {
        fn sized(out: &mut Vec<u8>, kind: u8, bytes: &[u8]) {
            out.push(kind);
            out.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
            out.extend_from_slice(bytes);
        }
        fn all<'v>(out: &mut Vec<u8>, kind: u8, parts: impl ExactSizeIterator<Item = &'v [u8]>) {
            out.push(kind);
            out.extend_from_slice(&(parts.len() as u64).to_be_bytes());
            parts.for_each(|part| out.extend_from_slice(part));
        }
        match self {
            Value::None => out.push(0),
            Value::Bool(_) | Value::Int(_) => sized(out, 1, &self.as_int().unwrap_or_default().to_be_bytes()),
            // Only whole floats can equal integers, and floats of this size are exact.
            Value::Float(float) if float.fract() == 0.0 && float.abs() < 9e15 => {
                sized(out, 1, &(*float as i64).to_be_bytes());
            }
            Value::Float(float) => sized(out, 2, &float.to_be_bytes()),
            Value::Long(le) => sized(out, 3, le),
            Value::Bytes(bytes) => sized(out, 4, bytes),
            Value::Text(text) => sized(out, 5, text.as_bytes()),
            Value::Tuple(items) | Value::List(items) => {
                let items: Vec<_> = items.iter().map(Value::likeness).collect();
                all(out, if matches!(self, Value::List(_)) { 7 } else { 6 }, items.iter().map(Vec::as_slice));
            }
            Value::Dict(pairs) => {
                let pairs: BTreeMap<_, _> = pairs.iter().map(|(k, v)| (k.likeness(), v.likeness())).collect();
                let pairs: Vec<_> = pairs.into_iter().map(|(k, v)| [k, v].concat()).collect();
                all(out, 8, pairs.iter().map(Vec::as_slice));
            }
            Value::Set(items) | Value::FrozenSet(items) => {
                let items: BTreeSet<_> = items.iter().map(Value::likeness).collect();
                all(out, 9, items.iter().map(Vec::as_slice));
            }
            Value::Prefix(path) => sized(out, 10, path.join("/").as_bytes()),
        }
    }

    /// Text for a value that an encoding can't express: roughly Python's `str`.
    pub(crate) fn to_text(&self) -> String {
        match self {
            Value::None => "None".to_owned(),
            Value::Bool(truth) => if *truth { "True" } else { "False" }.to_owned(),
            Value::Int(int) => int.to_string(),
            Value::Float(float) => format!("{float:?}"),
            Value::Text(text) => text.clone().into_owned(),
            Value::Long(le) => {
                // Hexadecimal, as decimal would take time that grows with the square of the length.
                let negative = le.last().is_some_and(|top| top & 0x80 != 0);
                let mut text = String::from(if negative { "-0x" } else { "0x" });
                for byte in magnitude(le, negative).iter().rev() {
                    let _ = write!(text, "{byte:02x}");
                }
                text
            }
            Value::Bytes(bytes) => bytes.escape_ascii().to_string(),
            Value::Prefix(path) => path.join("/"),
            Value::Tuple(items) | Value::List(items) | Value::Set(items) | Value::FrozenSet(items) => {
                format!("({})", items.iter().map(Value::to_text).collect::<Vec<_>>().join(", "))
            }
            Value::Dict(pairs) => {
                let pair = |(key, value): &(Value<'_>, Value<'_>)| format!("{}: {}", key.to_text(), value.to_text());
                format!("{{{}}}", pairs.iter().map(pair).collect::<Vec<_>>().join(", "))
            }
        }
    }
}

/// The bytes of the absolute value, little-endian.
fn magnitude(le: &[u8], negative: bool) -> Vec<u8> {
    if !negative {
        return le.to_vec();
    }
    let mut carry = true;
    le.iter()
        .map(|byte| {
            let (byte, over) = (!byte).overflowing_add(u8::from(carry));
            carry = over;
            byte
        })
        .collect()
}

/// `Prefix.__eq__`: whole steps of a path; a user name after a space in the last step doesn't count.
fn begins(found: &str, path: &[Cow<'_, str>]) -> bool {
    let mut steps: Vec<&str> = found.split('/').collect();
    if let Some(last) = steps.last_mut()
        && let Some((place, _user)) = last.rsplit_once(' ')
    {
        *last = place;
    }
    path.len() <= steps.len() && path.iter().zip(steps).all(|(wanted, step)| wanted == step)
}

/// The length of the shortest little-endian two's complement with the same value.
fn shortest(le: &[u8]) -> usize {
    let mut len = le.len();
    while len > 1 {
        let sign = le[len - 2] & 0x80 != 0;
        match (le[len - 1], sign) {
            (0, false) | (0xff, true) => len -= 1,
            _ => break,
        }
    }
    len
}

fn small(le: &[u8]) -> Option<i64> {
    let len = shortest(le);
    if len > 8 {
        return None;
    }
    let negative = len > 0 && le[len - 1] & 0x80 != 0;
    let mut bytes = [if negative { 0xff } else { 0 }; 8];
    bytes[..len].copy_from_slice(&le[..len]);
    Some(i64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_kept_as_short_as_possible() {
        assert_eq!(Value::integer(&[]), Value::Int(0));
        assert_eq!(Value::integer(&[0xff, 0xff]), Value::Int(-1));
        assert_eq!(Value::integer(&[0xff, 0]), Value::Int(255));
        assert_eq!(Value::integer(&[0, 0, 0, 0, 0, 0, 0, 0x80]), Value::Int(i64::MIN));
        assert_eq!(Value::integer(&[0, 0, 0, 0, 0, 0, 0, 0x80, 0, 0]), Value::unsigned(1 << 63));
        assert_eq!(Value::unsigned(u64::MAX).as_unsigned(), Some(u64::MAX));
        assert_eq!(Value::unsigned(7), Value::Int(7));
        assert_eq!(Value::unsigned(1 << 63).to_text(), "0x008000000000000000");
        assert_eq!(Value::integer(&[0, 0, 0, 0, 0, 0, 0, 0, 0xff]).to_text(), "-0x010000000000000000");
    }

    #[test]
    fn a_prefix_is_equal_to_the_paths_below_it() {
        let prefix = Value::Prefix(vec!["".into(), "a".into(), "b".into()]);
        for (path, equal) in [("/a/b", true), ("/a/b/c", true), ("/a/b fred", true), ("/a/bc", false), ("/a", false)] {
            assert_eq!(Value::text(path).equals(&prefix), equal, "{path}");
        }
    }

    #[test]
    fn dictionaries_and_sets_are_equal_in_any_order() {
        let pair = |key: i64, value: i64| (Value::Int(key), Value::List(vec![Value::Int(value)]));
        let one = Value::Dict(vec![pair(1, 10), pair(2, 20)]);
        assert!(one.equals(&Value::Dict(vec![pair(2, 20), pair(1, 10)])));
        assert!(one.equals(&Value::Dict(vec![pair(2, 9), pair(1, 10), pair(2, 20)])), "the last one counts");
        assert!(!one.equals(&Value::Dict(vec![pair(1, 10), pair(2, 21)])));
        assert!(!one.equals(&Value::Dict(vec![pair(1, 10)])));
        let set = |items: &[f64]| Value::Set(items.iter().map(|item| Value::Float(*item)).collect());
        assert!(set(&[1.0, 2.5]).equals(&Value::FrozenSet(vec![Value::Float(2.5), Value::Int(1)])));
        assert!(!set(&[1.0]).equals(&set(&[1.0, 2.0])));
        assert!(!set(&[]).equals(&Value::Dict(vec![])) && !Value::Int(1).equals(&set(&[1.0])));
    }

    #[test]
    fn numbers_are_equal_as_in_python() {
        assert!(Value::Int(1).equals(&Value::Float(1.0)));
        assert!(Value::Bool(true).equals(&Value::Int(1)));
        assert!(!Value::text("1").equals(&Value::Int(1)));
        assert!(!Value::Tuple(vec![]).equals(&Value::List(vec![])));
    }
}
