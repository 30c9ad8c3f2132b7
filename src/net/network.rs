//! The seam between the program and a network, real or simulated.

use std::any::Any;
use std::io;
use std::net::IpAddr;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

/// Listens and connects. Addresses are `host:port`; in production also paths of unix sockets.
pub trait Network: Send + Sync + 'static {
    /// Binds `address`; port 0 lets the system choose a port.
    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>>;
    /// Connects; without a deadline of its own.
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Wire>>;
    /// The IP addresses of the host in `address`.
    fn resolve<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>>;
}

/// A bound address, which accepts connections.
pub trait Listener: Send {
    /// The bound address; for port 0, with the port that the system chose.
    fn address(&self) -> String;
    /// The next connection. An error is this host's trouble, not a client's: wait a moment before the next call.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Wire>>;
}

/// A stream of bytes from the other end.
pub trait Source: AsyncRead + Send + Sync + Unpin + Any {}

impl<T: AsyncRead + Send + Sync + Unpin + Any> Source for T {}

/// A stream of bytes to the other end.
pub trait Sink: AsyncWrite + Send + Sync + Unpin + Any {}

impl<T: AsyncWrite + Send + Sync + Unpin + Any> Sink for T {}

/// A connection: a stream in each direction, and the address of the other end.
pub struct Wire {
    /// The bytes from the other end.
    pub reader: Box<dyn Source>,
    /// The bytes to the other end; dropping the writer closes this direction.
    pub writer: Box<dyn Sink>,
    /// `host:port` of the other end; `unix:` and its process for a unix socket.
    pub peer: String,
}
