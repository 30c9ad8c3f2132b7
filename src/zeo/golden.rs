//! Frames byte for byte as ZEO 6.2 writes them: `tests/zeo_golden/frames.txt`, made by `tests/python/zeo_golden.py`.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::*;
use crate::zodb::{Conflict, Oid, Refusal, Tid, TransactionMeta};

const FRAMES: &str = include_str!("../../tests/zeo_golden/frames.txt");

const OID: Oid = Oid(1);
const OID2: Oid = Oid(0x102);
const TID: Tid = Tid(0x03f4_a7b2_c000_0000);
const TID2: Tid = Tid(0x03f4_a7b3_4000_0000);

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Bytes {
    let digits = text.as_bytes().chunks(2).map(|two| std::str::from_utf8(two).unwrap());
    digits.map(|two| u8::from_str_radix(two, 16).unwrap()).collect::<Vec<u8>>().into()
}

/// As the script shows a frame.
fn shown(frame: &[u8]) -> String {
    if frame.len() <= 1000 {
        return hex(frame);
    }
    format!("{}..{}..{}", hex(&frame[..80]), frame.len(), hex(&frame[frame.len() - 80..]))
}

fn cases(kind: &str) -> impl Iterator<Item = (&'static str, Encoding, &'static str)> {
    let kind = format!("{kind}.");
    FRAMES.lines().filter_map(move |line| {
        let [name, encoding, frame] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let encoding = Encoding::of_greeting(str::as_bytes(encoding)).unwrap();
        str::strip_prefix(name, &kind).map(|name| (name, encoding, frame))
    })
}

fn data(bytes: &'static [u8]) -> Bytes {
    Bytes::from_static(bytes)
}

fn extension() -> Value<'static> {
    let mixed = Value::Tuple(vec![Value::Bytes(b"x".into()), Value::text("é")]);
    Value::Dict(vec![
        (Value::text("a"), Value::Int(1)),
        (Value::text("b"), Value::List(vec![Value::Float(1.5), Value::None, Value::Bool(true), mixed])),
        (Value::text("nested"), Value::Dict(vec![(Value::text("k"), Value::Int(-1))])),
    ])
}

fn size_is_mine() -> (Value<'static>, Value<'static>) {
    (Value::text("size"), Value::text("mine"))
}

fn meta(status: u8, user: &str, description: &str, extension: &Value<'_>) -> TransactionMeta {
    let extension = match extension {
        Value::Dict(pairs) if pairs.is_empty() => Vec::new(),
        pairs => writer::dumps(pairs),
    };
    TransactionMeta { status, user: user.into(), description: description.into(), extension }
}

fn reply(name: &str) -> Reply {
    let pair = OID2;
    match name {
        "nothing" => Reply::Nothing,
        "tid" => Reply::Tid(TID),
        "info" => Reply::Info(StorageDescription {
            length: 3,
            size: 70_000,
            name: "main".to_owned(),
            supports_undo: true,
            supports_record_iternext: true,
            interfaces: ["IStorageUndoable", "IBlobStorage"]
                .map(|i| ("ZODB.interfaces".to_owned(), i.to_owned()))
                .into(),
        }),
        "invalidations" => Reply::Invalidations(TID, vec![OID, OID2]),
        "loaded.current" => Reply::Loaded { data: data(b"data"), tid: TID, end: None },
        "data" => Reply::Data(data(b"data")),
        "conflicts" => {
            Reply::Conflicts(vec![StoreConflict { oid: OID, committed: TID2, read: TID, data: data(b"mine") }])
        }
        "history" => Reply::History(vec![
            HistoryItem { tid: TID2, meta: meta(b' ', "fred", "what", &extension()), size: 42 },
            HistoryItem { tid: TID, meta: meta(b' ', "", "", &Value::Dict(vec![size_is_mine()])), size: 70_000 },
        ]),
        "undo_log" => {
            let Value::Dict(mut pairs) = extension() else { unreachable!() };
            pairs.push(size_is_mine());
            let meta = meta(b' ', "fred", "what", &Value::Dict(pairs));
            Reply::UndoLog(vec![UndoItem { tid: TID2, meta, size: 42 }])
        }
        "record" => Reply::Record { oid: OID, tid: TID, data: data(b"data"), next: Some(pair) },
        "record.last" => Reply::Record { oid: OID, tid: TID, data: data(b"data"), next: None },
        "status" => Reply::Status(ServerStatus {
            connections: 1,
            loads: 2,
            stores: 3,
            commits: 4,
            aborts: 5,
            active_txns: 6,
            lock_time: None,
            conflicts: 7,
            conflicts_resolved: 8,
            start: "Mon Jan  5 10:11:12 2026".to_owned(),
            waiting: 9,
            timeout_thread_is_alive: true,
            last_transaction: TID,
        }),
        "iterator" => Reply::Iterator(12),
        "transaction" => Reply::Transaction(TID, meta(b' ', "fred", "what", &extension())),
        "transaction.plain" => Reply::Transaction(TID, meta(b'p', "", "", &Value::Dict(vec![]))),
        "iterated" => Reply::IteratedRecord { oid: OID, tid: TID, data: Some(data(b"data")), data_tid: Some(TID2) },
        "iterated.absent" => Reply::IteratedRecord { oid: OID, tid: TID, data: None, data_tid: None },
        _ => match name.split_once('.').unwrap() {
            ("id", _) => Reply::Nothing,
            ("oids", n) => Reply::Oids((0..n.parse().unwrap()).map(Oid).collect()),
            ("loaded", n) => Reply::Loaded { data: vec![b'x'; n.parse().unwrap()].into(), tid: TID, end: Some(TID2) },
            _ => panic!("no reply named {name}"),
        },
    }
}

fn reply_id(name: &str) -> MessageId {
    let pair = |tid| MessageId::Pair(OID, tid);
    match name.split_once('.') {
        Some(("id", "pair")) => pair(TID),
        Some(("id", id)) => id.parse().map(MessageId::Int).unwrap_or_else(|_| MessageId::Unsigned(id.parse().unwrap())),
        Some(("loaded", n)) if n != "current" => pair(TID2),
        _ => MessageId::Int(7),
    }
}

/// A call that is answered like this.
fn call_of(name: &str) -> Call {
    match name.split('.').next().unwrap() {
        "tid" => Call::LastTransaction,
        "info" => Call::GetInfo,
        "oids" | "conflicts" => Call::Vote(1),
        "invalidations" => Call::GetInvalidations(TID),
        "loaded" => Call::LoadBefore { oid: OID, tid: TID },
        "data" => Call::LoadSerial { oid: OID, tid: TID },
        "history" => Call::History { oid: None, size: None },
        "undo_log" => Call::UndoLog { first: 0, last: 1 },
        "record" => Call::RecordIternext(None),
        "status" => Call::ServerStatus,
        "iterator" => Call::IteratorStart { start: None, stop: None },
        "transaction" => Call::IteratorNext(1),
        "iterated" => Call::IteratorRecordNext(1),
        _ => Call::Ping,
    }
}

#[test]
fn replies_are_what_stock_writes() {
    for (name, encoding, frame) in cases("reply") {
        let reply = reply(name);
        let whole = encode_reply(encoding, &reply_id(name), &reply);
        assert_eq!(shown(&whole), frame, "{name} {encoding:?}");
        let mut buffer = b"the message before".to_vec();
        let Frame { head, body, tail } = encode_reply_in(&mut buffer, encoding, &reply_id(name), &reply);
        assert_eq!([head, &body, tail].concat(), whole, "{name} {encoding:?}");
        match decode_message(encoding, &whole).unwrap() {
            FromServer::Reply { id, value } => {
                assert_eq!(id, reply_id(name));
                // The extension that hides the size, and lists that msgpack makes tuples, don't come back as they
                // were.
                let lossy =
                    ["history", "undo_log"].contains(&name) || (name, encoding) == ("transaction", Encoding::Msgpack);
                if !lossy {
                    assert_eq!(Reply::read(&call_of(name), &value, &whole), Some(reply), "{name} {encoding:?}");
                } else {
                    assert!(Reply::read(&call_of(name), &value, &whole).is_some());
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

fn refusal(name: &str) -> Refusal {
    let conflict = Conflict { oid: OID, committed: TID2, read: TID };
    match name {
        "no_object" => Refusal::NoObject(OID),
        "no_blob" => Refusal::NoBlob(OID, TID),
        "conflict" => Refusal::Conflict(conflict),
        "read_conflict" => Refusal::ReadConflict(conflict),
        "read_only" => Refusal::ReadOnly,
        "wrong_transaction" => Refusal::WrongTransaction("no transaction".to_owned()),
        "undo" => Refusal::UndoFailed(vec![(OID, "why".to_owned()), (OID2, "that".to_owned())]),
        "not_undoable" => Refusal::NotUndoable("why".to_owned()),
        "no_storage" => Refusal::NoStorage { name: "x".to_owned(), known: Vec::new() },
        "bad_value" => Refusal::BadValue("why".to_owned()),
        "no_key" => Refusal::NoKey("why".to_owned()),
        "bad_type" => Refusal::BadType("why".to_owned()),
        "not_served" => Refusal::NotServed("why".to_owned()),
        _ => panic!("no refusal named {name}"),
    }
}

#[test]
fn refusals_are_the_exceptions_that_stock_sends() {
    for (name, encoding, frame) in cases("error") {
        let written = encode_refusal(encoding, &MessageId::Int(7), &refusal(name));
        assert_eq!(shown(&written), frame, "{name} {encoding:?}");
        match decode_message(encoding, &written).unwrap() {
            FromServer::Error { error, .. } => assert_eq!(error.refusal(), Some(refusal(name))),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn refusals_of_our_own_come_back() {
    for refusal in [
        Refusal::NotPrimary(None),
        Refusal::NotPrimary(Some("b:8100".to_owned())),
        Refusal::TooLarge("an object of 1 GiB".to_owned()),
    ] {
        for encoding in [Encoding::Pickle, Encoding::Msgpack] {
            let frame = encode_refusal(encoding, &MessageId::Int(1), &refusal);
            match decode_message(encoding, &frame).unwrap() {
                FromServer::Error { error, .. } => assert_eq!(error.refusal().as_ref(), Some(&refusal)),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn pushes_are_what_stock_writes() {
    let oids = [OID, OID2];
    let chunk = Bytes::from(vec![b'c'; 59_000]);
    for (name, encoding, frame) in cases("push") {
        let (push, pushed) = match name {
            "invalidateTransaction" => {
                (Push::Invalidate { tid: TID, oids: &oids }, Pushed::Invalidate { tid: TID, oids: oids.to_vec() })
            }
            "info" => (Push::Info { length: 3, size: 70_000 }, Pushed::Info { length: 3, size: 70_000 }),
            "receiveBlobStart" => {
                (Push::ReceiveBlobStart { oid: OID, serial: TID }, Pushed::ReceiveBlobStart { oid: OID, serial: TID })
            }
            "receiveBlobChunk" => (
                Push::ReceiveBlobChunk { oid: OID, serial: TID, chunk: chunk.clone() },
                Pushed::ReceiveBlobChunk { oid: OID, serial: TID, chunk: chunk.clone() },
            ),
            _ => (Push::ReceiveBlobStop { oid: OID, serial: TID }, Pushed::ReceiveBlobStop { oid: OID, serial: TID }),
        };
        let written = encode_push(encoding, &push);
        assert_eq!(shown(&written), frame, "{name} {encoding:?}");
        assert_eq!(decode_message(encoding, &written).unwrap(), FromServer::Push(pushed));
    }
}

fn extension_pickle(encoding: Encoding) -> Bytes {
    let Value::Dict(mut pairs) = extension() else { unreachable!() };
    if encoding == Encoding::Msgpack {
        // Arrays come as tuples.
        let Value::List(items) = pairs[1].1.clone() else { unreachable!() };
        pairs[1].1 = Value::Tuple(items);
    }
    writer::dumps(&Value::Dict(pairs)).into()
}

fn begin(user: &'static str, description: &'static str, extension: Bytes) -> Call {
    let (user, description) = (data(user.as_bytes()), data(description.as_bytes()));
    Call::TpcBegin { txn: 1, user, description, extension, tid: None, status: b' ' }
}

fn change(name: &str, encoding: Encoding) -> Call {
    match name {
        "iterator_gc" => Call::IteratorGc(vec![1, 2, 3]),
        "set_client_label" => Call::SetClientLabel("me".to_owned()),
        "tpc_begin" => Call::TpcBegin {
            txn: 140_737_488_355_327,
            user: data(b"fred"),
            description: data(b"what"),
            extension: extension_pickle(encoding),
            tid: None,
            status: b' ',
        },
        "tpc_begin.text" => Call::TpcBegin {
            txn: 1,
            user: data("fréd".as_bytes()),
            description: data(b""),
            extension: data(b""),
            tid: Some(TID),
            status: b'p',
        },
        "tpc_begin.reduced" => begin("", "", data(b"\x80\x03}X\x03\0\0\0fooK\x01s.")),
        "tpc_begin.sets" => begin(
            "",
            "",
            data(b"\x80\x03}(X\x01\0\0\0scbuiltins\nset\n]K\x01a\x85RX\x01\0\0\0fcbuiltins\nfrozenset\n]K\x03a\x85Ru."),
        ),
        "tpc_begin.long" => {
            let mut pickle = b"\x80\x03}(X\x01\0\0\0n\x8a\x1a".to_vec();
            pickle.extend_from_slice(&[0; 25]);
            pickle.extend_from_slice(b"\x01X\x01\0\0\0m\x8a\x09\0\0\0\0\0\0\0\0\xffu.");
            begin("", "", pickle.into())
        }
        "storea" => Call::StoreA { oid: OID, serial: Some(TID), data: vec![b'd'; 300].into(), txn: 1 },
        "storea.none" => Call::StoreA { oid: OID, serial: None, data: data(b"data"), txn: 1 },
        "storea.text" => Call::StoreA { oid: OID, serial: Some(Tid::ZERO), data: data(b"data"), txn: 1 },
        "check" => Call::CheckCurrentSerial { oid: OID, serial: TID, txn: 1 },
        "delete" => Call::DeleteObject { oid: OID, serial: TID, txn: 1 },
        "restorea" => Call::RestoreA { oid: OID, tid: TID, data: Some(data(b"data")), prev_txn: Some(TID2), txn: 1 },
        "restorea.absent" => Call::RestoreA { oid: OID, tid: TID, data: None, prev_txn: None, txn: 1 },
        "undoa" => Call::UndoA { id: undo_id(TID).into(), txn: 1 },
        "blob_start" => Call::StoreBlobStart,
        "blob_chunk" => Call::StoreBlobChunk(data(b"chunk")),
        "blob_end" => Call::StoreBlobEnd { oid: OID, serial: Some(TID), data: data(b"data"), txn: 1 },
        "blob_shared" => Call::StoreBlobShared {
            oid: OID,
            serial: Some(TID),
            data: data(b"data"),
            filename: "x.tmp".to_owned(),
            txn: 1,
        },
        _ => panic!("no call named {name}"),
    }
}

fn question(name: &str) -> Option<Call> {
    let user = || "user_name".to_owned();
    Some(match name {
        "keep_alive" => Call::KeepAlive,
        "register" => Call::Register { storage: "1".to_owned(), read_only: false },
        "get_info" => Call::GetInfo,
        "last_transaction" => Call::LastTransaction,
        "get_invalidations" => Call::GetInvalidations(TID),
        "new_oids" => Call::NewOids(100),
        "load_before" => Call::LoadBefore { oid: OID, tid: TID },
        "load_serial" => Call::LoadSerial { oid: OID, tid: TID },
        "get_tid" => Call::GetTid(OID),
        "history" => Call::History { oid: Some(OID), size: Some(1) },
        "history.none" => Call::History { oid: Some(OID), size: None },
        "record_iternext" => Call::RecordIternext(None),
        "record_iternext.next" => Call::RecordIternext(Some(OID)),
        "undo_log" => Call::UndoLog { first: 0, last: -20 },
        "undo_info" => {
            let specification = vec![(user(), Value::Bytes(b"fred".into()))];
            Call::UndoInfo { first: 0, last: -20, specification }
        }
        "undo_info.none" => Call::UndoInfo { first: 0, last: -20, specification: vec![] },
        "undo_info.prefix" => {
            let prefix = Value::Prefix(["", "a", "b"].map(Into::into).to_vec());
            Call::UndoInfo { first: 0, last: -20, specification: vec![(user(), prefix)] }
        }
        "pack" => Call::Pack { time: 1_789_209_015.5, wait: true },
        "ping" => Call::Ping,
        "server_status" => Call::ServerStatus,
        "vote" => Call::Vote(140_737_488_355_327),
        "tpc_finish" => Call::TpcFinish(u64::MAX - 7),
        "tpc_abort" => Call::TpcAbort(1),
        "send_blob" => Call::SendBlob { oid: OID, serial: TID },
        "iterator_start" => Call::IteratorStart { start: None, stop: Some(TID) },
        "iterator_next" => Call::IteratorNext(3),
        "iterator_record_start" => Call::IteratorRecordStart { iterator: 3, tid: TID },
        "iterator_record_next" => Call::IteratorRecordNext(4),
        _ => return None,
    })
}

/// Calls that stock says in another way than the Rust client, which leaves no argument out and no text for bytes.
const SAID_OTHERWISE: [&str; 6] =
    ["new_oids", "undo_info.none", "tpc_begin.text", "tpc_begin.reduced", "storea.text", "load_before"];

#[test]
fn calls_are_read_and_written_as_stock_writes_them() {
    let mut seen = BTreeSet::new();
    for (name, encoding, frame) in cases("call") {
        let request = decode_request(encoding, &unhex(frame)).unwrap();
        let (asynchronous, call) = match question(name) {
            Some(call) => (false, call),
            None => (true, change(name, encoding)),
        };
        assert_eq!(request.call, call, "{name} {encoding:?}");
        assert_eq!(request.asynchronous, asynchronous);
        seen.insert(call.name());
        let id = match &request.id {
            MessageId::Int(id) => *id,
            MessageId::Pair(oid, tid) => {
                assert_eq!((*oid, *tid), (OID, TID));
                9
            }
            MessageId::Unsigned(_) => unreachable!(),
        };
        let written = encode_call(encoding, id, asynchronous, &call);
        assert_eq!(decode_request(encoding, &written).unwrap().call, call);
        if !SAID_OTHERWISE.contains(&name) {
            assert_eq!(hex(&written), frame, "{name} {encoding:?}");
        }
    }
    assert_eq!(seen.len(), 36, "every call but new_oid is covered");
}
