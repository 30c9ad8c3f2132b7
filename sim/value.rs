//! The states of objects, and their records.
//!
//! A record says which attempt wrote it, its *mark*: so any revision that a client is shown can be told from every
//! other one, also where the values are equal.

use bytes::Bytes;

/// The state of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    Number(u64),
    /// A register that is only appended to: the marks of the attempts that did so.
    List(Vec<u64>),
    /// There is no such object: not yet, or not any more.
    Gone,
}

/// A revision as a client was shown it: the state, and the mark of the attempt that wrote it.
pub type Found = (Value, u64);

impl Value {
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
}

/// The record of a state, by the attempt `mark`, made longer by so many bytes.
///
/// # Panics
/// An object that is gone has no record.
pub fn record(value: &Value, mark: u64, padding: usize) -> Bytes {
    let (kind, numbers) = match value {
        Value::Number(number) => (b'n', std::slice::from_ref(number)),
        Value::List(list) => (b'l', list.as_slice()),
        Value::Gone => panic!("no record says that there is no object"),
    };
    let mut bytes = mark.to_be_bytes().to_vec();
    bytes.push(kind);
    bytes.extend((numbers.len() as u64).to_be_bytes());
    numbers.iter().for_each(|number| bytes.extend(number.to_be_bytes()));
    bytes.resize(bytes.len() + padding, b'.');
    bytes.into()
}

/// The state in a record, and the mark; `None` for bytes that no client has written.
pub fn read(record: &[u8]) -> Option<Found> {
    let (mark, rest) = number(record)?;
    let (kind, rest) = rest.split_first()?;
    let (count, mut rest) = number(rest)?;
    let mut numbers = Vec::new();
    for _ in 0..count {
        let (next, others) = number(rest)?;
        numbers.push(next);
        rest = others;
    }
    let value = match (kind, numbers.as_slice()) {
        (b'n', [number]) => Value::Number(*number),
        (b'l', _) => Value::List(numbers),
        _ => return None,
    };
    rest.iter().all(|byte| *byte == b'.').then_some((value, mark))
}

fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    bytes.split_first_chunk::<8>().map(|(first, rest)| (u64::from_be_bytes(*first), rest))
}
