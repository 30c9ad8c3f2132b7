//! The beginning of a connection where TLS is spoken: the handshake, and what the certificate is worth.
//!
//! Who has not finished the handshake is a stranger like one that has not said who it is: it is counted, limited and given
//! the same time. Who speaks something else is told apart by its first byte and named in the log; a plain ZEO client says
//! nothing until it is greeted, so it is known by its silence.

use bytes::Bytes;

use super::{Phase, Shared};
use crate::config::limits;
use crate::net::{Credentials, Misplaced, Tls, Wire, first_bytes, misplaced};

/// Makes a TLS connection of the wire. `None`: it is to be closed, and that was said.
pub async fn handshake(shared: &Shared, tls: &Tls, mut wire: Wire) -> Option<(Wire, Credentials)> {
    let peer = wire.peer.clone();
    let env = &shared.env;
    let deadline = env.now() + limits::INTRODUCTION;
    let mut phase = shared.phase.watching();
    let closed = |reason: &'static str, why: &str| {
        shared.metrics.closed(reason);
        shared.complaints.say(&peer, &format!("closed a connection: {why}"));
    };
    let first: Bytes = tokio::select! { biased;
        _ = phase.until(|phase| *phase == Phase::Closing) => return None,
        said = env.timeout(limits::INTRODUCTION, first_bytes(&mut wire)) => match said {
            Ok(Ok(said)) if !said.is_empty() => said,
            // (Load balancers look in like this.)
            Ok(_) => return None,
            Err(_) => {
                closed("no_tls", SILENT);
                return None;
            }
        },
    };
    if let Some(Misplaced { what, cure }) = misplaced(&first, true) {
        shared.metrics.bad_frame(what);
        shared.complaints.say(&peer, &format!("closed a connection: {cure}"));
        return None;
    }
    let left = deadline.saturating_duration_since(env.now());
    tokio::select! { biased;
        _ = phase.until(|phase| *phase == Phase::Closing) => None,
        shaken = env.timeout(left, tls.accept(wire, first)) => match shaken {
            Ok(Ok(done)) => Some(done),
            Ok(Err(why)) => {
                closed("tls_handshake", &format!("no TLS with it: {why}"));
                None
            }
            Err(_) => {
                closed("tls_handshake", "its TLS handshake took too long");
                None
            }
        },
    }
}

/// What to call a client, if it may be one. `None`: it is to be closed, and that was said.
pub fn client(shared: &Shared, peer: String, credentials: Option<&Credentials>) -> Option<String> {
    let Some(credentials) = credentials else { return Some(peer) };
    if let Err(why) = credentials.may_be_client() {
        shared.metrics.closed("no_client");
        shared.complaints.say(&peer, &format!("closed a client: by --tls-client-ca it is none: {why}"));
        return None;
    }
    Some(match credentials.name() {
        Some(name) => format!("{peer} ({name})"),
        None => peer,
    })
}

const SILENT: &str = "it did not begin TLS. A plain ZEO client waits like this to be greeted: this port is one for TLS, \
                      and it needs an <ssl> section";
