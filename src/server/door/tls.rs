//! The beginning of a connection at a port for TLS: the handshake, and the rights that the certificate gives.
//!
//! A connection that has not finished the handshake is counted, limited and given the same time as one that has not
//! identified itself yet. Anything but TLS is told apart by its first byte and named in the log; a plain ZEO client
//! says nothing until it is greeted, so such a client is known by its silence.

use bytes::Bytes;

use crate::config::limits;
use crate::net::{Credentials, FrameWriter, Misplaced, Tls, Wire, first_bytes, lingering_close, misplaced};
use crate::raft::refusal;
use crate::server::counts::Why;
use crate::server::shared::{Phase, Shared};

/// Makes a TLS connection of the wire. `None`: the wire is to be closed, and the log says why.
pub async fn handshake(shared: &Shared, tls: &Tls, mut wire: Wire) -> Option<(Wire, Credentials)> {
    let peer = wire.peer.clone();
    let env = &shared.env;
    let deadline = env.now() + limits::INTRODUCTION;
    let mut phase = shared.phase.watching();
    let closed = |reason: Why, why: &str| {
        shared.metrics.closed(reason);
        shared.complaints.say(&peer, &format!("closed a connection: {why}"));
    };
    let first: Bytes = tokio::select! { biased;
        _ = phase.until(|phase| *phase == Phase::Closing) => return None,
        said = env.timeout(limits::INTRODUCTION, first_bytes(&mut wire)) => match said {
            Ok(Ok(said)) if !said.is_empty() => said,
            // (Health checks of load balancers connect and close.)
            Ok(_) => return None,
            Err(_) => {
                closed(Why::NoTls, SILENT);
                return None;
            }
        },
    };
    if let Some(Misplaced { what, cure, is_node }) = misplaced(&first, true) {
        shared.metrics.bad_frame(what);
        shared.complaints.say(&peer, &format!("closed a connection: {cure}"));
        if is_node {
            // (Said in the plain language that the other node understands.)
            let mut writer = FrameWriter::new(wire.writer);
            writer.push(&refusal(NODES_DIFFER));
            if let Ok(Ok(())) = env.timeout(limits::LAST_WORDS, writer.flush()).await {
                lingering_close(env, writer.into_writer(), wire.reader).await;
            }
        }
        return None;
    }
    let left = deadline.saturating_duration_since(env.now());
    tokio::select! { biased;
        _ = phase.until(|phase| *phase == Phase::Closing) => None,
        shaken = env.timeout(left, tls.accept(wire, first)) => match shaken {
            Ok(Ok(done)) => Some(done),
            Ok(Err(why)) => {
                closed(Why::TlsHandshake, &format!("no TLS with the other end: {why}"));
                None
            }
            Err(_) => {
                closed(Why::TlsHandshake, "its TLS handshake took too long");
                None
            }
        },
    }
}

/// The name of a client for logs, if its certificate is one of a client. `None`: the connection is to be closed, and
/// the log says why.
pub fn client(shared: &Shared, peer: String, credentials: Option<&Credentials>) -> Option<String> {
    let Some(credentials) = credentials else { return Some(peer) };
    if let Err(why) = credentials.may_be_client() {
        shared.metrics.closed(Why::NoClient);
        shared.complaints.say(&peer, &format!("closed a client: by --tls-client-ca it is none: {why}"));
        return None;
    }
    Some(match credentials.name() {
        Some(name) => format!("{peer} ({name})"),
        None => peer,
    })
}

const NODES_DIFFER: &str =
    "this port is for TLS, and a node without TLS connects to it: give all nodes --tls-cert, or none";
const SILENT: &str = "it did not begin TLS. A plain ZEO client waits like this to be greeted: this port is one for TLS, \
                      and it needs an <ssl> section";
