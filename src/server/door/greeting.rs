//! Greets clients, and finds out whether a connection is a client's, a peer's or a monitor's.
//!
//! A ZEO client is silent until it is greeted, and a client that is not greeted goes on asking at other addresses. A
//! greeted client may register, and then asks nowhere else until it is answered. So a greeting is a promise:
//!
//! - **Lead**: the primary greets at once.
//! - **Hold**: a node that is not primary keeps silent; when it becomes primary, it greets.
//! - **Relay**: after a short grace a node that follows a live primary and has caught up greets too, as it can serve
//!   readers and relay writers.
//! - **Read**: the port for readers greets while this node is fresh enough.
//!
//! Peers, monitors and clients that follow redirects do not wait for a greeting and speak first.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::config::limits;
use crate::net::{FrameReader, FrameWriter};
use crate::server::client::{Door, speaks_tls, unreadable};
use crate::server::counts::Why;
use crate::server::shared::{Phase, Shared};
use crate::server::standing::Standing;
use crate::zeo::{Encoding, FirstFrame};

/// How often a port for readers that does not greet looks whether this node is fresh enough by now.
const LOOK: Duration = Duration::from_millis(250);

/// Bytes of a first frame that the log shows if it is none that is known.
const SHOWN: usize = 64;

/// The other end of a connection.
pub enum Guest {
    Monitor {
        greeted: bool,
    },
    /// With its first frame.
    Peer(Bytes),
    /// A node's witness, with all that it has to say.
    Witness(Bytes),
    Client {
        encoding: Encoding,
        follows_redirects: bool,
    },
}

/// Greets when this node may, and waits for the first frame. `None`: the connection is to be closed.
pub async fn introduce(
    shared: &Shared,
    door: Door,
    reader: &mut FrameReader,
    writer: &mut FrameWriter,
    peer: &str,
) -> Option<Guest> {
    let env = &shared.env;
    let arrived = env.now();
    let mut greeted: Option<Instant> = None;
    let mut phase = shared.phase.watching();
    let mut standing = shared.standing.watching();
    loop {
        if greeted.is_none() && may_greet(shared, door, arrived) {
            writer.push(greeting(shared).greeting());
            if !matches!(env.timeout(limits::INTRODUCTION, writer.flush()).await, Ok(Ok(()))) {
                return None;
            }
            greeted = Some(env.now());
        }
        let wake = match (greeted, door) {
            (Some(since), _) => Some(since + limits::INTRODUCTION),
            (None, Door::Reading) => Some(env.now() + LOOK),
            (None, _) => Some(arrived + grace(shared)).filter(|at| *at > env.now()),
        };
        tokio::select! { biased;
            _ = phase.until(|phase| *phase == Phase::Closing) => return None,
            frame = reader.next() => return match frame {
                Ok(Some(frame)) => identify(shared, frame, greeted.is_some(), peer),
                Ok(None) => None,
                Err(fault) => {
                    unreadable(shared, peer, &fault);
                    if speaks_tls(&fault) {
                        // (Anything will do: by it the other end's TLS knows that this is none.)
                        writer.push(b"This port is plain.");
                        let _ = env.timeout(limits::LAST_WORDS, writer.flush()).await;
                    }
                    None
                }
            },
            _ = standing.changed(), if greeted.is_none() => {}
            () = until(shared, wake) => {
                if greeted.is_some() {
                    shared.metrics.closed(Why::Silent);
                    return None;
                }
            }
        }
    }
}

fn identify(shared: &Shared, frame: Bytes, greeted: bool, peer: &str) -> Option<Guest> {
    match FirstFrame::read(&frame) {
        Some(FirstFrame::Ruok) => Some(Guest::Monitor { greeted }),
        Some(FirstFrame::Peer) => Some(Guest::Peer(frame)),
        Some(FirstFrame::Obituary) => Some(Guest::Witness(frame)),
        Some(FirstFrame::Client { encoding, follows_redirects }) => Some(Guest::Client { encoding, follows_redirects }),
        None => {
            shared.metrics.bad_frame("first");
            let frame = frame[..frame.len().min(SHOWN)].escape_ascii();
            tracing::warn!(%peer, %frame, "closed a connection: its first frame is none of ZEO 5's");
            None
        }
    }
}

fn may_greet(shared: &Shared, door: Door, arrived: Instant) -> bool {
    if *shared.phase.look() != Phase::Open {
        return false;
    }
    if door == Door::Reading {
        return shared.is_fresh();
    }
    match &*shared.standing.look() {
        Standing::Leading(_) => true,
        Standing::Following { caught_up, .. } => *caught_up && shared.env.now() >= arrived + grace(shared),
        Standing::Forming | Standing::Electing => false,
    }
}

/// How long a client is left to find the primary by itself: at least until this node would miss a primary that died, so
/// that no client is greeted for a dead one.
fn grace(shared: &Shared) -> Duration {
    let config = &shared.config;
    config.relay_grace.max(config.election_timeout * 2 + config.heartbeat)
}

/// Waits for `moment`, or for ever.
async fn until(shared: &Shared, moment: Option<Instant>) {
    match moment {
        Some(moment) => shared.env.sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// The encoding that this server proposes.
pub fn greeting(shared: &Shared) -> Encoding {
    if shared.config.msgpack { Encoding::Msgpack } else { Encoding::Pickle }
}
