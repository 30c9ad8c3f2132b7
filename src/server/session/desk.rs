//! The desk of one session: the state that every call may touch.
//!
//! A call gets the desk and the part of the session that it belongs to, never the whole session. The desk has the seat
//! (what the client was granted), the view (what the client was told), the output, and the waits whose answers come
//! later.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;

use super::commit::undos::Touched;
use super::view::View;
use crate::command::{Base, Outcome};
use crate::config::limits;
use crate::env::{Env, Watching};
use crate::net::{FrameWriter, Share};
use crate::raft::Unknown;
use crate::server::client::Door;
use crate::server::counts::{Tally, Why};
use crate::server::primary::{Primary, Verdict};
use crate::server::shared::Shared;
use crate::storage::{Answered, Store, Undone};
use crate::tpc::TxnId;
use crate::zeo::{
    Encoding, MessageId, Push, Reply, StoreConflict, UndoItem, encode_push, encode_push_in, encode_refusal,
    encode_reply_in,
};
use crate::zodb::{Oid, Refusal, StorageId};

/// Bytes of output that are not counted among what waits for all clients.
const UNCOUNTED: usize = 64 << 10;
/// Bytes of memory that are kept for writing the next message.
const DRAFT: usize = 4 << 10;

/// The seat: storage, rights and door of a registered client.
pub struct Seat {
    pub storage: StorageId,
    pub name: String,
    pub read_only: bool,
    /// The reign in which the client may write; the session ends with it.
    pub primary: Option<Arc<Primary>>,
    pub door: Door,
    /// For a client that was refused to write and reads instead: the elections since. Its session is closed at the next
    /// election, as the client would not ask to write again by itself.
    pub closes_at_next_election: Option<Watching<u64>>,
}

/// The state that every call of a session may touch.
pub struct Desk {
    pub shared: Arc<Shared>,
    pub seat: Seat,
    pub encoding: Encoding,
    /// The client, for logs: its address, and the name of its certificate.
    pub name: String,
    pub view: View,
    pub tally: Arc<Tally>,
    /// The waits whose answers come later.
    pub pending: FuturesUnordered<BoxFuture<'static, Done>>,
    /// One of the pending answers has to come before that of the next call.
    pub in_order: bool,
    /// A ping that waits for the client's own finish: until then the client is not told what lies behind that.
    pub held_ping: Option<MessageId>,
    pub writer: FrameWriter,
    /// Where messages are written before they are queued.
    pub draft: Vec<u8>,
    /// Counts what is held in `writer`.
    pub output: Arc<Share>,
}

/// A wait that is over.
pub enum Done {
    /// `None`: the transaction ended before.
    Voted(MessageId, TxnId, Option<Verdict>),
    /// The transaction held its locks for too long; `None`: the transaction ended in time.
    Expired(Option<TxnId>),
    /// `None`: the finish never got as far as the log.
    Finished(Option<Result<Outcome, Unknown>>),
    Pinged(MessageId, Result<(), Why>),
    /// `None`: the reign is over.
    Oids(MessageId, Option<Result<Vec<Oid>, Refusal>>),
    /// The error: the outcome of the pack is unknown.
    Packed(MessageId, Result<Result<(), Refusal>, Why>),
    /// The number of the first piece; `None`: the reign is over.
    SentAhead(TxnId, Option<u64>),
    /// A piece of the first blob in line.
    Piece(io::Result<Bytes>),
    UndosLookedUp(MessageId, TxnId, Answered<Touched>),
    Undone(MessageId, TxnId, Answered<BTreeMap<Oid, Undone>>),
    UndoLogSearched(MessageId, io::Result<Vec<UndoItem>>),
    /// The transaction that the wait belonged to is over.
    Forgotten,
    /// The conflicts that a vote met.
    ConflictsRead(MessageId, TxnId, io::Result<Vec<StoreConflict>>),
    /// A pack has seen the references of a granted vote.
    Shown(MessageId, TxnId, Vec<(Oid, Base)>, Result<(), Refusal>),
}

/// The answer to a call.
pub enum Answer {
    Reply(Reply),
    Refused(Refusal),
    /// The answer comes later, or never.
    Later,
}

impl From<Result<Reply, Refusal>> for Answer {
    fn from(found: Result<Reply, Refusal>) -> Answer {
        found.map_or_else(Answer::Refused, Answer::Reply)
    }
}

/// The end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End(pub Why);

impl From<io::Error> for End {
    fn from(fault: io::Error) -> End {
        tracing::error!(%fault, "the database could not be read");
        End(Why::Fault)
    }
}

impl Desk {
    pub fn env(&self) -> &Env {
        &self.shared.env
    }

    pub fn store(&self) -> &Store {
        &self.shared.store
    }

    pub fn storage(&self) -> StorageId {
        self.seat.storage
    }

    /// The primary, if this client may write.
    pub fn writable(&self) -> Option<Arc<Primary>> {
        if self.seat.read_only { None } else { self.seat.primary.clone() }
    }

    /// Whether more may be queued for the client.
    pub fn has_output_room(&self) -> bool {
        self.writer.queued() <= limits::OUTPUT_HIGH_WATER
    }

    /// Counts what is held for the client among what is held for all. (Little is not counted: it costs less than
    /// counting.)
    pub fn count_output(&self) {
        let held = self.writer.held();
        self.output.hold(if held > UNCOUNTED { held } else { 0 });
    }

    /// Moves the view on and queues the invalidations up to the new view.
    pub fn tell_news(&mut self) -> Result<(), End> {
        for news in self.view.news(&self.shared.store)?.ok_or(End(Why::TooFarBehind))? {
            let push = Push::Invalidate { tid: news.tid, oids: &news.oids };
            let message = news.message(self.encoding as usize, || encode_push(self.encoding, &push)).clone();
            self.writer.push_parts(&[], message, &[]);
        }
        Ok(())
    }

    /// Queues how large the storage is, for the client's `len` and `getSize`.
    pub fn tell_size(&mut self) {
        let summary = self.shared.store.summary(self.seat.storage);
        self.push(&Push::Info { length: summary.objects, size: summary.bytes });
    }

    pub fn push(&mut self, push: &Push<'_>) {
        let frame = encode_push_in(&mut self.draft, self.encoding, push);
        self.writer.push_parts(frame.head, frame.body, frame.tail);
        self.tidy_draft();
    }

    pub fn reply(&mut self, id: &MessageId, reply: Reply) {
        let frame = encode_reply_in(&mut self.draft, self.encoding, id, &reply);
        self.writer.push_parts(frame.head, frame.body, frame.tail);
        self.tidy_draft();
    }

    fn tidy_draft(&mut self) {
        if self.draft.capacity() > DRAFT {
            self.draft = Vec::new();
        }
    }

    pub fn refuse(&mut self, id: &MessageId, refusal: &Refusal) {
        self.writer.push(&encode_refusal(self.encoding, id, refusal));
    }

    /// Answers the ping that has waited for the client's own finish, if there is one.
    pub fn answer_held_ping(&mut self) -> Result<(), End> {
        let Some(id) = self.held_ping.take() else { return Ok(()) };
        self.in_order = false;
        self.tell_news()?;
        self.reply(&id, Reply::Nothing);
        Ok(())
    }

    /// Has the session go on with `wait`'s result when it is there.
    pub fn wait(&mut self, wait: impl Future<Output = Done> + Send + 'static) {
        self.pending.push(wait.boxed());
    }

    /// Waits for an answer that comes before those of all later calls, which are not read until then.
    pub fn wait_in_order(&mut self, wait: impl Future<Output = Done> + Send + 'static) {
        self.in_order = true;
        self.wait(wait);
    }
}
