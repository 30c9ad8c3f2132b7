//! Accepts connections: one task for each, from the accepted socket to its end.
//!
//! One port serves ZEO clients, peers and monitors, which [`greeting`](super::greeting) tells apart. A second port, if
//! configured, is for readers, which are served this node's own state. Connections are counted, and limited in all and
//! until they have registered; for peers there is a [reserve](crate::server::bounds::reserve).

use std::collections::VecDeque;
use std::sync::Arc;

use super::greeting::{Guest, greeting, introduce};
use super::{register, tls};
use crate::config::{is_path, limits};
use crate::net::{FrameReader, FrameWriter, Listener, Tls, Wire};
use crate::raft::{Accepted, RelayRequest};
use crate::server::bounds::Room;
use crate::server::client::{Client, Door, Incoming};
use crate::server::counts::Present;
use crate::server::shared::{Phase, Shared};
use crate::server::status;
use crate::zeo::FirstFrame;

/// How long the listener rests when the system has no socket left to give.
const REST: std::time::Duration = std::time::Duration::from_millis(100);

/// Accepts connections until the server closes.
pub async fn serve(shared: Arc<Shared>, mut listener: Box<dyn Listener>, door: Door) {
    // The file system says who may open a unix socket, and stock clients speak no TLS there.
    let tls = shared.tls.clone().filter(|_| !is_path(&listener.address()));
    let mut phase = shared.phase.watching();
    loop {
        let accepted = tokio::select! { biased;
            // Peers come in to the end: the next primary has to reach this node with its heartbeats.
            _ = phase.until(|phase| *phase == Phase::Closing) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(wire) => admit(&shared, wire, door, tls.clone()),
            Err(fault) => {
                shared.complaints.say("the system", &format!("could not accept a connection: {fault}"));
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

/// Serves one connection. `reserved`: the connection was let in only as it may be a peer.
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
        Some(tls) => match tls::handshake(&shared, &tls, wire).await {
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
        // (A peer speaks first.)
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
            // Until it has proved to be one it counts like any other. A peer's connection ends with the node's
            // consensus: a closing server does not wait for it.
            let unproven = (held, open, reserved);
            let mut phase = shared.phase.watching();
            let accepted = tokio::select! { biased;
                _ = phase.until(|phase| *phase == Phase::Closing) => return,
                accepted = shared.node.accept_peer(first, reader, writer, &peer, credentials.as_ref(), unproven) => accepted,
            };
            match accepted {
                Accepted::Relay(request, streams) => {
                    // (From here on it is a client's.)
                    if shared.reserve.room(&shared.metrics, &peer) != Room::Ordinary {
                        return turned_away(&shared, &peer);
                    }
                    let _open = Present::new(&shared.metrics.open);
                    let (reader, writer) = *streams;
                    relayed(shared, request, reader, writer).await;
                }
                Accepted::Served => {}
                Accepted::Refused(why) => refused(&shared, &peer, &why),
            }
        }
        Guest::Witness(obituary) => {
            let taken = shared.node.accept_obituary(&obituary, &peer, credentials.as_ref());
            match shared.env.timeout(limits::HANDSHAKE_TIMEOUT, taken).await {
                Ok(Ok(())) => {}
                Ok(Err(why)) => refused(&shared, &peer, &why),
                Err(_) => refused(&shared, &peer, "its address could not be looked up in time"),
            }
        }
        Guest::Client { encoding, follows_redirects } => {
            let Some(peer) = tls::client(&shared, peer, credentials.as_ref()) else { return };
            let incoming = Incoming { early: VecDeque::new(), reader };
            let client = Client { encoding, follows_redirects, door, peer, incoming, writer };
            register::receive(shared, client, held).await;
        }
    }
}

fn refused(shared: &Shared, peer: &str, why: &str) {
    shared.metrics.refused_peers.inc();
    let why = why.strip_prefix("refused: ").unwrap_or(why);
    shared.complaints.say(peer, &format!("refused a peer: {why}"));
}

fn turned_away(shared: &Shared, peer: &str) {
    shared.metrics.turned_away.inc();
    shared.complaints.say(peer, "turned away: there are too many connections");
}

/// Serves a client that came in at another node, which relays it. The request has what the client said there.
async fn relayed(shared: Arc<Shared>, request: RelayRequest, reader: FrameReader, writer: FrameWriter) {
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
