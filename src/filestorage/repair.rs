//! A reader's way past a place where no transaction can be read: an error, the end of the file, or what can be salvaged
//! and on to the next transaction.

use std::io;

use super::format::{DONE, PACKED, RECORD, RecordHeader, TRANSACTION, TransactionHeader, UNDONE, UNFINISHED};
use super::index;
use super::look::{Defect, is_plausible};
use super::notes::{Cut, EndReason};
use super::read::{FileTransaction, Open, Reader, Search, Step, Why};
use super::salvage::{self, Found};
use crate::zodb::TransactionMeta;

impl Reader {
    /// Deals with a defect at the place `at`.
    pub(super) fn defect(&mut self, at: u64, defect: Defect) -> io::Result<Step> {
        if defect.doubtful {
            return self.search_on(Search { at, from: at + 1, why: Why::Defect(defect) });
        }
        if !self.salvage {
            return Err(self.refusal(&defect));
        }
        match self.frame(at)? {
            Some((_, next)) => self.gather(at, next, &defect.what),
            None => self.search_on(Search { at, from: at + 1, why: Why::Defect(defect) }),
        }
    }

    fn refusal(&self, defect: &Defect) -> io::Error {
        self.wrong(
            defect.at,
            format_args!(
                "{}. FileStorage does not open such a file either, unless an index keeps it from looking. To import what \
                 can be read, with a list of what can't: --salvage",
                defect.what
            ),
        )
    }

    /// The header at `at` and the place after its transaction, if the length there agrees with it.
    fn frame(&self, at: u64) -> io::Result<Option<(TransactionHeader, u64)>> {
        if self.size() - at < TRANSACTION as u64 {
            return Ok(None);
        }
        let header = TransactionHeader::decode(&self.source.array(at)?);
        let is_right = is_plausible(&self.source, at, &header)?;
        Ok(is_right.then(|| (header, at + header.length + 8)))
    }

    /// Searches on, a stretch at a time, so that the caller can tell of it.
    pub(super) fn search_on(&mut self, search: Search) -> io::Result<Step> {
        let Search { at, from, why } = search;
        let next = match self.found.get(&at) {
            Some(next) => *next,
            None => {
                let next = match salvage::search(&mut self.source, from)? {
                    Found::NotBefore(from) => {
                        self.search = Some(Search { at, from, why });
                        return Ok(Step::Passed);
                    }
                    Found::At(next) => Some(next),
                    Found::Nowhere => None,
                };
                self.found.insert(at, next);
                next
            }
        };
        match (why, next) {
            (Why::Cut(why), None) => Ok(self.cut(at, why, false)),
            (Why::Defect(defect), None) if defect.doubtful => Ok(self.cut(at, EndReason::Rubbish, false)),
            (Why::Defect(defect), _) if !self.salvage => Err(self.refusal(&defect)),
            (Why::Defect(defect), next) => self.gather(at, next.unwrap_or(self.size()), &defect.what),
            (Why::Cut(EndReason::Unfinished), Some(next)) if self.salvage => {
                self.notes.lose(format!("byte {at}: a transaction that was never finished (status c)"));
                Ok(self.pass(next))
            }
            (Why::Cut(_), Some(next)) if self.salvage => {
                self.gather(at, next, "a transaction reaches past the end of the file, or is none")
            }
            (Why::Cut(why), Some(_)) => match index::reach(self.source.path()) {
                Some(reach) if reach > at && reach <= self.size() => Err(self.wrong(
                    at,
                    format_args!(
                        "the file is damaged here. FileStorage goes on by the index beside it, up to byte {reach}, but \
                         would cut the file off here without the index. To import what can be read, with a list of what \
                         can't: --salvage. To import what lies before this byte: remove the index"
                    ),
                )),
                _ => Ok(self.cut(at, why, true)),
            },
        }
    }

    fn cut(&mut self, at: u64, why: EndReason, transactions: bool) -> Step {
        self.notes.cut = Some(Cut { at, bytes: self.size() - at, why, transactions });
        self.next = self.size();
        Step::End
    }

    /// Takes what is left of the damaged transaction at `at`, behind which the next one begins at `next`.
    fn gather(&mut self, at: u64, next: u64, what: &str) -> io::Result<Step> {
        let frame = self.frame(at)?.filter(|(_, end)| *end == next);
        let until = next.saturating_sub(8);
        let picked = match &frame {
            Some((header, _)) => {
                let from = at + header.head();
                match salvage::pick(&mut self.source, at, Some(header.tid), from, until)? {
                    None => salvage::pick(&mut self.source, at, None, from, until)?,
                    picked => picked,
                }
            }
            None => salvage::pick(&mut self.source, at, None, at + TRANSACTION as u64, until)?,
        };
        let Some((tid, places)) = picked else {
            self.notes.lose(format!("byte {at}: {what}; {} bytes are lost", next - at));
            return Ok(self.pass(next));
        };
        let header = TransactionHeader::decode(&self.source.array(at)?);
        let texts_are_right = places.first() == Some(&(at + header.head()));
        if texts_are_right && [UNDONE, UNFINISHED].contains(&header.status) {
            self.notes
                .lose(format!("byte {at}: {what}; the transaction does not count, as it was undone or not finished"));
            return Ok(self.pass(next));
        }
        let is_whole = texts_are_right && self.are_adjacent(&places, until)?;
        let left = if is_whole { "all that were there" } else { "what else it had is lost" };
        let count = places.len();
        self.notes.lose(format!("byte {at}: {what}; of transaction {tid} {count} records are kept, {left}"));
        let mut meta = TransactionMeta { status: PACKED, ..TransactionMeta::default() };
        if texts_are_right {
            self.notes.header(header.tid);
            meta = self.meta(at, &header)?;
            // (A transaction of which something is lost can't be undone. So does fsrecover.)
            if !is_whole || ![DONE, PACKED].contains(&meta.status) {
                meta.status = PACKED;
            }
        }
        self.next = next;
        self.open = Some(Open { position: at, at, end: until, picked: Some(places.into()) });
        Ok(Step::Transaction(FileTransaction { position: at, tid, meta }))
    }

    /// Whether records follow each other without a gap, to the byte `until`.
    fn are_adjacent(&mut self, places: &[u64], until: u64) -> io::Result<bool> {
        for (n, place) in places.iter().enumerate() {
            let record = RecordHeader::decode(&self.source.array(*place)?);
            let end = place + RECORD as u64 + record.body();
            if end != places.get(n + 1).copied().unwrap_or(until) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
