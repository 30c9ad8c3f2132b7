//! Who is there, and when a client is greeted.
//!
//! A ZEO client is silent until it is greeted, and an unanswered one does no harm: it goes on asking elsewhere. A greeted
//! one may register, and then blocks all others of its program. So a greeting is a promise:
//!
//! - **Lead**: the primary greets at once.
//! - **Hold**: a node that is not primary keeps silent; when it becomes primary, it greets.
//! - **Relay**: after a short grace a node that follows a live primary and has caught up greets too, as it can serve readers
//!   and pass writers on.
//! - **Read**: the port for readers greets while this node is fresh enough.
//!
//! Peers, monitors and clients that follow redirects do not wait for it and speak first.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::accept::{Door, greeting, unreadable};
use super::standing::Standing;
use super::{Phase, Shared};
use crate::config::limits;
use crate::net::{FrameReader, FrameWriter};
use crate::zeo::{Encoding, FirstFrame};

/// How often a silent port for readers looks whether it is fresh enough by now.
const LOOK: Duration = Duration::from_millis(250);

/// Who is there.
pub enum Guest {
    Monitor {
        greeted: bool,
    },
    /// And its first frame.
    Peer(Bytes),
    Client {
        encoding: Encoding,
        follows_redirects: bool,
    },
}

/// Greets when it may, and waits for the first frame. `None`: the connection is to be closed.
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
                Ok(Some(frame)) => who(shared, frame, greeted.is_some(), peer),
                Ok(None) => None,
                Err(fault) => {
                    unreadable(shared, peer, &fault);
                    None
                }
            },
            _ = standing.changed(), if greeted.is_none() => {}
            () = until(shared, wake) => {
                if greeted.is_some() {
                    shared.metrics.closed("silent");
                    return None;
                }
            }
        }
    }
}

fn who(shared: &Shared, frame: Bytes, greeted: bool, peer: &str) -> Option<Guest> {
    match FirstFrame::read(&frame) {
        Some(FirstFrame::Ruok) => Some(Guest::Monitor { greeted }),
        Some(FirstFrame::Peer) => Some(Guest::Peer(frame)),
        Some(FirstFrame::Client { encoding, follows_redirects }) => Some(Guest::Client { encoding, follows_redirects }),
        None => {
            shared.metrics.bad_frame("first");
            tracing::warn!(%peer, frame = %frame.escape_ascii(), "closed a connection: its first frame is none of ZEO 5's");
            None
        }
    }
}

fn may_greet(shared: &Shared, door: Door, arrived: Instant) -> bool {
    if *shared.phase.look() != Phase::Open {
        return false;
    }
    if door == Door::Reading {
        return is_fresh(shared);
    }
    match &*shared.standing.look() {
        Standing::Leading(_) => true,
        Standing::Following { caught_up, .. } => *caught_up && shared.env.now() >= arrived + grace(shared),
        Standing::Forming | Standing::Electing => false,
    }
}

/// How long a client is left to find the primary by itself: at least until a primary that died would be missed here, so that
/// nobody is greeted in its name.
fn grace(shared: &Shared) -> Duration {
    let config = &shared.config;
    config.relay_grace.max(config.election_timeout * 2 + config.heartbeat)
}

/// Whether this node is near enough to the primary for those who take what it has.
pub fn is_fresh(shared: &Shared) -> bool {
    shared.node.lag().is_some_and(|lag| lag <= shared.config.max_lag)
}

/// Waits for the moment, or for ever.
pub async fn until(shared: &Shared, moment: Option<Instant>) {
    match moment {
        Some(moment) => shared.env.sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
