//! **A blob is the one that was stored**, whichever node sends it, in whatever parts it came and goes, also where an
//! undo shows an older one again; and it is there as long as its revision. (docs/protocol.md, docs/storage.md: Pieces)

use std::io;

use bytes::Bytes;
use zrs::storage::Store;

use crate::history::Record;
use crate::model::Model;
use crate::seen;
use crate::stream::Event;
use crate::value::{Found, Value, blob};

pub const KEPT: &str = "blobs_are_whole: kept";
pub const NONE: &str = "blobs_are_whole: none";
pub const SENT: &str = "blobs_are_whole: sent";

/// What clients were sent.
pub fn check(record: &Record, model: &Model) -> Result<(), String> {
    for (number, stream) in record.streams.iter().enumerate() {
        let mut told = stream.registered;
        for (event, at) in stream.events.iter().zip(&stream.times) {
            let (oid, tid, bytes) = match event {
                Event::News(tid, _) | Event::Finished { tid, .. } => {
                    told = *tid;
                    continue;
                }
                Event::Blob { oid, tid, bytes } => (*oid, *tid, bytes),
                _ => continue,
            };
            seen::check(if bytes.is_some() { SENT } else { NONE }, 1);
            let due: Vec<Option<Bytes>> =
                model.serials(oid, tid, told, *at).iter().map(|one| of(one.as_ref())).collect();
            if !due.contains(bytes) {
                let lengths: Vec<_> = due.iter().map(|due| due.as_ref().map(Bytes::len)).collect();
                return Err(format!(
                    "blobs_are_whole: {}: the blob of {oid} at {tid} came as {:?} bytes, {lengths:?} were due, or others",
                    stream.name(number),
                    bytes.as_ref().map(Bytes::len)
                ));
            }
        }
    }
    Ok(())
}

fn of(found: Option<&Found>) -> Option<Bytes> {
    match found {
        Some((Value::Blob(length), mark)) => Some(blob(*mark, *length)),
        _ => None,
    }
}

/// What a node has.
pub fn look(model: &Model, store: &Store) -> Result<(), String> {
    let Some(storage) = store.storage("1") else { return Ok(()) };
    let read = |oid, tid| -> io::Result<Option<Bytes>> {
        let Some((_, staged)) = store.blob(storage, oid, tid)? else { return Ok(None) };
        let mut bytes = Vec::new();
        for span in staged.pieces {
            for number in span.first..span.first + u64::from(span.count) {
                bytes.extend_from_slice(&store.piece(storage, number)?);
            }
        }
        Ok(Some(bytes.into()))
    };
    for (oid, revisions) in model.objects() {
        for (tid, found) in revisions {
            let is_there = store.load_serial(storage, oid, *tid, *tid).map_err(|fault| fault.to_string())?.is_ok();
            let due = of(Some(found)).filter(|_| is_there);
            seen::check(KEPT, u64::from(due.is_some()));
            let found = read(oid, *tid).map_err(|fault| format!("blobs_are_whole: {oid} at {tid}: {fault}"))?;
            if found != due {
                let lengths = (found.map(|bytes| bytes.len()), due.map(|bytes| bytes.len()));
                return Err(format!(
                    "blobs_are_whole: {oid} at {tid}: {lengths:?} bytes are there and were due, or others"
                ));
            }
        }
    }
    Ok(())
}
