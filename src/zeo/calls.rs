//! Every call that a client can make, on one page.
//!
//! | call | answer ([`super::Reply`]) |
//! |---|---|
//! | `register(storage, read_only)` | `Tid`: the last one |
//! | `get_info()` | `Info` |
//! | `lastTransaction()` | `Tid` |
//! | `getInvalidations(tid)` | `Invalidations`, or `Nothing` if the tid is too old |
//! | `new_oids(n=100)` | `Oids` |
//! | `loadBefore(oid, tid)` | `Loaded`, or `Nothing` if all revisions are younger |
//! | `loadSerial(oid, serial)` | `Data` |
//! | `getTid(oid)` | `Tid` |
//! | `history(oid, size=1)` | `History` |
//! | `record_iternext(next=None)` | `Record` |
//! | `undoLog(first, last)`, `undoInfo(first, last, specification)` | `UndoLog` |
//! | `pack(time, wait=1)`, `ping()` | `Nothing` |
//! | `server_status()` | `Status` |
//! | `vote(id)` | `Oids`: the objects that an undo changed; or `Conflicts` |
//! | `tpc_finish(id)` | `Tid` |
//! | `tpc_abort(id)`, `sendBlob(oid, serial)` | `Nothing` |
//! | `iterator_start(start, stop)`, `iterator_record_start(iid, tid)` | `Iterator` |
//! | `iterator_next(iid)` | `Transaction`, or `Nothing` at the end |
//! | `iterator_record_next(iid)` | `IteratedRecord`, or `Nothing` at the end |
//! | asynchronous: `tpc_begin`, `storea`, `checkCurrentSerialInTransaction`, `deleteObject` | none, or `Nothing` |
//! | asynchronous: `restorea`, `undoa`, `storeBlob*`, `iterator_gc`, `set_client_label` | none, or `Nothing` |
//!
//! The calls listed as asynchronous are so by the client's habit, not by the protocol: each frame says whether the
//! client waits for an answer.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::arguments::{Arguments, Unfit};
use super::extension;
use super::greeting::Encoding;
use super::message::{BadFrame, MessageId, parts};
use super::usual;
use super::value::Value;
use super::writer::{Flag, Writer, message};
use crate::config::limits::CALL_VALUES;
use crate::zodb::{Oid, Tid};

/// A frame of a client: a call, and how to answer the call.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The id that the answer must echo.
    pub id: MessageId,
    /// Whether the client waits for no answer. An error then closes the connection.
    pub asynchronous: bool,
    /// The call.
    pub call: Call,
}

/// A call, with its arguments. `txn` is the client's own number for its open transaction.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // the arguments have the names that ZEO gives them
pub enum Call {
    /// Sent by the client once a minute, and not answered.
    KeepAlive,
    Register {
        storage: String,
        read_only: bool,
    },
    GetInfo,
    LastTransaction,
    GetInvalidations(Tid),
    NewOids(i64),
    /// In ZEO's list of calls, but not served by ZEO either.
    NewOid,
    LoadBefore {
        oid: Oid,
        tid: Tid,
    },
    LoadSerial {
        oid: Oid,
        tid: Tid,
    },
    GetTid(Oid),
    /// `None` as oid counts as an unknown object; `None` as size is a `TypeError` if the object is known.
    History {
        oid: Option<Oid>,
        size: Option<i64>,
    },
    RecordIternext(Option<Oid>),
    UndoLog {
        first: i64,
        last: i64,
    },
    /// The specification: the value that an entry must have for each key ([`super::UndoItem::matches`]).
    UndoInfo {
        first: i64,
        last: i64,
        specification: Vec<(String, Value<'static>)>,
    },
    /// The time is in seconds since the Unix epoch.
    Pack {
        time: f64,
        wait: bool,
    },
    Ping,
    ServerStatus,
    SetClientLabel(String),
    /// The extension is the pickle of a dictionary, or empty for an empty dictionary. The status is `b' '` as a rule.
    TpcBegin {
        txn: u64,
        user: Bytes,
        description: Bytes,
        extension: Bytes,
        tid: Option<Tid>,
        status: u8,
    },
    StoreA {
        oid: Oid,
        serial: Option<Tid>,
        data: Bytes,
        txn: u64,
    },
    CheckCurrentSerial {
        oid: Oid,
        serial: Tid,
        txn: u64,
    },
    DeleteObject {
        oid: Oid,
        serial: Tid,
        txn: u64,
    },
    /// `data` `None`: the object's creation was undone.
    RestoreA {
        oid: Oid,
        tid: Tid,
        data: Option<Bytes>,
        prev_txn: Option<Tid>,
        txn: u64,
    },
    /// The id comes from the undo log ([`tid_of_undo_id`]).
    UndoA {
        id: Bytes,
        txn: u64,
    },
    StoreBlobStart,
    StoreBlobChunk(Bytes),
    StoreBlobEnd {
        oid: Oid,
        serial: Option<Tid>,
        data: Bytes,
        txn: u64,
    },
    StoreBlobShared {
        oid: Oid,
        serial: Option<Tid>,
        data: Bytes,
        filename: String,
        txn: u64,
    },
    Vote(u64),
    TpcFinish(u64),
    TpcAbort(u64),
    SendBlob {
        oid: Oid,
        serial: Tid,
    },
    IteratorStart {
        start: Option<Tid>,
        stop: Option<Tid>,
    },
    IteratorNext(i64),
    IteratorRecordStart {
        iterator: i64,
        tid: Tid,
    },
    IteratorRecordNext(i64),
    IteratorGc(Vec<i64>),
}

/// Every name that [`read`] knows: [`BadFrame::BadArguments`] takes its `&'static str` from here.
const NAMES: [&str; 37] = [
    "register",
    "get_info",
    "lastTransaction",
    "getInvalidations",
    "new_oids",
    "new_oid",
    "loadBefore",
    "loadSerial",
    "getTid",
    "history",
    "record_iternext",
    "undoLog",
    "undoInfo",
    "pack",
    "ping",
    "server_status",
    "set_client_label",
    "tpc_begin",
    "storea",
    "checkCurrentSerialInTransaction",
    "deleteObject",
    "restorea",
    "undoa",
    "storeBlobStart",
    "storeBlobChunk",
    "storeBlobEnd",
    "storeBlobShared",
    "vote",
    "tpc_finish",
    "tpc_abort",
    "sendBlob",
    "iterator_start",
    "iterator_next",
    "iterator_record_start",
    "iterator_record_next",
    "iterator_gc",
    ".reply",
];

/// Reads a client's frame.
pub fn decode_request(encoding: Encoding, frame: &Bytes) -> Result<Request, BadFrame> {
    match usual::load(encoding, frame) {
        Some((id, oid, tid)) => Ok(Request { id, asynchronous: false, call: Call::LoadBefore { oid, tid } }),
        None => decode_any(encoding, frame),
    }
}

/// Reads a client's frame, whatever call it is and however it was written.
pub(super) fn decode_any(encoding: Encoding, frame: &Bytes) -> Result<Request, BadFrame> {
    let [id, flag, name, args] = parts(encoding, frame, CALL_VALUES)?;
    let id = MessageId::of_value(&id)?;
    let asynchronous = flag.is_true();
    if id == MessageId::Int(-1) {
        return Ok(Request { id, asynchronous, call: Call::KeepAlive });
    }
    let name = name.as_text().ok_or_else(|| BadFrame::Undecodable("a call whose name is not text".to_owned()))?;
    let Some(known) = NAMES.iter().find(|known| **known == name && name != ".reply") else {
        return Err(BadFrame::UnknownCall(name.chars().take(100).collect()));
    };
    let args = args.into_items().ok_or_else(|| BadFrame::Undecodable("arguments that are not a tuple".to_owned()))?;
    let mut arguments = Arguments::new(frame, args);
    match read(known, &mut arguments).and_then(|call| arguments.end().map(|()| call)) {
        Ok(call) => Ok(Request { id, asynchronous, call }),
        Err(Unfit(why)) => Err(BadFrame::BadArguments { id, name: known, why, asynchronous }),
    }
}

fn read(name: &str, args: &mut Arguments<'_, '_>) -> Result<Call, Unfit> {
    Ok(match name {
        "register" => Call::Register { storage: args.text()?, read_only: args.truth()? },
        "get_info" => Call::GetInfo,
        "lastTransaction" => Call::LastTransaction,
        "getInvalidations" => Call::GetInvalidations(args.tid()?),
        "new_oids" => Call::NewOids(if args.more() { args.int()? } else { 100 }),
        "new_oid" => Call::NewOid,
        "loadBefore" => Call::LoadBefore { oid: args.oid()?, tid: args.tid()? },
        "loadSerial" => Call::LoadSerial { oid: args.oid()?, tid: args.tid()? },
        "getTid" => Call::GetTid(args.oid()?),
        "history" => {
            let oid = args.optional(Arguments::oid)?;
            Call::History { oid, size: if args.more() { args.optional(Arguments::int)? } else { Some(1) } }
        }
        "record_iternext" => Call::RecordIternext(args.optional(Arguments::oid)?),
        "undoLog" => Call::UndoLog { first: args.int()?, last: args.int()? },
        "undoInfo" => Call::UndoInfo { first: args.int()?, last: args.int()?, specification: args.specification()? },
        "pack" => Call::Pack { time: args.float()?, wait: if args.more() { args.truth()? } else { true } },
        "ping" => Call::Ping,
        "server_status" => Call::ServerStatus,
        "set_client_label" => Call::SetClientLabel(args.text()?),
        "tpc_begin" => Call::TpcBegin {
            txn: args.txn()?,
            user: args.bytes_or_text()?,
            description: args.bytes_or_text()?,
            extension: args.extension()?,
            tid: args.optional(Arguments::tid)?,
            status: if args.more() { args.status()? } else { b' ' },
        },
        "storea" => Call::StoreA { oid: args.oid()?, serial: args.serial()?, data: args.data()?, txn: args.txn()? },
        "checkCurrentSerialInTransaction" => {
            Call::CheckCurrentSerial { oid: args.oid()?, serial: args.tid()?, txn: args.txn()? }
        }
        "deleteObject" => Call::DeleteObject { oid: args.oid()?, serial: args.tid()?, txn: args.txn()? },
        "restorea" => Call::RestoreA {
            oid: args.oid()?,
            tid: args.tid()?,
            data: args.optional(Arguments::data)?,
            prev_txn: args.optional(Arguments::tid)?,
            txn: args.txn()?,
        },
        "undoa" => Call::UndoA { id: args.bytes_or_text()?, txn: args.txn()? },
        "storeBlobStart" => Call::StoreBlobStart,
        "storeBlobChunk" => Call::StoreBlobChunk(args.chunk()?),
        "storeBlobEnd" => {
            Call::StoreBlobEnd { oid: args.oid()?, serial: args.serial()?, data: args.data()?, txn: args.txn()? }
        }
        "storeBlobShared" => Call::StoreBlobShared {
            oid: args.oid()?,
            serial: args.serial()?,
            data: args.data()?,
            filename: args.text()?,
            txn: args.txn()?,
        },
        "vote" => Call::Vote(args.txn()?),
        "tpc_finish" => Call::TpcFinish(args.txn()?),
        "tpc_abort" => Call::TpcAbort(args.txn()?),
        "sendBlob" => Call::SendBlob { oid: args.oid()?, serial: args.tid()? },
        "iterator_start" => {
            Call::IteratorStart { start: args.optional(Arguments::tid)?, stop: args.optional(Arguments::tid)? }
        }
        "iterator_next" => Call::IteratorNext(args.int()?),
        "iterator_record_start" => Call::IteratorRecordStart { iterator: args.int()?, tid: args.tid()? },
        "iterator_record_next" => Call::IteratorRecordNext(args.int()?),
        "iterator_gc" => Call::IteratorGc(args.ints()?),
        _ => return Err(Unfit("not a call".to_owned())),
    })
}

/// Writes a client's frame.
pub fn encode_call(encoding: Encoding, id: i64, asynchronous: bool, call: &Call) -> Bytes {
    let flag = match (call, asynchronous) {
        (Call::KeepAlive, _) => Flag::Result,
        (_, true) => Flag::Asynchronous,
        (_, false) => Flag::Call,
    };
    message(encoding, &MessageId::Int(id), flag, call.name(), |w| write(w, call))
}

impl Call {
    /// The call's name in ZEO.
    pub fn name(&self) -> &'static str {
        match self {
            Call::KeepAlive => ".reply",
            Call::Register { .. } => "register",
            Call::GetInfo => "get_info",
            Call::LastTransaction => "lastTransaction",
            Call::GetInvalidations(_) => "getInvalidations",
            Call::NewOids(_) => "new_oids",
            Call::NewOid => "new_oid",
            Call::LoadBefore { .. } => "loadBefore",
            Call::LoadSerial { .. } => "loadSerial",
            Call::GetTid(_) => "getTid",
            Call::History { .. } => "history",
            Call::RecordIternext(_) => "record_iternext",
            Call::UndoLog { .. } => "undoLog",
            Call::UndoInfo { .. } => "undoInfo",
            Call::Pack { .. } => "pack",
            Call::Ping => "ping",
            Call::ServerStatus => "server_status",
            Call::SetClientLabel(_) => "set_client_label",
            Call::TpcBegin { .. } => "tpc_begin",
            Call::StoreA { .. } => "storea",
            Call::CheckCurrentSerial { .. } => "checkCurrentSerialInTransaction",
            Call::DeleteObject { .. } => "deleteObject",
            Call::RestoreA { .. } => "restorea",
            Call::UndoA { .. } => "undoa",
            Call::StoreBlobStart => "storeBlobStart",
            Call::StoreBlobChunk(_) => "storeBlobChunk",
            Call::StoreBlobEnd { .. } => "storeBlobEnd",
            Call::StoreBlobShared { .. } => "storeBlobShared",
            Call::Vote(_) => "vote",
            Call::TpcFinish(_) => "tpc_finish",
            Call::TpcAbort(_) => "tpc_abort",
            Call::SendBlob { .. } => "sendBlob",
            Call::IteratorStart { .. } => "iterator_start",
            Call::IteratorNext(_) => "iterator_next",
            Call::IteratorRecordStart { .. } => "iterator_record_start",
            Call::IteratorRecordNext(_) => "iterator_record_next",
            Call::IteratorGc(_) => "iterator_gc",
        }
    }
}

fn write(w: &mut Writer, call: &Call) {
    match call {
        Call::KeepAlive => w.none(),
        Call::GetInfo
        | Call::LastTransaction
        | Call::NewOid
        | Call::Ping
        | Call::ServerStatus
        | Call::StoreBlobStart => w.tuple(0, |_| ()),
        Call::Register { storage, read_only } => w.tuple(2, |w| {
            w.text(storage);
            w.bool(*read_only);
        }),
        Call::GetInvalidations(tid) => w.tuple(1, |w| w.tid(*tid)),
        Call::NewOids(n) => w.tuple(1, |w| w.int(*n)),
        Call::LoadBefore { oid, tid } | Call::LoadSerial { oid, tid } | Call::SendBlob { oid, serial: tid } => {
            w.tuple(2, |w| {
                w.oid(*oid);
                w.tid(*tid);
            })
        }
        Call::GetTid(oid) => w.tuple(1, |w| w.oid(*oid)),
        Call::History { oid, size } => w.tuple(2, |w| {
            w.optional(*oid, Writer::oid);
            w.optional(*size, Writer::int);
        }),
        Call::RecordIternext(next) => w.tuple(1, |w| w.optional(*next, Writer::oid)),
        Call::UndoLog { first, last } => w.tuple(2, |w| {
            w.int(*first);
            w.int(*last);
        }),
        Call::UndoInfo { first, last, specification } => w.tuple(3, |w| {
            w.int(*first);
            w.int(*last);
            w.dict(specification.iter(), |w, (key, wanted)| {
                w.text(key);
                w.value(wanted);
            });
        }),
        Call::Pack { time, wait } => w.tuple(2, |w| {
            w.float(*time);
            w.bool(*wait);
        }),
        Call::SetClientLabel(label) => w.tuple(1, |w| w.text(label)),
        Call::Vote(txn) | Call::TpcFinish(txn) | Call::TpcAbort(txn) => w.tuple(1, |w| w.unsigned(*txn)),
        Call::IteratorStart { start, stop } => w.tuple(2, |w| {
            w.optional(*start, Writer::tid);
            w.optional(*stop, Writer::tid);
        }),
        Call::IteratorNext(iterator) | Call::IteratorRecordNext(iterator) => w.tuple(1, |w| w.int(*iterator)),
        Call::IteratorRecordStart { iterator, tid } => w.tuple(2, |w| {
            w.int(*iterator);
            w.tid(*tid);
        }),
        Call::IteratorGc(iterators) => w.tuple(1, |w| w.list(iterators.iter(), |w, iterator| w.int(*iterator))),
        _ => write_change(w, call),
    }
}

/// The calls that make up a transaction.
fn write_change(w: &mut Writer, call: &Call) {
    match call {
        Call::TpcBegin { txn, user, description, extension, tid, status } => w.tuple(6, |w| {
            w.unsigned(*txn);
            w.bytes(user);
            w.bytes(description);
            w.pairs(&extension::of_pickle(extension));
            w.optional(*tid, Writer::tid);
            w.text(char::from(*status).encode_utf8(&mut [0; 2]));
        }),
        Call::StoreA { oid, serial, data, txn } | Call::StoreBlobEnd { oid, serial, data, txn } => w.tuple(4, |w| {
            w.oid(*oid);
            w.optional(*serial, Writer::tid);
            w.data(data);
            w.unsigned(*txn);
        }),
        Call::CheckCurrentSerial { oid, serial, txn } | Call::DeleteObject { oid, serial, txn } => w.tuple(3, |w| {
            w.oid(*oid);
            w.tid(*serial);
            w.unsigned(*txn);
        }),
        Call::RestoreA { oid, tid, data, prev_txn, txn } => w.tuple(5, |w| {
            w.oid(*oid);
            w.tid(*tid);
            w.optional(data.as_ref(), Writer::data);
            w.optional(*prev_txn, Writer::tid);
            w.unsigned(*txn);
        }),
        Call::UndoA { id, txn } => w.tuple(2, |w| {
            w.bytes(id);
            w.unsigned(*txn);
        }),
        Call::StoreBlobChunk(chunk) => w.tuple(1, |w| w.data(chunk)),
        Call::StoreBlobShared { oid, serial, data, filename, txn } => w.tuple(5, |w| {
            w.oid(*oid);
            w.optional(*serial, Writer::tid);
            w.data(data);
            w.text(filename);
            w.unsigned(*txn);
        }),
        _ => unreachable!("every other call is written by `write`"),
    }
}

/// The undo log's id for a transaction: base64 of its tid.
pub fn undo_id(tid: Tid) -> String {
    STANDARD.encode(tid.to_bytes())
}

/// The transaction with this id in the undo log.
pub fn tid_of_undo_id(id: &[u8]) -> Option<Tid> {
    Tid::from_bytes(&STANDARD.decode(id.trim_ascii()).ok()?)
}
