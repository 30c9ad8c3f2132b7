//! Opening: first everything is read and judged, and only then anything is changed.

use std::io;
use std::sync::Arc;

use super::damage::{Damage, Fault};
use super::entry::MOST;
use super::files::Files;
use super::mark::{self, Mark, MarkFile};
use super::segment::{Segment, first_of};
use super::slots::{self, Slots};
use crate::config::limits;

/// The segment that will be used next.
pub const NEXT: &str = "next";
/// The slot that says which entries were purged: the last one's number and term.
pub const PURGED: &str = "purged";

/// The sizes of segments: the first has `smallest` bytes, each later one twice as many as the one before it, up to
/// `largest`. (A segment for a larger entry is larger.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of the first segment.
    pub smallest: u64,
    /// Bytes of a segment, at most.
    pub largest: u64,
}

impl Default for Sizes {
    /// Those of production.
    fn default() -> Sizes {
        Sizes { smallest: limits::SEGMENT_SMALLEST, largest: limits::SEGMENT_LARGEST }
    }
}

/// The end of a journal that was written but never synced, and was torn by a crash: it is erased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The file.
    pub file: String,
    /// The byte from which on it was erased.
    pub offset: u64,
    /// How many bytes.
    pub bytes: u64,
    /// The number of the entry that was torn.
    pub entry: u64,
}

/// What was found in a folder.
pub struct Survey {
    pub mark: MarkFile,
    pub slots: Slots,
    /// The last entry that was purged: its number and term.
    pub purged: Option<(u64, u64)>,
    /// The segments that count, all of them walked.
    pub segments: Vec<Arc<Segment>>,
    /// Number and term of the last entry that is there.
    pub last: Option<(u64, u64)>,
    /// The chain after it.
    pub chain: u32,
    /// Whether the last segment is to be erased behind its last entry.
    pub cut: Option<Cut>,
    /// The mark as it was found.
    pub found: Mark,
    /// Whether a truncation has to be finished.
    pub erase_after: Option<u64>,
    /// Files that hold nothing any more.
    pub stale: Vec<String>,
    /// What is wrong; the segments are those before it.
    pub damage: Option<Damage>,
}

/// Reads and judges all of a journal; `None` if there is none yet.
pub fn survey(files: &dyn Files) -> Result<Option<Survey>, Fault> {
    let names = files.list()?;
    let mut firsts: Vec<u64> = names.iter().filter_map(|name| first_of(name)).collect();
    firsts.sort_unstable();
    if !names.iter().any(|name| name == mark::NAME) {
        // A journal is there once it has its mark.
        if !firsts.is_empty() || slots::hold_values(files)? {
            return Err(Damage::of(mark::NAME, "it is gone").into());
        }
        return Ok(None);
    }
    let (mark_file, mark) = MarkFile::open(files)?;
    let slots = match Slots::open(files, mark_file.journal) {
        Err(Fault::Disk(gone)) if gone.kind() == io::ErrorKind::NotFound => {
            return Err(Damage::of(slots::NAME, "it is gone: the vote is lost").into());
        }
        opened => opened?,
    };
    let purged = slots.get(PURGED).map(read_purged).transpose()?;
    let mut survey = Survey {
        mark: mark_file,
        slots,
        purged,
        segments: Vec::new(),
        last: purged,
        chain: 0,
        cut: None,
        found: mark,
        erase_after: mark.erase_after,
        stale: names.iter().filter(|name| *name == NEXT || *name == mark::UNFINISHED).cloned().collect(),
        damage: None,
    };
    match walk_all(files, &mut survey, &firsts, mark) {
        Ok(()) => {}
        Err(Fault::Damage(damage)) => survey.damage = Some(damage),
        Err(disk) => return Err(disk),
    }
    Ok(Some(survey))
}

fn read_purged(bytes: &[u8]) -> Result<(u64, u64), Fault> {
    let found: Result<(u64, u64), _> = postcard::from_bytes(bytes);
    found
        .ok()
        .filter(|(number, _)| *number <= MOST)
        .ok_or_else(|| Damage::of(slots::NAME, "its mark of what was purged can't be read").into())
}

/// Walks through all segments, and adds to the survey what is there; stops at damage.
fn walk_all(files: &dyn Files, survey: &mut Survey, firsts: &[u64], mark: Mark) -> Result<(), Fault> {
    let purged = survey.purged.map_or(0, |(number, _)| number);
    let name = |first: &u64| super::segment::name_of(*first);
    // Of a purge, or a truncation, that was cut off.
    let begin = firsts.iter().rposition(|first| *first <= purged + 1).unwrap_or(0);
    let keep = match survey.erase_after {
        Some(last) => firsts.iter().skip(begin + 1).position(|first| *first > last).map(|at| begin + 1 + at),
        None => None,
    };
    let keep = keep.unwrap_or(firsts.len());
    let stale = firsts[..begin].iter().chain(&firsts[keep..]);
    survey.stale.extend(stale.map(name));
    let firsts = &firsts[begin..keep];
    let mut next = purged + 1;
    if let Some(first) = firsts.first() {
        if *first > next {
            let why = format!("entries {next} to {} are gone: the files that held them are not there", first - 1);
            return Err(Damage { file: name(&next), offset: None, entry: Some(next), why }.into());
        }
        next = *first;
    }
    let mut generation = mark.generation;
    for (at, first) in firsts.iter().enumerate() {
        let segment = Segment::open(files, &name(first), survey.mark.journal)?;
        if at > 0 && segment.header.chain != survey.chain {
            return Err(Damage::at(&segment.name, 0, next, "it does not follow the file before it").into());
        }
        let walk = segment.walk(survey.erase_after.unwrap_or(u64::MAX), mark.synced)?;
        if walk.probed.is_some_and(|chain| chain != mark.chain) {
            let why = "it is not the entry that was synced: the file was exchanged";
            return Err(Damage { file: segment.name, offset: None, entry: Some(mark.synced), why: why.into() }.into());
        }
        next = walk.extent.last + 1;
        generation = generation.max(walk.generation);
        if at == 0 || walk.term.is_some() {
            survey.chain = walk.chain;
        }
        if let Some(term) = walk.term {
            survey.last = Some((walk.extent.last, term));
        }
        let end = walk.extent.end;
        *segment.extent() = walk.extent;
        survey.segments.push(Arc::new(segment));
        let segment = &survey.segments[at];
        if let Some(following) = firsts.get(at + 1) {
            // (That the chain of the next one fits is seen there.)
            if *following != next {
                let why = format!("{}; the next file begins with entry {following}", walk.stop);
                return Err(Damage::at(&segment.name, end, next, why).into());
            }
            segment.rest();
        } else if survey.erase_after.is_none_or(|last| last >= next) {
            let (proven, used) = segment.evidence(end)?;
            let synced = proven.max(mark.synced).max(survey.erase_after.unwrap_or(0));
            // (Of entries that a purge has reached, some files may be gone already.)
            if next <= synced && purged < synced {
                let why = format!("{}; entries up to {synced} had been synced", walk.stop);
                return Err(Damage::at(&segment.name, end, next, why).into());
            }
            if used > end {
                let file = segment.name.clone();
                survey.cut = Some(Cut { file, offset: end, bytes: used - end, entry: next });
            }
        }
    }
    if firsts.is_empty() && mark.synced > purged {
        let why = format!("entries {next} to {} are gone: the files that held them are not there", mark.synced);
        return Err(Damage { file: name(&next), offset: None, entry: Some(next), why }.into());
    }
    if generation > survey.slots.generation {
        let why = format!(
            "it is older than the log: it was written {} times, and the log after {generation} times",
            survey.slots.generation
        );
        return Err(Damage::of(slots::NAME, why).into());
    }
    if !survey.segments.is_empty() && next <= purged {
        // Everything that is there was purged; the journal goes on behind it.
        survey.stale.extend(survey.segments.drain(..).map(|segment| segment.name.clone()));
        (survey.last, survey.chain, survey.cut) = (survey.purged, 0, None);
    }
    Ok(())
}

/// Brings the folder to what the survey found: finishes what was cut off, and removes what does not count.
pub fn repair(files: &dyn Files, survey: &mut Survey) -> io::Result<()> {
    // If only the process had ended, what was read may be in memory alone, perhaps although a sync of it has failed.
    // The reasons for what is done below become durable before anything is done: the mark of a truncation, that of a
    // purge, and which files there are.
    survey.mark.write_twice(survey.found)?;
    survey.slots.repair()?;
    files.sync()?;
    // What is stale goes first, from the last file to the first: a truncation goes on from its end.
    survey.stale.sort();
    for name in survey.stale.iter().rev() {
        files.remove(name)?;
    }
    if !survey.stale.is_empty() {
        files.sync()?;
    }
    if let Some(segment) = survey.segments.last() {
        let (end, last) = segment.reach();
        // After a truncation in any case: zeros whose sync failed would be read, and not be on the disk.
        let used = if survey.erase_after.is_some() { segment.header.size } else { segment.evidence(end)?.1 };
        if used > end {
            segment.erase_after(last, used)?;
        }
        segment.write_again(survey.found.synced + 1)?;
    }
    // What was read may not be synced, if only the process had ended.
    for (at, segment) in survey.segments.iter().enumerate() {
        segment.file.sync()?;
        if at + 1 < survey.segments.len() {
            segment.rest();
        }
    }
    let synced = survey.last.map_or(0, |(number, _)| number);
    // (In both places: a truncation that was finished must not begin again.)
    let mark = Mark { synced, chain: survey.chain, generation: survey.slots.generation, erase_after: None };
    survey.mark.write_twice(mark)
}
