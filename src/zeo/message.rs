//! The parts that all messages share: `(id, flag, name, args)`, read from a frame; and the ways in which a frame can
//! be bad.

use bytes::Bytes;

use super::greeting::Encoding;
use super::value::{Undecodable, Value, undecodable};
use super::{msgpack, pickle};
use crate::zodb::{Oid, Tid};

/// The least part that keeps its frame. A frame is a slice of what was read with it, [`crate::net::FrameReader`] says
/// how much that can be; a smaller part is copied, and keeps nothing but itself.
const SHARED: usize = 64 << 10;

/// The id by which an answer names its call; chosen by the client, and echoed unchanged.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MessageId {
    /// A number, counted up as a rule. Calls that want no reply have 0, keep-alives -1.
    Int(i64),
    /// A number that does not fit in 64 bits with sign.
    Unsigned(u64),
    /// For `loadBefore`.
    Pair(Oid, Tid),
}

impl MessageId {
    pub(super) fn of_value(value: &Value<'_>) -> Result<MessageId, Undecodable> {
        if let Some(int) = value.as_int() {
            return Ok(MessageId::Int(int));
        }
        if let Some(int) = value.as_unsigned() {
            return Ok(MessageId::Unsigned(int));
        }
        let pair = match value.as_items() {
            Some([oid, tid]) => oid.as_oid().zip(tid.as_tid()),
            _ => None,
        };
        pair.map(|(oid, tid)| MessageId::Pair(oid, tid))
            .ok_or_else(|| undecodable("a message id that is neither a number nor an oid and a tid"))
    }
}

/// Why a frame can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadFrame {
    /// The frame can't be read; the text says why. The connection is to be closed.
    Undecodable(String),
    /// There is no call of this name. The connection is to be closed.
    UnknownCall(String),
    /// The call exists, but does not take such arguments: a `TypeError`, or the end of the connection if the call was
    /// asynchronous.
    BadArguments {
        /// The id of the call.
        id: MessageId,
        /// The call's name.
        name: &'static str,
        /// The defect of the arguments.
        why: String,
        /// Whether the client waits for no answer.
        asynchronous: bool,
    },
}

impl From<Undecodable> for BadFrame {
    fn from(Undecodable(why): Undecodable) -> BadFrame {
        BadFrame::Undecodable(why)
    }
}

/// `part` of `frame`, to be kept: without a copy if `part` is most of what it then keeps in memory.
pub(super) fn share(frame: &Bytes, part: &[u8]) -> Bytes {
    if part.len() >= SHARED && part.len() >= frame.len() / 2 { lend(frame, part) } else { Bytes::copy_from_slice(part) }
}

/// `part` of `frame`, for a moment: without a copy, unless `part` lies elsewhere.
pub(super) fn lend(frame: &Bytes, part: &[u8]) -> Bytes {
    let (whole, inner) = (frame.as_ptr_range(), part.as_ptr_range());
    if whole.start <= inner.start && inner.end <= whole.end {
        frame.slice_ref(part)
    } else {
        Bytes::copy_from_slice(part)
    }
}

/// The four parts of a message of at most `values` values.
pub(super) fn parts(encoding: Encoding, frame: &[u8], values: usize) -> Result<[Value<'_>; 4], Undecodable> {
    let message = match encoding {
        Encoding::Pickle => pickle::read(frame, values)?,
        Encoding::Msgpack => msgpack::read(frame, values)?,
    };
    let items = match message {
        Value::Tuple(items) | Value::List(items) => items,
        _ => return Err(undecodable("a message that is not a tuple")),
    };
    items.try_into().map_err(|_| undecodable("a message that does not have four parts"))
}
