//! Writes messages: one face for both encodings.
//!
//! `calls`, `replies`, `pushes` and `refusals` decide what a message contains; the writer knows how an integer, a text
//! or a tuple is written. One large `bytes` per message is kept aside instead of being copied.

use bytes::Bytes;

use super::greeting::Encoding;
use super::message::MessageId;
use super::msgpack;
use super::pickle::write as pickle;
use super::value::Value;
use crate::zodb::{Oid, Tid};

/// `bytes` from this length on are kept aside. (Whether they are copied behind the head in the end, or written from
/// where they are, is up to `net::FrameWriter`.)
const ASIDE: usize = 256;
/// Room for a message without its large part.
const ROOM: usize = 128;

/// A message in up to three parts, which follow each other on the wire as one frame. The first and the last lie in the
/// buffer that it was written in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame<'b> {
    /// The first part; the whole message, if it has no large part.
    pub head: &'b [u8],
    /// Object data that was not copied; empty if there is none.
    pub body: Bytes,
    /// The rest of the message after the body; empty if there is no body.
    pub tail: &'b [u8],
}

pub(super) struct Writer {
    encoding: Encoding,
    pub(super) out: Vec<u8>,
    /// A large `bytes`, and its position in `out`.
    aside: Option<(usize, Bytes)>,
}

/// The second part of a message.
#[derive(Clone, Copy)]
pub(super) enum Flag {
    /// A call whose client waits for a reply: `False`.
    Call,
    /// A call whose client does not wait: `True`.
    Asynchronous,
    /// A reply: 0.
    Result,
    /// An error reply: 2.
    Error,
}

/// A message `(id, flag, name, args)`, in one piece.
pub(super) fn message(
    encoding: Encoding,
    id: &MessageId,
    flag: Flag,
    name: &str,
    args: impl FnOnce(&mut Writer),
) -> Bytes {
    let mut buffer = Vec::with_capacity(ROOM);
    let Frame { head, body, tail } = message_in(&mut buffer, encoding, id, flag, name, args);
    if !body.is_empty() {
        return [head, &body, tail].concat().into();
    }
    buffer.into()
}

/// A message `(id, flag, name, args)`, written in `buffer`, whose former content goes.
pub(super) fn message_in<'b>(
    buffer: &'b mut Vec<u8>,
    encoding: Encoding,
    id: &MessageId,
    flag: Flag,
    name: &str,
    args: impl FnOnce(&mut Writer),
) -> Frame<'b> {
    buffer.clear();
    let mut writer = Writer { encoding, out: std::mem::take(buffer), aside: None };
    if encoding == Encoding::Pickle {
        writer.out.extend_from_slice(pickle::PROTO);
    }
    writer.tuple(4, |w| {
        match id {
            MessageId::Int(int) => w.int(*int),
            MessageId::Unsigned(int) => w.unsigned(*int),
            MessageId::Pair(oid, tid) => w.tuple(2, |w| {
                w.oid(*oid);
                w.tid(*tid);
            }),
        }
        match flag {
            Flag::Call => w.bool(false),
            Flag::Asynchronous => w.bool(true),
            Flag::Result => w.int(0),
            Flag::Error => w.int(2),
        }
        w.text(name);
        args(w);
    });
    if encoding == Encoding::Pickle {
        writer.out.push(b'.');
    }
    *buffer = writer.out;
    let (at, body) = writer.aside.unwrap_or_else(|| (buffer.len(), Bytes::new()));
    let (head, tail) = buffer.split_at(at);
    Frame { head, body, tail }
}

/// `value` as a pickle of its own, as ZODB stores extensions.
pub(super) fn dumps(value: &Value<'_>) -> Vec<u8> {
    encode_value(Encoding::Pickle, value)
}

/// `value` alone, without a message around it.
pub(crate) fn encode_value(encoding: Encoding, value: &Value<'_>) -> Vec<u8> {
    let mut writer = Writer::new(encoding);
    if writer.pickles() {
        writer.out.extend_from_slice(pickle::PROTO);
    }
    writer.value(value);
    if writer.pickles() {
        writer.out.push(b'.');
    }
    writer.out
}

impl Writer {
    pub(super) fn new(encoding: Encoding) -> Writer {
        Writer { encoding, out: Vec::with_capacity(ROOM), aside: None }
    }

    fn pickles(&self) -> bool {
        self.encoding == Encoding::Pickle
    }

    pub(super) fn none(&mut self) {
        self.out.push(if self.pickles() { b'N' } else { 0xc0 });
    }

    pub(super) fn bool(&mut self, truth: bool) {
        self.out.push(match (self.encoding, truth) {
            (Encoding::Pickle, true) => 0x88,
            (Encoding::Pickle, false) => 0x89,
            (Encoding::Msgpack, true) => 0xc3,
            (Encoding::Msgpack, false) => 0xc2,
        });
    }

    pub(super) fn int(&mut self, int: i64) {
        match self.encoding {
            Encoding::Pickle => pickle::int(&mut self.out, int),
            Encoding::Msgpack => msgpack::int(&mut self.out, int),
        }
    }

    pub(super) fn unsigned(&mut self, int: u64) {
        self.value(&Value::unsigned(int));
    }

    pub(super) fn float(&mut self, float: f64) {
        self.out.push(if self.pickles() { b'G' } else { 0xcb });
        self.out.extend_from_slice(&float.to_be_bytes());
    }

    fn bytes_head(&mut self, len: usize) {
        match self.encoding {
            Encoding::Pickle => pickle::bytes_head(&mut self.out, len),
            Encoding::Msgpack => msgpack::bytes_head(&mut self.out, len),
        }
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.bytes_head(bytes.len());
        self.out.extend_from_slice(bytes);
    }

    /// `bytes` that may be large: the first large one of a message is not copied.
    pub(super) fn data(&mut self, bytes: &Bytes) {
        if bytes.len() < ASIDE || self.aside.is_some() {
            return self.bytes(bytes);
        }
        self.bytes_head(bytes.len());
        self.aside = Some((self.out.len(), bytes.clone()));
    }

    pub(super) fn text(&mut self, text: &str) {
        match self.encoding {
            Encoding::Pickle => pickle::text(&mut self.out, text),
            Encoding::Msgpack => msgpack::text(&mut self.out, text),
        }
    }

    pub(super) fn oid(&mut self, oid: Oid) {
        self.bytes(&oid.to_bytes());
    }

    pub(super) fn tid(&mut self, tid: Tid) {
        self.bytes(&tid.to_bytes());
    }

    /// `None`, or the value as `write` writes it.
    pub(super) fn optional<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Writer, T)) {
        match value {
            Some(value) => write(self, value),
            None => self.none(),
        }
    }

    /// A tuple of `len` items, all written by `items`.
    pub(super) fn tuple(&mut self, len: usize, items: impl FnOnce(&mut Writer)) {
        if !self.pickles() {
            msgpack::array_head(&mut self.out, len);
            return items(self);
        }
        if len > 3 {
            self.out.push(b'(');
        }
        items(self);
        self.out.push(match len {
            0 => b')',
            1 => 0x85,
            2 => 0x86,
            3 => 0x87,
            _ => b't',
        });
    }

    /// A list.
    pub(super) fn list<T>(&mut self, items: impl ExactSizeIterator<Item = T>, item: impl FnMut(&mut Writer, T)) {
        if self.pickles() {
            self.out.push(b']');
            self.batches(items, item, (b'a', b'e'));
        } else {
            msgpack::array_head(&mut self.out, items.len());
            items.fold(item, |mut item, value| {
                item(self, value);
                item
            });
        }
    }

    /// A dictionary: `pair` writes one key and its value.
    pub(super) fn dict<T>(&mut self, pairs: impl ExactSizeIterator<Item = T>, pair: impl FnMut(&mut Writer, T)) {
        if self.pickles() {
            self.out.push(b'}');
            self.batches(pairs, pair, (b's', b'u'));
        } else {
            msgpack::map_head(&mut self.out, pairs.len());
            pairs.fold(pair, |mut pair, value| {
                pair(self, value);
                pair
            });
        }
    }

    /// Items in batches, each between a mark and the opcode that adds them; a single one has an opcode of its own.
    fn batches<T>(
        &mut self,
        items: impl ExactSizeIterator<Item = T>,
        mut item: impl FnMut(&mut Writer, T),
        (one, many): (u8, u8),
    ) {
        let len = items.len();
        for (at, value) in items.enumerate() {
            if at % pickle::BATCH == 0 && len > 1 {
                self.out.push(b'(');
            }
            item(self, value);
            if len == 1 {
                self.out.push(one);
            } else if (at + 1) % pickle::BATCH == 0 || at + 1 == len {
                self.out.push(many);
            }
        }
    }

    /// Any plain data. msgpack can't express all of it: keys become text or bytes, integers beyond 64 bits text, sets
    /// arrays.
    pub(super) fn value(&mut self, value: &Value<'_>) {
        match value {
            Value::None => self.none(),
            Value::Bool(truth) => self.bool(*truth),
            Value::Int(int) => self.int(*int),
            Value::Long(le) => match (self.encoding, value.as_unsigned()) {
                (Encoding::Pickle, _) => pickle::long(&mut self.out, le),
                (Encoding::Msgpack, Some(int)) => msgpack::unsigned(&mut self.out, int),
                (Encoding::Msgpack, None) => self.text(&value.to_text()),
            },
            Value::Float(float) => self.float(*float),
            Value::Bytes(bytes) => self.bytes(bytes),
            Value::Text(text) => self.text(text),
            Value::Tuple(items) => self.tuple(items.len(), |w| items.iter().for_each(|item| w.value(item))),
            Value::List(items) => self.list(items.iter(), Writer::value),
            Value::Dict(pairs) => self.pairs(pairs),
            Value::Set(items) => self.set("set", items),
            Value::FrozenSet(items) => self.set("frozenset", items),
            Value::Prefix(path) => self.prefix(path),
        }
    }

    /// A dictionary of plain data.
    pub(super) fn pairs(&mut self, pairs: &[(Value<'_>, Value<'_>)]) {
        self.dict(pairs.iter(), Writer::pair);
    }

    /// A key of a dictionary, and its value.
    pub(super) fn pair(&mut self, (key, value): &(Value<'_>, Value<'_>)) {
        self.key(key);
        self.value(value);
    }

    /// A key of a dictionary. Stock's msgpack decoder takes only text and bytes as keys.
    fn key(&mut self, key: &Value<'_>) {
        match key {
            Value::Text(_) | Value::Bytes(_) => self.value(key),
            _ if self.pickles() => self.value(key),
            _ => self.text(&key.to_text()),
        }
    }

    fn set(&mut self, class: &str, items: &[Value<'_>]) {
        if !self.pickles() {
            return self.list(items.iter(), Writer::value);
        }
        pickle::global(&mut self.out, "builtins", class);
        self.tuple(1, |w| w.list(items.iter(), Writer::value));
        self.out.push(b'R');
    }

    fn prefix(&mut self, path: &[std::borrow::Cow<'_, str>]) {
        if !self.pickles() {
            return self.text(&path.join("/"));
        }
        pickle::global(&mut self.out, "ZopeUndo.Prefix", "Prefix");
        self.out.extend_from_slice(b")\x81}(");
        self.text("length");
        self.int(path.len() as i64);
        self.text("path");
        self.list(path.iter(), |w, step| w.text(step));
        self.out.extend_from_slice(b"ub");
    }
}
