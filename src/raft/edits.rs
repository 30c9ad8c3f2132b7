//! The changes of the log in their queue, and what its thread does with them.
//!
//! **On disk.** Raft's index 0 is the journal's entry 1. An entry's payload is a byte that says what it is
//! ([`BLANK`], [`COMMAND`], [`MEMBERS`]), then the command as it was encoded, or postcard of [`Members`].

use std::io;

use openraft::EntryPayload;
use openraft::storage::IOFlushed;
use tokio::sync::oneshot;

use super::tail::entry_size;
use super::types::{Entry, Members, Place, Proposed, Record, RecordContent, Types};
use crate::journal::{self, Journal};

/// The first byte of an entry's payload.
const BLANK: u8 = 0;
const COMMAND: u8 = 1;
const MEMBERS: u8 = 2;

/// A change of the log.
pub enum LogEdit {
    Append(Vec<Entry>, IOFlushed<Types>),
    Truncate { entries: u64, done: oneshot::Sender<io::Result<()>> },
    Purge { place: Place, done: oneshot::Sender<io::Result<()>> },
    Value { name: &'static str, value: Vec<u8>, done: oneshot::Sender<io::Result<()>> },
}

/// What became of a group of edits.
pub struct Written {
    pub edits: Vec<LogEdit>,
    pub result: io::Result<()>,
    /// How many entries the log has, if that has changed.
    pub entries: Option<u64>,
    pub bytes: u64,
}

impl LogEdit {
    /// Tells whoever waits for it.
    pub fn done(self, result: io::Result<()>) {
        match self {
            LogEdit::Append(_, flushed) => flushed.io_completed(result),
            LogEdit::Truncate { done, .. } | LogEdit::Purge { done, .. } | LogEdit::Value { done, .. } => {
                let _ = done.send(result);
            }
        }
    }
}

/// Writes a group of edits in their order, entries with one sync at the end.
pub fn write(journal: &mut Journal, edits: Vec<LogEdit>) -> Written {
    let mut written = Written { edits: Vec::new(), result: Ok(()), entries: None, bytes: 0 };
    written.result = edits.iter().try_for_each(|edit| match edit {
        LogEdit::Append(entries, _) => {
            for entry in entries {
                append(journal, entry)?;
                written.bytes += entry_size(entry) as u64;
            }
            written.entries = Some(journal.last());
            Ok(())
        }
        LogEdit::Truncate { entries, .. } => {
            journal.truncate_after(*entries)?;
            written.entries = Some(journal.last());
            Ok(())
        }
        LogEdit::Purge { place, .. } => {
            journal.purge(place.index + 1, place.term)?;
            written.entries = Some(journal.last());
            Ok(())
        }
        LogEdit::Value { name, value, .. } => {
            // (Edits become durable in their order.)
            journal.sync()?;
            journal.set(name, value.clone())
        }
    });
    written.result = written.result.and_then(|()| journal.sync());
    written.edits = edits;
    written
}

fn append(journal: &mut Journal, entry: &Entry) -> io::Result<()> {
    let at = entry.log_id;
    if at.index != journal.last() {
        let why = format!("the log has {} entries, and was given the entry of index {}", journal.last(), at.index);
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let term = at.leader_id.term;
    match &entry.payload {
        EntryPayload::Blank => journal.append(term, &[&[BLANK]]),
        EntryPayload::Normal(Proposed(bytes)) => journal.append(term, &[&[COMMAND], bytes]),
        EntryPayload::Membership(membership) => {
            let members = postcard::to_stdvec(&Members::from(membership)).expect("members are plain data");
            journal.append(term, &[&[MEMBERS], &members])
        }
    }
}

/// Reads an entry of the journal.
pub fn record(entry: journal::Entry) -> io::Result<Record> {
    let journal::Entry { number, term, payload } = entry;
    let damaged = |why: String| io::Error::new(io::ErrorKind::InvalidData, format!("log entry {number}: {why}"));
    let content = match payload.first() {
        Some(&BLANK) => RecordContent::Blank,
        Some(&COMMAND) => RecordContent::Command(payload.slice(1..)),
        Some(&MEMBERS) => {
            let members = postcard::from_bytes(&payload[1..]);
            RecordContent::Membership(members.map_err(|why| damaged(format!("its members can't be read: {why}")))?)
        }
        Some(kind) => return Err(damaged(format!("its kind is {kind}, which this zrsd does not know"))),
        None => return Err(damaged("it is empty".into())),
    };
    Ok(Record { place: Place { term, index: number - 1 }, content })
}

/// Where an entry of the journal stands in the log; `None` for number 0, which is that of no entry.
pub fn place_of((number, term): (u64, u64)) -> Option<Place> {
    Some(Place { term, index: number.checked_sub(1)? })
}
