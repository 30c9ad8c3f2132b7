//! How a pack is asked for, and what a pack asks of the sessions beside it.
//!
//! `pack` may come from any client at any node, readers included, as `zeopack` registers to read. A node that is not primary
//! asks the primary over a relay stream, as a reader of its own, and passes the answer on. Who waits gets its answer when
//! the pack is over; an `info` with the new size goes before it, and to all other clients of the storage.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;

use super::commit::{Open, Stage, contents_of_vote};
use super::metrics::Present;
use super::pack;
use super::pack_watch::{Told, Watch};
use super::session::{Answer, Done, End, Session};
use super::standing::Standing;
use super::{Shared, register};
use crate::command::{Base, Content, Write};
use crate::config::limits;
use crate::net::{FrameReader, FrameWriter};
use crate::raft::RelayRequest;
use crate::storage::Store;
use crate::tpc::TxnId;
use crate::zeo::{Call, Encoding, FromServer, MessageId, Push, Reply, decode_message, encode_call};
use crate::zodb::{Oid, Refusal, StorageId, Tid};

/// How a primary at another node is spoken to.
const ENCODING: Encoding = Encoding::Msgpack;
const REGISTER: i64 = 1;
const PACK: i64 = 2;

/// A pack that somebody wants.
#[derive(Clone)]
struct Wanted {
    storage: StorageId,
    name: String,
    /// In seconds since the Unix epoch.
    time: f64,
    /// For the logs.
    client: String,
}

/// Why there is no answer: the client can't know what has become of it.
type Lost = &'static str;

impl Session {
    /// `pack`.
    pub fn pack(&mut self, id: &MessageId, time: f64, wait: bool) -> Answer {
        if self.shared.config.read_only {
            return Answer::Refused(Refusal::ReadOnly);
        }
        // Who does not wait could have any number of them.
        if self.packing.strong_count() > 0 {
            return Answer::Refused(Refusal::BadValue("already packing".into()));
        }
        let asking = Arc::new(());
        self.packing = Arc::downgrade(&asking);
        let wanted =
            Wanted { storage: self.seat.storage, name: self.seat.name.clone(), time, client: self.name.clone() };
        tracing::info!(client = %self.name, storage = %self.seat.name, time, wait, "a client wants a pack");
        // It goes on without its client.
        let asked = ask(self.shared.clone(), wanted);
        let packing = self.shared.env.spawn(async move {
            let answer = asked.await;
            drop(asking);
            answer
        });
        if !wait {
            return Answer::Reply(Reply::Nothing);
        }
        let id = id.clone();
        self.pending.push(async move { Done::Packed(id, packing.await.unwrap_or(Err("stopping"))) }.boxed());
        Answer::Later
    }

    /// The answer to a `pack` is known.
    pub fn packed(&mut self, id: &MessageId, outcome: Result<Result<(), Refusal>, Lost>) -> Result<(), End> {
        match outcome {
            Ok(Ok(())) => {
                self.tell_news()?;
                self.tell_size();
                self.reply(id, Reply::Nothing);
                Ok(())
            }
            Ok(Err(refusal)) => {
                self.refuse(id, &refusal);
                Ok(())
            }
            Err(why) => Err(End(why)),
        }
    }

    /// How large the storage is, for the client's `len` and `getSize`.
    pub fn tell_size(&mut self) {
        let summary = self.shared.store.summary(self.seat.storage);
        self.push(&Push::Info { length: summary.objects, size: summary.bytes });
    }

    /// A vote that is granted shows a pack what its records refer to, before it is answered: that must not go.
    pub fn show_to_pack(&mut self, id: MessageId, bases: Vec<(Oid, Base)>, watch: Arc<Watch>) {
        let open = self.transaction.as_ref().expect("who asks has looked");
        let (txn, writes) = (open.claim.txn, contents_of_vote(&open.buffer, &bases));
        let (env, store, storage) = (self.shared.env.clone(), self.shared.store.clone(), self.seat.storage);
        let shown = async move {
            let beside = watch.clone();
            let told = match env.offload(move || show(&store, storage, &writes, &beside)).await {
                Ok(Told::Fine) => Ok(()),
                Ok(Told::Doubt(oids)) => watch.pardon(&env, oids).await,
                Ok(Told::Gone(oid)) => Err(Refusal::NoObject(oid)),
                Ok(Told::Unclear(oid, why)) => {
                    Err(Refusal::BadValue(format!("while a pack is going on, object {oid}: {why}")))
                }
                Err(fault) => Err(Refusal::BadValue(format!("what the transaction writes can't be read: {fault}"))),
            };
            Done::Shown(id, txn, bases, told)
        };
        self.pending.push(shown.boxed());
    }

    /// A pack has seen what a granted vote refers to: answers it.
    pub fn shown(
        &mut self,
        id: MessageId,
        txn: TxnId,
        bases: Vec<(Oid, Base)>,
        told: Result<(), Refusal>,
    ) -> Result<(), End> {
        // It may have been aborted since, and another begun.
        let asks = |open: &Open| open.claim.txn == txn && matches!(open.stage, Stage::Voting | Stage::Undoing(_));
        if !self.transaction.as_ref().is_some_and(asks) {
            return Ok(());
        }
        match told {
            Ok(()) => {
                self.answer_vote(&id, bases);
                Ok(())
            }
            Err(refusal) => {
                tracing::info!(client = %self.name, %refusal, "a vote failed beside a pack");
                self.fail_vote(&id, &refusal)
            }
        }
    }
}

/// Shows all records that a transaction writes.
fn show(store: &Store, storage: StorageId, writes: &[Write], watch: &Watch) -> io::Result<Told> {
    let own: BTreeSet<Oid> =
        writes.iter().filter(|write| write.content != Content::Absent).map(|write| write.oid).collect();
    let mut doubts = Vec::new();
    for write in writes {
        let record = match &write.content {
            Content::Data(data) => data.clone(),
            Content::Staged(staged) => store.read_staged(storage, staged)?,
            Content::SameAs(tid) => match store.load_serial(storage, write.oid, *tid, Tid::MAX)? {
                Ok(data) => data,
                Err(_) => continue,
            },
            Content::Absent => continue,
        };
        match watch.show(write.oid, &record, |oid| own.contains(&oid)) {
            Told::Fine => {}
            Told::Doubt(oids) => doubts.extend(oids),
            refused @ (Told::Gone(_) | Told::Unclear(..)) => return Ok(refused),
        }
    }
    doubts.sort_unstable();
    doubts.dedup();
    Ok(if doubts.is_empty() { Told::Fine } else { Told::Doubt(doubts) })
}

/// Has the primary pack, wherever that is.
async fn ask(shared: Arc<Shared>, wanted: Wanted) -> Result<Result<(), Refusal>, Lost> {
    let Some(upto) = Tid::from_unix_seconds(wanted.time).filter(|tid| *tid > Tid::ZERO) else {
        return Ok(Err(Refusal::BadValue(format!("{} is no time to pack to", wanted.time))));
    };
    let deadline = shared.env.now() + limits::REGISTER_ANSWER;
    let mut standing = shared.standing.watching();
    loop {
        let present = standing.look_now().clone();
        match present {
            Standing::Leading(primary) => {
                return pack::pack(&primary, wanted.storage, upto).await.ok_or("reign_over");
            }
            Standing::Following { .. } => {
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
                    Ok(Ok((_, reader, writer))) => return relayed(&shared, reader, writer).await,
                    Ok(Err(why)) => tracing::debug!(why = why.0, "could not ask the primary to pack"),
                    Err(_) => tracing::debug!("could not ask the primary to pack in time"),
                }
            }
            Standing::Forming | Standing::Electing => {}
        }
        let left = deadline.saturating_duration_since(shared.env.now());
        if left.is_zero() {
            return Ok(Err(Refusal::BadValue("there is no primary that could pack".into())));
        }
        let _ = shared.env.timeout(left.min(register::PAUSE), standing.changed()).await;
    }
}

/// Waits for the primary's answer, and until this node has what it tells of.
async fn relayed(
    shared: &Shared,
    mut reader: FrameReader,
    // Closed at the end, and not before.
    _writer: FrameWriter,
) -> Result<Result<(), Refusal>, Lost> {
    let _relay = Present::new(&shared.metrics.relays);
    reader.set_limit(limits::FRAME);
    loop {
        let Ok(Some(frame)) = reader.next().await else { return Err("primary_lost") };
        match decode_message(ENCODING, &frame) {
            Ok(FromServer::Reply { id: MessageId::Int(PACK), .. }) => break,
            Ok(FromServer::Error { error, .. }) => {
                let other = || Refusal::BadValue(format!("the primary says {}", error.class));
                return Ok(Err(error.refusal().unwrap_or_else(other)));
            }
            Ok(FromServer::Reply { .. } | FromServer::Push(_)) => {}
            Err(_) => return Err("primary_lost"),
        }
    }
    register::settle(shared).await?;
    Ok(Ok(()))
}
