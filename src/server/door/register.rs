//! The registration of a client, which is then served here, relayed, redirected or refused.
//!
//! Stock clients ask one server at a time and wait for its answer without limit, so every register is answered or its
//! connection closed within [`limits::REGISTER_ANSWER`]. (An election takes a fraction of that time. Nodes that know of
//! no primary greet no client, so only a client that was greeted before can come to wait here.)
//!
//! | registers | leading | following | electing |
//! |---|---|---|---|
//! | to read | served | served, once everything answered before is here | waits |
//! | to write | served, once the lease is confirmed | relayed; `R5`: told where | waits; `R5`: told of none |
//! | at the port for readers, to read | served | served if fresh enough | served if fresh enough |
//! | there, or at a read-only server, to write | `ReadOnlyError`, may ask again | | |

use std::sync::Arc;

use bytes::Bytes;

use super::relay::Relay;
use crate::config::limits;
use crate::env::Watching;
use crate::raft::RelayRequest;
use crate::server::bounds::shortened;
use crate::server::client::{Client, Door, Incoming, unreadable};
use crate::server::counts::{Present, Why};
use crate::server::primary::Primary;
use crate::server::session::{self, Seat};
use crate::server::shared::{Patience, Phase, Shared};
use crate::server::standing::Standing;
use crate::zeo::{BadFrame, Call, Encoding, MessageId, Request, decode_request, encode_refusal};
use crate::zodb::Refusal;

/// Frames that a client may send while its register waits (keep-alives, as a rule), each of
/// [`limits::FIRST_FRAME`] bytes at most.
const EARLY: usize = 16;

/// A register call.
struct Registration {
    id: MessageId,
    /// The name, or the beginning of one that is too long.
    storage: String,
    read_only: bool,
    /// The frame as it came, for a relay.
    frame: Bytes,
}

enum Decision {
    Serve(Seat),
    Relay(Relay),
    Refuse(Refusal),
    Close(Why),
}

/// Reads until the client registers, and then serves the client to its end.
pub async fn receive(shared: Arc<Shared>, mut client: Client, held: Present) {
    // (A peer that relays it may have sent larger ones.)
    client.incoming.reader.set_limit(limits::FIRST_FRAME);
    let mut refused_to_write = None;
    loop {
        let registration = match next_registration(&shared, &mut client).await {
            Ok(registration) => registration,
            Err(why) => {
                shared.metrics.closed(why);
                return;
            }
        };
        match decide(&shared, &mut client, &registration, refused_to_write.as_ref()).await {
            Decision::Serve(seat) => {
                drop(held);
                return session::serve(shared, client, seat, registration.id).await;
            }
            Decision::Relay(relay) => {
                drop(held);
                return relay.pass(&shared, client).await;
            }
            Decision::Refuse(refusal) => {
                match refusal {
                    // Settings are wrong, the client's or this node's: somebody has to look at them.
                    Refusal::NoStorage { .. } => {
                        let what =
                            format!("refused a register: {refusal}; compare the client's settings with --storage");
                        shared.complaints.say(&client.peer, &what);
                    }
                    _ => {
                        tracing::info!(peer = %client.peer, storage = %registration.storage, %refusal, "refused a register");
                    }
                }
                if refusal == Refusal::ReadOnly {
                    // Elections count from now on, also those before its next register.
                    refused_to_write.get_or_insert_with(|| shared.elections.watching());
                }
                client.writer.push(&encode_refusal(client.encoding, &registration.id, &refusal));
                if !matches!(shared.env.timeout(limits::REGISTER_ANSWER, client.writer.flush()).await, Ok(Ok(()))) {
                    return;
                }
            }
            Decision::Close(why) => {
                tracing::info!(peer = %client.peer, storage = %registration.storage, %why, "closed a client that wanted to register");
                shared.metrics.closed(why);
                return;
            }
        }
    }
}

/// Waits for the register call. A greeted client may take its time: its program may be registering at other addresses.
async fn next_registration(shared: &Shared, client: &mut Client) -> Result<Registration, Why> {
    let mut phase = shared.phase.watching();
    loop {
        let frame = tokio::select! { biased;
            _ = phase.until(|phase| *phase != Phase::Open) => return Err(Why::Stopping),
            frame = client.incoming.next() => frame,
        };
        let frame = match frame {
            Ok(Some(frame)) => frame,
            Ok(None) => return Err(Why::Gone),
            Err(fault) => {
                unreadable(shared, &client.peer, &fault);
                return Err(Why::Unreadable);
            }
        };
        let why = match decode_request(client.encoding, &frame) {
            Ok(Request { call: Call::KeepAlive, .. }) => continue,
            Ok(Request { id, call: Call::Register { storage, read_only }, .. }) => {
                // (No storage has a longer name, and people will read it. A slice of the frame would keep all that was
                // read with it, for as long as the register waits.)
                let storage = shortened(&storage, limits::STORAGE_NAME).into_owned();
                return Ok(Registration { id, storage, read_only, frame: Bytes::copy_from_slice(&frame) });
            }
            Ok(_) => "unregistered",
            Err(BadFrame::Undecodable(_)) => "undecodable",
            Err(BadFrame::UnknownCall(_)) => "unknown_call",
            Err(BadFrame::BadArguments { .. }) => "bad_arguments",
        };
        shared.metrics.bad_frame(why);
        tracing::warn!(peer = %client.peer, why, "closed a client: its frame is no register call");
        return Err(Why::BadFrame);
    }
}

/// Decides about a register, while listening whether the client is still connected.
async fn decide(
    shared: &Arc<Shared>,
    client: &mut Client,
    registration: &Registration,
    refused_to_write: Option<&Watching<u64>>,
) -> Decision {
    let Client { encoding, follows_redirects, door, peer, incoming, .. } = client;
    let Incoming { early, reader } = incoming;
    let (encoding, redirects, door) = (*encoding, *follows_redirects, *door);
    let mut phase = shared.phase.watching();
    let mut deciding = std::pin::pin!(async {
        match (door, registration.read_only) {
            (Door::Reading, false) => Decision::Refuse(Refusal::ReadOnly),
            (Door::Reading, true) if shared.is_fresh() => seat(shared, registration, None, door, refused_to_write),
            (Door::Reading, true) => Decision::Close(Why::NotFresh),
            (_, false) if shared.config.read_only => Decision::Refuse(Refusal::ReadOnly),
            (_, true) => to_read(shared, registration, door, refused_to_write).await,
            (_, false) => to_write(shared, registration, door, encoding, redirects, peer).await,
        }
    });
    loop {
        tokio::select! { biased;
            _ = phase.until(|phase| *phase != Phase::Open) => return Decision::Close(Why::Stopping),
            decision = &mut deciding => return decision,
            frame = reader.next(), if early.len() < EARLY => match frame {
                Ok(Some(frame)) => early.push_back(Bytes::copy_from_slice(&frame)),
                Ok(None) => return Decision::Close(Why::Gone),
                Err(_) => return Decision::Close(Why::Unreadable),
            },
        }
    }
}

/// Seats a client. `refused_to_write`: the elections since it was refused to write.
fn seat(
    shared: &Shared,
    registration: &Registration,
    primary: Option<Arc<Primary>>,
    door: Door,
    refused_to_write: Option<&Watching<u64>>,
) -> Decision {
    match shared.store.storage(&registration.storage) {
        Some(storage) => Decision::Serve(Seat {
            storage,
            name: registration.storage.clone(),
            read_only: registration.read_only,
            primary,
            door,
            closes_at_next_election: refused_to_write.cloned(),
        }),
        None => {
            Decision::Refuse(Refusal::NoStorage { name: registration.storage.clone(), known: shared.storage_names() })
        }
    }
}

async fn to_read(
    shared: &Shared,
    registration: &Registration,
    door: Door,
    refused_to_write: Option<&Watching<u64>>,
) -> Decision {
    match shared.catch_up(Patience::of_register(shared)).await {
        Ok(()) => seat(shared, registration, None, door, refused_to_write),
        Err(why) => Decision::Close(why),
    }
}

async fn to_write(
    shared: &Arc<Shared>,
    registration: &Registration,
    door: Door,
    encoding: Encoding,
    redirects: bool,
    peer: &str,
) -> Decision {
    let patience = Patience::of_register(shared);
    let mut standing = shared.standing.watching();
    loop {
        let present = standing.look_now().clone();
        match present {
            Standing::Leading(primary) => {
                let left = match patience.left(shared) {
                    Ok(left) => left,
                    Err(why) => return Decision::Close(why),
                };
                // A node that lost its lease a moment ago may not know yet that others have committed since.
                let mut ended = primary.ended();
                let caught_up = tokio::select! { biased;
                    _ = ended.until(|ended| *ended) => false,
                    caught_up = shared.node.catch_up(left) => caught_up.is_ok(),
                };
                if caught_up {
                    return seat(shared, registration, Some(primary), door, None);
                }
            }
            // A client is relayed once only: the relaying node tries the newer primary.
            Standing::Following { .. } if door == Door::Relay => return Decision::Close(Why::NotPrimary),
            Standing::Following { primary, .. } if redirects => {
                return Decision::Refuse(Refusal::NotPrimary(Some(primary.address)));
            }
            Standing::Forming | Standing::Electing if redirects => return Decision::Refuse(Refusal::NotPrimary(None)),
            Standing::Following { primary, .. } => {
                let Some(present) = shared.reserve.relay(&shared.metrics) else {
                    return Decision::Close(Why::TooManyRelays);
                };
                let opening = vec![Bytes::from_static(encoding.greeting()), registration.frame.clone()];
                let request = RelayRequest { client: peer.to_owned(), opening };
                match shared.env.timeout(limits::CONNECT, shared.node.open_relay(request)).await {
                    // The relay may lead to a newer primary than the one looked at.
                    Ok(Ok((primary, reader, writer))) => {
                        return Decision::Relay(Relay { primary, reader, writer, present });
                    }
                    Ok(Err(why)) => tracing::debug!(%peer, primary = primary.id, why = why.0, "could not relay"),
                    Err(_) => tracing::debug!(%peer, primary = primary.id, "could not relay in time"),
                }
            }
            Standing::Forming | Standing::Electing => {}
        }
        if let Err(why) = patience.pause(shared, &mut standing).await {
            return Decision::Close(why);
        }
    }
}
