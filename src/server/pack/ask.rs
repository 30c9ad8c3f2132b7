//! Asks the primary to pack, from any node.
//!
//! `pack` may come from any client at any node, readers included, as `zeopack` registers to read. A node that is not
//! primary asks the primary over a relay stream, as a reader of its own, and passes the answer on.

use std::sync::Arc;

use bytes::Bytes;

use crate::config::limits;
use crate::net::{FrameReader, FrameWriter};
use crate::raft::RelayRequest;
use crate::server::counts::{Present, Why};
use crate::server::shared::{Patience, Shared};
use crate::server::standing::Standing;
use crate::zeo::{Call, Encoding, FromServer, MessageId, decode_message, encode_call};
use crate::zodb::{Refusal, StorageId, Tid};

/// The encoding in which the primary at another node is asked.
const ENCODING: Encoding = Encoding::Msgpack;
const REGISTER: i64 = 1;
const PACK: i64 = 2;

/// A pack that a client wants.
#[derive(Clone)]
pub struct Wanted {
    pub storage: StorageId,
    /// The storage, as clients name it.
    pub name: String,
    /// The pack time, in seconds since the Unix epoch.
    pub time: f64,
    /// The client, for the logs.
    pub client: String,
}

/// Has the primary pack; returns when the pack is over. The error: the outcome of the pack is unknown.
pub async fn ask(shared: Arc<Shared>, wanted: Wanted) -> Result<Result<(), Refusal>, Why> {
    let Some(upto) = Tid::from_unix_seconds(wanted.time).filter(|tid| *tid > Tid::ZERO) else {
        return Ok(Err(Refusal::BadValue(format!("{} is no time to pack to", wanted.time))));
    };
    let patience = Patience::new(&shared);
    let mut standing = shared.standing.watching();
    loop {
        let present = standing.look_now().clone();
        match present {
            Standing::Leading(primary) => {
                return super::pack(&primary, wanted.storage, upto).await.ok_or(Why::ReignOver);
            }
            Standing::Following { .. } => {
                let Some(relay) = shared.reserve.relay(&shared.metrics) else {
                    return Ok(Err(Refusal::BadValue("this node relays as many clients as it may; try again".into())));
                };
                let opening = vec![
                    Bytes::from_static(ENCODING.greeting()),
                    encode_call(
                        ENCODING,
                        REGISTER,
                        false,
                        &Call::Register { storage: wanted.name.clone(), read_only: true },
                    ),
                    encode_call(ENCODING, PACK, false, &Call::Pack { time: wanted.time, wait: true }),
                ];
                let request = RelayRequest { client: wanted.client.clone(), opening };
                match shared.env.timeout(limits::CONNECT, shared.node.open_relay(request)).await {
                    Ok(Ok((primary, reader, writer))) => {
                        return relayed(&shared, relay, primary, reader, writer).await;
                    }
                    Ok(Err(why)) => tracing::debug!(why = why.0, "could not ask the primary to pack"),
                    Err(_) => tracing::debug!("could not ask the primary to pack in time"),
                }
            }
            Standing::Forming | Standing::Electing => {}
        }
        if patience.pause(&shared, &mut standing).await.is_err() {
            return Ok(Err(Refusal::BadValue("there is no primary that could pack".into())));
        }
    }
}

/// Waits for the primary's answer, and until this node has applied the pack that it tells of.
async fn relayed(
    shared: &Shared,
    // Counts the connection.
    relay: Present,
    primary: u64,
    reader: FrameReader,
    // Dropped, and so closed, at the end only.
    _writer: FrameWriter,
) -> Result<Result<(), Refusal>, Why> {
    let mut answer = std::pin::pin!(answer(reader));
    // (A primary that nobody reaches any more would be waited for until its connection is given up.)
    let answer = tokio::select! { biased;
        answer = &mut answer => answer,
        () = shared.leaves(primary) => {
            shared.env.timeout(limits::LAST_ANSWERS, answer).await.unwrap_or(Err(Why::PrimaryLost))
        }
    };
    drop(relay);
    if let Ok(Ok(())) = answer {
        shared.catch_up(Patience::new(shared)).await?;
    }
    answer
}

/// Reads the answer.
async fn answer(mut reader: FrameReader) -> Result<Result<(), Refusal>, Why> {
    reader.set_limit(limits::FRAME);
    loop {
        let Ok(Some(frame)) = reader.next().await else { return Err(Why::PrimaryLost) };
        match decode_message(ENCODING, &frame) {
            Ok(FromServer::Reply { id: MessageId::Int(PACK), .. }) => return Ok(Ok(())),
            Ok(FromServer::Error { error, .. }) => {
                let other = || Refusal::BadValue(format!("the primary says {}", error.class));
                return Ok(Err(error.refusal().unwrap_or_else(other)));
            }
            Ok(FromServer::Reply { .. } | FromServer::Push(_)) => {}
            Err(_) => return Err(Why::PrimaryLost),
        }
    }
}
