//! The simulated network: [`Network`] over turmoil.
//!
//! Turmoil carries segments with drawn delays, holds them back, or drops them; it neither repeats a dropped segment nor
//! gives up on a silent end. What TCP does beyond that is made here and in `links`:
//!
//! - A **partition** holds everything back and delivers it when it heals, as TCP's retransmission would.
//! - A host that **loses its power** falls silent. The other ends of its connections notice after a while (keepalive),
//!   or when the host is back and resets connections that it knows nothing of.
//! - A host whose **program was killed** refuses connections at once; its kernel closes those that it had.
//! - A connection that is **reset** is gone for both ends at once, with all that was under way.
//! - Over a link that is **cut one way**, no connection comes about, from whichever end.
//! - A host that has **died in the middle of a step** sends nothing more.
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

use crate::chance::Chance;
use crate::trace;

/// How long it takes until a connection to a port without a listener is refused.
const REFUSAL: Duration = Duration::from_millis(2);
/// How often a connection that comes about looks whether the other end's answer can arrive.
const ANSWER: Duration = Duration::from_millis(1);

/// The fabric: the state that the networks of all hosts share, as do clones.
#[derive(Clone, Default)]
pub struct Fabric(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    ends: BTreeMap<u64, End>,
    made: u64,
    /// Hosts that are up, but no program listens there.
    silent: BTreeSet<String>,
    /// The ways, from one host to another, on which cuts lie.
    cuts: BTreeSet<(String, String)>,
    /// Hosts that send nothing more.
    dead: BTreeSet<String>,
}

/// One end of a connection.
struct End {
    host: String,
    other: String,
    /// The addresses of this end and of the other one.
    addresses: (SocketAddr, SocketAddr),
    broken: Arc<Mutex<Broken>>,
}

#[derive(Default)]
struct Broken {
    why: Option<io::ErrorKind>,
    waiting: Vec<Waker>,
}

impl End {
    /// Breaks this end; gives the tasks that are to be woken.
    fn break_off(&self, why: io::ErrorKind) -> Vec<Waker> {
        let mut broken = self.broken.lock().unwrap();
        broken.why.get_or_insert(why);
        std::mem::take(&mut broken.waiting)
    }
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
        self.break_off(io::ErrorKind::TimedOut, |end| end.other == host);
    }

    /// Resets all connections between two hosts.
    pub fn reset_between(&self, one: &str, other: &str) {
        self.break_off(io::ErrorKind::ConnectionReset, |end| {
            (end.host == one && end.other == other) || (end.host == other && end.other == one)
        });
    }

    /// Resets a connection that `host` has; false if there is none.
    pub fn reset_one(&self, host: &str, chance: &mut Chance) -> bool {
        let ends: Vec<_> = self.state().ends.values().filter(|end| end.host == host).map(|end| end.addresses).collect();
        if ends.is_empty() {
            return false;
        }
        let (mine, its) = chance.one_of(&ends);
        self.break_off(io::ErrorKind::ConnectionReset, |end| {
            end.addresses == (mine, its) || end.addresses == (its, mine)
        });
        true
    }

    fn break_off(&self, why: io::ErrorKind, which: impl Fn(&End) -> bool) {
        let wakers: Vec<Waker> =
            self.state().ends.values().filter(|end| which(end)).flat_map(|end| end.break_off(why)).collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Sets whether cuts lie on the way from one host to another.
    pub fn cut(&self, from: &str, to: &str, cut: bool) {
        let way = (from.to_owned(), to.to_owned());
        if cut {
            self.state().cuts.insert(way)
        } else {
            self.state().cuts.remove(&way)
        };
    }

    /// Sets whether `host` sends nothing more.
    pub fn silence(&self, host: &str, silent: bool) {
        if silent {
            self.state().dead.insert(host.to_owned())
        } else {
            self.state().dead.remove(host)
        };
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

    fn is_cut(&self, from: &str, to: &str) -> bool {
        self.state().cuts.contains(&(from.to_owned(), to.to_owned()))
    }

    fn wire(&self, host: &str, other: String, stream: TcpStream) -> io::Result<Wire> {
        let addresses = (stream.local_addr()?, stream.peer_addr()?);
        let peer = addresses.1.to_string();
        let broken = Arc::new(Mutex::new(Broken::default()));
        let number = {
            let mut state = self.state();
            state.made += 1;
            let number = state.made;
            state.ends.insert(number, End { host: host.to_owned(), other, addresses, broken: broken.clone() });
            number
        };
        let (reader, writer) = stream.into_split();
        let (host, name) = (host.to_owned(), format!("{host}#{number}"));
        let place = Arc::new(Place { number, host, name, fabric: self.clone(), broken });
        let reader = Box::new(Half { inner: reader, place: place.clone() });
        Ok(Wire { reader, writer: Box::new(Half { inner: writer, place }), peer })
    }
}

/// An end's entry in the fabric, which is taken out when both halves are dropped.
struct Place {
    number: u64,
    host: String,
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
        if let Some(why) = broken.why {
            let text = match why {
                io::ErrorKind::TimedOut => "simulated: the other end was silent for too long",
                _ => "simulated: the connection was reset",
            };
            return Err(io::Error::new(why, text));
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
            // (To turmoil the other end's answer takes no way.)
            while self.fabric.is_cut(&other, &self.host) {
                tokio::time::sleep(ANSWER).await;
            }
            self.fabric.wire(&self.host, other, stream)
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
            self.fabric.wire(&self.host, other, stream)
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
        if self.place.fabric.state().dead.contains(&self.place.host) {
            return Poll::Pending;
        }
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
