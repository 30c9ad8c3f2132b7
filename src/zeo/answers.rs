//! Answers as the Rust client reads them: the other half of `replies`.

use bytes::Bytes;

use super::arguments::status_of_text;
use super::calls::{Call, tid_of_undo_id};
use super::extension;
use super::message::share;
use super::replies::{HistoryItem, Reply, ServerStatus, StorageDescription, StoreConflict, UndoItem};
use super::value::Value;
use crate::zodb::{Tid, TransactionMeta};

impl Reply {
    /// Reads `value` (of `frame`) as the answer to `call`; `None` if `call` has no such answer. Object data is not
    /// copied.
    pub fn read(call: &Call, value: &Value<'_>, frame: &Bytes) -> Option<Reply> {
        if *value == Value::None {
            return Some(Reply::Nothing);
        }
        match call {
            Call::Register { .. } | Call::LastTransaction | Call::GetTid(_) | Call::TpcFinish(_) => {
                value.as_tid().map(Reply::Tid)
            }
            Call::GetInfo => info(value).map(Reply::Info),
            Call::GetInvalidations(_) => match value.as_items()? {
                [tid, oids] => Some(Reply::Invalidations(tid.as_tid()?, all(oids, Value::as_oid)?)),
                _ => None,
            },
            Call::NewOids(_) => all(value, Value::as_oid).map(Reply::Oids),
            Call::Vote(_) => match value.as_items()? {
                [Value::Dict(_), ..] => all(value, |item| conflict(item, frame)).map(Reply::Conflicts),
                _ => all(value, Value::as_oid).map(Reply::Oids),
            },
            Call::LoadBefore { .. } => match value.as_items()? {
                [data, tid, end] => Some(Reply::Loaded {
                    data: record(data, frame)?,
                    tid: tid.as_tid()?,
                    end: optional(end, Value::as_tid)?,
                }),
                _ => None,
            },
            Call::LoadSerial { .. } => record(value, frame).map(Reply::Data),
            Call::History { .. } => all(value, history).map(Reply::History),
            Call::UndoLog { .. } | Call::UndoInfo { .. } => all(value, undo).map(Reply::UndoLog),
            Call::RecordIternext(_) => match value.as_items()? {
                [oid, tid, data, next] => Some(Reply::Record {
                    oid: oid.as_oid()?,
                    tid: tid.as_tid()?,
                    data: record(data, frame)?,
                    next: optional(next, Value::as_oid)?,
                }),
                _ => None,
            },
            Call::ServerStatus => status(value).map(Reply::Status),
            Call::IteratorStart { .. } | Call::IteratorRecordStart { .. } => value.as_int().map(Reply::Iterator),
            Call::IteratorNext(_) => transaction(value, frame),
            Call::IteratorRecordNext(_) => match value.as_items()? {
                [oid, tid, data, data_tid] => Some(Reply::IteratedRecord {
                    oid: oid.as_oid()?,
                    tid: tid.as_tid()?,
                    data: optional(data, |data| record(data, frame))?,
                    data_tid: optional(data_tid, Value::as_tid)?,
                }),
                _ => None,
            },
            _ => None,
        }
    }
}

fn all<'v, T>(value: &Value<'v>, one: impl FnMut(&Value<'v>) -> Option<T>) -> Option<Vec<T>> {
    value.as_items()?.iter().map(one).collect()
}

fn optional<'v, T>(value: &Value<'v>, some: impl FnOnce(&Value<'v>) -> Option<T>) -> Option<Option<T>> {
    if *value == Value::None { Some(None) } else { some(value).map(Some) }
}

fn record(value: &Value<'_>, frame: &Bytes) -> Option<Bytes> {
    value.as_bytes().map(|data| share(frame, data))
}

fn text(value: Option<&Value<'_>>) -> Option<String> {
    value?.as_text().map(str::to_owned)
}

fn info(value: &Value<'_>) -> Option<StorageDescription> {
    let interface = |pair: &Value<'_>| match pair.as_items()? {
        [module, name] => Some((text(Some(module))?, text(Some(name))?)),
        _ => None,
    };
    Some(StorageDescription {
        length: value.get("length")?.as_unsigned()?,
        size: value.get("size")?.as_unsigned()?,
        name: text(value.get("name"))?,
        supports_undo: value.get("supportsUndo")?.is_true(),
        supports_record_iternext: value.get("supports_record_iternext")?.is_true(),
        interfaces: all(value.get("interfaces")?, interface)?,
    })
}

fn conflict(value: &Value<'_>, frame: &Bytes) -> Option<StoreConflict> {
    let [committed, read] = value.get("serials")?.as_items()? else { return None };
    Some(StoreConflict {
        oid: value.get("oid")?.as_oid()?,
        committed: committed.as_tid()?,
        read: read.as_tid()?,
        data: record(value.get("data")?, frame)?,
    })
}

fn history(value: &Value<'_>) -> Option<HistoryItem> {
    Some(HistoryItem {
        tid: value.get("tid")?.as_tid()?,
        meta: meta(value, &["time", "user_name", "description", "tid", "size"])?,
        size: value.get("size")?.as_unsigned()?,
    })
}

/// An extension may have a `size` of its own, which hides the transaction's: the size is then 0.
fn undo(value: &Value<'_>) -> Option<UndoItem> {
    Some(UndoItem {
        tid: tid_of_undo_id(value.get("id")?.as_bytes()?)?,
        meta: meta(value, &["id", "time", "user_name", "description", "size"])?,
        size: value.get("size").and_then(Value::as_unsigned).unwrap_or(0),
    })
}

/// User and description; all other keys but the `known` ones are the extension.
fn meta(value: &Value<'_>, known: &[&str]) -> Option<TransactionMeta> {
    let rest = |(key, _): &&(Value<'_>, Value<'_>)| !key.as_text().is_some_and(|key| known.contains(&key));
    let extension = Value::Dict(value.as_pairs()?.iter().filter(rest).cloned().collect());
    Some(TransactionMeta {
        status: b' ',
        user: value.get("user_name")?.as_bytes()?.to_vec(),
        description: value.get("description")?.as_bytes()?.to_vec(),
        extension: extension::to_pickle(&extension, &Bytes::new())?.to_vec(),
    })
}

fn status(value: &Value<'_>) -> Option<ServerStatus> {
    let count = |key| value.get(key).and_then(Value::as_unsigned);
    Some(ServerStatus {
        connections: count("connections")?,
        loads: count("loads")?,
        stores: count("stores")?,
        commits: count("commits")?,
        aborts: count("aborts")?,
        active_txns: count("active_txns")?,
        lock_time: optional(value.get("lock_time")?, Value::as_float)?,
        conflicts: count("conflicts")?,
        conflicts_resolved: count("conflicts_resolved")?,
        start: text(value.get("start"))?,
        waiting: count("waiting")?,
        timeout_thread_is_alive: value.get("timeout-thread-is-alive")?.is_true(),
        last_transaction: Tid(u64::from_str_radix(value.get("last-transaction")?.as_text()?, 16).ok()?),
    })
}

fn transaction(value: &Value<'_>, frame: &Bytes) -> Option<Reply> {
    let [tid, status, user, description, extension] = value.as_items()? else { return None };
    let meta = TransactionMeta {
        status: status_of_text(status.as_text()?)?,
        user: user.as_bytes()?.to_vec(),
        description: description.as_bytes()?.to_vec(),
        extension: extension::to_pickle(extension, frame)?.to_vec(),
    };
    Some(Reply::Transaction(tid.as_tid()?, meta))
}
