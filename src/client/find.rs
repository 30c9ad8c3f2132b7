//! Finds the server to talk to: the primary, or for readers any that serves.
//!
//! All addresses are asked at the same time, each again and again with short pauses, so that one that takes no packets holds
//! up nobody. Who is not primary says who is, and that one is asked at once, listed or not. The first that
//! registers us is taken; all other attempts are dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncRead, ReadBuf};

use super::Shared;
use crate::config::limits;
use crate::net::{FrameReader, FrameWriter};
use crate::zeo::{Call, Encoding, FromServer, MessageId, Reply, decode_message, encode_call};
use crate::zodb::{Refusal, Tid};

/// How long a connect may take.
const CONNECT: Duration = Duration::from_secs(1);
/// How long a register may take: what servers promise, and the way there and back.
const REGISTER: Duration = Duration::from_secs(limits::REGISTER_ANSWER.as_secs() + 1);
/// How long to wait before an address is asked again: at first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(200));
/// The ids of the calls that are made before others.
const REGISTER_ID: i64 = 1;
const INVALIDATIONS_ID: i64 = 2;
/// The first id of all others.
pub const FIRST_ID: i64 = 3;

/// A connection that has registered.
pub struct Found {
    pub address: String,
    pub reader: FrameReader,
    pub writer: FrameWriter,
    /// Bytes that were received by it.
    pub heard: Arc<AtomicU64>,
    /// The last transaction when it registered.
    pub last: Tid,
}

/// An address that is being asked; how many times it was, with this one (0: because somebody said it is primary); the result.
type Attempt = BoxFuture<'static, (String, u32, Result<Found, Missed>)>;

/// Why an address is not the one.
pub enum Missed {
    /// It is not primary; it says who is.
    NotPrimary(Option<String>),
    Refused(Refusal),
    Fault(String),
}

/// How often a server has to refuse a client before that is believed: one that has just begun may not be ready.
const REFUSALS: u32 = 3;

/// What became of the search, for who waits for it.
#[derive(Default)]
pub struct Tried {
    /// Per address, what was wrong last.
    missed: BTreeMap<String, Missed>,
    refusals: u32,
}

impl Tried {
    /// What a server that could serve has said repeatedly.
    pub fn refusal(&self) -> Option<Refusal> {
        if self.refusals < REFUSALS {
            return None;
        }
        // Where there is somebody who may become primary, one that only lets read is not the last word.
        let may_come = self.missed.values().any(|missed| matches!(missed, Missed::NotPrimary(_)));
        self.missed.values().find_map(|missed| match missed {
            Missed::Refused(Refusal::ReadOnly) if may_come => None,
            Missed::Refused(refusal) => Some(refusal.clone()),
            _ => None,
        })
    }

    /// Each address, and what was wrong with it last.
    pub fn whys(&self) -> Vec<(String, String)> {
        self.missed.iter().map(|(address, missed)| (address.clone(), missed.to_string())).collect()
    }
}

impl std::fmt::Display for Missed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Missed::NotPrimary(Some(primary)) => write!(f, "not the primary; says it is {primary}"),
            Missed::NotPrimary(None) => f.write_str("not the primary; knows of none"),
            Missed::Refused(refusal) => write!(f, "refused: {refusal}"),
            Missed::Fault(why) => f.write_str(why),
        }
    }
}

/// Looks until a server is found.
pub async fn find(shared: &Arc<Shared>) -> Found {
    let mut attempts: FuturesUnordered<Attempt> =
        shared.options.addresses.iter().map(|address| attempt(shared.clone(), address.clone(), Some(0))).collect();
    // Who is being asked because somebody said so.
    let mut hinted = BTreeSet::new();
    loop {
        let Some((address, times, result)) = attempts.next().await else {
            // There is no address: connect() has seen to that.
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
        if let Missed::NotPrimary(Some(primary)) = &missed
            && *primary != address
            && hinted.len() < limits::MEMBERS
            && hinted.insert(primary.clone())
        {
            attempts.push(attempt(shared.clone(), primary.clone(), None));
        }
        note(shared, &address, missed);
    }
}

/// Asks `address` after a pause that grows with the `times` it was asked before; `None`: at once, and as a hint.
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

/// Half of it by chance, so that many clients do not come in step.
pub fn pause(shared: &Shared, times: u32) -> Duration {
    let whole = PAUSE.0.saturating_mul(1 << times.saturating_sub(1).min(8)).min(PAUSE.1);
    let micros = whole.as_micros() as u64 / 2;
    Duration::from_micros(micros + shared.env.seed() % micros.max(1))
}

/// Remembers what was wrong, for who waits.
pub fn note(shared: &Shared, address: &str, missed: Missed) {
    tracing::debug!(address, why = %missed, "not the server to talk to");
    let mut tried = shared.tried();
    tried.refusals += u32::from(matches!(missed, Missed::Refused(_)));
    tried.missed.insert(address.to_owned(), missed);
}

async fn ask(shared: &Shared, address: &str) -> Result<Found, Missed> {
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
        Ok(Err(fault)) => return Err(Missed::Fault(fault.to_string())),
        Err(_) => return Err(Missed::Fault("could not connect in time".to_owned())),
    };
    let heard = Arc::new(AtomicU64::new(0));
    let reader = Counted { reader: wire.reader, heard: heard.clone() };
    let mut found = Found {
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
        Err(_) => Err(Missed::Fault("did not answer in time".to_owned())),
    }
}

async fn register(shared: &Shared, found: &mut Found) -> Result<Tid, Missed> {
    let options = &shared.options;
    let call = Call::Register { storage: options.storage.clone(), read_only: options.read_only };
    found.writer.push(b"R5");
    match answer(found, REGISTER_ID, &call).await? {
        Reply::Tid(last) => Ok(last),
        _ => Err(odd()),
    }
}

/// Brings the cache of an earlier connection up to date. Returns the view that the connection begins with.
pub async fn verify(shared: &Shared, found: &mut Found) -> Result<Tid, Missed> {
    let view = shared.cache().view();
    if found.last < view {
        tracing::error!(address = found.address, last = %found.last, seen = %view, "a server has less than this client has seen");
        return Err(Missed::Fault("it has less than this client has seen".to_owned()));
    }
    if found.last == view || view == Tid::ZERO {
        shared.cache().missed(found.last, Some(&[]));
        return Ok(found.last);
    }
    let call = Call::GetInvalidations(view);
    let verifying = answer(found, INVALIDATIONS_ID, &call);
    let missed = match shared.env.timeout(REGISTER, verifying).await {
        Ok(answered) => answered?,
        Err(_) => return Err(Missed::Fault("did not answer in time".to_owned())),
    };
    let mut cache = shared.cache();
    match missed {
        Reply::Invalidations(tid, oids) => cache.missed(tid, Some(&oids)),
        Reply::Nothing => cache.missed(found.last, None),
        _ => return Err(odd()),
    }
    Ok(cache.view())
}

/// Makes a call and reads until its answer. What the server tells meanwhile is in the answer to the second call, too
/// (and before the first one's it tells nothing).
async fn answer(found: &mut Found, id: i64, call: &Call) -> Result<Reply, Missed> {
    let fault = |why: &dyn std::fmt::Display| Missed::Fault(why.to_string());
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
                    Some(Refusal::NotPrimary(primary)) => Missed::NotPrimary(primary),
                    Some(refusal) => Missed::Refused(refusal),
                    None => fault(&error.class),
                });
            }
            Ok(_) => {}
            Err(bad) => return Err(Missed::Fault(format!("sent what is no message: {bad:?}"))),
        }
    }
}

fn odd() -> Missed {
    Missed::Fault("gave an answer of another shape".to_owned())
}

/// Counts what was received, so that a slow answer is told from none.
struct Counted {
    reader: Box<dyn AsyncRead + Send + Sync + Unpin>,
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
