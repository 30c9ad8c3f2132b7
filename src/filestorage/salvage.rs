//! Finds what is left of a damaged file: the next whole transaction behind a damaged place, and the records that a
//! damaged transaction still has.
//!
//! Each record says to which transaction it belongs, and at which byte that begins. A transaction is found if its
//! header and all of its records are right about it, which nothing else can be by chance; but the byte may be another
//! one, for all of its records, where bytes were lost or put in. Single records are found by that byte.

use std::io;

use super::format::{RECORD, RecordHeader, TRANSACTION, TransactionHeader};
use super::look::{Look, is_plausible, look};
use super::source::{Source, WINDOW};
use crate::zodb::Tid;

/// Bytes that are searched in one go.
const STRETCH: u64 = 16 << 20;

/// The outcome of a stretch of search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A whole transaction with records begins here.
    At(u64),
    /// None begins before this byte.
    NotBefore(u64),
    /// None follows to the end of the file.
    Nowhere,
}

/// Searches for a whole transaction with records from the byte `from` on.
pub fn search(source: &mut Source, from: u64) -> io::Result<Found> {
    let mut at = from;
    while at < from.saturating_add(STRETCH) {
        let left = source.size().saturating_sub(at);
        if left < TRANSACTION as u64 + 8 {
            return Ok(Found::Nowhere);
        }
        let bytes = source.data(at, (WINDOW as u64).min(left) as usize)?;
        for (place, head) in (at..).zip(bytes.windows(TRANSACTION)) {
            // (No transaction has 2^48 bytes. Few places pass.)
            if head[8..10] != [0, 0] {
                continue;
            }
            let header = TransactionHeader::decode(head.try_into().expect("windows have the length asked for"));
            if is_plausible(source, place, &header)?
                && let Look::Whole(whole) = look(source, place)?
                && whole.records > 0
                && whole.strangers == 0
                && whole.tid == header.tid
                && [0, whole.records].contains(&whole.astray)
            {
                return Ok(Found::At(place));
            }
        }
        at += (bytes.len() - TRANSACTION + 1) as u64;
    }
    Ok(Found::NotBefore(at))
}

/// Records of the transaction at byte `home` that lie between `from` and `until`: their places, and the transaction's
/// id as they say it. `tid`: the id that they must have, if it is known.
pub fn pick(
    source: &mut Source,
    home: u64,
    mut tid: Option<Tid>,
    from: u64,
    until: u64,
) -> io::Result<Option<(Tid, Vec<u64>)>> {
    let mut picked = Vec::new();
    let mut at = from;
    while let Some((place, record)) = next_record(source, home, tid, at, until)? {
        let end = place + RECORD as u64 + record.body();
        let is_followed = end == until || record_at(source, home, Some(record.tid), end, until)?.is_some();
        if !is_followed {
            // The data end before another record begins, and as a pickle ends; else the length is wrong.
            let inner = next_record(source, home, Some(record.tid), place + RECORD as u64, end)?;
            let ends = record.length == 0 || source.array::<1>(end - 1)? == *b".";
            if inner.is_some() || !ends {
                at = inner.map_or(place + RECORD as u64, |(inner, _)| inner);
                continue;
            }
        }
        tid = Some(record.tid);
        picked.push(place);
        at = end;
    }
    Ok(tid.filter(|_| !picked.is_empty()).map(|tid| (tid, picked)))
}

/// The record at `place`, if it is one of the transaction at `home` and lies before `until`.
fn record_at(source: &Source, home: u64, tid: Option<Tid>, place: u64, until: u64) -> io::Result<Option<RecordHeader>> {
    if place + RECORD as u64 >= until {
        return Ok(None);
    }
    Ok(Some(RecordHeader::decode(&source.array(place)?)).filter(|record| is_of(record, home, tid, until - place)))
}

fn is_of(record: &RecordHeader, home: u64, tid: Option<Tid>, left: u64) -> bool {
    record.transaction == home
        && record.version == 0
        && record.tid > Tid::ZERO
        && record.tid < Tid::MAX
        && tid.is_none_or(|tid| record.tid == tid)
        && record.body() <= left.saturating_sub(RECORD as u64)
}

/// The first record of the transaction at `home` from `from` on that lies before `until`.
fn next_record(
    source: &mut Source,
    home: u64,
    tid: Option<Tid>,
    from: u64,
    until: u64,
) -> io::Result<Option<(u64, RecordHeader)>> {
    let mut at = from;
    loop {
        let left = until.min(source.size()).saturating_sub(at);
        if left <= RECORD as u64 {
            return Ok(None);
        }
        let bytes = source.data(at, (WINDOW as u64).min(left) as usize)?;
        for (place, head) in (at..).zip(bytes.windows(RECORD)) {
            if head[24..32] == home.to_be_bytes() {
                let record = RecordHeader::decode(head.try_into().expect("windows have the length asked for"));
                if is_of(&record, home, tid, until - place) {
                    return Ok(Some((place, record)));
                }
            }
        }
        at += (bytes.len() - RECORD + 1) as u64;
    }
}
