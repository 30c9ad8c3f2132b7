//! The frames that a client reads: replies, errors and pushes.

use bytes::Bytes;

use super::greeting::Encoding;
use super::message::{BadFrame, MessageId, parts};
use super::pushes::{self, Pushed};
use super::refusals::RemoteError;
use super::value::Value;
use crate::config::limits::ANSWER_VALUES;

/// A frame of a server.
#[derive(Clone, Debug, PartialEq)]
pub enum FromServer<'a> {
    /// The answer to a call.
    Reply {
        /// The call's id.
        id: MessageId,
        /// The answer's value; [`super::Reply::read`] turns it into a [`super::Reply`].
        value: Value<'a>,
    },
    /// An exception as the answer to a call.
    Error {
        /// The call's id.
        id: MessageId,
        /// The exception.
        error: RemoteError,
    },
    /// A message that the client did not ask for.
    Push(Pushed),
}

/// Reads a server's frame.
pub fn decode_message(encoding: Encoding, frame: &Bytes) -> Result<FromServer<'_>, BadFrame> {
    let [id, flag, name, args] = parts(encoding, frame, ANSWER_VALUES)?;
    let name = name.as_text().ok_or_else(|| BadFrame::Undecodable("a message whose name is not text".to_owned()))?;
    if name != ".reply" {
        let push = pushes::read(name, &args, frame);
        return push.map(FromServer::Push).ok_or_else(|| BadFrame::UnknownCall(name.chars().take(100).collect()));
    }
    let id = MessageId::of_value(&id)?;
    if !flag.is_true() {
        return Ok(FromServer::Reply { id, value: args });
    }
    match RemoteError::of_value(args) {
        Some(error) => Ok(FromServer::Error { id, error }),
        None => Err(BadFrame::Undecodable("an error that is not a pair of a class and its data".to_owned())),
    }
}
