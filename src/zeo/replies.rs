//! The answers to calls, one variant for each shape. The Rust client reads them with `answers`.

use bytes::Bytes;

use super::calls::undo_id;
use super::extension::{self, shown_extension};
use super::greeting::Encoding;
use super::message::MessageId;
use super::value::Value;
use super::writer::{Flag, Frame, Writer, message, message_in};
use crate::zodb::{Oid, Tid, TransactionMeta};

/// An answer that is not an error.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// `None`.
    Nothing,
    /// 8 bytes.
    Tid(Tid),
    /// `get_info`.
    Info(StorageDescription),
    /// `getInvalidations`: the last tid, and the objects that have changed up to it.
    Invalidations(Tid, Vec<Oid>),
    /// `new_oids`; `vote`.
    Oids(Vec<Oid>),
    /// `loadBefore`: `(data, serial, tid of the next revision)`.
    Loaded {
        /// The object's record.
        data: Bytes,
        /// The transaction that wrote it.
        tid: Tid,
        /// The transaction that wrote the next revision; `None` if the record is current.
        end: Option<Tid>,
    },
    /// `loadSerial`: the record.
    Data(Bytes),
    /// `vote`: the conflicts that the client has to resolve.
    Conflicts(Vec<StoreConflict>),
    /// `history`: newest first.
    History(Vec<HistoryItem>),
    /// `undoLog`, `undoInfo`: newest first.
    UndoLog(Vec<UndoItem>),
    /// `record_iternext`: `(oid, serial, data, next oid)`.
    Record {
        /// The object.
        oid: Oid,
        /// The transaction that wrote its current revision.
        tid: Tid,
        /// The record.
        data: Bytes,
        /// The oid for the next call; `None` at the end.
        next: Option<Oid>,
    },
    /// `server_status`.
    Status(ServerStatus),
    /// `iterator_start`, `iterator_record_start`: the iterator's number.
    Iterator(i64),
    /// `iterator_next`: `(tid, status, user, description, extension)`.
    Transaction(Tid, TransactionMeta),
    /// `iterator_record_next`: `(oid, tid, data, data_txn)`.
    IteratedRecord {
        /// The object.
        oid: Oid,
        /// The transaction.
        tid: Tid,
        /// The record; `None` if the object was deleted, or its creation undone.
        data: Option<Bytes>,
        /// The transaction whose data this revision repeats.
        data_tid: Option<Tid>,
    },
}

/// The properties of a storage (`get_info`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // named as in ZEO
pub struct StorageDescription {
    /// Number of objects.
    pub length: u64,
    /// Size in bytes.
    pub size: u64,
    pub name: String,
    pub supports_undo: bool,
    pub supports_record_iternext: bool,
    /// (module, name) of the Python interfaces that the storage provides.
    pub interfaces: Vec<(String, String)>,
}

/// A store to an object that has changed since (`vote`): ZEO's client resolves it with these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreConflict {
    /// The object.
    pub oid: Oid,
    /// The serial that is current.
    pub committed: Tid,
    /// The serial that the client had read.
    pub read: Tid,
    /// The record that the client wanted to store.
    pub data: Bytes,
}

/// One revision of an object (`history`).
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryItem {
    /// The transaction that wrote it.
    pub tid: Tid,
    /// The description of that transaction.
    pub meta: TransactionMeta,
    /// The length of the record.
    pub size: u64,
}

/// One transaction (`undoLog`).
#[derive(Clone, Debug, PartialEq)]
pub struct UndoItem {
    /// The transaction.
    pub tid: Tid,
    /// The description of the transaction.
    pub meta: TransactionMeta,
    /// The bytes of the transaction.
    pub size: u64,
}

/// Counters of one storage (`server_status`), as ZEO's monitor expects them.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)] // named as in ZEO
pub struct ServerStatus {
    pub connections: u64,
    pub loads: u64,
    pub stores: u64,
    pub commits: u64,
    pub aborts: u64,
    pub active_txns: u64,
    /// Since when a transaction has held locks, in seconds since the Unix epoch.
    pub lock_time: Option<f64>,
    pub conflicts: u64,
    pub conflicts_resolved: u64,
    /// When the server started, as `time.ctime()` writes it.
    pub start: String,
    /// Number of transactions that wait for a lock.
    pub waiting: u64,
    /// Whether there is a transaction timeout.
    pub timeout_thread_is_alive: bool,
    pub last_transaction: Tid,
}

/// Writes a reply.
pub fn encode_reply(encoding: Encoding, id: &MessageId, reply: &Reply) -> Bytes {
    message(encoding, id, Flag::Result, ".reply", |w| write(w, reply))
}

/// Writes a reply in `buffer`; object data is not copied there.
pub fn encode_reply_in<'b>(buffer: &'b mut Vec<u8>, encoding: Encoding, id: &MessageId, reply: &Reply) -> Frame<'b> {
    message_in(buffer, encoding, id, Flag::Result, ".reply", |w| write(w, reply))
}

fn write(w: &mut Writer, reply: &Reply) {
    match reply {
        Reply::Nothing => w.none(),
        Reply::Tid(tid) => w.tid(*tid),
        Reply::Info(description) => write_info(w, description),
        Reply::Invalidations(tid, oids) => w.tuple(2, |w| {
            w.tid(*tid);
            w.list(oids.iter(), |w, oid| w.oid(*oid));
        }),
        Reply::Oids(oids) => w.list(oids.iter(), |w, oid| w.oid(*oid)),
        Reply::Loaded { data, tid, end } => w.tuple(3, |w| {
            w.data(data);
            w.tid(*tid);
            w.optional(*end, Writer::tid);
        }),
        Reply::Data(data) => w.data(data),
        Reply::Conflicts(conflicts) => w.list(conflicts.iter(), write_conflict),
        Reply::History(items) => w.list(items.iter(), |w, item| w.pairs(&item.pairs())),
        Reply::UndoLog(items) => w.list(items.iter(), |w, item| w.pairs(&item.pairs())),
        Reply::Record { oid, tid, data, next } => w.tuple(4, |w| {
            w.oid(*oid);
            w.tid(*tid);
            w.data(data);
            w.optional(*next, Writer::oid);
        }),
        Reply::Status(status) => w.pairs(&status.pairs()),
        Reply::Iterator(number) => w.int(*number),
        Reply::Transaction(tid, meta) => w.tuple(5, |w| {
            w.tid(*tid);
            w.text(char::from(meta.status).encode_utf8(&mut [0; 2]));
            w.bytes(&meta.user);
            w.bytes(&meta.description);
            extension::write_shown(w, &meta.extension);
        }),
        Reply::IteratedRecord { oid, tid, data, data_tid } => w.tuple(4, |w| {
            w.oid(*oid);
            w.tid(*tid);
            w.optional(data.as_ref(), Writer::data);
            w.optional(*data_tid, Writer::tid);
        }),
    }
}

fn write_info(w: &mut Writer, info: &StorageDescription) {
    let keys = ["length", "size", "name", "supportsUndo", "supports_record_iternext", "interfaces"];
    w.dict(keys.into_iter(), |w, key| {
        w.text(key);
        match key {
            "length" => w.unsigned(info.length),
            "size" => w.unsigned(info.size),
            "name" => w.text(&info.name),
            "supportsUndo" => w.bool(info.supports_undo),
            "supports_record_iternext" => w.bool(info.supports_record_iternext),
            _ => w.tuple(info.interfaces.len(), |w| {
                for (module, name) in &info.interfaces {
                    w.tuple(2, |w| {
                        w.text(module);
                        w.text(name);
                    });
                }
            }),
        }
    });
}

fn write_conflict(w: &mut Writer, conflict: &StoreConflict) {
    w.dict(["oid", "serials", "data"].into_iter(), |w, key| {
        w.text(key);
        match key {
            "oid" => w.oid(conflict.oid),
            "serials" => w.tuple(2, |w| {
                w.tid(conflict.committed);
                w.tid(conflict.read);
            }),
            _ => w.data(&conflict.data),
        }
    });
}

/// The pairs of a dictionary for clients.
type DictPairs<'a> = Vec<(Value<'a>, Value<'a>)>;

impl HistoryItem {
    /// The extension, updated with the keys that `FileStorage.history` sets.
    fn pairs(&self) -> DictPairs<'_> {
        let mut pairs = shown_extension(&self.meta.extension);
        update(&mut pairs, Value::text("time"), Value::Float(self.tid.unix_seconds()));
        update(&mut pairs, Value::text("user_name"), bytes(&self.meta.user));
        update(&mut pairs, Value::text("description"), bytes(&self.meta.description));
        update(&mut pairs, Value::text("tid"), Value::Bytes(self.tid.to_bytes().to_vec().into()));
        update(&mut pairs, Value::text("size"), Value::unsigned(self.size));
        pairs
    }
}

impl UndoItem {
    /// The keys that `FileStorage.undoLog` sets, updated with the extension.
    fn pairs(&self) -> DictPairs<'_> {
        let mut pairs = self.own_pairs();
        let own = pairs.len();
        for (key, value) in shown_extension(&self.meta.extension) {
            match pairs[..own].iter_mut().find(|(there, _)| *there == key) {
                Some((_, there)) => *there = value,
                None => pairs.push((key, value)),
            }
        }
        pairs
    }

    fn own_pairs(&self) -> DictPairs<'_> {
        vec![
            (Value::text("id"), Value::Bytes(undo_id(self.tid).into_bytes().into())),
            (Value::text("time"), Value::Float(self.tid.unix_seconds())),
            (Value::text("user_name"), bytes(&self.meta.user)),
            (Value::text("size"), Value::unsigned(self.size)),
            (Value::text("description"), bytes(&self.meta.description)),
        ]
    }

    /// Whether `undoInfo` finds the transaction: it has an equal value for every key of the specification. The value
    /// of a missing key is `None`.
    pub fn matches(&self, specification: &[(String, Value<'static>)]) -> bool {
        let own = Value::Dict(self.own_pairs());
        let extension = Value::Dict(extension::of_pickle(&self.meta.extension));
        let value = |key: &str| extension.get(key).or_else(|| own.get(key)).unwrap_or(&Value::None);
        specification.iter().all(|(key, wanted)| value(key).equals(wanted))
    }
}

impl ServerStatus {
    /// The pairs in the order in which stock ZEO writes them.
    fn pairs(&self) -> DictPairs<'_> {
        let count = |name, count| (Value::text(name), Value::unsigned(count));
        vec![
            count("connections", self.connections),
            count("loads", self.loads),
            count("stores", self.stores),
            count("commits", self.commits),
            count("aborts", self.aborts),
            count("active_txns", self.active_txns),
            (Value::text("lock_time"), self.lock_time.map_or(Value::None, Value::Float)),
            count("conflicts", self.conflicts),
            count("conflicts_resolved", self.conflicts_resolved),
            (Value::text("start"), Value::text(&self.start)),
            count("waiting", self.waiting),
            (Value::text("timeout-thread-is-alive"), Value::Bool(self.timeout_thread_is_alive)),
            (Value::text("last-transaction"), Value::text(&self.last_transaction.to_string())),
        ]
    }
}

/// `dict[key] = value`.
fn update<'a>(pairs: &mut DictPairs<'a>, key: Value<'a>, value: Value<'a>) {
    match pairs.iter_mut().find(|(there, _)| *there == key) {
        Some((_, there)) => *there = value,
        None => pairs.push((key, value)),
    }
}

fn bytes(bytes: &[u8]) -> Value<'_> {
    Value::Bytes(bytes.into())
}
