//! Properties of the codec for any input: nothing panics, everything comes back, nothing grows beyond proportion.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::config::limits::UNDO_SPECIFICATION;
use crate::zodb::{Oid, Tid};

const BOTH: [Encoding; 2] = [Encoding::Pickle, Encoding::Msgpack];

fn oids() -> impl Strategy<Value = Oid> + Clone {
    any::<u64>().prop_map(Oid)
}

fn tids() -> impl Strategy<Value = Tid> + Clone {
    any::<u64>().prop_map(Tid)
}

fn some_bytes(len: usize) -> impl Strategy<Value = Bytes> + Clone {
    prop::collection::vec(any::<u8>(), 0..len).prop_map(Bytes::from)
}

/// Plain data that both encodings can say and give back the same.
fn values() -> impl Strategy<Value = Value<'static>> {
    let leaf = prop_oneof![
        Just(Value::None),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        (-70_000..70_000i64).prop_map(Value::Int),
        any::<u64>().prop_map(Value::unsigned),
        prop::num::f64::NORMAL.prop_map(Value::Float),
        prop::collection::vec(any::<u8>(), 0..300).prop_map(|bytes| Value::Bytes(bytes.into())),
        ".{0,40}".prop_map(|text| Value::Text(text.into())),
    ];
    leaf.prop_recursive(4, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Tuple),
            prop::collection::vec((".{0,6}", inner), 0..6)
                .prop_map(|pairs| Value::Dict(pairs.into_iter().map(|(k, v)| (Value::Text(k.into()), v)).collect())),
        ]
    })
}

/// Plain data that only pickles can say.
fn pickled_values() -> impl Strategy<Value = Value<'static>> {
    let long = prop::collection::vec(any::<u8>(), 9..400).prop_map(|le| Value::integer(&le).into_owned());
    let keys = prop_oneof![any::<i64>().prop_map(Value::Int), ".{0,6}".prop_map(|t| Value::Text(t.into()))];
    let leaf = prop_oneof![values(), long];
    leaf.prop_recursive(3, 32, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::List),
            prop::collection::vec(keys.clone(), 0..4).prop_map(Value::Set),
            prop::collection::vec(keys.clone(), 0..4).prop_map(Value::FrozenSet),
            prop::collection::vec((keys.clone(), inner), 0..4).prop_map(Value::Dict),
        ]
    })
}

fn begin() -> impl Strategy<Value = Call> {
    let extension = prop::collection::vec((".{0,9}", values()), 0..4).prop_map(|pairs| {
        let pairs: Vec<_> = pairs.into_iter().map(|(k, v)| (Value::Text(k.into()), v)).collect();
        if pairs.is_empty() { Bytes::new() } else { writer::dumps(&Value::Dict(pairs)).into() }
    });
    (any::<u64>(), some_bytes(9), some_bytes(9), extension, prop::option::of(tids()), 0..128u8).prop_map(
        |(txn, user, description, extension, tid, status)| Call::TpcBegin {
            txn,
            user,
            description,
            extension,
            tid,
            status,
        },
    )
}

fn changes() -> impl Strategy<Value = Call> {
    let (data, txn) = (some_bytes(40_000), any::<u64>());
    let serial = prop::option::of(tids());
    let store = (oids(), serial.clone(), data.clone(), txn);
    prop_oneof![
        begin(),
        store.clone().prop_map(|(oid, serial, data, txn)| Call::StoreA { oid, serial, data, txn }),
        store.clone().prop_map(|(oid, serial, data, txn)| Call::StoreBlobEnd { oid, serial, data, txn }),
        (store, ".*").prop_map(|((oid, serial, data, txn), filename)| Call::StoreBlobShared {
            oid,
            serial,
            data,
            filename,
            txn
        }),
        (oids(), tids(), txn).prop_map(|(oid, serial, txn)| Call::CheckCurrentSerial { oid, serial, txn }),
        (oids(), tids(), txn).prop_map(|(oid, serial, txn)| Call::DeleteObject { oid, serial, txn }),
        (oids(), tids(), prop::option::of(data.clone()), serial, txn)
            .prop_map(|(oid, tid, data, prev_txn, txn)| Call::RestoreA { oid, tid, data, prev_txn, txn }),
        (some_bytes(20), txn).prop_map(|(id, txn)| Call::UndoA { id, txn }),
        Just(Call::StoreBlobStart),
        data.prop_map(Call::StoreBlobChunk),
        txn.prop_map(Call::Vote),
        txn.prop_map(Call::TpcFinish),
        txn.prop_map(Call::TpcAbort),
    ]
}

fn questions() -> impl Strategy<Value = Call> {
    let specification =
        prop::collection::vec((".{0,9}", values()), 0..3).prop_filter("a specification is small", |pairs| {
            let values = pairs.iter().map(|(_, value)| value.clone()).collect();
            writer::dumps(&Value::Tuple(values)).len() < UNDO_SPECIFICATION - 1_000
        });
    prop_oneof![
        (".*", any::<bool>()).prop_map(|(storage, read_only)| Call::Register { storage, read_only }),
        prop_oneof![
            Just(Call::GetInfo),
            Just(Call::LastTransaction),
            Just(Call::NewOid),
            Just(Call::Ping),
            Just(Call::ServerStatus),
        ],
        tids().prop_map(Call::GetInvalidations),
        any::<i64>().prop_map(Call::NewOids),
        (oids(), tids()).prop_map(|(oid, tid)| Call::LoadBefore { oid, tid }),
        (oids(), tids()).prop_map(|(oid, tid)| Call::LoadSerial { oid, tid }),
        (oids(), tids()).prop_map(|(oid, serial)| Call::SendBlob { oid, serial }),
        oids().prop_map(Call::GetTid),
        (prop::option::of(oids()), prop::option::of(any::<i64>())).prop_map(|(oid, size)| Call::History { oid, size }),
        prop::option::of(oids()).prop_map(Call::RecordIternext),
        (any::<i64>(), any::<i64>()).prop_map(|(first, last)| Call::UndoLog { first, last }),
        (any::<i64>(), any::<i64>(), specification).prop_map(|(first, last, specification)| Call::UndoInfo {
            first,
            last,
            specification
        }),
        (prop::num::f64::NORMAL, any::<bool>()).prop_map(|(time, wait)| Call::Pack { time, wait }),
        ".*".prop_map(Call::SetClientLabel),
        (prop::option::of(tids()), prop::option::of(tids()))
            .prop_map(|(start, stop)| Call::IteratorStart { start, stop }),
        any::<i64>().prop_map(Call::IteratorNext),
        (any::<i64>(), tids()).prop_map(|(iterator, tid)| Call::IteratorRecordStart { iterator, tid }),
        any::<i64>().prop_map(Call::IteratorRecordNext),
        prop::collection::vec(any::<i64>(), 0..2100).prop_map(Call::IteratorGc),
    ]
}

fn calls() -> impl Strategy<Value = Call> {
    prop_oneof![changes(), questions()]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_call_comes_back(call in calls(), id in 0..i64::MAX, asynchronous: bool) {
        for encoding in BOTH {
            let frame = encode_call(encoding, id, asynchronous, &call);
            let request = decode_request(encoding, &frame).unwrap();
            prop_assert_eq!(request, Request { id: MessageId::Int(id), asynchronous, call: call.clone() });
        }
    }

    #[test]
    fn values_come_back(value in values()) {
        let frame = writer::dumps(&value);
        prop_assert_eq!(&pickle::read(&frame, 1000).unwrap(), &value);
        let mut writer = writer::Writer::new(Encoding::Msgpack);
        writer.value(&value);
        prop_assert_eq!(&msgpack::read(&writer.out, 1000).unwrap(), &value);
    }

    #[test]
    fn pickled_values_come_back(value in pickled_values()) {
        let frame = writer::dumps(&value);
        prop_assert_eq!(&pickle::read(&frame, 10_000).unwrap(), &value);
        // The same value in msgpack can be read, too.
        let mut writer = writer::Writer::new(Encoding::Msgpack);
        writer.value(&value);
        msgpack::read(&writer.out, 10_000).unwrap();
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let frame = Bytes::from(bytes);
        for encoding in BOTH {
            let _ = decode_request(encoding, &frame);
            let _ = decode_message(encoding, &frame);
        }
        let _ = shown_extension(&frame);
        let _ = FirstFrame::read(&frame);
        let _ = tid_of_undo_id(&frame);
    }

    #[test]
    fn no_opcodes_panic(ops in prop::collection::vec(prop::sample::select(
        b"\x80\x03\x04\x95N\x88\x89KMJ\x8a\x8bGCBX\x8cUT()\x85\x86\x87t]l}d\x8f\x90\x91\
          aesuqrhj\x94012c\x93R\x81b.\0\x01\n".to_vec(),
    ), 0..80)) {
        let mut bytes = ops;
        bytes.push(b'.');
        let _ = pickle::read(&bytes, 1000);
        let mut named = b"cbuiltins\ndict\nq\0cbuiltins\nset\nq\x01cZopeUndo.Prefix\nPrefix\nq\x02".to_vec();
        named.extend_from_slice(&bytes);
        let _ = pickle::read(&named, 1000);
    }

    #[test]
    fn no_damaged_call_panics(call in calls(), at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
        for encoding in BOTH {
            let mut frame = encode_call(encoding, 1, false, &call).to_vec();
            let at = at.index(frame.len());
            frame[at] = byte;
            let _ = decode_request(encoding, &Bytes::from(frame.clone()));
            let _ = decode_message(encoding, &Bytes::from(frame.clone()));
            frame.truncate(cut.index(frame.len()));
            let _ = decode_request(encoding, &Bytes::from(frame));
        }
    }
}

#[test]
fn what_is_too_much_is_undecodable() {
    let deep =
        |open: &[u8], close: &[u8]| [&open.repeat(100_000), &b"K\x01"[..], &close.repeat(100_000), b"."].concat();
    let named_often = |value: &[u8]| [b"(", value, b"q\0", &b"h\0".repeat(50_000), b"l."].concat();
    let text = |text: &[u8]| [b"B", &u32::try_from(text.len()).unwrap().to_le_bytes()[..], text].concat();
    let path = |slashes| {
        let path = [b"X", &u32::to_le_bytes(slashes)[..], &vec![b'/'; slashes as usize]].concat();
        [&b"cZopeUndo.Prefix\nPrefix\n"[..], &path, b"\x85R"].concat()
    };
    let bombs = [
        vec![b']'; 1 << 20],
        vec![b'('; 1 << 20],
        [b"]".to_vec(), b"2".repeat(1 << 20)].concat(),
        [b"]".to_vec(), b"\x94".repeat(1 << 20)].concat(),
        deep(b"", b"\x85"),
        // Ten lists, each of ten times the one before: a thousand million values.
        [
            b"]q\0K\x01a".to_vec(),
            (0..10u8).flat_map(|n| [&b"]q"[..], &[n + 1], b"(", &[b'h', n].repeat(10), b"e"].concat()).collect(),
            b".".to_vec(),
        ]
        .concat(),
        // A list that holds itself, twice.
        b"]q\0(h\0h\0e.".to_vec(),
        // A set that is made of a large list, again and again.
        [&b"(".to_vec()[..], &b"N".repeat(1000), b"lq\0", &b"cbuiltins\nlist\nh\0\x85R".repeat(1000), b"."].concat(),
        // A text of a megabyte, named 50,000 times, and a path of many steps.
        named_often(&text(&[7; 1 << 20])),
        named_often(&path(1000)),
        [path(200_000), b".".to_vec()].concat(),
        // One large state for many objects.
        [
            b"}(".to_vec(),
            b"X\x01\0\0\0aN".repeat(20_000),
            b"X\x04\0\0\0path]uq\0cZopeUndo.Prefix\nPrefix\n)\x81".to_vec(),
            b"h\0b".repeat(50_000),
            b".".to_vec(),
        ]
        .concat(),
        b"\x8b\xff\xff\xff\x7f".to_vec(),
        b"B\xff\xff\xff\xff".to_vec(),
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(),
    ];
    for (number, bomb) in bombs.iter().enumerate() {
        assert!(pickle::read(bomb, 100_000).is_err(), "bomb {number}");
    }
    for bomb in [
        vec![0x91; 1 << 20],
        b"\xdd\xff\xff\xff\xff".to_vec(),
        b"\xdf\xff\xff\xff\xff".to_vec(),
        b"\xc6\xff\xff\xff\xff".to_vec(),
        [b"\xdd\0\x10\0\0".to_vec(), vec![0xc0; 1 << 20]].concat(),
    ] {
        assert!(msgpack::read(&bomb, 100_000).is_err());
    }
}

/// A list of many items that is its own first item would else take memory for all of them on each level.
#[test]
fn memory_for_a_container_is_counted_before_it_is_taken() {
    let list = [&b"]q\0(h\0"[..], &b"N".repeat(60_000), b"e."].concat();
    assert_eq!(pickle::read(&list, 100_000), Err(Undecodable("too many values".to_owned())));
    let dict = [&b"}q\0(Nh\0"[..], &b"K\x01N".repeat(30_000), b"u."].concat();
    assert_eq!(pickle::read(&dict, 100_000), Err(Undecodable("too many values".to_owned())));
}

#[test]
fn a_status_beyond_ascii_comes_back() {
    let meta = crate::zodb::TransactionMeta { status: 0xe9, ..Default::default() };
    let reply = Reply::Transaction(Tid(1), meta);
    let begin = |status| Call::TpcBegin {
        txn: 1,
        user: Bytes::new(),
        description: Bytes::new(),
        extension: Bytes::new(),
        tid: None,
        status,
    };
    for encoding in BOTH {
        let frame = encode_reply(encoding, &MessageId::Int(1), &reply);
        match decode_message(encoding, &frame).unwrap() {
            FromServer::Reply { value, .. } => {
                assert_eq!(Reply::read(&Call::IteratorNext(1), &value, &frame), Some(reply.clone()));
            }
            other => panic!("{other:?}"),
        }
        let frame = encode_call(encoding, 1, true, &begin(0xe9));
        assert_eq!(decode_request(encoding, &frame).unwrap().call, begin(0xe9));
    }
}

#[test]
fn only_plain_data_is_understood() {
    let read = |bytes: &'static [u8]| pickle::read(bytes, 100);
    let pair = || vec![(Value::text("a"), Value::Int(1))];
    for pickle in [
        &b"cbuiltins\ndict\n((X\x01\0\0\0aK\x01tt\x85R."[..],
        b"c__builtin__\ndict\n}X\x01\0\0\0aK\x01s\x85R.",
        b"cbuiltins\ndict\n)\x81X\x01\0\0\0aK\x01s.",
        b"ccopy_reg\n_reconstructor\n(cbuiltins\ndict\ncbuiltins\ndict\n}X\x01\0\0\0aK\x01stR.",
        b"\x80\x01}q\0(U\x01aq\x01K\x01u.",
        b"\x80\x04\x95\0\0\0\0\0\0\0\0}\x94\x8c\x01a\x94K\x01s.",
        b"\x80\x04\x8c\x08builtins\x94\x8c\x04dict\x94\x93\x94}\x8c\x01aK\x01s\x85R.",
    ] {
        assert_eq!(read(pickle), Ok(Value::Dict(pair())), "{pickle:?}");
    }
    assert_eq!(read(b"czodbpickle\nbinary\nC\x01x\x85R."), Ok(Value::Bytes(b"x".as_slice().into())));
    // A list that grows after it was remembered, and is used twice.
    let list = || Value::List(vec![Value::Int(1)]);
    assert_eq!(read(b"]q\0K\x01ah\0\x86."), Ok(Value::Tuple(vec![list(), list()])));
    for evil in [
        &b"cos\nsystem\nX\x02\0\0\0ls\x85R."[..],
        b"cbuiltins\neval\nX\x01\0\0\0x\x85R.",
        b"cbuiltins\ndict\n.",
        b"cbuiltins\nobject\n)\x81.",
        b"cbuiltins\ndict\n)\x81}X\x01\0\0\0aK\x01sb.",
        b"}(]K\x01u.",
        b"P1\n.",
        b"",
        b".",
    ] {
        assert!(read(evil).is_err(), "{evil:?}");
    }
}

#[test]
fn first_frames_say_who_is_there() {
    let client = |encoding, follows_redirects| Some(FirstFrame::Client { encoding, follows_redirects });
    assert_eq!(FirstFrame::read(b"Z5"), client(Encoding::Pickle, false));
    assert_eq!(FirstFrame::read(b"M5"), client(Encoding::Msgpack, false));
    assert_eq!(FirstFrame::read(b"R5"), client(Encoding::Msgpack, true));
    assert_eq!(FirstFrame::read(b"ruok"), Some(FirstFrame::Ruok));
    assert_eq!(FirstFrame::read(b"P1 and more"), Some(FirstFrame::Peer));
    assert_eq!(FirstFrame::read(b"O1 and more"), Some(FirstFrame::Obituary));
    for other in [&b"Z4"[..], b"Z310", b"", b"GET / HTTP/1.1", b"\x16\x03\x01"] {
        assert_eq!(FirstFrame::read(other), None);
    }
}

#[test]
fn bad_calls_are_told_apart() {
    let frame = |w: &dyn Fn(&mut writer::Writer), name: &str| {
        writer::message(Encoding::Msgpack, &MessageId::Int(3), writer::Flag::Call, name, w)
    };
    let bad =
        |w: &dyn Fn(&mut writer::Writer), name: &str| decode_request(Encoding::Msgpack, &frame(w, name)).unwrap_err();
    assert!(matches!(bad(&|w| w.tuple(0, |_| ()), "__class__"), BadFrame::UnknownCall(name) if name == "__class__"));
    assert!(matches!(bad(&|w| w.none(), ".reply"), BadFrame::UnknownCall(_)));
    assert!(matches!(bad(&|w| w.none(), "ping"), BadFrame::Undecodable(_)));
    for short in [&(|w: &mut writer::Writer| w.tuple(0, |_| ())) as &dyn Fn(&mut writer::Writer), &|w| {
        w.tuple(1, |w| w.bytes(b"short"))
    }] {
        match bad(short, "getTid") {
            BadFrame::BadArguments { id: MessageId::Int(3), name: "getTid", asynchronous: false, .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(bad(&|w| w.tuple(1, writer::Writer::none), "ping"), BadFrame::BadArguments { .. }));
}

#[test]
fn what_is_kept_of_a_call_keeps_little_else_in_memory() {
    let store = |data: &Bytes| Call::StoreA { oid: Oid(1), serial: None, data: data.clone(), txn: 7 };
    let slice_of_frame = |size: usize, junk: usize, make: &dyn Fn(&Bytes) -> Call| {
        let call = make(&Bytes::from(vec![5; size]));
        // (As in Python, nobody looks behind the end of a pickle.)
        let frame = Bytes::from([&encode_call(Encoding::Pickle, 1, true, &call)[..], &vec![0; junk]].concat());
        let request = decode_request(Encoding::Pickle, &frame).unwrap();
        assert_eq!(request.call, call);
        let (Call::StoreA { data, .. } | Call::StoreBlobChunk(data)) = request.call else { unreachable!() };
        frame.as_ptr_range().contains(&data.as_ptr())
    };
    assert!(!slice_of_frame(60, 1 << 20, &store));
    assert!(!slice_of_frame(60, 0, &store), "what was read with it is not seen from here");
    assert!(!slice_of_frame(100 << 10, 1 << 20, &store));
    assert!(slice_of_frame(100 << 10, 0, &store));
    assert!(slice_of_frame(1 << 20, 1 << 10, &store));
    assert!(slice_of_frame(59_000, 0, &|data| Call::StoreBlobChunk(data.clone())));
    for encoding in BOTH {
        let frame = encode_call(encoding, 1, true, &store(&Bytes::from(vec![5; 1 << 20])));
        let Call::StoreA { data, .. } = decode_request(encoding, &frame).unwrap().call else { unreachable!() };
        assert!(frame.as_ptr_range().contains(&data.as_ptr()), "large data is not copied");
    }
}

#[test]
fn a_message_id_is_small() {
    let frame = |first: &[u8], second: &[u8]| {
        let id = Value::Tuple([first, second].map(|part| Value::Bytes(part.to_vec().into())).into());
        let message = vec![id, Value::Bool(false), Value::text("ping"), Value::Tuple(vec![])];
        Bytes::from(writer::encode_value(Encoding::Msgpack, &Value::Tuple(message)))
    };
    let id = |first: &[u8], second: &[u8]| decode_request(Encoding::Msgpack, &frame(first, second)).map(|r| r.id);
    assert_eq!(id(&[1; 8], &[2; 8]), Ok(MessageId::Pair(Oid(0x0101_0101_0101_0101), Tid(0x0202_0202_0202_0202))));
    for (first, second) in [(&[1; 100_000][..], &[][..]), (&[1; 8], &[]), (&[1; 8], &[2; 9])] {
        assert!(matches!(id(first, second), Err(BadFrame::Undecodable(_))));
    }
}

#[test]
fn a_specification_is_small() {
    let call = |size| Call::UndoInfo {
        first: 0,
        last: -20,
        specification: vec![("user_name".to_owned(), Value::Text("x".repeat(size).into()))],
    };
    for (size, fits) in [(1_000, true), (UNDO_SPECIFICATION, false)] {
        let frame = encode_call(Encoding::Msgpack, 1, false, &call(size));
        assert_eq!(decode_request(Encoding::Msgpack, &frame).is_ok(), fits);
    }
}

#[test]
fn an_extension_of_anything_can_be_shown() {
    let odd = Value::Dict(vec![
        (Value::Int(1), Value::FrozenSet(vec![Value::Int(2)])),
        (Value::Tuple(vec![Value::Int(1), Value::FrozenSet(vec![])]), Value::integer(&[1; 40])),
    ]);
    let meta = crate::zodb::TransactionMeta { extension: writer::dumps(&odd), ..Default::default() };
    for encoding in BOTH {
        let frame = encode_reply(encoding, &MessageId::Int(1), &Reply::Transaction(Tid(1), meta.clone()));
        let text = frame.escape_ascii().to_string();
        assert!(!text.contains("builtins"), "no class for the client to refuse: {text}");
        decode_message(encoding, &frame).unwrap();
    }
    assert_eq!(shown_extension(b"cdatetime\ndate\n."), vec![]);
}

#[test]
fn undo_info_looks_for_equal_values() {
    let extension = writer::dumps(&Value::Dict(vec![(Value::text("path"), Value::text("/a/b/c"))]));
    let meta = crate::zodb::TransactionMeta { user: b"fred".to_vec(), extension, ..Default::default() };
    let item = UndoItem { tid: Tid(7), meta, size: 9 };
    let wants = |key: &str, value| item.matches(&[(key.to_owned(), value)]);
    assert!(wants("user_name", Value::Bytes(b"fred".as_slice().into())));
    assert!(wants("path", Value::Prefix(vec!["".into(), "a".into()])));
    assert!(!wants("path", Value::text("/a")));
    assert!(!wants("nothing", Value::Int(1)));
    assert!(wants("nothing", Value::None));
    assert_eq!(tid_of_undo_id(undo_id(Tid(7)).as_bytes()), Some(Tid(7)));
}
