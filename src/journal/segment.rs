//! One segment: a file of entries, how it is named, walked through, and read from.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;

use super::damage::Damage;
use super::entry::{ENTRY_HEADER, Entry, EntryHeader, SEGMENT_HEADER, SegmentHeader, chain, space};
use super::files::{Files, OpenFile};

/// Bytes between the entries whose place is remembered.
const SIGNPOSTS: u64 = 32 << 10;
/// Bytes that a walk reads at a time.
const PART: u64 = 1 << 20;

/// A segment, as its writer and its readers share it.
pub struct Segment {
    pub name: String,
    pub file: Arc<dyn OpenFile>,
    pub header: SegmentHeader,
    extent: Mutex<Extent>,
}

/// The part of a segment that holds entries.
#[derive(Clone, Debug, Default)]
pub struct Extent {
    /// The byte behind the last entry.
    pub end: u64,
    /// The last entry's number; the one before the segment's first if there is none.
    pub last: u64,
    /// Some entries and where they begin, in order.
    signposts: Vec<(u64, u64)>,
}

/// How a walk through a segment ended.
pub struct Walk {
    pub extent: Extent,
    /// The chain after the last entry.
    pub chain: u32,
    /// The term of the last entry; `None` if there is none.
    pub term: Option<u64>,
    /// The greatest generation that an entry names.
    pub generation: u64,
    /// The chain after the entry that was asked for.
    pub probed: Option<u32>,
    /// What is at the byte where the next entry should begin, as the end of a sentence.
    pub stop: String,
}

/// The name of the segment whose first entry is `first`.
pub fn name_of(first: u64) -> String {
    format!("{first:020}.log")
}

/// The first entry of the segment with this name; `None` if it is not the name of a segment.
pub fn first_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log")?;
    (digits.len() == 20 && digits.bytes().all(|digit| digit.is_ascii_digit())).then(|| digits.parse().ok()).flatten()
}

impl Extent {
    /// Of a segment without entries.
    pub fn empty(header: &SegmentHeader) -> Extent {
        Extent { end: SEGMENT_HEADER, last: header.first - 1, signposts: Vec::new() }
    }

    /// Adds an entry that begins at `self.end` and takes `space` bytes.
    pub fn push(&mut self, number: u64, space: u64) {
        if self.signposts.last().is_none_or(|(_, at)| self.end - at >= SIGNPOSTS) {
            self.signposts.push((number, self.end));
        }
        self.last = number;
        self.end += space;
    }

    /// Forgets the entries behind `last`, which ends at `end`.
    fn shorten(&mut self, last: u64, end: u64) {
        self.signposts.retain(|(number, _)| *number <= last);
        (self.last, self.end) = (last, end);
    }

    /// An entry at or before `number`, and where it begins.
    fn before(&self, number: u64) -> Option<(u64, u64)> {
        let after = self.signposts.partition_point(|(known, _)| *known <= number);
        after.checked_sub(1).map(|at| self.signposts[at])
    }
}

impl Segment {
    /// A segment with the entries that `extent` says.
    pub fn new(name: String, file: Arc<dyn OpenFile>, header: SegmentHeader, extent: Extent) -> Segment {
        Segment { name, file, header, extent: Mutex::new(extent) }
    }

    /// Opens a segment of the journal with this id, and checks its header and its size, but no entry.
    pub fn open(files: &dyn Files, name: &str, journal: u64) -> Result<Segment, super::Fault> {
        let file = files.open(name)?;
        let size = file.size()?;
        let mut bytes = [0; 48];
        if size < SEGMENT_HEADER {
            return Err(Damage::of(name, format!("it was cut to {size} bytes")).into());
        }
        file.read_at(0, &mut bytes)?;
        let header = SegmentHeader::read(&bytes, journal).map_err(|why| Damage::of(name, why))?;
        if header.size != size {
            let why = format!("it was made with {} bytes, and has {size}: it was cut", header.size);
            return Err(Damage::of(name, why).into());
        }
        if name_of(header.first) != name {
            return Err(Damage::of(name, format!("it is {}, under another name", name_of(header.first))).into());
        }
        let extent = Extent::empty(&header);
        Ok(Segment::new(name.to_owned(), file, header, extent))
    }

    /// Nothing is appended any more, and nothing read for a while.
    pub fn rest(&self) {
        self.file.rest(&self.name);
    }

    pub fn extent(&self) -> MutexGuard<'_, Extent> {
        self.extent.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The byte behind the last entry, and its number.
    pub fn reach(&self) -> (u64, u64) {
        let extent = self.extent();
        (extent.end, extent.last)
    }

    /// Reads and checks all entries, up to entry `until` at most; notes the chain after entry `probe`.
    pub fn walk(&self, until: u64, probe: u64) -> io::Result<Walk> {
        let journal = self.header.journal;
        let mut window = Window::new(&*self.file, self.header.size);
        let mut walk = Walk {
            extent: Extent::empty(&self.header),
            chain: self.header.chain,
            term: None,
            generation: 0,
            probed: None,
            stop: "the file ends".into(),
        };
        loop {
            let (number, at) = (walk.extent.last + 1, walk.extent.end);
            if number > until {
                return Ok(walk);
            }
            let Some(head) = window.bytes(at, ENTRY_HEADER as u64)? else { return Ok(walk) };
            let nothing = head.iter().all(|byte| *byte == 0);
            let Some(header) = EntryHeader::read(head) else {
                walk.stop = if nothing { "no entry is there" } else { "what is there is no entry" }.into();
                return Ok(walk);
            };
            let space = space(header.length as usize);
            let Some(bytes) = window.bytes(at, space)? else {
                walk.stop = "its length leads behind the end of the file".into();
                return Ok(walk);
            };
            let wrong = if !header.is_whole(journal, bytes) {
                Some("its checksum does not match".to_owned())
            } else if header.about.number != number {
                Some(format!("entry {} is in its place", header.about.number))
            } else if header.chain != chain(walk.chain, header.digest) {
                Some("it does not follow the entry before it".to_owned())
            } else {
                None
            };
            if let Some(wrong) = wrong {
                walk.stop = wrong;
                return Ok(walk);
            }
            walk.extent.push(number, space);
            walk.chain = header.chain;
            if number == probe {
                walk.probed = Some(header.chain);
            }
            walk.term = Some(header.about.term);
            walk.generation = walk.generation.max(header.about.generation);
        }
    }

    /// Up to which entry everything was synced, as entries behind byte `from` say; 0 if none says so. Also gives the
    /// byte behind the last one that is not zero.
    pub fn evidence(&self, from: u64) -> io::Result<(u64, u64)> {
        let mut rest = vec![0; (self.header.size - from) as usize];
        self.file.read_at(from, &mut rest)?;
        // (Page by page first: as a rule all of them are zeros, and there are many.)
        let page = [0; 4096];
        let pages = rest.chunks(page.len()).rposition(|part| part != &page[..part.len()]).map_or(0, |at| at + 1);
        let rest = &rest[..rest.len().min(pages * page.len())];
        let used = rest.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
        let mut synced = 0;
        for at in (0..used).step_by(8) {
            if rest.len() - at < ENTRY_HEADER {
                break;
            }
            let Some(header) = EntryHeader::read(&rest[at..]) else { continue };
            // (A header by itself is proof enough, and to look at payloads that look like headers would take long.)
            if header.is_intact(self.header.journal, &rest[at..]) {
                synced = synced.max(header.about.batch - 1);
            }
        }
        Ok((synced, from + used as u64))
    }

    /// The chain after entry `last`, which the segment has or which lies before its first.
    pub fn chain_after(&self, last: u64) -> io::Result<u32> {
        if last < self.header.first {
            return Ok(self.header.chain);
        }
        self.cursor(last)?.next().map(|(header, _)| header.chain)
    }

    /// Writes the entries from `first` on once more as they are. What was read may be in memory alone, although a sync
    /// of it failed: a later one would then report success without having written it.
    pub fn write_again(&self, first: u64) -> io::Result<()> {
        let (end, last) = self.reach();
        let first = first.max(self.header.first);
        if first > last {
            return Ok(());
        }
        let mut at = self.cursor(first)?.at;
        while at < end {
            let mut part = vec![0; PART.min(end - at) as usize];
            self.file.read_at(at, &mut part)?;
            self.file.write_at(at, &part)?;
            at += part.len() as u64;
        }
        Ok(())
    }

    /// Writes zeros from the end of entry `last` on to byte `until`; durable on return.
    pub fn erase_after(&self, last: u64, until: u64) -> io::Result<()> {
        let mut end = SEGMENT_HEADER;
        if last >= self.header.first {
            let mut cursor = self.cursor(last)?;
            cursor.next()?;
            end = cursor.at;
        }
        let zeros = vec![0; PART.min(until.saturating_sub(end)) as usize];
        let mut at = end;
        while at < until {
            let part = (until - at).min(PART) as usize;
            self.file.write_at(at, &zeros[..part])?;
            at += part as u64;
        }
        self.file.sync()?;
        self.extent().shorten(last, end);
        Ok(())
    }

    /// Adds entries from `first` to before `until` to `entries`, as long as their payloads fit into `bytes`, but one at
    /// least if `entries` is empty. Gives the bytes that are left.
    pub fn read(
        &self,
        first: u64,
        until: u64,
        mut bytes: usize,
        entries: &mut Vec<Entry>,
    ) -> io::Result<Option<usize>> {
        let until = until.min(self.extent().last + 1);
        if first >= until {
            return Ok(Some(bytes));
        }
        let mut cursor = self.cursor(first)?;
        for _ in first..until {
            let (header, payload) = cursor.next()?;
            if payload.len() > bytes && !entries.is_empty() {
                return Ok(None);
            }
            bytes = bytes.saturating_sub(payload.len());
            entries.push(Entry { number: header.about.number, term: header.about.term, payload });
        }
        Ok(Some(bytes))
    }

    /// A cursor at entry `number`, which the segment has.
    fn cursor(&self, number: u64) -> io::Result<Cursor<'_>> {
        let (end, found) = {
            let extent = self.extent();
            (extent.end, extent.before(number))
        };
        let (known, at) = found.unwrap_or((self.header.first, SEGMENT_HEADER));
        let mut cursor = Cursor { segment: self, number: known, at, end, part: Bytes::new(), part_at: at };
        while cursor.number < number {
            cursor.skip()?;
        }
        Ok(cursor)
    }
}

/// Reads entries one after the other; their payloads are parts of what was read from the file in one go.
struct Cursor<'a> {
    segment: &'a Segment,
    number: u64,
    at: u64,
    end: u64,
    part: Bytes,
    part_at: u64,
}

impl Cursor<'_> {
    /// Makes `length` bytes from `self.at` on part of `self.part`.
    fn need(&mut self, length: u64) -> io::Result<Bytes> {
        let from = (self.at - self.part_at) as usize;
        if self.part.len().saturating_sub(from) < length as usize {
            if self.end < self.at + length {
                return Err(self.damaged("its length leads behind the last entry"));
            }
            let mut part = vec![0; length.max(PART / 4).min(self.end - self.at) as usize];
            self.segment.file.read_at(self.at, &mut part)?;
            (self.part, self.part_at) = (part.into(), self.at);
            return Ok(self.part.slice(..length as usize));
        }
        Ok(self.part.slice(from..from + length as usize))
    }

    fn header(&mut self) -> io::Result<EntryHeader> {
        let head = self.need(ENTRY_HEADER as u64)?;
        match EntryHeader::read(&head) {
            Some(header) if header.about.number == self.number => Ok(header),
            Some(header) => Err(self.damaged(&format!("entry {} is in its place", header.about.number))),
            None => Err(self.damaged("what is there is no entry")),
        }
    }

    fn skip(&mut self) -> io::Result<()> {
        let header = self.header()?;
        self.at += space(header.length as usize);
        self.number += 1;
        Ok(())
    }

    fn next(&mut self) -> io::Result<(EntryHeader, Bytes)> {
        let header = self.header()?;
        let bytes = self.need(space(header.length as usize))?;
        if !header.is_whole(self.segment.header.journal, &bytes) {
            return Err(self.damaged("its checksum does not match"));
        }
        self.at += bytes.len() as u64;
        self.number += 1;
        Ok((header, bytes.slice(ENTRY_HEADER..ENTRY_HEADER + header.length as usize)))
    }

    fn damaged(&self, why: &str) -> io::Error {
        Damage::at(&self.segment.name, self.at, self.number, why).into()
    }
}

/// A part of a file in memory that moves along with a walk.
struct Window<'a> {
    file: &'a dyn OpenFile,
    size: u64,
    bytes: Vec<u8>,
    at: u64,
}

impl Window<'_> {
    fn new(file: &dyn OpenFile, size: u64) -> Window<'_> {
        Window { file, size, bytes: Vec::new(), at: 0 }
    }

    /// `length` bytes from `at` on; `None` if the file ends before.
    fn bytes(&mut self, at: u64, length: u64) -> io::Result<Option<&[u8]>> {
        if at + length > self.size {
            return Ok(None);
        }
        if at < self.at || at + length > self.at + self.bytes.len() as u64 {
            self.bytes.resize(length.max(PART).min(self.size - at) as usize, 0);
            self.at = at;
            self.file.read_at(at, &mut self.bytes)?;
        }
        let from = (at - self.at) as usize;
        Ok(Some(&self.bytes[from..from + length as usize]))
    }
}
