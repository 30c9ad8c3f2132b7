//! Blobs on their way to a client.
//!
//! A blob is read piece by piece, one read of a session at a time and on a thread that may block, and only while less than
//! [`limits::OUTPUT_HIGH_WATER`] waits for the client; so its size costs no memory, and the client's other calls are answered
//! meanwhile. Several blobs take turns, a piece each. What a blob is never changes, so that its parts may stand before or after
//! any invalidation.
//!
//! Its client gets what ZEO's server would send: `receiveBlobStart`, parts of [`limits::BLOB_CHUNK`] bytes,
//! `receiveBlobStop`, and the answer to its `sendBlob`, in this order; for a blob that does not exist, a `POSKeyError` alone.
//!
//! **Left out.** Holding a pack back: where it removes a blob that is being sent, the client's connection is closed, and the
//! client asks again.

use std::collections::VecDeque;
use std::io;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;

use super::session::{Answer, Done, End, Session};
use crate::command::Span;
use crate::config::limits;
use crate::zeo::{MessageId, Push, Reply};
use crate::zodb::{Oid, Refusal, Tid};

/// The blobs that one client waits for.
#[derive(Default)]
pub struct Downloads {
    /// The first so many are being sent, in turn.
    line: VecDeque<Download>,
    /// A piece of the first one is being read.
    reading: bool,
}

struct Download {
    id: MessageId,
    oid: Oid,
    serial: Tid,
    /// What has not been read.
    left: VecDeque<Span>,
    /// Read, and less than a chunk.
    rest: Bytes,
    begun: bool,
}

impl Downloads {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.line.len()
    }

    /// Whether there is something to be done now.
    pub fn is_ready(&self) -> bool {
        !self.reading && !self.line.is_empty()
    }

    /// The next one's turn.
    fn turn(&mut self) {
        let at_once = self.line.len().min(limits::BLOB_SENDS);
        if let Some(first) = self.line.pop_front() {
            self.line.insert(at_once - 1, first);
        }
    }
}

impl Session {
    /// `sendBlob`
    pub fn send_blob(&mut self, id: &MessageId, oid: Oid, serial: Tid) -> Result<Answer, End> {
        self.tell_news()?;
        let found = match serial <= self.view.tid() {
            true => self.shared.store.blob(self.seat.storage, oid, serial)?,
            false => None,
        };
        let Some((_, staged)) = found else { return Ok(Answer::Refused(Refusal::NoBlob(oid, serial))) };
        self.downloads.line.push_back(Download {
            id: id.clone(),
            oid,
            serial,
            left: staged.pieces.into(),
            rest: Bytes::new(),
            begun: false,
        });
        Ok(Answer::Later)
    }

    /// Goes on with the blobs that are being sent, as far as that can be done at once.
    pub fn go_on_sending(&mut self) {
        while self.downloads.is_ready() && self.writer.queued() <= limits::OUTPUT_HIGH_WATER {
            let first = self.downloads.line.front_mut().expect("it is ready");
            let (oid, serial) = (first.oid, first.serial);
            if !std::mem::replace(&mut first.begun, true) {
                self.push(&Push::ReceiveBlobStart { oid, serial });
                continue;
            }
            let Some(span) = first.left.front_mut() else {
                self.end_of_blob();
                continue;
            };
            let piece = span.first;
            span.first += 1;
            span.count -= 1;
            if span.count == 0 {
                first.left.pop_front();
            }
            self.downloads.reading = true;
            let (store, storage) = (self.shared.store.clone(), self.seat.storage);
            let reading = self.shared.piece_reads.begin(move |_| store.piece(storage, piece)).map(Done::Piece);
            self.pending.push(reading.boxed());
        }
    }

    /// A piece of the first blob in line was read.
    pub fn piece_read(&mut self, piece: io::Result<Bytes>) -> Result<(), End> {
        self.downloads.reading = false;
        let Some(first) = self.downloads.line.front_mut() else { return Ok(()) };
        let (oid, serial) = (first.oid, first.serial);
        let mut piece = match piece {
            Ok(piece) => piece,
            Err(fault) => {
                return Err(match self.shared.store.blob(self.seat.storage, oid, serial)? {
                    Some(_) => fault.into(),
                    None => End("blob_packed"),
                });
            }
        };
        let mut rest = std::mem::take(&mut first.rest);
        if !rest.is_empty() {
            let mut joined = BytesMut::from(&rest[..]);
            joined.extend_from_slice(&piece.split_to(piece.len().min(limits::BLOB_CHUNK - rest.len())));
            rest = joined.freeze();
        }
        let mut chunks = Vec::new();
        while rest.len() == limits::BLOB_CHUNK || rest.is_empty() && !piece.is_empty() {
            if !rest.is_empty() {
                chunks.push(std::mem::take(&mut rest));
            }
            rest = piece.split_to(piece.len().min(limits::BLOB_CHUNK));
        }
        first.rest = rest;
        for chunk in chunks {
            self.push_large(&Push::ReceiveBlobChunk { oid, serial, chunk });
        }
        self.downloads.turn();
        Ok(())
    }

    fn end_of_blob(&mut self) {
        let Some(Download { id, oid, serial, rest, .. }) = self.downloads.line.pop_front() else { return };
        if !rest.is_empty() {
            self.push_large(&Push::ReceiveBlobChunk { oid, serial, chunk: rest });
        }
        self.push(&Push::ReceiveBlobStop { oid, serial });
        self.reply(&id, Reply::Nothing);
    }
}
