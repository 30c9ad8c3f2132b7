//! Calls that only read, and those that ask for object ids.

use futures_util::FutureExt;

use super::desk::{Answer, Desk, Done, End};
use crate::config::limits;
use crate::server::client::Door;
use crate::server::counts::Why;
use crate::server::shared::Patience;
use crate::server::status;
use crate::zeo::{HistoryItem, MessageId, Reply, StorageDescription};
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

/// `loadBefore`, at the view as it is.
pub fn load_before(desk: &Desk, oid: Oid, before: Tid) -> Result<Answer, End> {
    desk.shared.metrics.loads.inc();
    desk.tally.loads.count();
    let found = desk.store().load_before(desk.storage(), oid, before, desk.view.tid())?;
    Ok(found
        .map(|found| match found {
            Some(found) => Reply::Loaded { data: found.data, tid: found.tid, end: found.end },
            None => Reply::Nothing,
        })
        .into())
}

/// `loadSerial`
pub fn load_serial(desk: &mut Desk, oid: Oid, tid: Tid) -> Result<Answer, End> {
    desk.tell_news()?;
    Ok(desk.store().load_serial(desk.storage(), oid, tid, desk.view.tid())?.map(Reply::Data).into())
}

/// `getTid`
pub fn get_tid(desk: &mut Desk, oid: Oid) -> Result<Answer, End> {
    desk.tell_news()?;
    Ok(desk.store().get_tid(desk.storage(), oid, desk.view.tid())?.map(Reply::Tid).into())
}

/// `lastTransaction`
pub fn last_transaction(desk: &mut Desk) -> Result<Answer, End> {
    desk.tell_news()?;
    Ok(Answer::Reply(Reply::Tid(desk.view.tid())))
}

/// `getInvalidations`
pub fn get_invalidations(desk: &mut Desk, since: Tid) -> Result<Answer, End> {
    desk.tell_news()?;
    let (view, most) = (desk.view.tid(), desk.shared.config.sizes.invalidations);
    let oids = desk.store().changed_since(desk.storage(), since, view, most)?;
    Ok(Answer::Reply(oids.map_or(Reply::Nothing, |oids| Reply::Invalidations(view, oids))))
}

/// `get_info`
pub fn info(desk: &Desk) -> Answer {
    let summary = desk.store().summary(desk.storage());
    Answer::Reply(Reply::Info(StorageDescription {
        length: summary.objects,
        size: summary.bytes,
        name: desk.seat.name.clone(),
        supports_undo: true,
        supports_record_iternext: true,
        interfaces: INTERFACES.map(|(module, name)| (module.to_owned(), name.to_owned())).to_vec(),
    }))
}

/// `history`
pub fn history(desk: &mut Desk, oid: Option<Oid>, size: Option<i64>) -> Result<Answer, End> {
    desk.tell_news()?;
    let Some(oid) = oid else { return Ok(Answer::Refused(Refusal::NoObject(Oid::ROOT))) };
    // As in FileStorage, an object that does not exist is refused before a wrong size is.
    let wanted = size.map_or(1, |size| usize::try_from(size).unwrap_or(0).clamp(1, limits::HISTORY));
    let entries = match desk.store().history(desk.storage(), oid, wanted, desk.view.tid())? {
        Ok(entries) => entries,
        Err(refusal) => return Ok(Answer::Refused(refusal)),
    };
    let Some(size) = size else { return Ok(Answer::Refused(Refusal::BadType("a size must be a number".into()))) };
    let entries = if size > 0 { entries } else { Vec::new() };
    let items = entries.into_iter().map(|entry| HistoryItem { tid: entry.tid, meta: entry.meta, size: entry.size });
    Ok(Answer::Reply(Reply::History(items.collect())))
}

/// `record_iternext`
pub fn record_iternext(desk: &mut Desk, next: Option<Oid>) -> Result<Answer, End> {
    desk.tell_news()?;
    let from = next.unwrap_or(Oid::ROOT);
    let found = desk.store().next_object(desk.storage(), from, desk.view.tid())?;
    Ok(match found {
        Some((oid, tid, data, next)) => Answer::Reply(Reply::Record { oid, tid, data, next }),
        None => Answer::Refused(Refusal::NoObject(from)),
    })
}

/// `server_status`
pub fn server_status(desk: &mut Desk) -> Result<Answer, End> {
    desk.tell_news()?;
    Ok(Answer::Reply(Reply::Status(status::of_storage(&desk.shared, &desk.tally, desk.view.tid()))))
}

/// `set_client_label`
pub fn label(desk: &Desk, label: &str) -> Answer {
    let label: String = label.chars().filter(|c| !c.is_control()).take(limits::CLIENT_LABEL).collect();
    tracing::info!(client = %desk.name, label, "a client names itself");
    Answer::Reply(Reply::Nothing)
}

/// `ping`: answered once the client was told of every commit that any node answered before the ping.
pub fn ping(desk: &mut Desk, id: &MessageId) -> Result<Answer, End> {
    if desk.seat.door == Door::Reading {
        // The port for readers promises no more than what this node has.
        desk.tell_news()?;
        return Ok(Answer::Reply(Reply::Nothing));
    }
    let (shared, id) = (desk.shared.clone(), id.clone());
    desk.wait_in_order(async move { Done::Pinged(id, shared.catch_up(Patience::new(&shared)).await) });
    Ok(Answer::Later)
}

/// This node has caught up for a ping, which is answered unless the client's own finish comes first.
pub fn pinged(desk: &mut Desk, id: MessageId, caught_up: Result<(), Why>) -> Result<(), End> {
    caught_up.map_err(End)?;
    desk.held_ping = Some(id);
    if desk.view.is_held() { Ok(()) } else { desk.answer_held_ping() }
}

/// `new_oids`
pub fn new_oids(desk: &mut Desk, id: &MessageId, count: i64) -> Answer {
    let Some(primary) = desk.writable() else { return Answer::Refused(Refusal::ReadOnly) };
    let (id, storage) = (id.clone(), desk.storage());
    let count = usize::try_from(count).unwrap_or(0).clamp(1, limits::NEW_OIDS);
    desk.wait_in_order(async move { primary.new_oids(storage, count).await }.map(|oids| Done::Oids(id, oids)));
    Answer::Later
}

/// The object ids for a `new_oids` are reserved; `None`: the reign ended before.
pub fn oids(desk: &mut Desk, id: &MessageId, oids: Option<Result<Vec<Oid>, Refusal>>) -> Result<(), End> {
    desk.in_order = false;
    match oids.ok_or(End(Why::ReignOver))? {
        Ok(oids) => desk.reply(id, Reply::Oids(oids)),
        Err(refusal) => desk.refuse(id, &refusal),
    }
    Ok(())
}

/// `new_oid`, which no client of this protocol calls.
pub fn new_oid() -> Answer {
    Answer::Refused(Refusal::NotServed("new_oid is served by no server: ask for new_oids".into()))
}
