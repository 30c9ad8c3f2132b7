//! A client that came in: its door and its frames.

use std::collections::VecDeque;

use bytes::Bytes;

use super::shared::Shared;
use crate::net::{FrameFault, FrameReader, FrameWriter, Misplaced, misplaced};
use crate::zeo::Encoding;

/// The door through which a connection came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// The port for all.
    Main,
    /// The port for readers, which are served this node's own state (`--read-listen`).
    Reading,
    /// Another node relays the client.
    Relay,
}

/// A client whose encoding is known.
pub struct Client {
    pub encoding: Encoding,
    pub follows_redirects: bool,
    pub door: Door,
    /// `host:port` of the client itself, also when it was relayed.
    pub peer: String,
    pub incoming: Incoming,
    pub writer: FrameWriter,
}

/// The frames of a client: first those that came before they could be answered, then the rest.
pub struct Incoming {
    pub early: VecDeque<Bytes>,
    pub reader: FrameReader,
}

impl Incoming {
    /// The next frame; `None` when the client has closed. Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<Bytes>, FrameFault> {
        match self.early.pop_front() {
            Some(frame) => Ok(Some(frame)),
            None => self.reader.next().await,
        }
    }

    /// How many bytes have come in all, if the last of them are the beginning of a frame.
    pub fn unfinished(&self) -> Option<u64> {
        self.reader.unfinished().filter(|_| self.early.is_empty())
    }

    /// A frame that has arrived already.
    pub fn buffered(&mut self) -> Result<Option<Bytes>, FrameFault> {
        match self.early.pop_front() {
            Some(frame) => Ok(Some(frame)),
            None => self.reader.buffered(),
        }
    }
}

/// Counts a connection whose bytes can't be read any further, and complains if the peer can do something about it.
pub fn unreadable(shared: &Shared, peer: &str, fault: &FrameFault) {
    match fault {
        FrameFault::TooLarge { claimed, limit } => match misplaced(&claimed.to_be_bytes(), false) {
            Some(Misplaced { what, cure, .. }) => {
                shared.metrics.bad_frame(what);
                shared.complaints.say(peer, &format!("closed a connection: {cure}"));
            }
            None => {
                shared.metrics.bad_frame("too_large");
                tracing::warn!(%peer, claimed, limit, "closed a connection: its frame is too large");
            }
        },
        FrameFault::Cut => shared.metrics.bad_frame("cut"),
        FrameFault::Io(fault) => tracing::debug!(%peer, %fault, "a connection broke"),
    }
}

/// Whether the peer speaks TLS, and came to a plain port.
pub fn speaks_tls(fault: &FrameFault) -> bool {
    match fault {
        FrameFault::TooLarge { claimed, .. } => {
            misplaced(&claimed.to_be_bytes(), false).is_some_and(|misplaced| misplaced.what == "tls")
        }
        FrameFault::Cut | FrameFault::Io(_) => false,
    }
}
