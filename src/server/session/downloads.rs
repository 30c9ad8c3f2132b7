//! Blobs on their way to a client.
//!
//! A blob is read piece by piece, one read of a session at a time and on a thread that may block, and only while less
//! than [`limits::OUTPUT_HIGH_WATER`] waits for the client; so the size of a blob costs no memory, and the client's
//! other calls are answered meanwhile. Several blobs take turns, a piece each. A blob never changes, so its parts may
//! stand before or after any invalidation.
//!
//! The client gets what ZEO's server would send: `receiveBlobStart`, parts of [`limits::BLOB_CHUNK`] bytes,
//! `receiveBlobStop`, and the answer to its `sendBlob`, in this order; for a blob that does not exist, a `POSKeyError`
//! alone.
//!
//! **Left out.** Holding a pack back: if a pack removes a blob that is being sent, the client's connection is closed,
//! and the client asks again.

use std::collections::VecDeque;
use std::io;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;

use super::desk::{Answer, Desk, Done, End};
use crate::command::Span;
use crate::config::limits;
use crate::server::counts::Why;
use crate::zeo::{MessageId, Push, Reply};
use crate::zodb::{Oid, Refusal, Tid};

/// The blobs that one client waits for.
#[derive(Default)]
pub struct Downloads {
    /// The first [`limits::BLOB_SENDS`] are being sent, in turn.
    line: VecDeque<Download>,
    /// A piece of the first one is being read.
    reading: bool,
}

struct Download {
    id: MessageId,
    oid: Oid,
    serial: Tid,
    /// The pieces that have not been read.
    left: VecDeque<Span>,
    /// Bytes that were read, less than a chunk.
    rest: Bytes,
    begun: bool,
}

impl Downloads {
    /// The number of blobs that the client waits for.
    pub fn len(&self) -> usize {
        self.line.len()
    }

    /// Whether a piece can be read now.
    fn is_ready(&self) -> bool {
        !self.reading && !self.line.is_empty()
    }

    /// Moves the first blob behind the others that are being sent.
    fn turn(&mut self) {
        let at_once = self.line.len().min(limits::BLOB_SENDS);
        if let Some(first) = self.line.pop_front() {
            self.line.insert(at_once - 1, first);
        }
    }

    /// `sendBlob`
    pub fn send_blob(&mut self, desk: &mut Desk, id: &MessageId, oid: Oid, serial: Tid) -> Result<Answer, End> {
        desk.tell_news()?;
        let found = match serial <= desk.view.tid() {
            true => desk.store().blob(desk.storage(), oid, serial)?,
            false => None,
        };
        let Some((_, staged)) = found else { return Ok(Answer::Refused(Refusal::NoBlob(oid, serial))) };
        self.line.push_back(Download {
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
    pub fn go_on(&mut self, desk: &mut Desk) {
        while self.is_ready() && desk.has_output_room() {
            let first = self.line.front_mut().expect("a line that is ready is not empty");
            let (oid, serial) = (first.oid, first.serial);
            if !std::mem::replace(&mut first.begun, true) {
                desk.push(&Push::ReceiveBlobStart { oid, serial });
                continue;
            }
            let Some(span) = first.left.front_mut() else {
                self.end_of_blob(desk);
                continue;
            };
            let piece = span.first;
            span.first += 1;
            span.count -= 1;
            if span.count == 0 {
                first.left.pop_front();
            }
            self.reading = true;
            let (store, storage) = (desk.store().clone(), desk.storage());
            let read = desk.shared.piece_reads.begin(move |_| store.piece(storage, piece));
            desk.wait(read.map(Done::Piece));
        }
    }

    /// A piece of the first blob in line was read.
    pub fn piece_read(&mut self, desk: &mut Desk, piece: io::Result<Bytes>) -> Result<(), End> {
        self.reading = false;
        let Some(first) = self.line.front_mut() else { return Ok(()) };
        let (oid, serial) = (first.oid, first.serial);
        let mut piece = match piece {
            Ok(piece) => piece,
            Err(fault) => {
                return Err(match desk.store().blob(desk.storage(), oid, serial)? {
                    Some(_) => fault.into(),
                    None => End(Why::BlobPacked),
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
            desk.push(&Push::ReceiveBlobChunk { oid, serial, chunk });
        }
        self.turn();
        Ok(())
    }

    fn end_of_blob(&mut self, desk: &mut Desk) {
        let Some(Download { id, oid, serial, rest, .. }) = self.line.pop_front() else { return };
        if !rest.is_empty() {
            desk.push(&Push::ReceiveBlobChunk { oid, serial, chunk: rest });
        }
        desk.push(&Push::ReceiveBlobStop { oid, serial });
        desk.reply(&id, Reply::Nothing);
    }
}
