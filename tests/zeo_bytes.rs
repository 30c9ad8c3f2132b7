//! The dialogue of stock clients with the stock server, replayed against the codec, byte for byte.
//!
//! `tests/zeo_dialogues/` holds dialogues of ZEO 6.2, recorded by a proxy between the two while a client does all that
//! it can (`tests/python/zeo_dialogues.py` records them again). Each frame of the client must be read as the call that
//! it is, and be written again as the same bytes; each frame of the server must be read as the answer to its call, or
//! as a push, and be written again as the same bytes: so that a stock client can't tell our answer from the stock
//! server's where the content is equal. What is not so stands in [`DIFFERENCES`] and [`SAID_OTHERWISE`], and must be
//! not so.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use zrs::zeo::{
    Call, Encoding, FromServer, MessageId, Push, Pushed, Reply, decode_message, decode_request, encode_call,
    encode_push, encode_refusal, encode_reply,
};

/// Answers that zrs gives in other bytes: the exception's class, what is done, and why.
const DIFFERENCES: [(&str, &str, &str); 5] = [
    (MULTIPLE_UNDO_ERRORS, "an undo that fails", "stock pickles exceptions into it; zrs says the reasons as text"),
    (
        "ZODB.POSException.UndoError",
        "an undo of nothing",
        "ZEO's client can't rebuild it; zrs sends MultipleUndoErrors, a subclass",
    ),
    (
        "ZODB.POSException.StorageTransactionError",
        "what the client itself never says",
        "stock names two numbers, zrs says what is wrong",
    ),
    ("builtins.KeyError", "iterators", "stock names the number alone, zrs says what is wrong"),
    ("ZODB.POSException.POSKeyError", "blobs", "stock names the file that it does not find on its disk, zrs has none"),
];

const MULTIPLE_UNDO_ERRORS: &str = "ZODB.POSException.MultipleUndoErrors";

/// Calls that the Rust client says in other bytes, which mean the same.
const SAID_OTHERWISE: [(&str, &str); 5] = [
    ("loadBefore", "stock takes (oid, tid) for the id of the call, which the Rust client does not"),
    ("register", "stock may say 0 for false"),
    ("new_oids", "stock leaves the number out if it is 100"),
    ("undoInfo", "stock says None where nothing is wanted"),
    ("pack", "stock may say 1 for true"),
];

struct Connection {
    frames: Vec<Line>,
}

enum Line {
    Doing(String),
    Client(Bytes),
    Server(Bytes),
}

fn dialogues(encoding: Encoding) -> Vec<Connection> {
    let text = match encoding {
        Encoding::Pickle => include_str!("zeo_dialogues/Z5.txt"),
        Encoding::Msgpack => include_str!("zeo_dialogues/M5.txt"),
    };
    let mut connections: Vec<Connection> = Vec::new();
    for line in text.lines() {
        let (sign, rest) = line.split_once(' ').unwrap();
        let frame = match sign {
            "connection" => {
                connections.push(Connection { frames: Vec::new() });
                continue;
            }
            "=" => Line::Doing(rest.to_owned()),
            ">" => Line::Client(unspelled(rest)),
            "<" => Line::Server(unspelled(rest)),
            _ => panic!("{line}"),
        };
        connections.last_mut().unwrap().frames.push(frame);
    }
    connections
}

/// Hexadecimal, in which `xx*n` is a byte that comes n times.
fn unspelled(text: &str) -> Bytes {
    let mut bytes = Vec::new();
    for part in text.split_whitespace() {
        match part.split_once('*') {
            Some((byte, times)) => {
                let byte = u8::from_str_radix(byte, 16).unwrap();
                bytes.resize(bytes.len() + times.parse::<usize>().unwrap(), byte);
            }
            None => bytes.extend(
                part.as_bytes().chunks(2).map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()),
            ),
        }
    }
    bytes.into()
}

/// The calls, answers and differences met so far, to see in the end that all were met.
#[derive(Default)]
struct Met {
    calls: BTreeMap<&'static str, usize>,
    answers: BTreeSet<&'static str>,
    errors: BTreeSet<String>,
    pushes: BTreeSet<&'static str>,
    differences: BTreeSet<(&'static str, &'static str)>,
    said_otherwise: BTreeSet<&'static str>,
}

struct Replay {
    encoding: Encoding,
    doing: String,
    /// Calls that have not been answered.
    open: Vec<(MessageId, Call)>,
}

impl Replay {
    fn whole(connection: &Connection, encoding: Encoding, met: &mut Met) {
        let mut replay = Replay { encoding, doing: String::new(), open: Vec::new() };
        let (mut greeted, mut answered) = (false, false);
        for line in &connection.frames {
            match line {
                Line::Doing(what) => replay.doing.clone_from(what),
                Line::Server(frame) if !greeted => {
                    assert_eq!(&frame[..], encoding.greeting());
                    greeted = true;
                }
                Line::Client(frame) if !answered => {
                    assert_eq!(&frame[..], encoding.greeting());
                    answered = true;
                }
                Line::Client(frame) => replay.client(frame, met),
                Line::Server(frame) => replay.server(frame, met),
            }
        }
    }

    fn client(&mut self, frame: &Bytes, met: &mut Met) {
        let request = match decode_request(self.encoding, frame) {
            Ok(request) => request,
            Err(bad) => panic!("{}: {bad:?}", self.doing),
        };
        let name = request.call.name();
        *met.calls.entry(name).or_default() += 1;
        let id = match request.id {
            MessageId::Int(id) => id,
            _ => 1,
        };
        let written = encode_call(self.encoding, id, request.asynchronous, &request.call);
        assert_eq!(decode_request(self.encoding, &written).unwrap().call, request.call, "{}: {name}", self.doing);
        if written != frame {
            let known = SAID_OTHERWISE.iter().find(|(call, _)| *call == name);
            let (call, _) = known.unwrap_or_else(|| panic!("{}: {name}\n{frame:?}\n{written:?}", self.doing));
            met.said_otherwise.insert(call);
        }
        if !request.asynchronous && request.call != Call::KeepAlive {
            self.open.push((request.id, request.call));
        }
    }

    fn server(&mut self, frame: &Bytes, met: &mut Met) {
        // (An exception inside an exception is no plain data: the client that we have would not read it.)
        let Ok(message) = decode_message(self.encoding, frame) else {
            let class = MULTIPLE_UNDO_ERRORS.as_bytes();
            let inside = frame.windows(class.len()).any(|bytes| bytes == class);
            assert!(inside, "{}: unreadable: {frame:?}", self.doing);
            return self.differs(MULTIPLE_UNDO_ERRORS, met);
        };
        match message {
            FromServer::Push(pushed) => {
                let push = push(&pushed);
                assert_eq!(encode_push(self.encoding, &push), frame, "{}: {pushed:?}", self.doing);
                met.pushes.insert(push.name());
            }
            FromServer::Reply { id, value } => {
                let call = self.answered(&id);
                let reply = Reply::read(&call, &value, frame);
                let reply = reply.unwrap_or_else(|| panic!("{}: {call:?} answered with {value:?}", self.doing));
                let written = encode_reply(self.encoding, &id, &reply);
                assert_eq!(written, frame, "{}: {call:?} answered with {reply:?}", self.doing);
                met.answers.insert(call.name());
            }
            FromServer::Error { id, error } => {
                self.answered(&id);
                let written = error.refusal().map(|refusal| encode_refusal(self.encoding, &id, &refusal));
                if written.as_ref() != Some(frame) {
                    return self.differs(&error.class, met);
                }
                met.errors.insert(error.class);
            }
        }
    }

    fn differs(&self, class: &str, met: &mut Met) {
        let known = DIFFERENCES.iter().find(|(known, doing, _)| *known == class && *doing == self.doing);
        let (class, doing, _) = known.unwrap_or_else(|| panic!("{}: {class} is written in other bytes", self.doing));
        met.differences.insert((class, doing));
    }

    fn answered(&mut self, id: &MessageId) -> Call {
        let at = self.open.iter().position(|(open, _)| open == id);
        self.open.remove(at.unwrap_or_else(|| panic!("{}: an answer to no call: {id:?}", self.doing))).1
    }
}

fn push(pushed: &Pushed) -> Push<'_> {
    match pushed {
        Pushed::Invalidate { tid, oids } => Push::Invalidate { tid: *tid, oids },
        Pushed::Info { length, size } => Push::Info { length: *length, size: *size },
        Pushed::ReceiveBlobStart { oid, serial } => Push::ReceiveBlobStart { oid: *oid, serial: *serial },
        Pushed::ReceiveBlobChunk { oid, serial, chunk } => {
            Push::ReceiveBlobChunk { oid: *oid, serial: *serial, chunk: chunk.clone() }
        }
        Pushed::ReceiveBlobStop { oid, serial } => Push::ReceiveBlobStop { oid: *oid, serial: *serial },
    }
}

fn replay(encoding: Encoding) {
    let mut met = Met::default();
    let connections = dialogues(encoding);
    assert!(connections.len() >= 5);
    for connection in &connections {
        Replay::whole(connection, encoding, &mut met);
    }
    let calls: Vec<&str> = met.calls.keys().copied().collect();
    // (`new_oid` is no call of any client; shared blob folders have no server but stock's.)
    let all = [
        ".reply",
        "checkCurrentSerialInTransaction",
        "deleteObject",
        "getInvalidations",
        "getTid",
        "get_info",
        "history",
        "iterator_gc",
        "iterator_next",
        "iterator_record_next",
        "iterator_record_start",
        "iterator_start",
        "lastTransaction",
        "loadBefore",
        "loadSerial",
        "new_oids",
        "pack",
        "ping",
        "record_iternext",
        "register",
        "restorea",
        "sendBlob",
        "server_status",
        "set_client_label",
        "storeBlobChunk",
        "storeBlobEnd",
        "storeBlobStart",
        "storea",
        "tpc_abort",
        "tpc_begin",
        "tpc_finish",
        "undoInfo",
        "undoLog",
        "undoa",
        "vote",
    ];
    assert_eq!(calls, all);
    let silent = [
        ".reply",
        "checkCurrentSerialInTransaction",
        "deleteObject",
        "iterator_gc",
        "restorea",
        "set_client_label",
        "storeBlobChunk",
        "storeBlobEnd",
        "storeBlobStart",
        "storea",
        "tpc_begin",
        "undoa",
    ];
    let answers: Vec<&str> = all.into_iter().filter(|call| !silent.contains(call)).collect();
    assert_eq!(met.answers.into_iter().collect::<Vec<_>>(), answers);
    let pushes = ["info", "invalidateTransaction", "receiveBlobChunk", "receiveBlobStart", "receiveBlobStop"];
    assert_eq!(met.pushes.into_iter().collect::<Vec<_>>(), pushes);
    let errors = [
        "ZODB.POSException.ConflictError",
        "ZODB.POSException.POSKeyError",
        "ZODB.POSException.ReadConflictError",
        "ZODB.POSException.ReadOnlyError",
        "builtins.TypeError",
        "builtins.ValueError",
    ];
    assert_eq!(met.errors.into_iter().collect::<Vec<_>>(), errors);
    let differences: BTreeSet<_> = DIFFERENCES.iter().map(|(class, doing, _)| (*class, *doing)).collect();
    assert_eq!(met.differences, differences, "all that is listed is different");
    assert_eq!(
        met.said_otherwise,
        SAID_OTHERWISE.iter().map(|(call, _)| *call).collect(),
        "all that is listed is said otherwise"
    );
}

#[test]
fn what_is_said_in_pickles() {
    replay(Encoding::Pickle);
}

#[test]
fn what_is_said_in_msgpack() {
    replay(Encoding::Msgpack);
}
