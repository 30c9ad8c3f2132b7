//! Looks at what stands at a place of a file, as FileStorage does when it opens one without an index (`read_index` in
//! `ZODB/FileStorage/FileStorage.py`), in the same order: what FileStorage passes over is passed over and counted,
//! where it cuts the file off it ends, and what it refuses is a defect.
//!
//! Two fields that FileStorage wants to be right say nothing that is needed, and files are served with them wrong as
//! long as there is an index: a record's position of its transaction, and the length of a version. If the records of a
//! transaction fill it exactly all the same, they are counted and not trusted.

use std::io;

use super::format::{DONE, FIRST, PACKED, RECORD, RecordHeader, TRANSACTION, TransactionHeader, UNDONE, UNFINISHED};
use super::notes::EndReason;
use super::source::{Source, WINDOW};
use crate::zodb::{Oid, Tid};

/// Pointers that are followed from one record to the next. (An undo of an undo is one more, and so on.)
const HOPS: usize = 10_000;

/// The find at a place.
#[derive(Debug)]
pub enum Look {
    /// Nothing: the file ends.
    End,
    /// A whole transaction.
    Whole(Whole),
    /// A transaction that does not count any more, and the place after it.
    Undone { tid: Tid, next: u64 },
    /// The file ends here, as FileStorage sees it.
    Cut(EndReason),
    /// FileStorage does not open such a file without an index.
    Defect(Defect),
}

/// A transaction whose parts add up.
#[derive(Debug)]
pub struct Whole {
    pub header: TransactionHeader,
    /// The transaction's id for clients: that of its records, which loads give, if they agree; else the header's.
    pub tid: Tid,
    /// The place after it.
    pub next: u64,
    /// How many records.
    pub records: u64,
    /// Of these, how many have another id than the transaction.
    pub strangers: u64,
    /// How many name another place of their transaction.
    pub astray: u64,
    /// How many have a version's length.
    pub versions: u64,
}

/// A defect, and where.
#[derive(Debug)]
pub struct Defect {
    pub at: u64,
    pub what: String,
    /// Whether this is rubbish, unless whole transactions follow.
    pub doubtful: bool,
}

fn defect(at: u64, what: impl Into<String>) -> io::Result<Look> {
    Ok(Look::Defect(Defect { at, what: what.into(), doubtful: false }))
}

/// Looks at the place `at`, where a transaction should begin.
pub fn look(source: &mut Source, at: u64) -> io::Result<Look> {
    let left = source.size() - at;
    if left == 0 {
        return Ok(Look::End);
    }
    if left < TRANSACTION as u64 {
        let unfinished = source.bytes(at, left as usize)?.get(16) == Some(&UNFINISHED);
        return Ok(Look::Cut(if unfinished { EndReason::Unfinished } else { EndReason::CutShort }));
    }
    let header = TransactionHeader::decode(&source.next_array(at)?);
    if header.status == UNFINISHED {
        return Ok(Look::Cut(EndReason::Unfinished));
    }
    if !header.status.is_ascii() {
        let what = format!("a transaction has status {}, which is none", header.status.escape_ascii());
        return Ok(Look::Defect(Defect { at: at + 16, what, doubtful: true }));
    }
    let Some(next) = after(source, at, &header) else { return Ok(Look::Cut(EndReason::CutShort)) };
    if header.length < header.head() {
        // Bad data in the middle, or left at the end by a crash? The last eight bytes tell: they should be a length.
        let last = source.number(source.size() - 8)?;
        if last < TRANSACTION as u64 || source.size().checked_sub(last).is_none_or(|begin| begin < at) {
            return Ok(Look::Cut(EndReason::Rubbish));
        }
        let what = format!(
            "a transaction of {} bytes can't have a header and texts of {} bytes",
            header.length,
            header.head()
        );
        return defect(at + 8, what);
    }
    if header.status == UNDONE {
        return match ends_well(source, at, &header)? {
            None => Ok(Look::Undone { tid: header.tid, next }),
            Some(defect) => Ok(Look::Defect(defect)),
        };
    }
    records(source, at, header, next)
}

/// The place after a transaction; `None`: it would reach past the end of the file.
pub fn after(source: &Source, at: u64, header: &TransactionHeader) -> Option<u64> {
    at.checked_add(header.length)?.checked_add(8).filter(|next| *next <= source.size())
}

/// Whether a transaction ends with its length again; else what is wrong.
fn ends_well(source: &Source, at: u64, header: &TransactionHeader) -> io::Result<Option<Defect>> {
    let end = at + header.length;
    let again = source.number(end)?;
    Ok((again != header.length).then(|| Defect {
        at: end,
        what: format!(
            "transaction {} (byte {at}) has {} bytes, but {again} by the length at its end",
            header.tid, header.length
        ),
        doubtful: false,
    }))
}

/// Looks at the records of the transaction at `at`.
fn records(source: &mut Source, at: u64, header: TransactionHeader, next: u64) -> io::Result<Look> {
    let (tid, end) = (header.tid, next - 8);
    let mut whole = Whole { header, tid, next, records: 0, strangers: 0, astray: 0, versions: 0 };
    let mut ids: Option<Tid> = None;
    let (mut differ, mut not_header) = (false, 0);
    let mut version = None;
    let mut place = at + header.head();
    // (The records' data are read next.)
    source.bytes(at, (next - at).min(WINDOW as u64) as usize)?;
    while place < end {
        let left = end - place;
        // Once the version of a record was passed over that is right otherwise, a mistake comes from there.
        let mistake = |at, what| match &version {
            Some((at, what)) => defect(*at, String::clone(what)),
            None => defect(at, what),
        };
        if left <= RECORD as u64 {
            return mistake(place, format!("transaction {tid} has {left} bytes left, too few for a record"));
        }
        let record = RecordHeader::decode(&source.next_array(place)?);
        let length = record.body();
        if length > left - RECORD as u64 {
            let what = format!(
                "a record of object {} says that it has {length} bytes, but its transaction ends after {}",
                record.oid,
                left - RECORD as u64
            );
            return mistake(place + 34, what);
        }
        if record.version != 0 {
            whole.versions += 1;
            if record.tid == tid && record.transaction == at {
                version.get_or_insert_with(|| (place, of_a_version(record.oid)));
            }
        }
        whole.records += 1;
        whole.astray += u64::from(record.transaction != at);
        not_header += u64::from(record.tid != tid);
        differ |= *ids.get_or_insert(record.tid) != record.tid;
        place += RECORD as u64 + length;
    }
    if let Some(mistake) = ends_well(source, at, &header)? {
        return Ok(Look::Defect(mistake));
    }
    match ids {
        Some(id) if !differ => whole.tid = id,
        _ => whole.strangers = not_header,
    }
    if whole.tid >= Tid::MAX {
        return defect(
            at,
            format!("{} is too great for a transaction, clients can't load as of such a time", whole.tid),
        );
    }
    Ok(Look::Whole(whole))
}

fn of_a_version(oid: Oid) -> String {
    format!(
        "object {oid} was stored in a version. ZODB has given versions up, and zrs has none: commit or abort the \
         versions with the ZODB that wrote the file (3.8 or older), and pack it"
    )
}

/// The record to which a pointer leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The object that the record says to be of.
    pub oid: Oid,
    /// The transaction that the record says to be of.
    pub tid: Tid,
    /// Position and length of the data at the end of the chain of pointers; `None`: the object does not exist there.
    pub data: Option<(u64, u64)>,
}

/// Follows a pointer of object `oid` to the record at `back`, and on to the data. `None`: there is no record.
///
/// FileStorage looks at no object on this way, and loads what is there.
pub fn follow(source: &Source, oid: Oid, back: u64) -> io::Result<Option<Target>> {
    let mut found: Option<Target> = None;
    let mut at = back;
    for _ in 0..HOPS {
        let body = at.checked_add(RECORD as u64);
        let Some(body) = body.filter(|body| at >= FIRST && body.checked_add(8).is_some_and(|end| end <= source.size()))
        else {
            return Ok(None);
        };
        let record = RecordHeader::decode(&source.array(at)?);
        if record.version != 0 || !(record.oid == oid || is_at_home(source, at, &record)?) {
            return Ok(None);
        }
        let target = found.get_or_insert(Target { oid: record.oid, tid: record.tid, data: None });
        if record.length > 0 {
            if body.checked_add(record.length).is_none_or(|end| end > source.size()) {
                return Ok(None);
            }
            target.data = Some((body, record.length));
            return Ok(found);
        }
        match source.number(body)? {
            0 => return Ok(found),
            back => at = back,
        }
    }
    Ok(None)
}

/// Whether the record stands behind the transaction that it names.
fn is_at_home(source: &Source, at: u64, record: &RecordHeader) -> io::Result<bool> {
    let place = record.transaction;
    Ok(place >= FIRST && place < at && source.number(place)? == record.tid.0)
}

/// Whether a transaction with records can stand here, to the byte; for a search.
pub fn is_plausible(source: &Source, at: u64, header: &TransactionHeader) -> io::Result<bool> {
    let known = [DONE, PACKED, UNDONE].contains(&header.status) && header.length >= header.head();
    if !known || header.tid == Tid::ZERO {
        return Ok(false);
    }
    match after(source, at, header) {
        Some(next) => Ok(source.number(next - 8)? == header.length),
        None => Ok(false),
    }
}
