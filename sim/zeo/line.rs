//! A connection of a client that speaks the protocol: calls go out, and each frame that comes in is written down in the
//! [`Stream`] before anything is done with it.
//!
//! A frame that no client of the protocol could read is a fault of the server, and panics.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use zrs::config::limits;
use zrs::env::Env;
use zrs::net::{FrameReader, FrameWriter};
use zrs::zeo::{Call, Encoding, FromServer, MessageId, Pushed, Reply, decode_message, encode_call};
use zrs::zodb::{Oid, Refusal, Tid};

use super::cache::Cache;
use super::client::Client;
use super::pair_id::with_pair_id;
use crate::history::{History, Reached};
use crate::node::address_of;
use crate::stream::{Event, Loaded, Stream};
use crate::trace;
use crate::value::{Found, Value, read};

/// How long a connect may take.
const CONNECT: Duration = Duration::from_secs(1);
/// How long an answer may take: longer than others may hold their locks.
const PATIENCE: Duration = Duration::from_secs(8);

/// The connection is lost; why.
#[derive(Debug)]
pub struct Lost(pub String);

/// The answer to a call.
#[derive(Debug)]
pub enum Answer {
    Reply(Reply),
    Refused(Refusal),
}

/// A call without an answer yet.
struct Asked {
    call: Call,
    /// The attempt that votes or finishes, and the serials that it has sent with its writes.
    attempt: Option<(u64, BTreeMap<Oid, Tid>)>,
    /// Whether anybody waits for the answer.
    is_awaited: bool,
}

impl Asked {
    fn mark(&self) -> u64 {
        self.attempt.as_ref().map(|(mark, _)| *mark).unwrap_or_default()
    }

    fn sent(&self) -> BTreeMap<Oid, Tid> {
        self.attempt.as_ref().map(|(_, sent)| sent.clone()).unwrap_or_default()
    }
}

/// A connection that has registered.
pub struct Line {
    env: Env,
    history: History,
    reader: FrameReader,
    writer: FrameWriter,
    encoding: Encoding,
    /// The number of its stream in the history.
    pub stream: usize,
    pub node: u64,
    /// The tid up to which the client was told, and what it knows as of then.
    pub cache: Rc<RefCell<Cache>>,
    /// The newest transaction that this connection has told of unasked.
    newest: Tid,
    /// The cache is up to date with this connection.
    is_verified: bool,
    next_id: i64,
    asked: BTreeMap<MessageId, Asked>,
    answers: BTreeMap<MessageId, Answer>,
    /// Blobs that are coming, and whether they have ended.
    blobs: BTreeMap<(Oid, Tid), (Vec<u8>, bool)>,
}

impl Line {
    /// Connects to a node, waits for its greeting for as long as `grace`, registers, and brings the cache up to date.
    pub async fn connect(
        client: &Client,
        node: u64,
        grace: Duration,
        encoding: Encoding,
        cache: &Rc<RefCell<Cache>>,
    ) -> Result<Line, Lost> {
        let Client { env, network, history, number, read_only } = client;
        let address = address_of(node, history.look().moved.contains(&node));
        let connecting = env.timeout(CONNECT, network.connect(&address)).await;
        let wire = connecting.map_err(|_| lost("connecting took too long"))?.map_err(lost)?;
        let (mut reader, writer) = (FrameReader::new(wire.reader, limits::FRAME), FrameWriter::new(wire.writer));
        let greeting = env.timeout(grace, reader.next()).await.map_err(|_| lost("no greeting"))?.map_err(lost)?;
        let greeting = greeting.ok_or_else(|| lost("closed instead of greeting"))?;
        assert!(Encoding::of_greeting(&greeting).is_some(), "client {number} was greeted with {greeting:?}");
        let mut line = Line {
            env: env.clone(),
            history: history.clone(),
            reader,
            writer,
            encoding,
            stream: usize::MAX,
            node,
            cache: cache.clone(),
            newest: Tid::ZERO,
            is_verified: false,
            next_id: 1,
            asked: BTreeMap::new(),
            answers: BTreeMap::new(),
            blobs: BTreeMap::new(),
        };
        line.writer.push(encoding.greeting());
        let (earlier, at_least) = (cache.borrow().told, history.look().answered);
        let registered = line.register(*read_only).await?;
        let stream = Stream {
            client: *number,
            node,
            encoding,
            read_only: *read_only,
            registered,
            events: Vec::new(),
            times: Vec::new(),
        };
        line.stream = history.begins_stream(stream);
        {
            let reached = |at_least, why| {
                history.look().reached.push(Reached { client: *number, view: registered, at_least, why });
            };
            reached(at_least, "it registered after that was answered");
            reached(earlier, "it was told of that on an earlier connection");
        }
        line.verify(registered).await?;
        line.is_verified = true;
        Ok(line)
    }

    async fn register(&mut self, read_only: bool) -> Result<Tid, Lost> {
        let call = Call::Register { storage: "1".to_owned(), read_only };
        self.writer.push(&encode_call(self.encoding, 0, false, &call));
        self.flush().await?;
        let frame = self.next(self.env.now() + PATIENCE).await?.ok_or_else(|| lost("no answer to the register"))?;
        match decode_message(self.encoding, &frame) {
            Ok(FromServer::Reply { id: MessageId::Int(0), value }) => match Reply::read(&call, &value, &frame) {
                Some(Reply::Tid(tid)) => Ok(tid),
                other => panic!("a register was answered with {other:?}"),
            },
            Ok(FromServer::Error { error, .. }) => Err(Lost(format!("refused: {error:?}"))),
            other => panic!("a register was answered with {other:?}"),
        }
    }

    /// Learns which of the cached objects have changed since the last connection.
    async fn verify(&mut self, registered: Tid) -> Result<(), Lost> {
        let (since, is_empty) = (self.cache.borrow().told, self.cache.borrow().is_empty());
        if is_empty || since == registered {
            self.cache.borrow_mut().told = registered;
            return Ok(());
        }
        match self.call(Call::GetInvalidations(since)).await? {
            Answer::Reply(Reply::Invalidations(tid, oids)) => self.cache.borrow_mut().changed(tid, &oids),
            // (News may have come meanwhile.)
            Answer::Reply(Reply::Nothing) => self.cache.borrow_mut().clear(self.newest.max(registered)),
            other => panic!("getInvalidations was answered with {other:?}"),
        }
        Ok(())
    }

    /// The tid up to which this client was told.
    pub fn told(&self) -> Tid {
        self.cache.borrow().told
    }

    /// Makes a call and waits for its answer.
    pub async fn call(&mut self, call: Call) -> Result<Answer, Lost> {
        let id = self.ask(call, None);
        self.answer(&id).await
    }

    /// Makes a call that has no answer.
    pub fn tell(&mut self, call: &Call) {
        self.writer.push(&encode_call(self.encoding, 0, true, call));
    }

    /// Makes a call, whose answer is to be taken with [`Line::answer`].
    pub fn ask(&mut self, call: Call, attempt: Option<(u64, BTreeMap<Oid, Tid>)>) -> MessageId {
        let (id, frame) = match &call {
            Call::LoadBefore { oid, tid } => with_pair_id(self.encoding, *oid, *tid, &call),
            _ => {
                let id = self.next_id;
                self.next_id += 1;
                (MessageId::Int(id), encode_call(self.encoding, id, false, &call))
            }
        };
        match self.asked.get_mut(&id) {
            // (Python's client waits with two callers for one answer.)
            Some(asked) => asked.is_awaited = true,
            None => {
                self.writer.push(&frame);
                self.asked.insert(id.clone(), Asked { call, attempt, is_awaited: true });
            }
        }
        id
    }

    /// Loads an object and passes the answer over; that it is right, the stream will show.
    pub fn glance(&mut self, oid: Oid, before: Tid) {
        let (id, frame) = with_pair_id(self.encoding, oid, before, &Call::LoadBefore { oid, tid: before });
        if !self.asked.contains_key(&id) {
            self.writer.push(&frame);
            let call = Call::LoadBefore { oid, tid: before };
            self.asked.insert(id, Asked { call, attempt: None, is_awaited: false });
        }
    }

    /// Whether the answer to a call is here.
    pub fn is_answered(&self, id: &MessageId) -> bool {
        self.answers.contains_key(id)
    }

    /// Waits for the answer to a call.
    pub async fn answer(&mut self, id: &MessageId) -> Result<Answer, Lost> {
        self.flush().await?;
        let deadline = self.env.now() + PATIENCE;
        loop {
            if let Some(answer) = self.answers.remove(id) {
                return Ok(answer);
            }
            match self.next(deadline).await? {
                Some(frame) => self.frame(&frame),
                None => return Err(lost("an answer took too long")),
            }
        }
    }

    /// Reads what comes until `moment`.
    pub async fn listen(&mut self, moment: Instant) -> Result<(), Lost> {
        self.flush().await?;
        while let Some(frame) = self.next(moment).await? {
            self.frame(&frame);
        }
        Ok(())
    }

    /// Sends all calls that were made.
    pub async fn flush(&mut self) -> Result<(), Lost> {
        self.env.timeout(PATIENCE, self.writer.flush()).await.map_err(|_| lost("sending took too long"))?.map_err(lost)
    }

    /// The next frame; `None`: there was none until `deadline`.
    async fn next(&mut self, deadline: Instant) -> Result<Option<Bytes>, Lost> {
        let left = deadline.saturating_duration_since(self.env.now());
        match self.env.timeout(left, self.reader.next()).await {
            Ok(frame) => Ok(Some(frame.map_err(lost)?.ok_or_else(|| lost("closed by the server"))?)),
            Err(_) => Ok(None),
        }
    }

    fn frame(&mut self, frame: &Bytes) {
        match decode_message(self.encoding, frame) {
            Ok(FromServer::Push(Pushed::Invalidate { tid, oids })) => {
                self.newest = tid;
                // (News that come before the cache is up to date tell of a part of what it has missed: the next
                // connection may have to ask for that again.)
                if self.is_verified {
                    self.cache.borrow_mut().changed(tid, &oids);
                }
                self.event(Event::News(tid, oids));
            }
            Ok(FromServer::Push(Pushed::Info { .. })) => {}
            Ok(FromServer::Push(Pushed::ReceiveBlobStart { oid, serial })) => {
                assert!(
                    self.blobs.insert((oid, serial), (Vec::new(), false)).is_none(),
                    "a blob comes twice at a time"
                );
            }
            Ok(FromServer::Push(Pushed::ReceiveBlobChunk { oid, serial, chunk })) => {
                let blob = self.blobs.get_mut(&(oid, serial)).filter(|(_, ended)| !ended);
                blob.expect("a part comes of a blob that has begun").0.extend_from_slice(&chunk);
            }
            Ok(FromServer::Push(Pushed::ReceiveBlobStop { oid, serial })) => {
                self.blobs.get_mut(&(oid, serial)).expect("a blob ends that has begun").1 = true;
            }
            Ok(FromServer::Reply { id, value }) => {
                let asked = self.asked.remove(&id).unwrap_or_else(|| panic!("an answer to no call: {id:?} {value:?}"));
                let reply = Reply::read(&asked.call, &value, frame);
                let reply = reply.unwrap_or_else(|| panic!("{:?} was answered with {value:?}", asked.call));
                self.replied(&asked, &reply);
                if asked.is_awaited {
                    self.answers.insert(id, Answer::Reply(reply));
                }
            }
            Ok(FromServer::Error { id, error }) => {
                let asked = self.asked.remove(&id).unwrap_or_else(|| panic!("an answer to no call: {id:?} {error:?}"));
                let refusal = error.refusal().unwrap_or_else(|| panic!("{:?} was answered with {error:?}", asked.call));
                self.refused(&asked, &refusal);
                if asked.is_awaited {
                    self.answers.insert(id, Answer::Refused(refusal));
                }
            }
            Err(bad) => panic!("a frame that is no message: {bad:?} in {frame:?}"),
        }
    }

    fn replied(&mut self, asked: &Asked, reply: &Reply) {
        let mark = asked.mark();
        let event = match (&asked.call, reply) {
            (Call::LoadBefore { oid, tid: before }, Reply::Loaded { data, tid, end }) => {
                let (value, mark) = known(*oid, data);
                if end.is_none() {
                    self.cache.borrow_mut().keep(*oid, *tid, (value.clone(), mark));
                }
                let answer = Loaded::Found { value, mark, tid: *tid, end: *end };
                Event::Loaded { oid: *oid, before: *before, answer }
            }
            (Call::LoadBefore { oid, tid: before }, _) => {
                Event::Loaded { oid: *oid, before: *before, answer: Loaded::Younger }
            }
            (Call::LoadSerial { oid, tid }, Reply::Data(data)) => {
                Event::Serial { oid: *oid, tid: *tid, found: Some(known(*oid, data)) }
            }
            (Call::SendBlob { oid, serial }, _) => {
                let (bytes, ended) = self.blobs.remove(&(*oid, *serial)).expect("the blob comes before the answer");
                assert!(ended, "the end of a blob comes before the answer");
                Event::Blob { oid: *oid, tid: *serial, bytes: Some(bytes.into()) }
            }
            (Call::LastTransaction, Reply::Tid(tid)) => Event::Last(*tid),
            (Call::GetInvalidations(since), Reply::Invalidations(tid, oids)) => {
                Event::Missed { since: *since, answer: Some((*tid, oids.clone())) }
            }
            (Call::GetInvalidations(since), _) => Event::Missed { since: *since, answer: None },
            (Call::Vote(_), Reply::Conflicts(conflicts)) => {
                let sent = asked.sent();
                let conflict = |conflict: &zrs::zeo::StoreConflict| zrs::zodb::Conflict {
                    oid: conflict.oid,
                    committed: conflict.committed,
                    read: conflict.read,
                };
                Event::Conflicts { mark, sent, conflicts: conflicts.iter().map(conflict).collect() }
            }
            (Call::Vote(_), Reply::Oids(oids)) => Event::Voted { mark, undone: oids.iter().copied().collect() },
            (Call::Vote(_), _) => Event::Voted { mark, undone: BTreeSet::new() },
            (Call::UndoLog { .. }, Reply::UndoLog(items)) => {
                Event::UndoLog(items.iter().map(|item| item.tid).collect())
            }
            (Call::TpcFinish(_), Reply::Tid(tid)) => {
                self.finished(mark, *tid);
                Event::Finished { mark, tid: *tid }
            }
            (Call::TpcFinish(_), other) => Event::Refused { mark, finish: true, why: format!("{other:?}") },
            _ => return,
        };
        self.event(event);
    }

    /// The client's own transaction has committed: its writes are current.
    fn finished(&mut self, mark: u64, tid: Tid) {
        let (writes, touches) = {
            let attempt = &self.history.look().attempts[mark as usize];
            (attempt.writes.clone(), attempt.touches.clone())
        };
        let mut cache = self.cache.borrow_mut();
        cache.changed(tid, writes.keys().chain(&touches));
        for (oid, value) in writes {
            cache.keep(oid, tid, (value, mark));
        }
    }

    fn refused(&mut self, asked: &Asked, refusal: &Refusal) {
        let mark = asked.mark();
        let event = match (&asked.call, refusal) {
            (Call::LoadBefore { oid, tid }, Refusal::NoObject(_)) => {
                Event::Loaded { oid: *oid, before: *tid, answer: Loaded::NoObject }
            }
            (Call::LoadSerial { oid, tid }, Refusal::NoObject(_)) => {
                Event::Serial { oid: *oid, tid: *tid, found: None }
            }
            (Call::Vote(_), Refusal::Conflict(conflict) | Refusal::ReadConflict(conflict)) => {
                Event::Failed { mark, sent: asked.sent(), conflict: conflict.clone() }
            }
            (Call::Vote(_), Refusal::UndoFailed(objects)) => {
                Event::NotUndone { mark, oids: objects.iter().map(|(oid, _)| *oid).collect() }
            }
            (Call::Vote(_), Refusal::NotUndoable(_)) => Event::NotUndone { mark, oids: BTreeSet::new() },
            (Call::Vote(_), Refusal::NoObject(oid)) => Event::Missing { mark, oid: *oid },
            (Call::Pack { .. }, _) => return,
            (Call::SendBlob { oid, serial }, Refusal::NoBlob(..)) => {
                Event::Blob { oid: *oid, tid: *serial, bytes: None }
            }
            // (The disks of a node may be full.)
            (Call::Vote(_), Refusal::TooLarge(_)) => return,
            (Call::Vote(_), other) => Event::Refused { mark, finish: false, why: other.to_string() },
            (Call::TpcFinish(_), other) => Event::Refused { mark, finish: true, why: other.to_string() },
            (call, other) => panic!("{call:?} was refused: {other}"),
        };
        self.event(event);
    }

    /// Writes down what the client was sent.
    pub fn event(&mut self, event: Event) {
        let mut record = self.history.look();
        let stream = &mut record.streams[self.stream];
        stream.events.push(event);
        stream.times.push(trace::now());
    }
}

fn lost(why: impl std::fmt::Display) -> Lost {
    Lost(why.to_string())
}

fn known(oid: Oid, data: &[u8]) -> Found {
    let found = read(data).unwrap_or_else(|| panic!("{oid} was loaded as {data:?}, which no client has written"));
    assert!(found.0 != Value::Gone, "no record says that there is no object");
    found
}
