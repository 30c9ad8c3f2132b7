//! The contract of the journal, on real and on simulated files; crashes and damage on simulated ones.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::segment::name_of;
use super::*;

const SIZES: Sizes = Sizes { smallest: 8 << 10, largest: 16 << 10 };

fn open(files: &Arc<dyn Files>) -> Journal {
    Journal::open(files.clone(), SIZES, 7).unwrap()
}

fn payload(number: u64, term: u64, size: usize) -> Vec<u8> {
    let mut bytes = format!("entry {number} of term {term} ").into_bytes();
    bytes.resize(size.max(bytes.len()), number as u8);
    bytes
}

fn append(journal: &mut Journal, term: u64, size: usize) -> u64 {
    let number = journal.last() + 1;
    let bytes = payload(number, term, size);
    let (head, tail) = bytes.split_at(5);
    journal.append(term, &[head, tail]).unwrap();
    number
}

fn fill(journal: &mut Journal, term: u64, count: u64, size: usize) {
    for _ in 0..count {
        append(journal, term, size);
    }
    journal.sync().unwrap();
}

fn numbers(reader: &Reader) -> Vec<u64> {
    reader.read(reader.first(), u64::MAX, usize::MAX).unwrap().into_iter().map(|entry| entry.number).collect()
}

fn damage(files: &Arc<dyn Files>) -> Damage {
    match Journal::open(files.clone(), SIZES, 7) {
        Err(Fault::Damage(damage)) => damage,
        Err(Fault::Disk(disk)) => panic!("{disk}"),
        Ok(journal) => panic!("it opens, and ends at {}", journal.last()),
    }
}

/// Runs a test on real files and on simulated ones.
fn on_both(test: impl Fn(Arc<dyn Files>)) {
    let folder = tempfile::tempdir().unwrap();
    test(Arc::new(Directory::open(&folder.path().join("log")).unwrap()));
    test(SimFiles::new().open());
}

#[test]
fn a_log_of_many_files_has_few_of_them_open() {
    let folder = tempfile::tempdir().unwrap();
    let files: Arc<dyn Files> = Arc::new(Directory::open(&folder.path().join("log")).unwrap());
    let opened = || {
        let targets =
            std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
        targets
            .filter(|target| target.starts_with(folder.path()) && target.extension().is_some_and(|e| e == "log"))
            .count()
    };
    let mut journal = open(&files);
    fill(&mut journal, 1, 400, 1000);
    let segments = files.list().unwrap().iter().filter(|name| name.ends_with(".log")).count();
    assert!(segments > 20, "{segments}");
    assert_eq!(opened(), 1);
    assert_eq!(numbers(&journal.reader()).len(), 400);
    assert_eq!(opened(), 1);
    drop(journal);
    let mut journal = open(&files);
    assert_eq!((numbers(&journal.reader()).len(), opened()), (400, 1));
    journal.truncate_after(20).unwrap();
    fill(&mut journal, 2, 3, 10);
    assert_eq!((numbers(&journal.reader()).len(), opened()), (23, 1));
}

#[test]
fn a_segment_that_rests_is_opened_by_its_name() {
    let disk = SimFiles::new();
    let mut journal = open(&disk.open());
    fill(&mut journal, 1, 100, 300);
    let reader = journal.reader();
    assert_eq!(numbers(&reader).len(), 100);
    // While no file can be opened, the log goes on, and what was written before can't be read.
    disk.set_faults(FileFaults { opens_after: Some(0), ..FileFaults::default() });
    assert!(reader.read(1, 2, 1).is_err());
    fill(&mut journal, 1, 3, 300);
    assert_eq!(reader.read(103, 104, usize::MAX).unwrap().len(), 1);
    disk.set_faults(FileFaults::default());
    assert_eq!(numbers(&reader).len(), 103);
    // A file that somebody has removed is missed.
    assert!(disk.lose(&name_of(1)));
    assert_eq!(reader.read(1, 2, 1).unwrap_err().kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn entries_are_read_again_over_segments_and_openings() {
    on_both(|files| {
        let mut journal = open(&files);
        assert_eq!((journal.last(), journal.purged(), journal.get("vote")), (0, None, None));
        fill(&mut journal, 3, 100, 300);
        let large = append(&mut journal, 4, 40_000);
        fill(&mut journal, 4, 3, 0);
        journal.set("vote", b"for 2".to_vec()).unwrap();
        for _ in 0..2 {
            assert_eq!(journal.last(), 104);
            assert_eq!(journal.get("vote"), Some(&b"for 2"[..]));
            let reader = journal.reader();
            assert_eq!(numbers(&reader), (1..=104).collect::<Vec<_>>());
            let entries = reader.read(large - 1, large + 2, usize::MAX).unwrap();
            let expected: Vec<Vec<u8>> =
                [(large - 1, 3, 300), (large, 4, 40_000), (large + 1, 4, 0)].map(|(n, t, s)| payload(n, t, s)).into();
            assert_eq!(entries.iter().map(|entry| entry.payload.to_vec()).collect::<Vec<_>>(), expected);
            assert_eq!(entries.iter().map(|entry| entry.term).collect::<Vec<_>>(), [3, 4, 4]);
            // At most so many bytes, but one entry at least; nothing outside of what is there.
            assert_eq!(reader.read(5, 50, 900).unwrap().len(), 3);
            assert_eq!(reader.read(large, 200, 1).unwrap().len(), 1);
            assert!(reader.read(105, 200, 100).unwrap().is_empty() && reader.read(9, 9, 100).unwrap().is_empty());
            drop(journal);
            journal = open(&files);
            assert_eq!(journal.cut(), None);
        }
    });
}

#[test]
fn an_end_is_truncated_and_written_anew() {
    on_both(|files| {
        let mut journal = open(&files);
        fill(&mut journal, 1, 100, 300);
        // In the last segment, in an earlier one, at a segment's first entry, nothing, everything.
        let second = journal.reader().read(1, 100, usize::MAX).unwrap().len() as u64;
        assert!(second > 0);
        for last in [95, 40, 41, 26, 25, 24, 0] {
            journal.truncate_after(last).unwrap();
            assert_eq!(numbers(&journal.reader()), (1..=last.min(journal.last())).collect::<Vec<_>>());
            drop(journal);
            journal = open(&files);
            assert_eq!(journal.cut(), None);
            assert_eq!(numbers(&journal.reader()), (1..=journal.last()).collect::<Vec<_>>());
            let count = 100 - journal.last();
            fill(&mut journal, 2, count, 200);
            assert_eq!(numbers(&journal.reader()), (1..=100).collect::<Vec<_>>());
            let entry = journal.reader().read(last + 1, last + 2, 1).unwrap().remove(0);
            assert_eq!((entry.term, &entry.payload[..]), (2, &payload(last + 1, 2, 200)[..]));
        }
    });
}

#[test]
fn the_front_is_purged_by_whole_segments() {
    on_both(|files| {
        let mut journal = open(&files);
        fill(&mut journal, 1, 200, 300);
        let before = journal.reader().size();
        journal.purge(100, 1).unwrap();
        assert!(journal.reader().size() < before);
        let left = numbers(&journal.reader());
        assert!(left[0] > 1 && left[0] <= 101, "{left:?}");
        assert_eq!(journal.purged(), Some((100, 1)));
        assert!(journal.truncate_after(99).is_err() && journal.has_failed());
        drop(journal);
        let mut journal = open(&files);
        assert_eq!(numbers(&journal.reader()), left);
        // Behind the end: everything goes, and the journal goes on there.
        journal.purge(1_000, 5).unwrap();
        assert!(numbers(&journal.reader()).is_empty());
        drop(journal);
        let mut journal = open(&files);
        assert_eq!((journal.last(), journal.purged()), (1_000, Some((1_000, 5))));
        fill(&mut journal, 6, 50, 300);
        drop(journal);
        assert_eq!(numbers(&open(&files).reader()), (1_001..=1_050).collect::<Vec<_>>());
    });
}

#[test]
fn a_prepared_segment_is_used() {
    on_both(|files| {
        let mut journal = open(&files);
        let reader = journal.reader();
        for _ in 0..10 {
            if reader.wants_next() {
                reader.prepare().unwrap();
            }
            assert!(files.list().unwrap().contains(&"next".to_owned()) && !reader.wants_next());
            let segments = reader.size();
            while reader.size() == segments {
                append(&mut journal, 1, 500);
            }
            assert!(reader.wants_next());
        }
        journal.sync().unwrap();
        let last = journal.last();
        reader.prepare().unwrap();
        drop(journal);
        assert_eq!(numbers(&open(&files).reader()), (1..=last).collect::<Vec<_>>());
    });
}

#[test]
fn what_was_synced_and_is_damaged_is_named() {
    let disk = SimFiles::new();
    let mut journal = open(&disk.open());
    fill(&mut journal, 1, 60, 300);
    // Every entry a batch of its own, except for the last three.
    for _ in 0..40 {
        fill(&mut journal, 1, 1, 300);
    }
    fill(&mut journal, 1, 3, 300);
    drop(journal);
    let names: Vec<String> = disk.names().into_iter().map(|(name, _)| name).filter(|n| n.ends_with(".log")).collect();
    assert!(names.len() > 2, "{names:?}");
    let mut seen = BTreeMap::new();
    // Every byte of an entry, and then some of every file: whatever holds an entry is missed.
    for name in &names {
        let files = disk.copy().open();
        let whole = open(&files);
        let first: u64 = name[..20].parse().unwrap();
        let held = whole.reader().read(first, u64::MAX, usize::MAX).unwrap();
        drop(whole);
        let mut offset = 4096;
        for entry in held
            .iter()
            .take_while(|entry| names.iter().all(|n| *n == *name || *n <= *name || name_of(entry.number) < *n))
        {
            let space = super::entry::space(entry.payload.len());
            // (The last byte fills the entry up.)
            assert!(56 + (entry.payload.len() as u64) < space);
            for byte in [0, 5, 9, 13, 20, 30, 36, 43, 49, 53, 60, 56 + entry.payload.len() as u64 - 1, space - 1] {
                let broken = disk.copy();
                assert!(broken.flip(name, (offset + byte) * 8 + 3));
                let before = broken.copy();
                let found = damage(&broken.open());
                assert_eq!(
                    (&found.file, found.offset, found.entry),
                    (name, Some(offset), Some(entry.number)),
                    "{found}"
                );
                assert_eq!(before.names(), broken.names(), "nothing is changed");
                *seen.entry(found.why).or_insert(0) += 1;
            }
            offset += space;
        }
    }
    assert!(seen.len() >= 3, "{seen:?}");
    // A header, a hole of zeros, a cut, a missing file, at each place.
    for name in &names {
        for broken in 0..5 {
            let copy = disk.copy();
            let size = copy.names().iter().find(|(n, _)| n == name).unwrap().1;
            match broken {
                0 => assert!(copy.flip(name, 8 * 30)),
                1 => assert!(copy.overwrite(name, 4096, &[0; 512])),
                2 => assert!(copy.cut(name, size - 512)),
                3 => assert!(copy.cut(name, 100)),
                _ => assert!(copy.lose(name)),
            }
            let found = damage(&copy.open());
            // A file that is gone is noticed where it should begin: at the end of the one before it.
            let place = if broken == 4 && *name != names[0] {
                &names[names.iter().position(|n| n == name).unwrap() - 1]
            } else {
                name
            };
            assert_eq!(&found.file, place, "{broken}: {found}");
        }
    }
}

#[test]
fn slots_and_marks_that_are_damaged_older_or_gone_are_noticed() {
    let disk = SimFiles::new();
    let mut journal = open(&disk.open());
    journal.set("vote", b"for 1".to_vec()).unwrap();
    let older = disk.copy();
    journal.set("vote", b"for 2".to_vec()).unwrap();
    fill(&mut journal, 1, 10, 100);
    drop(journal);
    // One of two places: the other has the newest.
    for place in [0, 128 << 10] {
        let copy = disk.copy();
        assert!(copy.flip("slots", (place + 30) * 8));
        assert_eq!(open(&copy.open()).get("vote"), Some(&b"for 2"[..]));
        assert_eq!(open(&copy.open()).get("vote"), Some(&b"for 2"[..]), "and is repaired");
    }
    let both = disk.copy();
    assert!(both.flip("slots", 8 * 30) && both.flip("slots", ((128 << 10) + 30) * 8));
    assert!(damage(&both.open()).to_string().contains("the vote is lost"));
    for lost in ["slots", "synced"] {
        let copy = disk.copy();
        assert!(copy.lose(lost));
        let found = damage(&copy.open());
        assert_eq!((found.file.as_str(), found.why.starts_with("it is gone")), (lost, true));
    }
    let marks = disk.copy();
    assert!(marks.flip("synced", 8 * 20));
    open(&marks.open());
    let marks = disk.copy();
    assert!(marks.flip("synced", 8 * 20) && marks.flip("synced", (4096 + 20) * 8));
    assert_eq!(damage(&marks.open()).file, "synced");
    // An older file of slots beside the newer log.
    let mixed = disk.copy();
    let bytes = {
        let file = older.open().open("slots").unwrap();
        let mut bytes = vec![0; file.size().unwrap() as usize];
        file.read_at(0, &mut bytes).unwrap();
        bytes
    };
    assert!(mixed.overwrite("slots", 0, &bytes));
    assert!(damage(&mixed.open()).to_string().contains("older than the log"));
    // Another journal's.
    let other = SimFiles::new();
    fill(&mut Journal::open(other.open(), SIZES, 8).unwrap(), 1, 10, 100);
    assert!(other.lose("synced"));
    assert_eq!(damage(&other.open()).file, "synced");
}

#[test]
fn after_a_fault_every_call_fails() {
    for fault in 0..2 {
        let disk = SimFiles::new();
        let mut journal = open(&disk.open());
        fill(&mut journal, 1, 3, 100);
        disk.set_faults(match fault {
            0 => FileFaults { writes_after: Some(0), ..FileFaults::default() },
            _ => FileFaults { syncs_after: Some(0), ..FileFaults::default() },
        });
        append(&mut journal, 1, 100);
        assert!(journal.sync().is_err());
        disk.set_faults(FileFaults::default());
        assert!(journal.sync().is_err() && journal.append(1, &[b"x"]).is_err() && journal.set("a", vec![]).is_err());
        drop(journal);
        disk.crash(fault);
        assert!(open(&disk.open()).last() >= 3);
    }
}

/// A journal in words: what must be there after a crash, and what may.
#[derive(Clone, Default)]
struct Model {
    /// Term and size of each entry, by number; purged ones stay.
    entries: Vec<(u64, usize)>,
    synced: usize,
    purged: u64,
    slots: BTreeMap<String, Vec<u8>>,
}

impl Model {
    /// Appends some entries, and syncs them as a rule.
    fn append(&mut self, journal: &mut Journal, term: u64, draw: &mut impl FnMut(u64) -> u64) -> std::io::Result<()> {
        for _ in 0..=draw(6) {
            let size = if draw(20) == 0 { 6_000 } else { 30 + draw(800) as usize };
            self.entries.push((term, size));
            let number = self.entries.len() as u64;
            journal.append(term, &[&payload(number, term, size)])?;
        }
        if draw(3) > 0 {
            journal.sync()?;
            self.synced = self.entries.len();
        }
        Ok(())
    }

    /// Purges up to some entry.
    fn purge(&mut self, journal: &mut Journal, draw: &mut impl FnMut(u64) -> u64) -> std::io::Result<()> {
        let last = self.purged + draw(self.entries.len() as u64 - self.purged + 1);
        if last > 0 {
            journal.purge(last, self.entries[last as usize - 1].0)?;
            self.purged = self.purged.max(last);
            self.synced = self.entries.len();
        }
        Ok(())
    }
}

/// Random histories with crashes at every call: what was synced is there, what is there was appended, in order.
#[test]
fn random_histories_with_power_cuts() {
    let mut chance = 1u64;
    let mut draw = move |below: u64| {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (chance >> 33) % below
    };
    let (mut cuts, mut torn_truncations) = (0, 0);
    for _ in 0..400 {
        let disk = SimFiles::new();
        let mut model = Model::default();
        let mut term = 1;
        for _ in 0..4 {
            let mut journal = open_at_last(&disk, &mut draw);
            cuts += u64::from(journal.cut().is_some());
            check(&journal, &mut model);
            // The call at which the power goes.
            let mut calls = draw(60);
            disk.set_faults(FileFaults::default());
            'host: loop {
                if calls == 0 {
                    let faults = match draw(5) {
                        0 | 1 => FileFaults { writes_after: Some(draw(6)), ..FileFaults::default() },
                        2 | 3 => FileFaults { syncs_after: Some(draw(4)), ..FileFaults::default() },
                        _ => FileFaults { opens_after: Some(draw(2)), ..FileFaults::default() },
                    };
                    disk.set_faults(faults);
                }
                calls = calls.saturating_sub(1);
                match draw(20) {
                    0..12 => {
                        if model.append(&mut journal, term, &mut draw).is_err() {
                            break 'host;
                        }
                    }
                    12..14 => {
                        let last = model.purged + draw(model.entries.len() as u64 - model.purged + 1);
                        term += 1;
                        // Until it returns, both may be.
                        let longer = model.clone();
                        model.synced = model.synced.min(last as usize);
                        if journal.truncate_after(last).is_err() {
                            torn_truncations += 1;
                            model.entries = longer.entries;
                            break 'host;
                        }
                        model.entries.truncate(last as usize);
                        model.synced = last as usize;
                    }
                    14..16 => {
                        if model.purge(&mut journal, &mut draw).is_err() {
                            break 'host;
                        }
                    }
                    16..18 => {
                        let value = draw(1 << 20).to_be_bytes().to_vec();
                        if journal.set("vote", value.clone()).is_err() {
                            // Either the old or the new value.
                            model.slots.insert("perhaps".into(), value);
                            break 'host;
                        }
                        model.slots.insert("vote".into(), value);
                    }
                    _ => {
                        let reader = journal.reader();
                        if reader.wants_next() && reader.prepare().is_err() {
                            break 'host;
                        }
                    }
                }
            }
            drop(journal);
            end_host(&disk, &mut draw);
        }
    }
    assert!(cuts > 50 && torn_truncations > 20, "{cuts} torn ends, {torn_truncations} truncations cut off");
}

/// The power goes, or only the process ends: then all that was written can still be read.
fn end_host(disk: &SimFiles, draw: &mut impl FnMut(u64) -> u64) {
    disk.set_faults(FileFaults::default());
    if draw(3) > 0 {
        disk.crash(draw(1 << 30));
    }
}

/// Opens the journal; now and then the host ends meanwhile, once or several times.
fn open_at_last(disk: &SimFiles, draw: &mut impl FnMut(u64) -> u64) -> Journal {
    while draw(3) == 0 {
        let after = Some(draw(12));
        disk.set_faults(match draw(3) {
            0 => FileFaults { writes_after: after, ..FileFaults::default() },
            1 => FileFaults { opens_after: after, ..FileFaults::default() },
            _ => FileFaults { syncs_after: after, ..FileFaults::default() },
        });
        match Journal::open(disk.open(), SIZES, 7) {
            Err(Fault::Damage(damage)) => panic!("{damage}"),
            Err(Fault::Disk(_)) | Ok(_) => end_host(disk, draw),
        }
    }
    open(&disk.open())
}

/// Compares a journal that was just opened with the model, which then knows what of the unsynced has remained.
fn check(journal: &Journal, model: &mut Model) {
    let last = journal.last() as usize;
    assert!(last >= model.synced, "entry {} was synced, and the journal ends at {last}", model.synced);
    assert!(last <= model.entries.len(), "the journal ends at {last}, and {} were appended", model.entries.len());
    let purged = journal.purged().map_or(0, |(number, _)| number);
    assert!(purged >= model.purged);
    let entries = journal.reader().read(purged + 1, u64::MAX, usize::MAX).unwrap();
    assert_eq!(entries.len(), last - purged as usize);
    for entry in entries {
        let (term, size) = model.entries[entry.number as usize - 1];
        assert_eq!(entry.term, term);
        assert_eq!(entry.payload, payload(entry.number, term, size));
    }
    let perhaps = model.slots.remove("perhaps");
    let vote = journal.get("vote").map(<[u8]>::to_vec);
    assert!(vote == model.slots.get("vote").cloned() || vote == perhaps);
    model.slots.extend(vote.map(|vote| ("vote".to_owned(), vote)));
    model.entries.truncate(last);
    (model.synced, model.purged) = (last, purged);
}
