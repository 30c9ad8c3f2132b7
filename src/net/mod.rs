//! Bytes between hosts.
//!
//! The [`Network`] is one of the three seams below which production and simulation differ: it listens and connects, and
//! what it gives is a [`Wire`], two byte streams and who is at the other end. Above it stand frames (a 4-byte big-endian
//! length, then the bytes, in both directions: what ZEO clients and peers both speak), and between the two, where it is
//! configured, TLS.

use std::io;
use std::net::IpAddr;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

mod frame;
mod tcp;
mod tls;
mod unix;

pub use frame::{FrameFault, FrameReader, FrameWriter};
pub use tcp::Tcp;
pub use tls::{BadTls, Credentials, Misplaced, Tls, TlsClient, first_bytes, misplaced};

/// Listens and connects. Addresses are `host:port`; in production also paths of sockets.
pub trait Network: Send + Sync + 'static {
    /// Binds `address`; port 0 lets the system choose.
    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>>;
    /// Connects; without a deadline of its own.
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Wire>>;
    /// The addresses of the host in `address`.
    fn resolve<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>>;
}

/// A bound address that connections come in by.
pub trait Listener: Send {
    /// The address as it was bound: with the port that was chosen for port 0.
    fn address(&self) -> String;
    /// The next connection. An error is this host's trouble, not a client's: wait a moment before the next call.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Wire>>;
}

/// A connection: what the other end says, what it is told, and who it is.
pub struct Wire {
    /// What the other end says.
    pub reader: Box<dyn AsyncRead + Send + Sync + Unpin>,
    /// What it is told; dropping it closes this direction.
    pub writer: Box<dyn AsyncWrite + Send + Sync + Unpin>,
    /// `host:port` of the other end; something like `unix:123` (its process) for one on this host.
    pub peer: String,
}
