//! The open journal: one writer, any number of readers.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::damage::Fault;
use super::entry::{About, Entry, EntryHeader, MOST, SEGMENT_HEADER, SegmentHeader, space};
use super::files::{Files, OpenFile};
use super::mark::{Mark, MarkFile};
use super::open::{Cut, NEXT, PURGED, Sizes, Survey, repair, survey};
use super::segment::{Extent, Segment, name_of};
use super::slots::{Slots, Values};

/// Bytes that are gathered before they are written, unless a sync comes first.
const BUFFER: usize = 4 << 20;

/// The journal's writer.
pub struct Journal {
    reader: Reader,
    mark: MarkFile,
    slots: Slots,
    sizes: Sizes,
    /// Entries that were appended and not yet written, as bytes, and the bytes of each.
    buffer: Vec<u8>,
    buffered: Vec<u64>,
    /// The number of the last entry, and its chain.
    last: u64,
    chain: u32,
    /// The first entry that was not yet synced, and the chain before it.
    batch: u64,
    synced_chain: u32,
    /// Whether the mark is to be synced after the next batch, which is the first of its segment.
    mark_soon: bool,
    cut: Option<Cut>,
    failed: bool,
}

/// Reads entries while the writer goes on; cheap to clone.
#[derive(Clone)]
pub struct Reader {
    shared: Arc<Shared>,
}

struct Shared {
    files: Arc<dyn Files>,
    journal: u64,
    /// In order; held for reading while entries are read, so that none is erased meanwhile.
    segments: RwLock<Vec<Arc<Segment>>>,
    /// Of each segment its first entry and its size, for those who must never wait for a disk: unlike `segments` it is
    /// locked by nobody who writes files.
    layout: Mutex<Vec<(u64, u64)>>,
    prepared: Mutex<Prepared>,
}

/// The segment that will be used next.
#[derive(Default)]
struct Prepared {
    file: Option<(Arc<dyn OpenFile>, u64)>,
    /// The size that it should have; 0: none is wanted.
    wanted: u64,
}

impl Journal {
    /// Opens the journal in `files`, or begins one, whose id is then `id`: a number drawn by chance.
    pub fn open(files: Arc<dyn Files>, sizes: Sizes, id: u64) -> Result<Journal, Fault> {
        let Some(mut found) = survey(&*files)? else { return Ok(Journal::begin(files, sizes, id)?) };
        if let Some(damage) = found.damage {
            return Err(damage.into());
        }
        repair(&*files, &mut found)?;
        let Survey { mark, slots, segments, last, chain, cut, .. } = found;
        let last = last.map_or(0, |(number, _)| number);
        Ok(Journal::over(files, mark, slots, sizes, segments, (last, chain), cut))
    }

    fn begin(files: Arc<dyn Files>, sizes: Sizes, id: u64) -> io::Result<Journal> {
        let slots = Slots::create(&*files, id)?;
        let mark = MarkFile::create(&*files, id)?;
        Ok(Journal::over(files, mark, slots, sizes, Vec::new(), (0, 0), None))
    }

    fn over(
        files: Arc<dyn Files>,
        mark: MarkFile,
        slots: Slots,
        sizes: Sizes,
        segments: Vec<Arc<Segment>>,
        (last, chain): (u64, u32),
        cut: Option<Cut>,
    ) -> Journal {
        let wanted = next_size(&segments, sizes);
        let reader = Reader::over(files, mark.journal, segments);
        reader.shared.prepared().wanted = wanted;
        Journal {
            reader,
            mark,
            slots,
            sizes,
            buffer: Vec::new(),
            buffered: Vec::new(),
            last,
            chain,
            batch: last + 1,
            synced_chain: chain,
            mark_soon: false,
            cut,
            failed: false,
        }
    }

    /// A reader of this journal.
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// The torn end that opening has erased.
    pub fn cut(&self) -> Option<&Cut> {
        self.cut.as_ref()
    }

    /// The number of the last entry, purged ones included; 0: there was none.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// The last entry that was purged: its number and term.
    pub fn purged(&self) -> Option<(u64, u64)> {
        self.slots.get(PURGED).and_then(|bytes| postcard::from_bytes(bytes).ok())
    }

    /// The value of a slot.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.slots.get(name)
    }

    /// The values of all slots.
    pub fn values(&self) -> &Values {
        self.slots.values()
    }

    /// Sets the value of a slot; durable on return.
    pub fn set(&mut self, name: &str, value: Vec<u8>) -> io::Result<()> {
        self.attempt(|journal| {
            journal.slots.set(name, value)?;
            journal.write_mark(None)
        })
    }

    /// Appends the next entry, with a payload that is given in parts: readable and durable after the next sync.
    pub fn append(&mut self, term: u64, payload: &[&[u8]]) -> io::Result<()> {
        self.attempt(|journal| {
            let length: usize = payload.iter().map(|part| part.len()).sum();
            if u32::try_from(length).is_err() {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("an entry of {length} bytes is too large"),
                ));
            }
            let needed = space(length);
            if !journal.has_room(needed) {
                journal.begin_segment(needed)?;
            }
            let about =
                About { number: journal.last + 1, term, batch: journal.batch, generation: journal.slots.generation };
            let id = journal.reader.shared.journal;
            journal.chain = EntryHeader::write(&mut journal.buffer, id, &about, journal.chain, payload);
            journal.buffered.push(needed);
            journal.last += 1;
            if journal.buffer.len() >= BUFFER { journal.write() } else { Ok(()) }
        })
    }

    /// Returns once every entry appended so far survives a crash.
    pub fn sync(&mut self) -> io::Result<()> {
        self.attempt(Journal::sync_entries)
    }

    /// Removes the entries behind `last`, which was not purged; durable on return.
    pub fn truncate_after(&mut self, last: u64) -> io::Result<()> {
        self.attempt(|journal| {
            journal.sync_entries()?;
            let purged = journal.purged().map_or(0, |(number, _)| number);
            if last < purged {
                return Err(io::Error::other(format!("entry {} was purged and can't be truncated", last + 1)));
            }
            if last >= journal.last {
                return Ok(());
            }
            // From here on, an opening finishes the truncation.
            let chain = journal.reader.chain_after(last)?;
            (journal.last, journal.chain) = (last, chain);
            (journal.batch, journal.synced_chain) = (last + 1, chain);
            journal.write_mark(Some(last))?;
            journal.mark.sync()?;
            let shared = journal.reader.shared.clone();
            let mut segments = shared.segments.write().unwrap_or_else(PoisonError::into_inner);
            while segments.len() > 1
                && let Some(segment) = segments.pop_if(|segment| segment.header.first > last)
            {
                shared.files.remove(&segment.name)?;
            }
            shared.note_layout(&segments);
            shared.files.sync()?;
            if let Some(segment) = segments.last() {
                let end = segment.extent().end;
                segment.erase_after(last, end)?;
            }
            drop(segments);
            // (In both places: the truncation must not begin again.)
            journal.mark.write_twice(journal.present_mark(None))
        })
    }

    /// Removes the segments of which no entry is behind `last`, the last entry to go; durable on return. An entry that
    /// is not there yet can be named, too: the journal then goes on behind it.
    pub fn purge(&mut self, last: u64, term: u64) -> io::Result<()> {
        self.attempt(|journal| {
            journal.sync_entries()?;
            if last > MOST {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("there is no entry {last}")));
            }
            if journal.purged().is_some_and(|(number, _)| number >= last) {
                return Ok(());
            }
            journal.slots.set(PURGED, postcard::to_stdvec(&(last, term)).expect("numbers are plain data"))?;
            let shared = journal.reader.shared.clone();
            let mut segments = shared.segments.write().unwrap_or_else(PoisonError::into_inner);
            let keep = if last >= journal.last {
                segments.len()
            } else {
                segments.iter().rposition(|segment| segment.header.first <= last + 1).unwrap_or(0)
            };
            for segment in segments.drain(..keep) {
                shared.files.remove(&segment.name)?;
            }
            shared.note_layout(&segments);
            shared.files.sync()?;
            if last >= journal.last {
                (journal.last, journal.chain) = (last, 0);
                (journal.batch, journal.synced_chain) = (last + 1, 0);
            }
            drop(segments);
            journal.write_mark(None)
        })
    }

    /// Whether a call has failed, and so every later one fails.
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    fn attempt(&mut self, work: impl FnOnce(&mut Journal) -> io::Result<()>) -> io::Result<()> {
        if self.failed {
            return Err(io::Error::other("the log failed before: this process can't write it any more"));
        }
        work(self).inspect_err(|_| self.failed = true)
    }

    fn current(&self) -> Option<Arc<Segment>> {
        self.reader.shared.segments.read().unwrap_or_else(PoisonError::into_inner).last().cloned()
    }

    fn has_room(&self, needed: u64) -> bool {
        let room = |segment: Arc<Segment>| segment.header.size - segment.extent().end;
        self.current().map(room).is_some_and(|room| room >= self.buffer.len() as u64 + needed)
    }

    /// Writes what was gathered.
    fn write(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let segment = self.current().expect("entries are gathered for a segment");
        let end = segment.extent().end;
        segment.file.write_at(end, &self.buffer)?;
        let mut extent = segment.extent();
        for space in self.buffered.drain(..) {
            let number = extent.last + 1;
            extent.push(number, space);
        }
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER);
        Ok(())
    }

    fn sync_entries(&mut self) -> io::Result<()> {
        self.write()?;
        if self.batch > self.last {
            return Ok(());
        }
        if let Some(segment) = self.current() {
            segment.file.sync()?;
        }
        (self.batch, self.synced_chain) = (self.last + 1, self.chain);
        self.write_mark(None)?;
        // (Were the file lost later, only the mark could tell.)
        if std::mem::take(&mut self.mark_soon) { self.mark.sync() } else { Ok(()) }
    }

    fn write_mark(&mut self, erase_after: Option<u64>) -> io::Result<()> {
        self.mark.write(self.present_mark(erase_after))
    }

    fn present_mark(&self, erase_after: Option<u64>) -> Mark {
        Mark { synced: self.batch - 1, chain: self.synced_chain, generation: self.slots.generation, erase_after }
    }

    /// Ends the segment, which gets its last sync, and begins one with room for `needed` bytes.
    fn begin_segment(&mut self, needed: u64) -> io::Result<()> {
        self.sync_entries()?;
        self.mark.sync()?;
        let shared = self.reader.shared.clone();
        let next = self.current().map_or(self.sizes.smallest, |segment| size_after(&segment, self.sizes));
        let least = (SEGMENT_HEADER + needed).next_multiple_of(SEGMENT_HEADER);
        let mut prepared = shared.prepared();
        let (file, size) = match prepared.file.take() {
            Some((file, size)) if size >= least => (file, size),
            _ => {
                let size = least.max(next);
                (shared.files.create(NEXT, size)?, size)
            }
        };
        let header = SegmentHeader { journal: shared.journal, first: self.last + 1, chain: self.chain, size };
        file.write_at(0, &header.write())?;
        file.sync()?;
        let name = name_of(header.first);
        let mut segments = shared.segments.write().unwrap_or_else(PoisonError::into_inner);
        // A segment without entries that is too small is replaced.
        segments.pop_if(|segment| segment.header.first == header.first);
        shared.files.rename(NEXT, &name)?;
        shared.files.sync()?;
        if let Some(full) = segments.last() {
            full.rest();
        }
        segments.push(Arc::new(Segment::new(name, file, header, Extent::empty(&header))));
        shared.note_layout(&segments);
        prepared.wanted = next_size(&segments, self.sizes);
        self.mark_soon = true;
        Ok(())
    }
}

/// The size of the segment after these.
fn next_size(segments: &[Arc<Segment>], sizes: Sizes) -> u64 {
    segments.last().map_or(sizes.smallest, |last| size_after(last, sizes))
}

fn size_after(segment: &Segment, sizes: Sizes) -> u64 {
    (segment.header.size * 2).min(sizes.largest)
}

impl Shared {
    fn prepared(&self) -> MutexGuard<'_, Prepared> {
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn layout(&self) -> MutexGuard<'_, Vec<(u64, u64)>> {
        self.layout.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The segments have changed.
    fn note_layout(&self, segments: &[Arc<Segment>]) {
        *self.layout() = layout_of(segments);
    }
}

fn layout_of(segments: &[Arc<Segment>]) -> Vec<(u64, u64)> {
    segments.iter().map(|segment| (segment.header.first, segment.header.size)).collect()
}

impl Reader {
    pub(super) fn over(files: Arc<dyn Files>, journal: u64, segments: Vec<Arc<Segment>>) -> Reader {
        let layout = Mutex::new(layout_of(&segments));
        let (segments, prepared) = (RwLock::new(segments), Mutex::default());
        Reader { shared: Arc::new(Shared { files, journal, segments, layout, prepared }) }
    }

    /// Entries from `first` to before `until`, as far as they are there, and as long as their payloads fit into
    /// `bytes`, but one at least.
    ///
    /// # Errors
    /// The disk's; and [`io::ErrorKind::InvalidData`] with a [`Damage`](super::Damage) if an entry is damaged.
    pub fn read(&self, first: u64, until: u64, mut bytes: usize) -> io::Result<Vec<Entry>> {
        let segments = self.shared.segments.read().unwrap_or_else(PoisonError::into_inner);
        let mut entries = Vec::new();
        let begin = segments.iter().rposition(|segment| segment.header.first <= first).unwrap_or(segments.len());
        for (at, segment) in segments.iter().enumerate().skip(begin) {
            let next = entries.last().map_or(first, |entry: &Entry| entry.number + 1);
            if next >= until {
                break;
            }
            let read = segment.read(next, until, bytes, &mut entries);
            if at + 1 < segments.len() {
                segment.rest();
            }
            match read? {
                Some(left) => bytes = left,
                None => break,
            }
        }
        Ok(entries)
    }

    /// The chain after entry `last`, which is there or was purged last.
    fn chain_after(&self, last: u64) -> io::Result<u32> {
        let segments = self.shared.segments.read().unwrap_or_else(PoisonError::into_inner);
        let segment = segments.iter().rev().find(|segment| segment.header.first <= last).or(segments.first());
        segment.map_or(Ok(0), |segment| segment.chain_after(last))
    }

    /// The number of the first entry that is there, or that will be there if there is none.
    pub fn first(&self) -> u64 {
        self.shared.layout().first().map_or(1, |(first, _)| *first)
    }

    /// Bytes of the files that hold entries.
    pub fn size(&self) -> u64 {
        self.shared.layout().iter().map(|(_, size)| size).sum()
    }

    /// How many entries (all those before a file's first) could be purged for the files to take no more than `bytes`,
    /// or as near to that as the last file allows.
    pub fn beyond(&self, bytes: u64) -> u64 {
        let layout = self.shared.layout();
        let mut sum = 0;
        let mut begin = layout.last().map_or(1, |(first, _)| *first);
        for (first, size) in layout.iter().rev() {
            sum += size;
            if sum > bytes {
                break;
            }
            begin = *first;
        }
        begin - 1
    }

    /// How many entries lie in files that have none behind entry `last`.
    pub fn whole(&self, last: u64) -> u64 {
        let layout = self.shared.layout();
        layout.iter().rev().find(|(first, _)| *first <= last + 1).map_or(0, |(first, _)| first - 1)
    }

    /// Whether [`Reader::prepare`] has something to do.
    pub fn wants_next(&self) -> bool {
        // (While it is being made, nothing more is wanted.)
        self.shared.prepared.try_lock().is_ok_and(|prepared| prepared.wanted > 0 && prepared.file.is_none())
    }

    /// Makes the segment that will be used next, so that no append waits for it.
    pub fn prepare(&self) -> io::Result<()> {
        let mut prepared = self.shared.prepared();
        if prepared.file.is_none() && prepared.wanted > 0 {
            let size = prepared.wanted;
            prepared.file = Some((self.shared.files.create(NEXT, size)?, size));
            prepared.wanted = 0;
        }
        Ok(())
    }
}
