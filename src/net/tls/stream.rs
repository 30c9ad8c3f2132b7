//! A TLS connection as two halves, a reader and a writer.
//!
//! The halves share the connection's state behind a lock, which is held while bytes are encrypted or decrypted and
//! never while waiting. As with TCP, dropping the writing half closes that direction: `close_notify` is sent if the
//! socket takes it at once. An end without `close_notify` counts as a normal end: a frame that was cut short is
//! noticed anyway.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, Join, ReadBuf};
use tokio_rustls::TlsStream;

use super::words;
use crate::net::network::{Sink, Source};

/// The stream below TLS.
pub type Raw = Join<ReadAhead, Box<dyn Sink>>;

/// The halves of a connection.
pub fn halves(stream: TlsStream<Raw>) -> (Reading, Writing) {
    let shared = Arc::new(Mutex::new(stream));
    (Reading(shared.clone()), Writing(shared))
}

/// The bytes from the other end.
pub struct Reading(Arc<Mutex<TlsStream<Raw>>>);

/// The bytes to the other end.
pub struct Writing(Arc<Mutex<TlsStream<Raw>>>);

fn lock(shared: &Mutex<TlsStream<Raw>>) -> MutexGuard<'_, TlsStream<Raw>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Reading {
    /// Does `work` with the streams below TLS.
    pub fn below<T>(&mut self, work: impl FnOnce(&mut Box<dyn Source>, &mut Box<dyn Sink>) -> T) -> T {
        let mut stream = lock(&self.0);
        let (raw, _) = stream.get_mut();
        let mut ahead = std::mem::replace(&mut raw.reader_mut().reader, Box::new(tokio::io::empty()));
        let done = work(&mut ahead, raw.writer_mut());
        raw.reader_mut().reader = ahead;
        done
    }
}

impl AsyncRead for Reading {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut *lock(&self.0)).poll_read(context, buffer)) {
            Err(fault) if fault.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
            other => Poll::Ready(other.map_err(words::clearer)),
        }
    }
}

impl AsyncWrite for Writing {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *lock(&self.0)).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *lock(&self.0)).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *lock(&self.0)).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *lock(&self.0)).poll_shutdown(context)
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        let _ = Pin::new(&mut *lock(&self.0)).poll_shutdown(&mut context);
    }
}

/// The room for a read from the socket: a whole TLS record. rustls would ask for a quarter of that at a time.
const ROOM: usize = 17 << 10;

/// Reads ahead: one system call brings the bytes that TLS takes in several pieces. An idle connection keeps no buffer.
pub struct ReadAhead {
    reader: Box<dyn Source>,
    ahead: Bytes,
}

impl ReadAhead {
    /// `said`: bytes that were read from `reader` before.
    pub fn new(reader: Box<dyn Source>, said: Bytes) -> ReadAhead {
        ReadAhead { reader, ahead: said }
    }
}

impl AsyncRead for ReadAhead {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            let mut room = [const { MaybeUninit::uninit() }; ROOM];
            let mut room = ReadBuf::uninit(&mut room);
            ready!(Pin::new(&mut *self.reader).poll_read(context, &mut room))?;
            let (now, later) = room.filled().split_at(room.filled().len().min(buffer.remaining()));
            buffer.put_slice(now);
            self.ahead = Bytes::copy_from_slice(later);
            return Poll::Ready(Ok(()));
        }
        let length = self.ahead.len().min(buffer.remaining());
        buffer.put_slice(&self.ahead[..length]);
        self.ahead.advance(length);
        if self.ahead.is_empty() {
            self.ahead = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}
