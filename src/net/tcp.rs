//! TCP (and unix sockets, for addresses that are paths), the [`Network`] of production.
//!
//! Small frames are sent at once (nodelay: a `FrameWriter` has merged them already). A remote end that vanished is
//! noticed within half a minute: by keepalive on a quiet connection, by TCP_USER_TIMEOUT on one with unacknowledged
//! bytes.
//!
//! **Left out.** Deadlines for connecting (the caller sets them, through `Env`), and limits on connections (the
//! server's).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use futures_util::future::BoxFuture;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};

use super::network::{Listener, Network, Wire};
use super::unix;
use crate::config::{is_path, limits, to_allow};

/// A connection is probed after so long without traffic.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(15);
/// The time between probes.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(5);
/// A connection is dead after so many unanswered probes.
const KEEPALIVE_PROBES: u32 = 3;
/// A connection is dead if sent bytes were not acknowledged for so long.
const USER_TIMEOUT: Duration = limits::SILENCE;
/// Connections that may wait to be accepted: after a restart all clients connect at once.
const BACKLOG: u32 = 1024;

const _: () = assert!(
    KEEPALIVE_AFTER.as_secs() + KEEPALIVE_EVERY.as_secs() * KEEPALIVE_PROBES as u64 <= USER_TIMEOUT.as_secs(),
    "Linux lets the user timeout override the probes, so it must not be the shorter one"
);

/// The operating system's TCP. Addresses are `host:port`, where host is a name, an IPv4 address, or an IPv6 address
/// in brackets; or the path of a unix socket.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

impl Network for Tcp {
    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            if is_path(address) {
                let listener = unix::listen(address).await.map_err(|error| cannot_listen_at_path(address, &error))?;
                return Ok(Box::new(listener) as Box<dyn Listener>);
            }
            let listener = bind(address).await.map_err(|error| cannot_listen(address, &error))?;
            Ok(Box::new(Accepting { listener }) as Box<dyn Listener>)
        })
    }

    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Wire>> {
        Box::pin(async move {
            let connected = async {
                if is_path(address) {
                    return unix::connect(address).await;
                }
                wire(TcpStream::connect(address).await?)
            };
            connected.await.map_err(|error| named("connect to", address, &error))
        })
    }

    fn resolve<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            let found = lookup_host(address).await.map_err(|error| named("look up", address, &error))?;
            Ok(found.map(|found| found.ip().to_canonical()).collect())
        })
    }
}

/// Binds the first address of the host that can be bound.
async fn bind(address: &str) -> io::Result<TcpListener> {
    let mut failure = None;
    for candidate in lookup_host(address).await? {
        match bind_one(candidate) {
            Ok(listener) => return Ok(listener),
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.unwrap_or_else(|| io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address")))
}

fn bind_one(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restarted server must not wait until the old connections time out.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

struct Accepting {
    listener: TcpListener,
}

impl Listener for Accepting {
    fn address(&self) -> String {
        match self.listener.local_addr() {
            Ok(address) => address.to_string(),
            Err(_) => String::new(),
        }
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<Wire>> {
        Box::pin(async move {
            loop {
                match self.listener.accept().await {
                    // Setting options fails only if the client has disconnected: not the listener's trouble.
                    Ok((stream, _)) => match wire(stream) {
                        Ok(wire) => return Ok(wire),
                        Err(_) => continue,
                    },
                    Err(error) if is_the_clients(&error) => continue,
                    Err(error) => return Err(error),
                }
            }
        })
    }
}

/// Whether accepting failed because the connection had died already (accept(2), 'Error handling').
fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, HostUnreachable, Interrupted, NetworkDown, TimedOut};
    use io::ErrorKind::{NetworkUnreachable, PermissionDenied};
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionReset
            | HostUnreachable
            | Interrupted
            | NetworkDown
            | NetworkUnreachable
            | PermissionDenied
            | TimedOut
    )
}

fn wire(stream: TcpStream) -> io::Result<Wire> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(&stream);
    let keepalive =
        TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_EVERY).with_retries(KEEPALIVE_PROBES);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    let peer = plain(stream.peer_addr()?).to_string();
    let (reader, writer) = stream.into_split();
    Ok(Wire { reader: Box::new(reader), writer: Box::new(writer), peer })
}

/// The IPv4 address of an IPv4 client on an IPv6 socket: for the log, and for comparing with the list of peers.
fn plain(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::from((ip, address.port())),
        IpAddr::V6(_) => address,
    }
}

/// The fault of a listener, with what to do.
fn cannot_listen(address: &str, error: &io::Error) -> io::Error {
    let cure = match error.kind() {
        io::ErrorKind::AddrInUse => ": another process has this port; stop that one, or choose another port",
        io::ErrorKind::AddrNotAvailable => ": this machine has no such address; 0.0.0.0 means all that it has",
        io::ErrorKind::PermissionDenied => ": ports below 1024 are the system's; choose another port",
        _ => "",
    };
    io::Error::new(error.kind(), format!("cannot listen at {address}: {error}{cure}"))
}

fn cannot_listen_at_path(path: &str, error: &io::Error) -> io::Error {
    let folder = Path::new(path).parent().unwrap_or(Path::new("."));
    io::Error::new(error.kind(), format!("cannot listen at {path}: {error}{}", to_allow(error, folder)))
}

fn named(what: &str, address: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {what} {address}: {error}"))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn talk(address: &str) {
        let mut listener = Tcp.listen(address).await.unwrap();
        let bound = listener.address();
        assert!(!bound.ends_with(":0"), "{bound}");
        let (near, far) = tokio::join!(Tcp.connect(&bound), listener.accept());
        let (mut near, mut far) = (near.unwrap(), far.unwrap());
        assert_eq!(near.peer, bound);
        near.writer.write_all(b"hello").await.unwrap();
        drop(near);
        let mut heard = Vec::new();
        far.reader.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"hello");
    }

    #[tokio::test]
    async fn the_ends_talk_by_ipv4_address() {
        talk("127.0.0.1:0").await;
    }

    #[tokio::test]
    async fn the_ends_talk_by_ipv6_address() {
        // A host without IPv6 can't be asked to.
        if Tcp.listen("[::1]:0").await.is_ok() {
            talk("[::1]:0").await;
        }
    }

    #[tokio::test]
    async fn the_ends_talk_by_name() {
        talk("localhost:0").await;
    }

    #[tokio::test]
    async fn addresses_are_looked_up() {
        assert_eq!(Tcp.resolve("127.0.0.9:80").await.unwrap(), ["127.0.0.9".parse::<IpAddr>().unwrap()]);
        assert!(Tcp.resolve("localhost:80").await.unwrap().iter().all(IpAddr::is_loopback));
        assert!(Tcp.resolve("no port").await.is_err());
    }

    #[tokio::test]
    async fn errors_name_the_address_and_keep_their_kind() {
        let listener = Tcp.listen("127.0.0.1:0").await.unwrap();
        let address = listener.address();
        let error = Tcp.listen(&address).await.err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&address) && error.to_string().contains("another process"), "{error}");
        drop(listener);
        let error = Tcp.connect(&address).await.err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(error.to_string().contains(&address), "{error}");
    }

    #[test]
    fn mapped_addresses_are_shown_plain() {
        assert_eq!(plain("[::ffff:10.0.0.7]:81".parse().unwrap()).to_string(), "10.0.0.7:81");
        assert_eq!(plain("[2001:db8::1]:81".parse().unwrap()).to_string(), "[2001:db8::1]:81");
    }
}
