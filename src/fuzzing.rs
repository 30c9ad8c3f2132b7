//! The properties of every reader of foreign bytes, as functions of the bytes that panic if a property fails.
//!
//! `fuzz/` calls these functions with inputs that a fuzzer makes up, guided by coverage; the tests below call them
//! with recorded frames, whole and damaged. No reader may panic; most functions also compare the result of a reader
//! with that of another reader, or of the same reader after the result was written.
//!
//! This module is compiled for tests and by `cargo fuzz` only, so that private readers stay private.

use std::fmt::Debug;
use std::fs;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::FutureExt as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, ReadBuf};

use crate::command::{Command, FORMAT};
use crate::config::limits::CALL_VALUES;
use crate::filestorage::{Reader, Step};
use crate::net::{FrameFault, FrameReader};
use crate::raft::{hello, wire};
use crate::storage::pack;
use crate::zeo::{self, BadFrame, Call, Encoding, FirstFrame, FromServer, MessageId, Reply, Undecodable, Value};
use crate::zodb::{Oid, Tid};

const BOTH: [Encoding; 2] = [Encoding::Pickle, Encoding::Msgpack];
/// Limits that a value may exceed when it is written again: a memo makes a pickle smaller than its value.
const TOO_LARGE: [&str; 2] = ["nested too deep", "too many values"];

/// The pickle reader: a value survives being written and read again.
pub fn pickle(bytes: &[u8]) {
    if let Ok(value) = zeo::pickle::read(bytes, CALL_VALUES) {
        survives(&value);
    }
}

/// The msgpack reader: a value survives being written and read again.
pub fn msgpack(bytes: &[u8]) {
    if let Ok(value) = zeo::msgpack::read(bytes, CALL_VALUES) {
        survives(&value);
    }
}

/// A written value is the same bytes after it was read and written again. (msgpack has no sets and no long integers,
/// so writing a value for the first time may change it.)
fn survives(value: &Value<'_>) {
    let pickled = zeo::writer::encode_value(Encoding::Pickle, value);
    if let Some(again) = unless_too_large(zeo::pickle::read(&pickled, CALL_VALUES)) {
        assert_eq!(zeo::writer::encode_value(Encoding::Pickle, &again), pickled);
    }
    let packed = zeo::writer::encode_value(Encoding::Msgpack, value);
    if let Some(again) = unless_too_large(zeo::msgpack::read(&packed, CALL_VALUES)) {
        assert_eq!(zeo::writer::encode_value(Encoding::Msgpack, &again), packed);
    }
}

fn unless_too_large<T>(read: Result<T, Undecodable>) -> Option<T> {
    match read {
        Ok(value) => Some(value),
        Err(Undecodable(why)) if TOO_LARGE.contains(&why.as_str()) => None,
        Err(Undecodable(why)) => panic!("a written value can't be read: {why}"),
    }
}

/// Messages of clients and servers: calls and answers survive being written and read again.
pub fn messages(bytes: &[u8]) {
    let frame = Bytes::copy_from_slice(bytes);
    let _ = FirstFrame::read(bytes);
    let _ = zeo::tid_of_undo_id(bytes);
    let _ = zeo::shown_extension(bytes);
    for encoding in BOTH {
        if let Ok(request) = zeo::decode_request(encoding, &frame) {
            call_survives(encoding, &request.call);
        }
        match zeo::decode_message(encoding, &frame) {
            Ok(FromServer::Reply { value, .. }) => answer_survives(encoding, &value, &frame),
            Ok(FromServer::Error { error, .. }) => drop(error.refusal().map(|refusal| refusal.to_string())),
            Ok(FromServer::Push(_)) | Err(_) => {}
        }
    }
}

fn call_survives(encoding: Encoding, call: &Call) {
    let id = if *call == Call::KeepAlive { -1 } else { 1 };
    let written = zeo::encode_call(encoding, id, false, call);
    match zeo::decode_request(encoding, &written) {
        Ok(again) => assert_eq!(zeo::encode_call(encoding, id, false, &again.call), written),
        Err(BadFrame::Undecodable(why)) if TOO_LARGE.contains(&why.as_str()) => {}
        Err(why) => panic!("{call:?} can't be read: {why:?}"),
    }
}

fn answer_survives(encoding: Encoding, value: &Value<'_>, frame: &Bytes) {
    let (oid, tid) = (Oid::ROOT, Tid::ZERO);
    let calls = [
        Call::GetInfo,
        Call::LastTransaction,
        Call::GetInvalidations(tid),
        Call::Vote(1),
        Call::LoadBefore { oid, tid },
        Call::LoadSerial { oid, tid },
        Call::History { oid: None, size: None },
        Call::UndoLog { first: 0, last: 1 },
        Call::RecordIternext(None),
        Call::ServerStatus,
        Call::IteratorStart { start: None, stop: None },
        Call::IteratorNext(1),
        Call::IteratorRecordNext(1),
    ];
    for call in calls {
        let Some(reply) = Reply::read(&call, value, frame) else { continue };
        let written = zeo::encode_reply(encoding, &MessageId::Int(1), &reply);
        match zeo::decode_message(encoding, &written) {
            Ok(FromServer::Reply { value, .. }) => {
                let again = Reply::read(&call, &value, &written).expect("a written answer is an answer");
                assert_eq!(zeo::encode_reply(encoding, &MessageId::Int(1), &again), written);
            }
            other => panic!("{reply:?} can't be read: {other:?}"),
        }
    }
}

/// Frames: however the bytes arrive, they give the frames that lie in them. The first two bytes choose the limit and
/// the size of the pieces.
pub fn frames(bytes: &[u8]) {
    let [limit, piece, stream @ ..] = bytes else { return };
    let (limit, piece) = (usize::from(*limit) * 16, usize::from(*piece).max(1));
    let mut reader = FrameReader::new(Box::new(Pieces { stream: stream.to_vec(), at: 0, piece }), limit);
    let mut rest = stream;
    loop {
        let expected = match rest.split_first_chunk::<4>() {
            None if rest.is_empty() => Ok(None),
            None => Err("cut"),
            Some((length, after)) => match usize::try_from(u32::from_be_bytes(*length)) {
                Ok(length) if length > limit => Err("too large"),
                Ok(length) => after.split_at_checked(length).map(Some).ok_or("cut"),
                Err(_) => Err("too large"),
            },
        };
        match (reader.next().now_or_never().expect("the stream never waits"), expected) {
            (Ok(Some(frame)), Ok(Some((wanted, after)))) => {
                assert_eq!(frame, wanted);
                rest = after;
            }
            (Ok(None), Ok(None))
            | (Err(FrameFault::Cut), Err("cut"))
            | (Err(FrameFault::TooLarge { .. }), Err("too large")) => return,
            (given, expected) => panic!("{given:?} instead of {expected:?}"),
        }
    }
}

/// A stream that gives `piece` bytes at a time.
struct Pieces {
    stream: Vec<u8>,
    at: usize,
    piece: usize,
}

impl AsyncRead for Pieces {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let end = self.stream.len().min(self.at + self.piece.min(buffer.remaining()));
        buffer.put_slice(&self.stream[self.at..end]);
        self.at = end;
        Poll::Ready(Ok(()))
    }
}

/// Messages of peers, and commands of the log: each survives being written and read again.
pub fn peers(bytes: &[u8]) {
    message::<hello::Hello>(bytes);
    message::<hello::Welcome>(bytes);
    message::<hello::Proof>(bytes);
    message::<hello::Verdict>(bytes);
    message::<wire::Numbered<wire::Ask>>(bytes);
    message::<wire::Numbered<wire::Answer>>(bytes);
    message::<wire::RelayRequest>(bytes);
    message::<wire::FormAsk>(bytes);
    message::<wire::FormAnswer>(bytes);
    message::<wire::FetchAsk>(bytes);
    message::<wire::FetchAnswer>(bytes);
    if let Ok(command) = Command::decode(bytes, FORMAT) {
        assert_eq!(Command::decode(&command.encode(FORMAT), FORMAT).ok(), Some(command));
    }
}

fn message<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) {
    if let Ok(message) = wire::unpack::<T>(bytes) {
        assert_eq!(wire::unpack::<T>(&wire::pack(&message)).ok(), Some(message));
    }
}

/// A `Data.fs`, which is written to `path`: its transactions and records, or an error; with what can be salvaged, no
/// damage is an error.
pub fn data_fs(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).expect("the folder for the file can be written to");
    for salvage in [false, true] {
        let Ok(mut reader) = Reader::open(path, salvage) else { return };
        let read = read_data_fs(&mut reader, bytes.len() as u64);
        assert!(!salvage || read.is_ok(), "{read:?}");
        let notes = reader.rewind();
        if read.is_ok() {
            // Once more, it is the same.
            assert!(read_data_fs(&mut reader, bytes.len() as u64).is_ok());
            let again = reader.rewind();
            assert_eq!((again.cut, again.lost), (notes.cut, notes.lost));
        }
    }
}

fn read_data_fs(reader: &mut Reader, size: u64) -> io::Result<()> {
    let mut last = 0;
    loop {
        let transaction = match reader.step()? {
            Step::End => return Ok(()),
            Step::Passed => continue,
            Step::Transaction(transaction) => transaction,
        };
        assert!(transaction.position > last, "positions grow");
        assert!(transaction.tid > Tid::ZERO && transaction.tid < Tid::MAX);
        last = transaction.position;
        while let Some(record) = reader.record()? {
            if let Some((position, length)) = record.content.data() {
                let length = usize::try_from(length).expect("a record lies within the file");
                assert_eq!(reader.data(position, length)?.len(), length);
            }
            assert!(reader.position() <= size);
        }
    }
}

/// The references of a record. A record whose class is plain data has none, as plain data has no persistent ids: so
/// the scanner must understand every pickle that the clients' reader does.
pub fn references(bytes: &[u8]) {
    if let Ok(found) = pack::references(bytes) {
        assert!(found.len() <= bytes.len());
    }
    let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'.').map(|(at, _)| at + 1).take(32);
    for end in ends {
        if zeo::pickle::read(&bytes[..end], CALL_VALUES).is_ok() {
            let record = [&bytes[..end], b"N."].concat();
            assert_eq!(pack::references(&record), Ok(vec![]));
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The golden frames that are there in full.
    fn recorded() -> Vec<Vec<u8>> {
        let lines = include_str!("../tests/zeo_golden/frames.txt").lines();
        let hex = lines.filter_map(|line| line.rsplit(' ').next()).filter(|hex| !hex.contains('.'));
        let byte = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap();
        hex.map(|hex| hex.as_bytes().chunks(2).map(byte).collect()).collect()
    }

    fn all(path: &Path, bytes: &[u8]) {
        pickle(bytes);
        msgpack(bytes);
        messages(bytes);
        frames(bytes);
        peers(bytes);
        data_fs(path, bytes);
        references(bytes);
    }

    #[test]
    fn recorded_frames_hold() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let recorded = recorded();
        assert!(recorded.len() > 100);
        let mut stream = vec![255, 7];
        for frame in &recorded {
            all(file.path(), frame);
            stream.extend(u32::try_from(frame.len()).unwrap().to_be_bytes());
            stream.extend(frame);
        }
        frames(&stream);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn damaged_frames_hold(
            which: prop::sample::Index,
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            cut: prop::sample::Index,
        ) {
            let recorded = recorded();
            let mut frame = which.get(&recorded).clone();
            for (at, byte) in damage {
                let at = at.index(frame.len());
                frame[at] = byte;
            }
            let file = tempfile::NamedTempFile::new().unwrap();
            all(file.path(), &frame);
            frame.truncate(cut.index(frame.len()));
            all(file.path(), &frame);
        }

        #[test]
        fn any_bytes_hold(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let file = tempfile::NamedTempFile::new().unwrap();
            all(file.path(), &bytes);
        }
    }
}
