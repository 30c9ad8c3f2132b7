//! Who comes in: one task per connection, from the accepted socket to its end.
//!
//! One port serves ZEO clients, peers and monitors; [`introduction`](super::introduction) finds out who is there. A second
//! port, if configured, is for clients that take what this node has. Connections are counted, and limited in all and
//! while they are strangers; for peers there is a [`reserve`](super::reserve).

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::introduction::{Guest, introduce};
use super::metrics::Present;
use super::register::{self, Client};
use super::reserve::Room;
use super::{Phase, Shared, secure, status};
use crate::config::{is_path, limits};
use crate::net::{FrameFault, FrameReader, FrameWriter, Listener, Misplaced, Tls, Wire, misplaced};
use crate::raft::{Accepted, RelayRequest};
use crate::zeo::{Encoding, FirstFrame};

/// Where a connection came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// The port for all.
    Main,
    /// The port for readers who take what this node has.
    Reading,
    /// Through another node.
    Relay,
}

/// How long the listener rests when the system has no socket left to give.
const REST: std::time::Duration = std::time::Duration::from_millis(100);

/// Accepts connections until the server closes.
pub async fn serve(shared: Arc<Shared>, mut listener: Box<dyn Listener>, door: Door) {
    // Who may open a unix socket is for the file system to say, and stock clients speak no TLS there.
    let tls = shared.tls.clone().filter(|_| !is_path(&listener.address()));
    let mut phase = shared.phase.watching();
    loop {
        let accepted = tokio::select! { biased;
            // Peers come in to the end: whoever takes the primary's role over has to tell this node.
            _ = phase.until(|phase| *phase == Phase::Closing) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(wire) => admit(&shared, wire, door, tls.clone()),
            Err(fault) => {
                tracing::warn!(%fault, "could not accept a connection");
                shared.env.sleep(REST).await;
            }
        }
    }
}

fn admit(shared: &Arc<Shared>, wire: Wire, door: Door, tls: Option<Tls>) {
    let metrics = &shared.metrics;
    metrics.accepted.inc();
    let room = shared.reserve.room(metrics, &wire.peer);
    if room == Room::Full {
        return turned_away(shared, &wire.peer);
    }
    let open = Present::new(&metrics.open);
    let reserved = (room == Room::ForPeers).then(|| Present::new(&metrics.reserved));
    let shared = shared.clone();
    shared.env.clone().spawn(connection(shared, wire, door, tls, open, reserved));
}

/// `reserved`: it came in only because it may be a peer.
async fn connection(
    shared: Arc<Shared>,
    wire: Wire,
    door: Door,
    tls: Option<Tls>,
    open: Present,
    reserved: Option<Present>,
) {
    let held = Present::new(&shared.metrics.held);
    let (wire, credentials) = match tls {
        None => (wire, None),
        Some(tls) => match secure::handshake(&shared, &tls, wire).await {
            Some((wire, credentials)) => (wire, Some(credentials)),
            None => return,
        },
    };
    let peer = wire.peer;
    let mut reader = FrameReader::new(wire.reader, limits::FIRST_FRAME);
    let mut writer = FrameWriter::new(wire.writer);
    let introduced = introduce(&shared, door, &mut reader, &mut writer, &peer);
    let guest = match &reserved {
        None => introduced.await,
        // (Peers speak first.)
        Some(_) => shared.env.timeout(limits::INTRODUCTION, introduced).await.unwrap_or_default(),
    };
    let guest = match guest {
        Some(Guest::Client { .. }) if reserved.is_some() => return turned_away(&shared, &peer),
        Some(guest) => guest,
        None => return,
    };
    match guest {
        Guest::Monitor { greeted } => {
            if !greeted {
                writer.push(greeting(&shared).greeting());
            }
            writer.push(&status::for_monitors(&shared));
            let _ = shared.env.timeout(limits::INTRODUCTION, writer.flush()).await;
        }
        Guest::Peer(first) => {
            // A peer's own connections end with the node's consensus: nobody waits for them when this server closes.
            drop((held, open, reserved));
            let mut phase = shared.phase.watching();
            let accepted = tokio::select! { biased;
                _ = phase.until(|phase| *phase == Phase::Closing) => return,
                accepted = shared.node.accept_peer(first, reader, writer, &peer, credentials.as_ref()) => accepted,
            };
            match accepted {
                Accepted::Relay(request, reader, writer) => {
                    let _open = Present::new(&shared.metrics.open);
                    relayed(shared, request, reader, writer).await;
                }
                Accepted::Served => {}
                Accepted::Refused(why) => {
                    shared.metrics.refused_peers.inc();
                    shared.complaints.say(&peer, &format!("refused a peer: {why}"));
                }
            }
        }
        Guest::Client { encoding, follows_redirects } => {
            let Some(peer) = secure::client(&shared, peer, credentials.as_ref()) else { return };
            let incoming = Incoming { early: VecDeque::new(), reader };
            let client = Client { encoding, follows_redirects, door, peer, incoming, writer };
            register::receive(shared, client, held).await;
        }
    }
}

fn turned_away(shared: &Shared, peer: &str) {
    shared.metrics.turned_away.inc();
    tracing::warn!(%peer, "turned away: there are too many connections");
}

/// A client that came in at another node: `opening` is what it has said there.
async fn relayed(shared: Arc<Shared>, request: RelayRequest, mut reader: FrameReader, writer: FrameWriter) {
    reader.set_limit(limits::FRAME);
    let mut early = VecDeque::from(request.opening);
    let first = early.pop_front();
    let Some(FirstFrame::Client { encoding, follows_redirects }) = first.and_then(|frame| FirstFrame::read(&frame))
    else {
        shared.metrics.bad_frame("relay");
        return;
    };
    let incoming = Incoming { early, reader };
    let client = Client { encoding, follows_redirects, door: Door::Relay, peer: request.client, incoming, writer };
    let held = Present::new(&shared.metrics.held);
    register::receive(shared, client, held).await;
}

/// Which encoding this server proposes.
pub fn greeting(shared: &Shared) -> Encoding {
    if shared.config.msgpack { Encoding::Msgpack } else { Encoding::Pickle }
}

/// The frames of a client: those that came before they could be answered, then the rest.
pub struct Incoming {
    pub early: VecDeque<Bytes>,
    pub reader: FrameReader,
}

impl Incoming {
    /// The next frame; `None` when the client has closed. Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<Bytes>, FrameFault> {
        match self.early.pop_front() {
            Some(frame) => Ok(Some(frame)),
            None => self.reader.next().await,
        }
    }

    /// A frame that is here already.
    pub fn buffered(&mut self) -> Result<Option<Bytes>, FrameFault> {
        match self.early.pop_front() {
            Some(frame) => Ok(Some(frame)),
            None => self.reader.buffered(),
        }
    }
}

/// Counts a connection that could not be read any further, and says so if that is worth it.
pub fn unreadable(shared: &Shared, peer: &str, fault: &FrameFault) {
    match fault {
        FrameFault::TooLarge { claimed, limit } => match misplaced(&claimed.to_be_bytes(), false) {
            Some(Misplaced { what, cure }) => {
                shared.metrics.bad_frame(what);
                shared.complaints.say(peer, &format!("closed a connection: {cure}"));
            }
            None => {
                shared.metrics.bad_frame("too_large");
                tracing::warn!(%peer, claimed, limit, "closed a connection: its frame is too large");
            }
        },
        FrameFault::Cut => shared.metrics.bad_frame("cut"),
        FrameFault::Io(fault) => tracing::debug!(%peer, %fault, "a connection broke"),
    }
}
