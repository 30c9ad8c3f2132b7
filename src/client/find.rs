//! Finds the server to talk to: the primary, or for clients that only read, any node that serves.
//!
//! All addresses are asked at the same time, each again and again with short pauses, so that a host that takes no
//! packets delays no other. A node that is not primary names the primary, and that address is asked at once, listed or
//! not. The first server that registers this client is taken; all other attempts are dropped.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncRead, ReadBuf};

use super::search::NotServing;
use super::shared::Shared;
use crate::config::limits;
use crate::net::{FrameReader, FrameWriter, Source};
use crate::zeo::{Call, Encoding, FromServer, MessageId, Pushed, Reply, decode_message, encode_call};
use crate::zodb::{Refusal, Tid};

/// How long a connect may take.
const CONNECT: Duration = Duration::from_secs(1);
/// How long a register may take: as long as servers promise, and a second for the network.
const REGISTER: Duration = Duration::from_secs(limits::REGISTER_ANSWER.as_secs() + 1);
/// How long to wait before an address is asked again: at first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(200));
/// The ids of the two calls that begin a connection.
const REGISTER_ID: i64 = 1;
const INVALIDATIONS_ID: i64 = 2;
/// The first id of all later calls.
pub const FIRST_ID: i64 = 3;

/// A connection that has registered.
pub struct Registered {
    pub address: String,
    pub reader: FrameReader,
    pub writer: FrameWriter,
    /// Bytes that were received on this connection.
    pub heard: Arc<AtomicU64>,
    /// The storage's last transaction when the client registered.
    pub last: Tid,
}

/// An address; the number of the attempt (0: another node named the address as primary); the result.
type Attempt = BoxFuture<'static, (String, u32, Result<Registered, NotServing>)>;

/// Asks all addresses until a server registers this client.
pub async fn find(shared: &Arc<Shared>) -> Registered {
    let mut attempts: FuturesUnordered<Attempt> =
        shared.options.addresses.iter().map(|address| attempt(shared.clone(), address.clone(), Some(0))).collect();
    // The addresses that are being asked because another node named them.
    let mut hinted = BTreeSet::new();
    loop {
        let Some((address, times, result)) = attempts.next().await else {
            // Without an address there is no attempt; Client::connect has refused that.
            return std::future::pending().await;
        };
        let missed = match result {
            Ok(found) => return found,
            Err(missed) => missed,
        };
        if times == 0 {
            hinted.remove(&address);
        } else {
            attempts.push(attempt(shared.clone(), address.clone(), Some(times)));
        }
        if let NotServing::NotPrimary(Some(primary)) = &missed
            && *primary != address
            && hinted.len() < limits::MEMBERS
            && hinted.insert(primary.clone())
        {
            attempts.push(attempt(shared.clone(), primary.clone(), None));
        }
        note(shared, &address, missed);
    }
}

/// Asks `address` after a pause that grows with the `times` it was asked before; `None`: at once, as another node named
/// it.
fn attempt(shared: Arc<Shared>, address: String, times: Option<u32>) -> Attempt {
    Box::pin(async move {
        let times = match times {
            None => 0,
            Some(times) => {
                if times > 0 {
                    shared.env.sleep(pause(&shared, times)).await;
                }
                times + 1
            }
        };
        let result = ask(&shared, &address).await;
        (address, times, result)
    })
}

/// The pause before attempt `times + 1`; half of it by chance, so that many clients do not come in step.
pub fn pause(shared: &Shared, times: u32) -> Duration {
    let whole = PAUSE.0.saturating_mul(1 << times.saturating_sub(1).min(8)).min(PAUSE.1);
    let micros = whole.as_micros() as u64 / 2;
    Duration::from_micros(micros + shared.env.seed() % micros.max(1))
}

/// Logs why `address` does not serve, and tells the caller that waits for the search.
pub fn note(shared: &Shared, address: &str, why: NotServing) {
    tracing::debug!(address, %why, "not the server to talk to");
    shared.search().note(address, why);
}

async fn ask(shared: &Shared, address: &str) -> Result<Registered, NotServing> {
    let env = &shared.env;
    let connecting = async {
        let wire = shared.network.connect(address).await?;
        match &shared.options.tls {
            Some(tls) => tls.connect(wire, address).await,
            None => Ok(wire),
        }
    };
    let wire = match env.timeout(CONNECT, connecting).await {
        Ok(Ok(wire)) => wire,
        Ok(Err(fault)) => return Err(NotServing::Fault(fault.to_string())),
        Err(_) => return Err(NotServing::Fault("could not connect in time".to_owned())),
    };
    let heard = Arc::new(AtomicU64::new(0));
    let reader = Counted { reader: wire.reader, heard: heard.clone() };
    let mut found = Registered {
        address: address.to_owned(),
        reader: FrameReader::new(Box::new(reader), limits::FRAME),
        writer: FrameWriter::new(wire.writer),
        heard,
        last: Tid::ZERO,
    };
    match env.timeout(REGISTER, register(shared, &mut found)).await {
        Ok(Ok(last)) => {
            found.last = last;
            Ok(found)
        }
        Ok(Err(missed)) => Err(missed),
        Err(_) => Err(NotServing::Fault("did not answer in time".to_owned())),
    }
}

async fn register(shared: &Shared, found: &mut Registered) -> Result<Tid, NotServing> {
    let options = &shared.options;
    let call = Call::Register { storage: options.storage.clone(), read_only: options.read_only };
    found.writer.push(b"R5");
    match answer(found, REGISTER_ID, &call).await? {
        Reply::Tid(last) => Ok(last),
        _ => Err(odd()),
    }
}

/// Brings the cache of an earlier connection up to date, and returns the view that this connection begins with.
pub async fn verify(shared: &Shared, found: &mut Registered) -> Result<Tid, NotServing> {
    let view = shared.cache().view();
    if found.last < view {
        let (address, last) = (&found.address, found.last);
        tracing::error!(address, %last, seen = %view, "a server has less than this client has seen");
        return Err(NotServing::Fault("it has less than this client has seen".to_owned()));
    }
    if found.last == view || view == Tid::ZERO {
        shared.cache().missed(found.last, Some(&[]));
        return Ok(found.last);
    }
    let call = Call::GetInvalidations(view);
    let verifying = answer(found, INVALIDATIONS_ID, &call);
    let missed = match shared.env.timeout(REGISTER, verifying).await {
        Ok(answered) => answered?,
        Err(_) => return Err(NotServing::Fault("did not answer in time".to_owned())),
    };
    let mut cache = shared.cache();
    match missed {
        Reply::Invalidations(tid, oids) => cache.missed(tid, Some(&oids)),
        Reply::Nothing => cache.missed(found.last, None),
        _ => return Err(odd()),
    }
    Ok(cache.view())
}

/// Makes a call and reads up to its answer. Invalidations before the answer only move what the server had last: none
/// come before the first call's, and those before the second call's are part of it, or of all that may have changed.
async fn answer(found: &mut Registered, id: i64, call: &Call) -> Result<Reply, NotServing> {
    let fault = |why: &dyn std::fmt::Display| NotServing::Fault(why.to_string());
    found.writer.push(&encode_call(Encoding::Msgpack, id, false, call));
    found.writer.flush().await.map_err(|error| fault(&error))?;
    loop {
        let frame = match found.reader.next().await {
            Ok(Some(frame)) => frame,
            Ok(None) => return Err(fault(&"closed the connection")),
            Err(error) => return Err(fault(&error)),
        };
        if Encoding::of_greeting(&frame).is_some() {
            continue;
        }
        match decode_message(Encoding::Msgpack, &frame) {
            Ok(FromServer::Reply { id: MessageId::Int(its), value }) if its == id => {
                return Reply::read(call, &value, &frame).ok_or_else(odd);
            }
            Ok(FromServer::Error { id: MessageId::Int(its), error }) if its == id => {
                return Err(match error.refusal() {
                    Some(Refusal::NotPrimary(primary)) => NotServing::NotPrimary(primary),
                    Some(refusal) => NotServing::Refused(refusal),
                    None => fault(&error.class),
                });
            }
            Ok(FromServer::Push(Pushed::Invalidate { tid, .. })) => found.last = found.last.max(tid),
            Ok(_) => {}
            Err(bad) => return Err(NotServing::Fault(format!("sent bytes that are no message: {bad:?}"))),
        }
    }
}

fn odd() -> NotServing {
    NotServing::Fault("gave an answer of another shape".to_owned())
}

/// Counts the bytes that were received, so that a slow answer is told from silence.
struct Counted {
    reader: Box<dyn Source>,
    heard: Arc<AtomicU64>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut *self.reader).poll_read(context, buffer);
        self.heard.fetch_add((buffer.filled().len() - before) as u64, Relaxed);
        polled
    }
}
