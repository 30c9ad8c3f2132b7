use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use tokio::io::{DuplexStream, duplex, split};
use tokio::task::JoinHandle;

use super::super::log::LogStore;
use super::*;
use crate::engine::{Batch, Engine, Shelf, SimDisk};
use crate::journal::{SimFiles, Sizes};
use crate::net::{FrameReader, FrameWriter};
use crate::storage::{Store, TABLES};

/// Bytes of the largest table.
const BULK: usize = 3 << 20;
const RATE: u64 = 1 << 40;

/// A node that others fetch from.
struct Source {
    env: Env,
    store: Store,
    log: LogStore,
    checkpoints: Arc<Checkpoints>,
}

impl Source {
    /// Has `entries` entries applied, and some megabytes of content.
    async fn with(entries: u64) -> Source {
        let (env, disk) = (Env::system(), SimDisk::new());
        let engine: Arc<dyn Engine> = Arc::new(disk.open(TABLES).unwrap());
        let mut batch = Batch::new();
        batch.put(TABLES[5], "bulk", vec![7; BULK]);
        engine.write(batch).unwrap();
        let store = Store::open(engine).unwrap();
        let log = LogStore::open(SimFiles::new().open(), Sizes::default(), env.clone()).await.unwrap();
        let shelf = Arc::new(disk.shelf(TABLES));
        let checkpoints = Arc::new(Checkpoints::new(env.clone(), store.clone(), log.clone(), shelf, RATE));
        let source = Source { env, store, log, checkpoints };
        source.apply(entries);
        source
    }

    fn apply(&self, entries: u64) {
        for index in self.store.applied().index + 1..=entries {
            self.store.pass(Position { index, term: 3 }).unwrap();
        }
    }

    /// A connection to the source, and the task that serves it.
    fn connect(&self) -> (Connection, JoinHandle<io::Result<()>>) {
        let (near, far) = duplex(1 << 16);
        let (env, checkpoints) = (self.env.clone(), self.checkpoints.clone());
        (
            connection(near),
            tokio::spawn(async move { serve(&env, &checkpoints, connection(far), Incarnation(9), || None).await }),
        )
    }
}

fn connection(end: DuplexStream) -> Connection {
    let (reader, writer) = split(end);
    Connection { reader: FrameReader::new(Box::new(reader), 8 << 20), writer: FrameWriter::new(Box::new(writer)) }
}

/// Fetches to `disk`: the offer, how many bytes were there at the beginning, and whether there is room for more.
async fn fetch_to(disk: &SimDisk, connection: Connection, entries: u64) -> io::Result<(Offer, u64)> {
    let (first, is_first) = (AtomicU64::new(0), AtomicBool::new(true));
    let told = |done: u64| {
        if is_first.swap(false, SeqCst) {
            first.store(done, SeqCst);
        }
    };
    let incoming = disk.shelf(TABLES).incoming().unwrap();
    let offered = Offered::ask(&Env::system(), &incoming, 1, connection, entries).await?;
    let offer = offered.fetch(|_| Ok(()), told).await?;
    Ok((offer, first.load(SeqCst)))
}

/// The store of `disk` as it is at the next start.
fn opened(disk: &SimDisk) -> Store {
    Store::open(Arc::new(disk.open(TABLES).unwrap())).unwrap()
}

#[tokio::test]
async fn what_was_fetched_is_the_database_after_the_next_start() {
    let (source, disk) = (Source::with(20).await, SimDisk::new());
    opened(&disk).pass(Position { index: 1, term: 1 }).unwrap();
    let (offer, before) = fetch_to(&disk, source.connect().0, 15).await.unwrap();
    assert_eq!((offer.place, before), (Place { term: 3, index: 19 }, 0));
    // Whole, and not taken: a crash leaves the old one.
    disk.crash(1);
    assert_eq!(opened(&disk).applied().index, 1);
    disk.shelf(TABLES).incoming().unwrap().take().unwrap();
    disk.crash(0);
    assert_eq!(opened(&disk).applied(), Position { index: 20, term: 3 });
    disk.crash(0);
    assert_eq!(opened(&disk).applied(), Position { index: 20, term: 3 });
    assert_eq!(disk.open(TABLES).unwrap().get(TABLES[5], b"bulk").unwrap(), Some(vec![7; BULK]));
}

#[tokio::test]
async fn a_fetch_goes_on_with_the_files_that_are_whole() {
    let (source, disk) = (Source::with(20).await, SimDisk::new());
    // Cut off in the middle of the largest file.
    let (near, middle) = duplex(1 << 16);
    let (mut asks, mut real) = (connection(middle), source.connect());
    let cutting = tokio::spawn(async move {
        let mut bytes = 0;
        while bytes < BULK / 2 {
            let Ok(ask) = asks.receive::<FetchAsk>().await else { return };
            real.0.send(&ask).await.unwrap();
            let answer = real.0.receive::<FetchAnswer>().await.unwrap();
            if let FetchAnswer::Part { bytes: part, .. } = &answer {
                bytes += part.len();
            }
            asks.send(&answer).await.unwrap();
        }
    });
    fetch_to(&disk, connection(near), 15).await.unwrap_err();
    cutting.await.unwrap();
    disk.crash(1);
    let (offer, before) = fetch_to(&disk, source.connect().0, 15).await.unwrap();
    assert!(before > 0 && before < offer.bytes(), "{before} of {}", offer.bytes());

    // Once more with all of it there: nothing is left to ask for.
    let (again, before) = fetch_to(&disk, source.connect().0, 15).await.unwrap();
    assert_eq!((&again, before), (&offer, offer.bytes()));

    // Too old for a leader that has purged more since: begun anew.
    source.apply(30);
    let (newer, before) = fetch_to(&disk, source.connect().0, 21).await.unwrap();
    assert_eq!((newer.place.index, before), (29, 0));
    assert_ne!(newer.name, offer.name);
}

#[tokio::test]
async fn a_checkpoint_that_is_gone_is_replaced_by_another_one() {
    let (source, disk) = (Source::with(20).await, SimDisk::new());
    let (first, _) = fetch_to(&disk, source.connect().0, 15).await.unwrap();
    assert_eq!(source.checkpoints.floor(), Some(20));
    let (mut open, _serving) = source.connect();
    open.send(&FetchAsk::Open { again: Some(first.name.clone()), entries: 15 }).await.unwrap();
    assert_eq!(open.receive::<FetchAnswer>().await.unwrap(), FetchAnswer::Opened(first.clone()));
    source.checkpoints.sweep(true);
    assert_eq!(source.checkpoints.floor(), None, "the log may be shortened");
    open.send(&FetchAsk::Read { file: 0, offset: 0, length: 1 }).await.unwrap();
    let answer = open.receive::<FetchAnswer>().await.unwrap();
    assert!(matches!(&answer, FetchAnswer::Failed(why) if why.contains("gone")), "{answer:?}");

    source.apply(25);
    let (second, before) = fetch_to(&disk, source.connect().0, 15).await.unwrap();
    assert_eq!((second.place.index, before), (24, 0));
}

#[tokio::test]
async fn what_comes_damaged_or_is_not_what_was_asked_for_is_refused() {
    let source = Source::with(20).await;
    // A source that changes what the real one says.
    let through = |change: fn(&mut FetchAnswer)| {
        let (near, middle) = duplex(1 << 16);
        let (mut asks, mut real) = (connection(middle), source.connect());
        tokio::spawn(async move {
            while let Ok(ask) = asks.receive::<FetchAsk>().await {
                real.0.send(&ask).await.unwrap();
                let mut answer = real.0.receive::<FetchAnswer>().await.unwrap();
                change(&mut answer);
                if asks.send(&answer).await.is_err() {
                    return;
                }
            }
        });
        connection(near)
    };
    let refused = async |change: fn(&mut FetchAnswer)| {
        let disk = SimDisk::new();
        let why = fetch_to(&disk, through(change), 15).await.unwrap_err().to_string();
        // (Nothing but the old database, ever.)
        assert_eq!(opened(&disk).applied(), Position::default());
        why
    };
    let flipped: fn(&mut FetchAnswer) = |answer| {
        if let FetchAnswer::Part { bytes, .. } = answer
            && let Some(byte) = bytes.last_mut()
        {
            *byte ^= 1;
        }
    };
    assert!(refused(flipped).await.contains("came damaged"));
    let cut: fn(&mut FetchAnswer) = |answer| {
        if let FetchAnswer::Part { bytes, checksum } = answer {
            bytes.pop();
            *checksum = crc32c::crc32c(bytes);
        }
    };
    assert!(refused(cut).await.contains("came damaged"));
    let older: fn(&mut FetchAnswer) = |answer| {
        if let FetchAnswer::Opened(offer) = answer {
            offer.place.index = 3;
        }
    };
    assert!(refused(older).await.contains("offers 4 entries, and 15 are needed"));
    let other: fn(&mut FetchAnswer) = |answer| {
        if let FetchAnswer::Opened(offer) = answer {
            offer.place.index = 30;
        }
    };
    assert!(refused(other).await.contains("was offered as"));
}

#[tokio::test]
async fn a_member_keeps_its_log_for_who_fetches_from_anywhere() {
    let primary = Source::with(20).await;
    let (mut connection, serving) = primary.connect();
    let fetched = Fetched { entries: 15, done: 1, total: 9 };
    assert!(follow(&primary.env, &mut connection, fetched).await.unwrap());
    let followers = || primary.checkpoints.followers(|_| false);
    assert_eq!(followers(), [(Incarnation(9), 15)]);
    assert_eq!(primary.checkpoints.progress_of(Incarnation(9)).unwrap().0, fetched);
    // (The same as of a checkpoint of its own: also when the connection has ended, until it has caught up.)
    drop(connection);
    serving.await.unwrap().unwrap();
    assert_eq!(followers(), [(Incarnation(9), 15)]);
    assert_eq!(primary.checkpoints.progress_of(Incarnation(9)), None);
    assert_eq!(primary.checkpoints.followers(|_| true), []);

    // A log that begins later.
    let (mut connection, _serving) = primary.connect();
    primary.log.begin_after(Place { term: 3, index: 15 }).await.unwrap();
    assert!(!follow(&primary.env, &mut connection, fetched).await.unwrap());
    assert!(follow(&primary.env, &mut connection, Fetched { entries: 16, ..fetched }).await.unwrap());
}

#[tokio::test]
async fn who_comes_back_again_and_again_and_reads_nothing_keeps_no_checkpoint() {
    tokio::time::pause();
    let (source, disk) = (Source::with(20).await, SimDisk::new());
    let incoming = disk.shelf(TABLES).incoming().unwrap();
    let no_room = |_: u64| Err(io::Error::new(io::ErrorKind::StorageFull, "no room"));
    let mut names = std::collections::BTreeSet::new();
    for _ in 0..limits::CHECKPOINT_AWAITED.as_secs() {
        let (connection, _serving) = source.connect();
        let offered = Offered::ask(&source.env, &incoming, 1, connection, 15).await.unwrap();
        names.insert(offered.offer().name.clone());
        offered.fetch(no_room, |_| {}).await.unwrap_err();
        tokio::time::advance(limits::FETCH_AGAIN).await;
        source.checkpoints.sweep(false);
    }
    assert!((2..=3).contains(&names.len()), "{names:?}");
}

#[tokio::test]
async fn what_has_come_and_is_wrong_is_not_looked_at_again() {
    let (source, disk) = (Source::with(20).await, SimDisk::new());
    let incoming = disk.shelf(TABLES).incoming().unwrap();
    let (near, middle) = duplex(1 << 16);
    let (mut asks, mut real) = (connection(middle), source.connect());
    // Its database is not at the place that is offered.
    tokio::spawn(async move {
        while let Ok(ask) = asks.receive::<FetchAsk>().await {
            real.0.send(&ask).await.unwrap();
            let mut answer = real.0.receive::<FetchAnswer>().await.unwrap();
            if let FetchAnswer::Opened(offer) = &mut answer {
                offer.place.term += 1;
            }
            asks.send(&answer).await.unwrap();
        }
    });
    let offered = Offered::ask(&source.env, &incoming, 7, connection(near), 15).await.unwrap();
    let failed = offered.fetch(|_| Ok(()), |_| {}).await.unwrap_err();
    assert_eq!(failed.kind(), io::ErrorKind::InvalidData);
    assert!(failed.to_string().starts_with("the database that node 7 has sent: "), "{failed}");
    assert_eq!(read_begun(&source.env, &incoming).await.unwrap(), None);
    assert_eq!(incoming.whole().unwrap(), []);
}

#[tokio::test]
async fn wrong_questions_get_a_reason() {
    let source = Source::with(20).await;
    let (mut connection, _serving) = source.connect();
    let mut ask = async |ask: FetchAsk| -> String {
        connection.send(&ask).await.unwrap();
        match connection.receive::<FetchAnswer>().await.unwrap() {
            FetchAnswer::Failed(why) => why,
            other => format!("{other:?}"),
        }
    };
    let read = |file, offset, length| FetchAsk::Read { file, offset, length };
    assert!(ask(read(0, 0, 1)).await.contains("no checkpoint was opened"));
    assert!(ask(FetchAsk::Open { again: None, entries: 21 }).await.contains("applied 20 entries, and 21 are needed"));
    assert!(ask(FetchAsk::Open { again: Some("../store".into()), entries: 2 }).await.starts_with("Opened"));
    assert!(ask(read(99, 0, 1)).await.contains("no such file"));
    assert!(ask(read(0, u64::MAX, 1)).await.contains("too large, or behind the end"));
    assert!(ask(read(0, 1 << 40, 1)).await.contains("too large, or behind the end"));
    assert!(ask(read(5, 0, (2 << 20) as u32)).await.contains("too large, or behind the end"));
}

#[tokio::test]
async fn without_room_nothing_is_fetched() {
    let (source, disk) = (Source::with(20).await, SimDisk::new());
    let incoming = disk.shelf(TABLES).incoming().unwrap();
    let room = |bytes: u64| match bytes {
        0..1_000_000 => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::StorageFull, "no room")),
    };
    let offered = Offered::ask(&source.env, &incoming, 1, source.connect().0, 15).await.unwrap();
    let failed = offered.fetch(room, |_| {}).await.unwrap_err();
    assert_eq!(failed.kind(), io::ErrorKind::StorageFull);
    assert_eq!(incoming.whole().unwrap(), []);
}

#[cfg(feature = "rocksdb")]
#[tokio::test]
async fn a_file_that_was_damaged_at_the_source_is_found() {
    use crate::engine::{Durability, FolderShelf, Rocks};

    let home = tempfile::tempdir().unwrap();
    let here = |name: &str| home.path().join(name);
    let engine: Arc<dyn Engine> = Arc::new(Rocks::open(&here("source/store"), TABLES, Durability::Flush).unwrap());
    let store = Store::open(engine.clone()).unwrap();
    store.pass(Position { index: 1, term: 1 }).unwrap();
    let mut batch = Batch::new();
    for n in 0..2_000u32 {
        batch.put(TABLES[1], n.to_be_bytes(), blake3::hash(&n.to_be_bytes()).as_bytes());
    }
    (0..20u32).for_each(|n| batch.put(TABLES[5], n.to_be_bytes(), vec![7; 50_000]));
    engine.write(batch).unwrap();
    let checkpoint = FolderShelf::open(&here("source"), TABLES).unwrap().checkpoint(&*engine, "one").unwrap();
    let brought = |damaged: &str| {
        std::fs::create_dir_all(here(damaged)).unwrap();
        let incoming = FolderShelf::open(&here(damaged), TABLES).unwrap().incoming().unwrap();
        incoming.begin(b"an offer").unwrap();
        for file in checkpoint.files() {
            let mut bytes = checkpoint.read(&file.name, 0, file.size as usize).unwrap();
            if file.name == damaged {
                bytes[file.size as usize / 2] ^= 1;
            }
            incoming.write(&file.name, 0, &bytes).unwrap();
            incoming.finish(&file.name).unwrap();
        }
        incoming
    };
    assert_eq!(read_all(&Env::system(), &brought("none")).await.unwrap(), Position { index: 1, term: 1 });
    for kind in [".sst", ".blob"] {
        let of_kind = checkpoint.files().into_iter().filter(|file| file.name.ends_with(kind));
        let largest = of_kind.max_by_key(|file| file.size).unwrap();
        let found = read_all(&Env::system(), &brought(&largest.name)).await;
        assert!(found.is_err(), "{} is damaged: {found:?}", largest.name);
    }
}
