//! A call's arguments, taken one after the other and checked.

use bytes::Bytes;

use super::extension;
use super::message::{lend, share};
use super::value::Value;
use crate::config::limits::UNDO_SPECIFICATION;
use crate::zodb::{Oid, Tid};

/// Why a call does not take such arguments; the text of a `TypeError`.
#[derive(Debug)]
pub(super) struct Unfit(pub String);

pub(super) struct Arguments<'f, 'v> {
    frame: &'f Bytes,
    rest: std::vec::IntoIter<Value<'v>>,
}

impl<'f, 'v> Arguments<'f, 'v> {
    pub(super) fn new(frame: &'f Bytes, values: Vec<Value<'v>>) -> Self {
        Arguments { frame, rest: values.into_iter() }
    }

    /// Whether there is another argument.
    pub(super) fn more(&self) -> bool {
        self.rest.len() > 0
    }

    /// Checks that no argument is left.
    pub(super) fn end(&self) -> Result<(), Unfit> {
        if self.more() { Err(Unfit(format!("{} arguments too many", self.rest.len()))) } else { Ok(()) }
    }

    fn next(&mut self) -> Result<Value<'v>, Unfit> {
        self.rest.next().ok_or_else(|| Unfit("an argument is missing".to_owned()))
    }

    fn next_as<T>(&mut self, what: &str, fit: impl FnOnce(&Value<'v>, &Bytes) -> Option<T>) -> Result<T, Unfit> {
        let value = self.next()?;
        fit(&value, self.frame).ok_or_else(|| Unfit(format!("{what} expected")))
    }

    /// An argument that may be `None` or missing.
    pub(super) fn optional<T>(&mut self, take: impl FnOnce(&mut Self) -> Result<T, Unfit>) -> Result<Option<T>, Unfit> {
        match self.rest.as_slice().first() {
            None => Ok(None),
            Some(Value::None) => self.next().map(|_| None),
            Some(_) => take(self).map(Some),
        }
    }

    pub(super) fn oid(&mut self) -> Result<Oid, Unfit> {
        self.next_as("an oid of 8 bytes", |value, _| value.as_oid())
    }

    pub(super) fn tid(&mut self) -> Result<Tid, Unfit> {
        self.next_as("a tid of 8 bytes", |value, _| value.as_tid())
    }

    /// The serial of a store: a tid, `None`, or `z64` as text, which old tests send.
    pub(super) fn serial(&mut self) -> Result<Option<Tid>, Unfit> {
        self.next_as("a serial of 8 bytes", |value, _| match value {
            Value::None => Some(None),
            Value::Text(text) if text == "\0\0\0\0\0\0\0\0" => Some(Some(Tid::ZERO)),
            other => other.as_tid().map(Some),
        })
    }

    pub(super) fn int(&mut self) -> Result<i64, Unfit> {
        self.next_as("a number", |value, _| value.as_int())
    }

    pub(super) fn ints(&mut self) -> Result<Vec<i64>, Unfit> {
        self.next_as("a list of numbers", |value, _| value.as_items()?.iter().map(Value::as_int).collect())
    }

    /// The client's number for its transaction: the address of a Python object. The number only has to differ from
    /// others, so a negative one is read as if it had no sign.
    pub(super) fn txn(&mut self) -> Result<u64, Unfit> {
        self.next_as("a transaction's number", |value, _| {
            value.as_unsigned().or_else(|| value.as_int().map(i64::cast_unsigned))
        })
    }

    pub(super) fn float(&mut self) -> Result<f64, Unfit> {
        self.next_as("a time", |value, _| value.as_float())
    }

    pub(super) fn truth(&mut self) -> Result<bool, Unfit> {
        self.next().map(|value| value.is_true())
    }

    pub(super) fn text(&mut self) -> Result<String, Unfit> {
        self.next_as("text", |value, _| value.as_text().map(str::to_owned))
    }

    /// Bytes that may be kept.
    pub(super) fn data(&mut self) -> Result<Bytes, Unfit> {
        self.next_as("bytes", |value, frame| value.as_bytes().map(|bytes| share(frame, bytes)))
    }

    /// Bytes that are copied at once to where they belong.
    pub(super) fn chunk(&mut self) -> Result<Bytes, Unfit> {
        self.next_as("bytes", |value, frame| value.as_bytes().map(|bytes| lend(frame, bytes)))
    }

    /// Bytes; text counts as its UTF-8.
    pub(super) fn bytes_or_text(&mut self) -> Result<Bytes, Unfit> {
        self.next_as("bytes or text", |value, frame| match value {
            Value::Bytes(bytes) => Some(share(frame, bytes)),
            Value::Text(text) => Some(share(frame, text.as_bytes())),
            _ => None,
        })
    }

    /// A transaction's extension, as a pickle.
    pub(super) fn extension(&mut self) -> Result<Bytes, Unfit> {
        self.next_as("a dictionary", extension::to_pickle)
    }

    /// A transaction's status: one character, as text or bytes.
    pub(super) fn status(&mut self) -> Result<u8, Unfit> {
        self.next_as("a status of one character", |value, _| match value {
            Value::Text(text) => status_of_text(text),
            Value::Bytes(bytes) => <[u8; 1]>::try_from(bytes.as_ref()).ok().map(|[status]| status),
            Value::None => Some(b' '),
            _ => None,
        })
    }

    /// The specification of `undoInfo`: a dictionary with texts as keys, `None`, or missing. It is kept until its
    /// search is over.
    pub(super) fn specification(&mut self) -> Result<Vec<(String, Value<'static>)>, Unfit> {
        if self.frame.len() > UNDO_SPECIFICATION {
            return Err(Unfit(format!("a specification of at most {UNDO_SPECIFICATION} bytes expected")));
        }
        let value = if self.more() { self.next()? } else { Value::None };
        let pairs = match value {
            Value::None => Vec::new(),
            Value::Dict(pairs) => pairs,
            _ => return Err(Unfit("a dictionary expected".to_owned())),
        };
        let pair = |(key, wanted): (Value<'v>, Value<'v>)| match key {
            Value::Text(key) => Ok((key.into_owned(), wanted.into_owned())),
            _ => Err(Unfit("a dictionary with texts as keys expected".to_owned())),
        };
        pairs.into_iter().map(pair).collect()
    }
}

/// The status that text of one character stands for, as `writer` writes a status.
pub(super) fn status_of_text(text: &str) -> Option<u8> {
    let mut characters = text.chars();
    let status = u8::try_from(characters.next()?).ok()?;
    characters.next().is_none().then_some(status)
}
