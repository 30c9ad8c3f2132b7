//! The clients' language: ZEO protocol 5, both directions.
//!
//! **What it is.** Whole frames in, typed calls out; typed replies, pushes and refusals in, whole frames out; and the
//! reverse for the Rust client. Every message is `(id, flag, name, args)`, either as a pickle (`Z5`) or in msgpack
//! (`M5`); the client's first frame chooses.
//!
//! **Why it is.** Everything peculiar to Python and ZEO ends here: the types that leave this module use the words of
//! [`crate::zodb`]. One page lists every client call: `calls`.
//!
//! **What it promises.** No input panics, builds an object, or takes more time or memory than in proportion to its
//! length (limits: `config::limits`). Object data is not copied: a call's data is a slice of its frame, and a reply's
//! data is the middle of three parts, unless it is short. What is kept of a call keeps little else in memory: a part of
//! a frame is copied unless it is large and most of its frame. Replies, errors and pushes are byte for byte those of
//! ZEO 6.2 (`tests/zeo_golden`).
//!
//! **Where to look.** `greeting`: the first frames. `message`: the parts that all messages share. `value`: plain data;
//! `pickle`, `msgpack` and `writer`: its two encodings. A client's half: `calls`, with `arguments`, and `usual` for the
//! call that comes most. A server's half: `replies`, `pushes`, `refusals`; the Rust client reads these with
//! `server_messages` and `answers`.
//!
//! **Left out.** Protocol versions before 5; pickles of anything but plain data (`pickle`); blobs on a shared disk
//! (the call is read, only to be refused). The JSON that answers `ruok` belongs to the server.

mod answers;
mod arguments;
mod calls;
mod extension;
#[cfg(test)]
mod golden;
mod greeting;
mod message;
pub(crate) mod msgpack;
pub(crate) mod pickle;
mod pushes;
mod refusals;
mod replies;
mod server_messages;
#[cfg(test)]
mod tests;
mod usual;
mod value;
pub(crate) mod writer;

pub use calls::{Call, Request, decode_request, encode_call, tid_of_undo_id, undo_id};
pub use extension::shown_extension;
pub use greeting::{Encoding, FirstFrame};
pub use message::{BadFrame, MessageId};
pub use pushes::{Push, Pushed, encode_push, encode_push_in};
pub use refusals::{RemoteError, encode_refusal};
pub use replies::{
    HistoryItem, Reply, ServerStatus, StorageDescription, StoreConflict, UndoItem, encode_reply, encode_reply_in,
};
pub use server_messages::{FromServer, decode_message};
pub use value::{Undecodable, Value};
pub use writer::Frame;
