//! Frames: a 4-byte big-endian length, then that many bytes.
//!
//! ZEO clients and peers both speak in frames. A [`FrameReader`] hands out frames as slices of its buffer, so a large
//! object is not copied again, and one read may bring many frames. A [`FrameWriter`] queues frames and writes as many
//! as the socket takes in one call; large bodies are not copied for that.
//!
//! **Promises.** A claimed length costs nothing: memory is taken as bytes arrive, at most about four times the bytes
//! received. A reader that waits has little memory: what a large frame or much traffic took is given back. A frame
//! that is kept keeps at most half a MiB beside itself, from the frames that were read with it. A dropped future loses
//! nothing: the next call continues. Frames are bounded by the reader's limit; the owner of a writer bounds its queue
//! with the help of [`FrameWriter::queued`], and its memory with that of [`FrameWriter::held`].
//!
//! **Left out.** Deadlines (the owner sets them, through `Env`), and the content of frames.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::AsyncReadExt;

use super::network::{Sink, Source};
use super::pool::Share;

/// Bytes of the length before a frame.
const PREFIX: usize = 4;
/// The room for a read on a quiet connection: the memory of an idle client.
const READ_LEAST: usize = 8 << 10;
/// The room for a read on a busy one.
const READ_MOST: usize = 256 << 10;
/// The least room for a read that is worth its system call.
const READ_WORTH: usize = 2 << 10;
/// From this size on, a body is queued as it is instead of being copied behind the frames before it.
const LARGE: usize = 8 << 10;
/// Buffers for one write call (Linux takes 1024, but few ever wait).
const SLICES: usize = 64;
/// The memory that a connection may keep while it is silent: an empty buffer above this capacity is freed.
const KEEP: usize = 64 << 10;

/// Why no more frames can be read.
#[derive(Debug)]
pub enum FrameFault {
    /// The announced frame is longer than the limit. None of its bytes were received.
    TooLarge {
        /// The announced length.
        claimed: u32,
        /// The limit.
        limit: usize,
    },
    /// The other end closed inside a frame.
    Cut,
    /// The socket failed.
    Io(io::Error),
}

impl std::fmt::Display for FrameFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            FrameFault::TooLarge { claimed, limit } => {
                write!(f, "a frame of {claimed} bytes was announced, the limit is {limit}")
            }
            FrameFault::Cut => f.write_str("the connection was closed inside a frame"),
            FrameFault::Io(error) => write!(f, "the connection failed: {error}"),
        }
    }
}

impl std::error::Error for FrameFault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            FrameFault::Io(error) => Some(error),
            FrameFault::TooLarge { .. } | FrameFault::Cut => None,
        }
    }
}

impl From<FrameFault> for io::Error {
    fn from(fault: FrameFault) -> io::Error {
        match fault {
            FrameFault::Io(error) => error,
            FrameFault::TooLarge { .. } => io::Error::new(io::ErrorKind::InvalidData, fault.to_string()),
            FrameFault::Cut => io::Error::new(io::ErrorKind::UnexpectedEof, fault.to_string()),
        }
    }
}

impl From<io::Error> for FrameFault {
    fn from(error: io::Error) -> FrameFault {
        FrameFault::Io(error)
    }
}

/// Takes frames from a byte stream.
pub struct FrameReader {
    pub(super) reader: Box<dyn Source>,
    /// Bytes received and not handed out yet.
    buffer: BytesMut,
    limit: usize,
    /// Bytes of the memory that `buffer` is the last part of. The frames before may be gone, and give nothing back.
    allocated: usize,
    /// The room for the next read; grows and shrinks with the traffic.
    room: usize,
    /// Bytes received in all.
    received: u64,
    /// Counts the bytes received for a frame that is not whole, and whether any are counted now.
    share: Option<(Arc<Share>, bool)>,
}

impl FrameReader {
    /// Reads frames of at most `limit` bytes (without their prefix) from `reader`.
    pub fn new(reader: Box<dyn Source>, limit: usize) -> FrameReader {
        FrameReader { reader, buffer: BytesMut::new(), allocated: 0, limit, room: READ_LEAST, received: 0, share: None }
    }

    /// The next frame; `None` if the other end closed between frames. Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<Bytes>, FrameFault> {
        loop {
            if let Some(frame) = self.buffered()? {
                return Ok(Some(frame));
            }
            let (got, room) = poll_fn(|context| self.poll_read(context)).await?;
            if got == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(FrameFault::Cut) };
            }
            self.received += got as u64;
            self.count();
            if got == room {
                self.room = (self.room * 2).min(READ_MOST);
            } else if got < self.room / 4 {
                self.room = (self.room / 2).max(READ_LEAST);
            }
        }
    }

    /// A frame that was received already, without waiting.
    pub fn buffered(&mut self) -> Result<Option<Bytes>, FrameFault> {
        let Some(length) = self.announced()? else { return Ok(None) };
        if self.buffer.len() - PREFIX < length {
            return Ok(None);
        }
        self.buffer.advance(PREFIX);
        let frame = self.buffer.split_to(length).freeze();
        // (What is left is at most what one read brought.)
        if self.allocated > 2 * READ_MOST {
            self.renew();
        }
        self.count();
        Ok(Some(frame))
    }

    /// How many bytes have been received in all, if the last of them are the beginning of a frame.
    pub fn unfinished(&self) -> Option<u64> {
        let is_whole = matches!(self.announced(), Ok(Some(length)) if self.buffer.len() >= PREFIX + length);
        (!self.buffer.is_empty() && !is_whole).then_some(self.received)
    }

    /// Counts what was received and not handed out yet as part of `share`, from now on.
    pub fn count_in(&mut self, share: Arc<Share>) {
        self.share = Some((share, false));
        self.count();
    }

    /// (What fits into the least buffer is not counted: small frames cost nothing then.)
    fn count(&mut self) {
        let Some((share, counted)) = &mut self.share else { return };
        let bytes = if self.buffer.len() > READ_LEAST { self.buffer.len() } else { 0 };
        if *counted || bytes > 0 {
            share.hold(bytes);
            *counted = bytes > 0;
        }
    }

    /// The stream, and the bytes that were read from it and not handed out: for a relay, which passes on bytes.
    pub fn into_parts(self) -> (Box<dyn Source>, BytesMut) {
        (self.reader, self.buffer)
    }

    /// Sets another limit, from the next frame on.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// The length of the next frame, if its prefix was received.
    fn announced(&self) -> Result<Option<usize>, FrameFault> {
        let Some(prefix) = self.buffer.first_chunk::<PREFIX>() else { return Ok(None) };
        let claimed = u32::from_be_bytes(*prefix);
        match usize::try_from(claimed) {
            Ok(length) if length <= self.limit => Ok(Some(length)),
            _ => Err(FrameFault::TooLarge { claimed, limit: self.limit }),
        }
    }

    /// Reads once; gives the number of bytes, and of those that there was room for.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<(usize, usize)>> {
        self.make_room();
        let room = self.buffer.capacity() - self.buffer.len();
        let read = pin!(self.reader.read_buf(&mut self.buffer)).poll(context);
        if read.is_pending() && self.allocated > KEEP + 4 * self.buffer.len() {
            self.renew();
            self.room = self.room.min(KEEP);
        }
        read.map_ok(|got| (got, room))
    }

    /// Makes room for the next read: inside a large frame, room grows with the bytes received, never with the claimed
    /// length.
    fn make_room(&mut self) {
        let here = self.buffer.len();
        let missing = match self.announced() {
            Ok(Some(length)) => length + PREFIX - here,
            _ => READ_WORTH,
        };
        if self.buffer.capacity() - here < missing.min(READ_WORTH) {
            // Room for the whole frame once a quarter has arrived: moving into the last buffer takes the most memory.
            let wanted = missing.min(3 * here).max(self.room);
            if !self.buffer.try_reclaim(wanted) {
                self.allocate(here + wanted);
            }
        }
    }

    /// Lets go of the memory of the frames before.
    fn renew(&mut self) {
        self.allocate(self.buffer.len());
    }

    /// Moves what is here to a buffer of so many bytes.
    fn allocate(&mut self, size: usize) {
        let mut buffer = BytesMut::with_capacity(size);
        buffer.extend_from_slice(&self.buffer);
        (self.buffer, self.allocated) = (buffer, size);
    }
}

/// Queues frames and writes them to a byte stream.
pub struct FrameWriter {
    pub(super) writer: Box<dyn Sink>,
    /// The buffers to write first: large bodies, and the small frames before them.
    queue: VecDeque<Part>,
    /// All that was pushed after the queue, merged.
    tail: BytesMut,
    /// Bytes in `queue`.
    before_tail: usize,
    /// The same, as long as they were when they came there.
    held_before_tail: usize,
    /// The most bytes that `tail` has had since it was empty.
    tail_most: usize,
    /// Whether the stream may still hold back bytes that it took (TLS does).
    unflushed: bool,
}

/// A buffer of a writer's queue. Its memory is there until its last byte is written.
struct Part {
    rest: Bytes,
    /// Bytes of the buffer when it came into the queue.
    whole: usize,
}

impl FrameWriter {
    /// Writes frames to `writer`.
    pub fn new(writer: Box<dyn Sink>) -> FrameWriter {
        FrameWriter {
            writer,
            queue: VecDeque::new(),
            tail: BytesMut::new(),
            before_tail: 0,
            held_before_tail: 0,
            tail_most: 0,
            unflushed: false,
        }
    }

    /// Queues a frame, with its length before it.
    ///
    /// # Panics
    /// If the frame has 4 GiB or more, which no limit allows.
    pub fn push(&mut self, frame: &[u8]) {
        self.tail.reserve(PREFIX + frame.len());
        self.push_length(frame.len());
        self.put(frame);
    }

    /// Queues one frame of three parts; a large `body` is not copied.
    ///
    /// # Panics
    /// If the frame has 4 GiB or more, which no limit allows.
    pub fn push_parts(&mut self, head: &[u8], body: Bytes, tail: &[u8]) {
        self.push_length(head.len() + body.len() + tail.len());
        self.put(head);
        if body.len() < LARGE {
            self.put(&body);
        } else {
            self.seal_tail();
            let whole = body.len();
            self.queue(Part { rest: body, whole });
        }
        self.put(tail);
    }

    /// Bytes that wait; 0 only when the stream has taken and passed on all bytes.
    pub fn queued(&self) -> usize {
        (self.before_tail + self.tail.len()).max(usize::from(self.unflushed))
    }

    /// Bytes of memory that what waits takes: of a large body all until it is written, though it be a byte that waits.
    pub fn held(&self) -> usize {
        let tail = match self.tail.len() {
            0 => 0,
            _ if self.tail_most > KEEP => self.tail_most,
            few => few,
        };
        self.held_before_tail + tail
    }

    /// Writes as much as the stream takes in one call; returns at once if nothing is queued. Cancel-safe.
    pub async fn write_some(&mut self) -> io::Result<()> {
        poll_fn(|context| self.poll_write_some(context)).await
    }

    /// Writes all. Cancel-safe: unwritten bytes stay queued.
    pub async fn flush(&mut self) -> io::Result<()> {
        while self.queued() > 0 {
            self.write_some().await?;
        }
        Ok(())
    }

    /// The stream. Queued bytes are lost: call [`FrameWriter::flush`] before.
    pub fn into_writer(self) -> Box<dyn Sink> {
        self.writer
    }

    fn push_length(&mut self, length: usize) {
        let length = u32::try_from(length).expect("limits keep frames far shorter than 4 GiB");
        self.tail.put_u32(length);
    }

    /// Adds to the tail.
    fn put(&mut self, bytes: &[u8]) {
        self.tail.put_slice(bytes);
        self.tail_most = self.tail_most.max(self.tail.len());
    }

    /// Moves the tail to the end of the queue. Its memory goes along if it is large.
    fn seal_tail(&mut self) {
        let most = std::mem::take(&mut self.tail_most);
        let part = match most > KEEP {
            true => Part { rest: std::mem::take(&mut self.tail).freeze(), whole: most },
            false => Part { whole: self.tail.len(), rest: self.tail.split().freeze() },
        };
        self.queue(part);
    }

    fn queue(&mut self, part: Part) {
        self.before_tail += part.rest.len();
        self.held_before_tail += part.whole;
        self.queue.push_back(part);
    }

    fn poll_write_some(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.before_tail + self.tail.len() > 0 {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let mut used = 0;
            for part in self.queue.iter().map(|part| &part.rest[..]).chain([&self.tail[..]]).take(SLICES) {
                slices[used] = IoSlice::new(part);
                used += 1;
            }
            let written = ready!(Pin::new(&mut *self.writer).poll_write_vectored(context, &slices[..used]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            self.advance(written);
            if self.before_tail + self.tail.len() > 0 {
                return Poll::Ready(Ok(()));
            }
        }
        if self.unflushed {
            ready!(Pin::new(&mut *self.writer).poll_flush(context))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Removes `written` bytes from the front of the queue.
    fn advance(&mut self, mut written: usize) {
        while let Some(Part { rest, whole }) = self.queue.front_mut() {
            let taken = written.min(rest.len());
            rest.advance(taken);
            written -= taken;
            self.before_tail -= taken;
            if !rest.is_empty() {
                return;
            }
            self.held_before_tail -= *whole;
            self.queue.pop_front();
        }
        self.tail.advance(written);
        if self.tail.is_empty() && std::mem::take(&mut self.tail_most) > KEEP {
            self.tail = BytesMut::new();
        }
    }
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
