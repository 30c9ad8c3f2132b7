//! The clients' language: ZEO protocol 5, both directions.
//!
//! **What it is.** Whole frames in, typed calls out; typed replies, pushes and refusals in, whole frames out; and the
//! same the other way round, for the Rust client. Every message is `(id, flag, name, args)`, either as a pickle (`Z5`)
//! or in msgpack (`M5`); the client's first frame says which.
//!
//! **Why it is.** Everything that is peculiar to Python and ZEO ends here: what comes out of this module is made of
//! [`crate::zodb`]'s words. One page lists every client call: `calls`.
//!
//! **What it promises.** No input panics, builds an object, or takes more time or memory than in proportion to its length
//! (limits: `config::limits`). Object data is never copied: what a call carries is a slice of its frame, what a reply carries
//! is written as the middle of three parts. Replies, errors and pushes are byte for byte what ZEO 6.2 writes for the
//! same thing (`tests/zeo_golden`).
//!
//! **What was left out.** Protocol versions before 5; pickles of anything but plain data (`pickle`); blobs on a shared disk
//! (the call is known, so that it can be refused). `ruok`'s JSON is the server's matter.

mod answers;
mod arguments;
mod calls;
mod extension;
#[cfg(test)]
mod golden;
pub mod msgpack;
pub mod pickle;
mod pushes;
mod refusals;
mod replies;
mod server_messages;
#[cfg(test)]
mod tests;
mod value;
mod writer;

use bytes::Bytes;

pub use calls::{Call, Request, decode_request, encode_call, tid_of_undo_id, undo_id};
pub use extension::shown_extension;
pub use pushes::{Push, Pushed, encode_push, encode_push_parts};
pub use refusals::{RemoteError, encode_refusal};
pub use replies::{
    HistoryItem, Reply, ServerStatus, StorageDescription, StoreConflict, UndoItem, encode_reply, encode_reply_parts,
};
pub use server_messages::{FromServer, decode_message};
pub use value::Value;
pub use writer::Frame;

/// How the messages of a connection are written; the client's first frame chooses, for both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// `Z5`: pickle protocol 3.
    Pickle,
    /// `M5`, `R5`: msgpack.
    Msgpack,
}

impl Encoding {
    /// The server's first frame, which proposes this encoding.
    pub fn greeting(self) -> &'static [u8; 2] {
        match self {
            Encoding::Pickle => b"Z5",
            Encoding::Msgpack => b"M5",
        }
    }

    /// What a greeting, or the answer to one, asks for; `None` for other versions.
    pub fn of_greeting(frame: &[u8]) -> Option<Encoding> {
        match frame {
            b"Z5" => Some(Encoding::Pickle),
            b"M5" | b"R5" => Some(Encoding::Msgpack),
            _ => None,
        }
    }

    fn read(self, frame: &[u8], values: usize) -> Result<Value<'_>, Undecodable> {
        match self {
            Encoding::Pickle => pickle::read(frame, values),
            Encoding::Msgpack => msgpack::read(frame, values),
        }
    }
}

/// Who is at the other end, as its first frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstFrame {
    /// A monitor, which wants the status as JSON and nothing else.
    Ruok,
    /// A node of the cluster (or somebody who says so).
    Peer,
    /// A ZEO client.
    Client {
        /// How it writes and reads.
        encoding: Encoding,
        /// Whether it goes where [`crate::zodb::Refusal::NotPrimary`] says: the Rust client does, stock ZEO does not.
        follows_redirects: bool,
    },
}

impl FirstFrame {
    /// `None` for anything that is not spoken here: the connection is closed.
    pub fn read(frame: &[u8]) -> Option<FirstFrame> {
        match frame {
            b"ruok" => Some(FirstFrame::Ruok),
            [b'P', b'1', ..] => Some(FirstFrame::Peer),
            _ => {
                let encoding = Encoding::of_greeting(frame)?;
                Some(FirstFrame::Client { encoding, follows_redirects: frame == b"R5" })
            }
        }
    }
}

/// What a call is known by until it is answered; chosen by the client, and echoed as it came.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MessageId {
    /// A number, counted up as a rule. Calls that want no reply have 0, keep-alives -1.
    Int(i64),
    /// A number that has no room in 64 bits with sign.
    Unsigned(u64),
    /// (oid, tid), for `loadBefore`.
    Pair(Bytes, Bytes),
}

impl MessageId {
    fn of_value(value: &Value<'_>, frame: &Bytes) -> Result<MessageId, Undecodable> {
        if let Some(int) = value.as_int() {
            return Ok(MessageId::Int(int));
        }
        if let Some(int) = value.as_unsigned() {
            return Ok(MessageId::Unsigned(int));
        }
        match value.as_items() {
            Some([Value::Bytes(first), Value::Bytes(second)]) => {
                Ok(MessageId::Pair(share(frame, first), share(frame, second)))
            }
            _ => Err(Undecodable("a message id that is neither a number nor a pair".to_owned())),
        }
    }
}

/// Bytes that can't be read as plain data, or not as a message; says why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecodable(pub String);

/// What is wrong with a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadFrame {
    /// It can't be read; says why. The connection is closed.
    Undecodable(String),
    /// There is no call of this name. The connection is closed.
    UnknownCall(String),
    /// The call is known, but can't be called like this: a `TypeError`, or the end of the connection if it was
    /// asynchronous.
    BadArguments {
        /// What to answer to.
        id: MessageId,
        /// The call's name.
        name: &'static str,
        /// What is wrong.
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

/// `part` of `frame` without a copy; a copy if it is none of its bytes.
fn share(frame: &Bytes, part: &[u8]) -> Bytes {
    let (whole, inner) = (frame.as_ptr_range(), part.as_ptr_range());
    if whole.start <= inner.start && inner.end <= whole.end {
        frame.slice_ref(part)
    } else {
        Bytes::copy_from_slice(part)
    }
}

/// The four parts of a message.
fn parts<'a>(encoding: Encoding, frame: &'a [u8], values: usize) -> Result<[Value<'a>; 4], Undecodable> {
    let message = encoding.read(frame, values)?;
    let items = match message {
        Value::Tuple(items) | Value::List(items) => items,
        _ => return Err(Undecodable("a message that is no tuple".to_owned())),
    };
    items.try_into().map_err(|_| Undecodable("a message that has not four parts".to_owned()))
}
