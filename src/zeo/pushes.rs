//! Messages that the server sends unasked: invalidations, sizes, and blobs before the reply to `sendBlob`.

use bytes::Bytes;

use super::greeting::Encoding;
use super::message::{MessageId, share};
use super::value::Value;
use super::writer::{Flag, Frame, Writer, message, message_in};
use crate::zodb::{Oid, Tid};

/// A message that no client asked for. All are asynchronous, with id 0.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the arguments have the names that ZEO gives them
pub enum Push<'a> {
    /// `invalidateTransaction(tid, oids)`: another client's transaction has changed these objects.
    Invalidate { tid: Tid, oids: &'a [Oid] },
    /// `info({"length": …, "size": …})`: the number of objects and bytes in the storage.
    Info { length: u64, size: u64 },
    /// `receiveBlobStart(oid, serial)`.
    ReceiveBlobStart { oid: Oid, serial: Tid },
    /// `receiveBlobChunk(oid, serial, chunk)`.
    ReceiveBlobChunk { oid: Oid, serial: Tid, chunk: Bytes },
    /// `receiveBlobStop(oid, serial)`.
    ReceiveBlobStop { oid: Oid, serial: Tid },
}

/// Writes a push.
pub fn encode_push(encoding: Encoding, push: &Push<'_>) -> Bytes {
    message(encoding, &MessageId::Int(0), Flag::Asynchronous, push.name(), |w| write(w, push))
}

/// Writes a push in `buffer`; a blob's chunk is not copied there.
pub fn encode_push_in<'b>(buffer: &'b mut Vec<u8>, encoding: Encoding, push: &Push<'_>) -> Frame<'b> {
    message_in(buffer, encoding, &MessageId::Int(0), Flag::Asynchronous, push.name(), |w| write(w, push))
}

fn write(w: &mut Writer, push: &Push<'_>) {
    match push {
        Push::Invalidate { tid, oids } => w.tuple(2, |w| {
            w.tid(*tid);
            w.list(oids.iter(), |w, oid| w.oid(*oid));
        }),
        Push::Info { length, size } => w.tuple(1, |w| {
            w.dict([("length", length), ("size", size)].into_iter(), |w, (key, count)| {
                w.text(key);
                w.unsigned(*count);
            });
        }),
        Push::ReceiveBlobStart { oid, serial } | Push::ReceiveBlobStop { oid, serial } => w.tuple(2, |w| {
            w.oid(*oid);
            w.tid(*serial);
        }),
        Push::ReceiveBlobChunk { oid, serial, chunk } => w.tuple(3, |w| {
            w.oid(*oid);
            w.tid(*serial);
            w.data(chunk);
        }),
    }
}

impl Push<'_> {
    /// The push's name in ZEO.
    pub fn name(&self) -> &'static str {
        match self {
            Push::Invalidate { .. } => "invalidateTransaction",
            Push::Info { .. } => "info",
            Push::ReceiveBlobStart { .. } => "receiveBlobStart",
            Push::ReceiveBlobChunk { .. } => "receiveBlobChunk",
            Push::ReceiveBlobStop { .. } => "receiveBlobStop",
        }
    }
}

/// A push as a client reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // as `Push`
pub enum Pushed {
    Invalidate { tid: Tid, oids: Vec<Oid> },
    Info { length: u64, size: u64 },
    ReceiveBlobStart { oid: Oid, serial: Tid },
    ReceiveBlobChunk { oid: Oid, serial: Tid, chunk: Bytes },
    ReceiveBlobStop { oid: Oid, serial: Tid },
}

/// Reads the push of this name; `None` if there is none with such arguments.
pub(super) fn read(name: &str, args: &Value<'_>, frame: &Bytes) -> Option<Pushed> {
    let args = args.as_items()?;
    let blob = || Some((args.first()?.as_oid()?, args.get(1)?.as_tid()?));
    match (name, args) {
        ("invalidateTransaction", [tid, oids]) => Some(Pushed::Invalidate {
            tid: tid.as_tid()?,
            oids: oids.as_items()?.iter().map(Value::as_oid).collect::<Option<_>>()?,
        }),
        ("info", [info]) => {
            let count = |key| info.get(key).and_then(Value::as_unsigned);
            Some(Pushed::Info { length: count("length")?, size: count("size")? })
        }
        ("receiveBlobStart", [_, _]) => blob().map(|(oid, serial)| Pushed::ReceiveBlobStart { oid, serial }),
        ("receiveBlobStop", [_, _]) => blob().map(|(oid, serial)| Pushed::ReceiveBlobStop { oid, serial }),
        ("receiveBlobChunk", [_, _, chunk]) => {
            let (oid, serial) = blob()?;
            Some(Pushed::ReceiveBlobChunk { oid, serial, chunk: share(frame, chunk.as_bytes()?) })
        }
        _ => None,
    }
}
