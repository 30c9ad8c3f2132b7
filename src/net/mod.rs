//! Bytes between hosts.
//!
//! The [`Network`] is one of the three seams below which production and simulation differ: it listens and connects,
//! and each connection is a [`Wire`], two byte streams and the address of the other end. Above it stand frames (a
//! 4-byte big-endian length, then the bytes), for ZEO clients and peers alike; and between the two, if configured,
//! TLS.

mod frame;
mod home;
mod linger;
mod network;
mod pool;
mod tcp;
mod tls;
mod unix;

pub use frame::{FrameFault, FrameReader, FrameWriter};
pub use home::rehome;
pub use linger::lingering_close;
pub use network::{Listener, Network, Sink, Source, Wire};
pub use pool::{Pool, Share};
pub use tcp::Tcp;
pub use tls::{BadTls, Credentials, Misplaced, Tls, TlsClient, first_bytes, misplaced};
