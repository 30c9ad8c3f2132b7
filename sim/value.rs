//! The states of objects, and their records.
//!
//! A record says which attempt wrote it, its *mark*: so any revision that a client is shown can be told from every
//! other one, also where the values are equal.
//!
//! A record is what ZODB would write, as the server's pack has to find the references in it: a pickle of the class, and
//! one of the state, which share a memo. References stand in it in the forms that ZODB has:
//!
//! ```text
//!   (oid, class)    with the class from the memo, or named again
//!   oid
//!   ['w', (oid,)]   weak: keeps nothing
//! ```

use bytes::Bytes;
use zrs::zodb::Oid;

/// The class, which the memo has as number 1.
const CLASS: &[u8] = b"\x80\x03csim\nThing\nq\x01.";
/// The beginning of the state: a tuple, of which the first item is bytes.
const STATE: &[u8] = b"\x80\x03(B";

/// The state of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    Number(u64),
    /// A register that is only appended to: the marks of the attempts that did so.
    List(Vec<u64>),
    /// An object that refers to others, and weakly to some more.
    Node {
        to: Vec<Oid>,
        weak: Vec<Oid>,
    },
    /// An object with a blob of so many bytes ([`blob`]).
    Blob(u64),
    /// An object whose record no pack can read: it has no end.
    Junk(u64),
    /// There is no such object: not yet, or not any more.
    Gone,
}

/// A revision as a client was shown it: the state, and the mark of the attempt that wrote it.
pub type Found = (Value, u64);

impl Value {
    /// An object that refers to these.
    pub fn node(to: Vec<Oid>) -> Value {
        Value::Node { to, weak: Vec::new() }
    }

    /// The number; nought for anything else.
    pub fn number(&self) -> u64 {
        match self {
            Value::Number(number) => *number,
            _ => 0,
        }
    }

    /// The marks in a register; none in anything else.
    pub fn list(&self) -> &[u64] {
        match self {
            Value::List(list) => list,
            _ => &[],
        }
    }

    /// The objects that this one refers to, and keeps thereby.
    pub fn to(&self) -> &[Oid] {
        match self {
            Value::Node { to, .. } => to,
            _ => &[],
        }
    }

    fn weak(&self) -> &[Oid] {
        match self {
            Value::Node { weak, .. } => weak,
            _ => &[],
        }
    }
}

/// The record of a state, by the attempt `mark`, made longer by so many bytes.
///
/// # Panics
/// An object that is gone has no record.
pub fn record(value: &Value, mark: u64, padding: usize) -> Bytes {
    let (kind, numbers) = match value {
        Value::Number(number) => (b'n', vec![*number]),
        Value::List(list) => (b'l', list.clone()),
        Value::Blob(length) => (b'b', vec![*length]),
        Value::Junk(number) => (b'j', vec![*number]),
        Value::Node { to, weak } => {
            let oids = to.iter().chain(weak).map(|oid| oid.0);
            (b'o', std::iter::once(to.len() as u64).chain(oids).collect())
        }
        Value::Gone => panic!("no record says that there is no object"),
    };
    let mut told = mark.to_be_bytes().to_vec();
    told.push(kind);
    numbers.iter().for_each(|number| told.extend(number.to_be_bytes()));
    let length = |bytes: usize| (bytes as u32).to_le_bytes();
    let mut bytes = [CLASS, STATE, &length(told.len()), &told].concat();
    for oid in value.to() {
        let id = [b"C\x08".as_slice(), &oid.to_bytes()].concat();
        bytes.extend(match oid.0 % 3 {
            0 => [id.as_slice(), b"Q"].concat(),
            1 => [id.as_slice(), b"h\x01\x86Q"].concat(),
            _ => [b"(", id.as_slice(), b"csim\nThing\ntQ"].concat(),
        });
    }
    for oid in value.weak() {
        bytes.extend([b"](X\x01\0\0\0wC\x08".as_slice(), &oid.to_bytes(), b"\x85eQ"].concat());
    }
    bytes.extend([b"B".as_slice(), &length(padding)].concat());
    bytes.resize(bytes.len() + padding, b'.');
    bytes.push(b't');
    if !matches!(value, Value::Junk(_)) {
        bytes.push(b'.');
    }
    bytes.into()
}

/// The blob of so many bytes that the attempt `mark` has written.
pub fn blob(mark: u64, length: u64) -> Bytes {
    (0..length).map(|at| (mark.wrapping_mul(31) ^ (at / 251) ^ at) as u8).collect()
}

/// The state in a record, and the mark; `None` for bytes that no client has written.
pub fn read(bytes: &[u8]) -> Option<Found> {
    let rest = bytes.strip_prefix(CLASS)?.strip_prefix(STATE)?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let told = rest.get(..u32::from_le_bytes(*length) as usize)?;
    let (mark, told) = told.split_first_chunk::<8>()?;
    let (kind, told) = told.split_first()?;
    let (numbers, []) = told.as_chunks::<8>() else { return None };
    let numbers: Vec<u64> = numbers.iter().map(|number| u64::from_be_bytes(*number)).collect();
    let value = match (kind, numbers.as_slice()) {
        (b'n', [number]) => Value::Number(*number),
        (b'b', [length]) => Value::Blob(*length),
        (b'j', [number]) => Value::Junk(*number),
        (b'l', _) => Value::List(numbers),
        (b'o', [to, oids @ ..]) if *to as usize <= oids.len() => {
            let (to, weak) = oids.split_at(*to as usize);
            let oids = |numbers: &[u64]| numbers.iter().map(|number| Oid(*number)).collect();
            Value::Node { to: oids(to), weak: oids(weak) }
        }
        _ => return None,
    };
    let mark = u64::from_be_bytes(*mark);
    let padding = bytes.len().checked_sub(record(&value, mark, 0).len())?;
    (record(&value, mark, padding) == bytes).then_some((value, mark))
}
