//! The simulated network: [`Network`] over turmoil.
//!
//! Turmoil carries segments with drawn delays, holds them back, or drops them; it neither repeats a dropped segment nor
//! gives up on a silent end. What TCP does beyond that is made here and in `links`:
//!
//! - A **partition** holds everything back and delivers it when it heals, as TCP's retransmission would.
//! - A host that **loses its power** falls silent. The other ends of its connections notice after a while (keepalive),
//!   or when the host is back and resets connections that it knows nothing of.
//! - A host whose **program was killed** refuses connections at once; its kernel closes those that it had.
//!
//! Everything that is written goes into the trace.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream};
use zrs::net::{Listener, Network, Wire};

use crate::trace;

/// How long it takes until a connection to a port without a listener is refused.
const REFUSAL: Duration = Duration::from_millis(2);

/// The fabric: the state that the networks of all hosts share, as do clones.
#[derive(Clone, Default)]
pub struct Fabric(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    ends: BTreeMap<u64, End>,
    made: u64,
    /// Hosts that are up, but no program listens there.
    silent: BTreeSet<String>,
}

/// One end of a connection.
struct End {
    other: String,
    broken: Arc<Mutex<Broken>>,
}

#[derive(Default)]
struct Broken {
    yes: bool,
    waiting: Vec<Waker>,
}

/// One host's view of the network.
pub struct SimNetwork {
    host: String,
    fabric: Fabric,
}

impl Fabric {
    /// The network as `host` sees it.
    pub fn of(&self, host: &str) -> SimNetwork {
        SimNetwork { host: host.to_owned(), fabric: self.clone() }
    }

    /// Breaks all connections of other hosts with `host`, as if it had been silent for too long.
    pub fn lose(&self, host: &str) {
        let mut wakers = Vec::new();
        for end in self.state().ends.values().filter(|end| end.other == host) {
            let mut broken = end.broken.lock().unwrap();
            broken.yes = true;
            wakers.append(&mut broken.waiting);
        }
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Sets whether connecting to `host` is refused at once.
    pub fn refuse(&self, host: &str, refuse: bool) {
        let mut state = self.state();
        if refuse {
            state.silent.insert(host.to_owned())
        } else {
            state.silent.remove(host)
        };
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn wire(&self, host: &str, other: String, peer: String, stream: TcpStream) -> Wire {
        let broken = Arc::new(Mutex::new(Broken::default()));
        let number = {
            let mut state = self.state();
            state.made += 1;
            let number = state.made;
            state.ends.insert(number, End { other, broken: broken.clone() });
            number
        };
        let (reader, writer) = stream.into_split();
        let place = Arc::new(Place { number, name: format!("{host}#{number}"), fabric: self.clone(), broken });
        let reader = Box::new(Half { inner: reader, place: place.clone() });
        Wire { reader, writer: Box::new(Half { inner: writer, place }), peer }
    }
}

/// An end's entry in the fabric, which is taken out when both halves are dropped.
struct Place {
    number: u64,
    /// The connection's name in the trace.
    name: String,
    fabric: Fabric,
    broken: Arc<Mutex<Broken>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.fabric.state().ends.remove(&self.number);
    }
}

impl Place {
    fn check(&self, context: &Context<'_>) -> io::Result<()> {
        let mut broken = self.broken.lock().unwrap();
        if broken.yes {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "simulated: the other end was silent for too long"));
        }
        if broken.waiting.iter().all(|waker| !waker.will_wake(context.waker())) {
            broken.waiting.push(context.waker().clone());
        }
        Ok(())
    }
}

impl Network for SimNetwork {
    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let listener = TcpListener::bind(address).await?;
            let (host, fabric) = (self.host.clone(), self.fabric.clone());
            Ok(Box::new(SimListener { listener, host, fabric }) as Box<dyn Listener>)
        })
    }

    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Wire>> {
        Box::pin(async move {
            let other = address.rsplit_once(':').map_or(address, |(host, _)| host).to_owned();
            if self.fabric.state().silent.contains(&other) {
                tokio::time::sleep(REFUSAL).await;
                return Err(io::Error::new(io::ErrorKind::ConnectionRefused, format!("simulated: {address}")));
            }
            trace::event(&self.host, "connect", address.as_bytes());
            let stream = TcpStream::connect(address).await?;
            let peer = stream.peer_addr()?.to_string();
            Ok(self.fabric.wire(&self.host, other, peer, stream))
        })
    }

    fn resolve<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            let (host, port) = address.rsplit_once(':').unwrap_or((address, "0"));
            if let Ok(addresses) = format!("{host}:{port}").parse::<SocketAddr>() {
                return Ok(vec![addresses.ip()]);
            }
            Ok(vec![turmoil::lookup(host)])
        })
    }
}

struct SimListener {
    listener: TcpListener,
    host: String,
    fabric: Fabric,
}

impl Listener for SimListener {
    fn address(&self) -> String {
        self.listener.local_addr().map(|address| address.to_string()).unwrap_or_default()
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<Wire>> {
        Box::pin(async move {
            let (stream, peer) = self.listener.accept().await?;
            let other = turmoil::reverse_lookup(peer.ip()).unwrap_or_else(|| peer.ip().to_string());
            Ok(self.fabric.wire(&self.host, other, peer.to_string(), stream))
        })
    }
}

/// Half of a connection's end.
struct Half<T> {
    inner: T,
    place: Arc<Place>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Half<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.place.check(context)?;
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Half<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.place.check(context)?;
        let written = Pin::new(&mut self.inner).poll_write(context, bytes);
        if let Poll::Ready(Ok(count)) = &written {
            trace::event(&self.place.name, "send", &bytes[..*count]);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
