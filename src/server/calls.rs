//! What a client asks for: every call, and the answers to those that only read.
//!
//! Loads are answered at the view as it is. Every other call that could tell something newer moves the view first, so
//! that nothing is told before its invalidation.

use futures_util::FutureExt;

use super::accept::Door;
use super::commit;
use super::register::settle;
use super::session::{Answer, Done, End, Session};
use crate::config::limits;
use crate::zeo::{Call, HistoryItem, MessageId, Reply, StorageDescription};
use crate::zodb::{Oid, Refusal, Tid};

/// The Python interfaces that a storage of this server provides.
const INTERFACES: [(&str, &str); 8] = [
    ("zope.interface", "Interface"),
    ("ZODB.interfaces", "IStorage"),
    ("ZODB.interfaces", "IStorageRestoreable"),
    ("ZODB.interfaces", "IStorageIteration"),
    ("ZODB.interfaces", "IStorageUndoable"),
    ("ZODB.interfaces", "IStorageCurrentRecordIteration"),
    ("ZODB.interfaces", "IBlobStorage"),
    ("ZODB.interfaces", "IExternalGC"),
];

impl Session {
    /// Makes one call.
    pub fn call(&mut self, id: &MessageId, call: Call) -> Result<Answer, End> {
        let storage = self.seat.storage;
        match call {
            Call::KeepAlive => Ok(Answer::Later),
            Call::Register { .. } => Err(End("registered_twice")),
            Call::LoadBefore { oid, tid } => self.load_before(oid, tid),
            Call::LoadSerial { oid, tid } => {
                self.tell_news()?;
                let found = self.shared.store.load_serial(storage, oid, tid, self.view.tid())?;
                Ok(answer(found.map(Reply::Data)))
            }
            Call::GetTid(oid) => {
                self.tell_news()?;
                Ok(answer(self.shared.store.get_tid(storage, oid, self.view.tid())?.map(Reply::Tid)))
            }
            Call::LastTransaction => {
                self.tell_news()?;
                Ok(Answer::Reply(Reply::Tid(self.view.tid())))
            }
            Call::GetInvalidations(since) => self.get_invalidations(since),
            Call::GetInfo => Ok(Answer::Reply(Reply::Info(self.info()))),
            Call::History { oid, size } => self.history(oid, size),
            Call::RecordIternext(next) => self.record_iternext(next),
            Call::ServerStatus => {
                self.tell_news()?;
                let status = self.tally.status(&self.shared, self.view.tid());
                Ok(Answer::Reply(Reply::Status(status)))
            }
            Call::SetClientLabel(label) => Ok(self.label(&label)),
            // Who takes what this node has is told what it has.
            Call::Ping if self.seat.door == Door::Reading => {
                self.tell_news()?;
                Ok(Answer::Reply(Reply::Nothing))
            }
            Call::Ping => {
                let (shared, id) = (self.shared.clone(), id.clone());
                self.wait_in_order(async move { Done::Pinged(id, settle(&shared).await) }.boxed());
                Ok(Answer::Later)
            }
            Call::NewOids(count) => self.new_oids(id, count),
            Call::IteratorStart { start, stop } => {
                self.tell_news()?;
                Ok(answer(self.iterators.start(start, stop, self.view.tid()).map(Reply::Iterator)))
            }
            Call::IteratorNext(iterator) => {
                let found = self.iterators.next(&self.shared.store, storage, iterator)?;
                let reply =
                    |found: Option<_>| found.map_or(Reply::Nothing, |(tid, meta)| Reply::Transaction(tid, meta));
                Ok(answer(found.map(reply)))
            }
            Call::IteratorRecordStart { iterator, tid } => {
                Ok(answer(self.iterators.start_records(iterator, tid).map(Reply::Iterator)))
            }
            Call::IteratorRecordNext(iterator) => {
                let found = self.iterators.next_record(&self.shared.store, storage, iterator)?;
                Ok(answer(found.map(|record| record.map_or(Reply::Nothing, commit::iterated))))
            }
            Call::IteratorGc(iterators) => {
                self.iterators.drop_all(&iterators);
                Ok(Answer::Reply(Reply::Nothing))
            }
            Call::TpcBegin { .. }
            | Call::StoreA { .. }
            | Call::CheckCurrentSerial { .. }
            | Call::DeleteObject { .. }
            | Call::RestoreA { .. }
            | Call::UndoA { .. }
            | Call::StoreBlobStart
            | Call::StoreBlobChunk(_)
            | Call::StoreBlobEnd { .. }
            | Call::StoreBlobShared { .. }
            | Call::Vote(_)
            | Call::TpcFinish(_)
            | Call::TpcAbort(_) => self.write_call(id, call),
            Call::Pack { time, wait } => Ok(self.pack(id, time, wait)),
            Call::SendBlob { oid, serial } => self.send_blob(id, oid, serial),
            Call::UndoLog { first, last } => self.undo_log(id, first, last, Vec::new()),
            Call::UndoInfo { first, last, specification } => self.undo_log(id, first, last, specification),
            Call::NewOid => {
                Ok(Answer::Refused(Refusal::NotServed("new_oid is served by no server: ask for new_oids".into())))
            }
        }
    }

    fn label(&self, label: &str) -> Answer {
        let label: String = label.chars().filter(|c| !c.is_control()).take(limits::CLIENT_LABEL).collect();
        tracing::info!(client = %self.name, label, "a client names itself");
        Answer::Reply(Reply::Nothing)
    }

    fn load_before(&mut self, oid: Oid, before: Tid) -> Result<Answer, End> {
        self.shared.metrics.loads.inc();
        self.tally.loads.count();
        let found = self.shared.store.load_before(self.seat.storage, oid, before, self.view.tid())?;
        Ok(answer(found.map(|found| match found {
            Some(found) => Reply::Loaded { data: found.data, tid: found.tid, end: found.end },
            None => Reply::Nothing,
        })))
    }

    fn get_invalidations(&mut self, since: Tid) -> Result<Answer, End> {
        self.tell_news()?;
        let view = self.view.tid();
        let oids = self.shared.store.changed_since(self.seat.storage, since, view, limits::INVALIDATIONS)?;
        Ok(Answer::Reply(oids.map_or(Reply::Nothing, |oids| Reply::Invalidations(view, oids))))
    }

    fn info(&self) -> StorageDescription {
        let summary = self.shared.store.summary(self.seat.storage);
        StorageDescription {
            length: summary.objects,
            size: summary.bytes,
            name: self.seat.name.clone(),
            supports_undo: true,
            supports_record_iternext: true,
            interfaces: INTERFACES.map(|(module, name)| (module.to_owned(), name.to_owned())).to_vec(),
        }
    }

    fn history(&mut self, oid: Option<Oid>, size: Option<i64>) -> Result<Answer, End> {
        self.tell_news()?;
        let Some(oid) = oid else { return Ok(Answer::Refused(Refusal::NoObject(Oid::ROOT))) };
        // Whether the object exists is looked at first, whatever the size is.
        let wanted = size.map_or(1, |size| usize::try_from(size).unwrap_or(0).clamp(1, limits::HISTORY));
        let entries = match self.shared.store.history(self.seat.storage, oid, wanted, self.view.tid())? {
            Ok(entries) => entries,
            Err(refusal) => return Ok(Answer::Refused(refusal)),
        };
        let Some(size) = size else { return Ok(Answer::Refused(Refusal::BadType("a size must be a number".into()))) };
        let entries = if size > 0 { entries } else { Vec::new() };
        let items = entries.into_iter().map(|entry| HistoryItem { tid: entry.tid, meta: entry.meta, size: entry.size });
        Ok(Answer::Reply(Reply::History(items.collect())))
    }

    fn record_iternext(&mut self, next: Option<Oid>) -> Result<Answer, End> {
        self.tell_news()?;
        let from = next.unwrap_or(Oid::ROOT);
        let found = self.shared.store.next_object(self.seat.storage, from, self.view.tid())?;
        Ok(match found {
            Some((oid, tid, data, next)) => Answer::Reply(Reply::Record { oid, tid, data, next }),
            None => Answer::Refused(Refusal::NoObject(from)),
        })
    }

    fn new_oids(&mut self, id: &MessageId, count: i64) -> Result<Answer, End> {
        let Some(primary) = self.writable() else { return Ok(Answer::Refused(Refusal::ReadOnly)) };
        let (id, storage) = (id.clone(), self.seat.storage);
        let count = usize::try_from(count).unwrap_or(0).clamp(1, limits::NEW_OIDS);
        let oids = async move { Done::Oids(id, primary.new_oids(storage, count).await) };
        self.wait_in_order(oids.boxed());
        Ok(Answer::Later)
    }
}

fn answer(found: Result<Reply, Refusal>) -> Answer {
    match found {
        Ok(reply) => Answer::Reply(reply),
        Err(refusal) => Answer::Refused(refusal),
    }
}
