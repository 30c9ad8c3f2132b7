//! RocksDB, the [`Engine`] of production.
//!
//! Each table is a column family. How an engine becomes durable is chosen when it is opened ([`Durability`]):
//!
//! - `Log`: batches go to RocksDB's write-ahead log, into a buffer of this process; `sync` writes the buffer out and
//!   fsyncs. After a crash the log is replayed up to its first unreadable record, which makes the prefix. RocksDB
//!   writes the replayed batches into tables, fsynced, before an opening returns. Before it writes out one table's
//!   memory, it syncs the log, so that no table runs ahead of the others.
//! - `Flush`: no log. `sync` writes the memory of all tables out as files, in one atomic step (`atomic_flush`), as does
//!   RocksDB when its memory is full. After a crash the engine holds the last such step.
//!
//! Callers of `sync` share: all that come while one fsync runs wait for one more, which serves them together. After a
//! failed sync every later one fails: the kernel may have dropped the pages it could not write, and a second fsync
//! would then report success.
//!
//! **Reads.** `get` is the hot path. `first` takes an iterator, and costs several times as much; where a range lies
//! within one key prefix of [`PREFIX`] bytes, a Bloom filter saves reading files without that prefix. Iterators are not
//! kept from call to call: keeping one pins files and memory that compaction wants to free.
//!
//! **Left out.** Tuning by configuration: the numbers below are for one database per host.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};

use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, CompactOptions, DB, DBCompressionType,
    DBRawIterator, DBRecoveryMode, FlushOptions, LogLevel, Options, ReadOptions, SliceTransform, WriteBatch,
    WriteOptions,
};

use super::contract::{Batch, Edit, Engine, Order, Pair, Pairs, Table};
use crate::config::OpenFiles;

/// Keys that begin with the same so many bytes are looked up with a Bloom filter: storage (4) and oid or tid (8).
/// Tables with other keys are read correctly too, without the filter's help.
const PREFIX: usize = 12;
/// Bloom filter: 1% false positives.
const BLOOM_BITS: f64 = 10.0;
/// The unit of reading and compressing: some records of ordinary size, which often belong together.
const BLOCK: usize = 8 << 10;
/// From this size on, a value of a table with `large_values` lies in a blob file. Below it, sharing a compressed block
/// with its neighbours saves more than not being rewritten by compaction; above it, a value would fill most of a block.
const BLOB: u64 = 4 << 10;
/// A blob file; the unit in which space is given back.
const BLOB_FILE: u64 = 128 << 20;
/// The share of garbage in the oldest blob files from which on they are rewritten.
const BLOB_GARBAGE: f64 = 0.5;
/// Blocks, indexes, filters and blobs in memory, for all tables of one engine: the database, and the log (which is read
/// from its memory tables while followers keep up).
const CACHE_FLUSH: usize = 256 << 20;
const CACHE_LOG: usize = 16 << 20;
/// How much all tables of one engine may hold in memory before it is written out to files. Meanwhile about as much
/// again may be written; then writing waits. So this bounds what a large transaction costs in memory.
const WRITE_BUFFERS_FLUSH: usize = 32 << 20;
const WRITE_BUFFERS_LOG: usize = 16 << 20;
/// The largest write-ahead log on disk (`Durability::Log`), which an opening has to replay.
const WAL: u64 = 256 << 20;
/// RocksDB's own log for people: the size of a file, and how many are kept.
const INFO_LOG: usize = 1 << 20;
const INFO_LOGS: usize = 3;
/// Files are handed to the disk in steps of this size while they are written, so that little is left for the fsync at
/// the end.
const SMOOTH: u64 = 1 << 20;

/// How `sync` makes batches durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// A write-ahead log: for small batches that are synced often.
    Log,
    /// Writing out all tables: for a database that can be replayed from elsewhere.
    Flush,
}

/// An engine on disk. Dropping it closes the folder.
pub struct Rocks {
    db: DB,
    path: PathBuf,
    tables: Vec<Table>,
    durability: Durability,
    read_only: bool,
    /// For point reads: RocksDB's usual ones, made once.
    reading: ReadOptions,
    writing: WriteOptions,
    syncs: Syncs,
}

impl Rocks {
    /// Opens the engine in the folder `path`, which is made if need be (and then fsynced into its parents). Everything
    /// that can be read from the engine after that survives another crash.
    ///
    /// # Errors
    /// - `ResourceBusy`: another process, or this one, has the folder open.
    /// - `InvalidData`: the files are damaged, or the folder has other tables.
    /// - Any error of the file system.
    pub fn open(path: &Path, tables: &[Table], durability: Durability) -> io::Result<Rocks> {
        check_indexes(tables);
        make_folder(path).map_err(|error| named("make the folder", path, &error))?;
        let cache = new_cache(durability);
        check_tables(path, tables, durability, &cache)?;
        let db = open_tables(path, tables, durability, &cache)?;
        let rocks = Rocks::over(db, path, tables, durability, false);
        rocks.sync()?;
        Ok(rocks)
    }

    /// Opens the engine in the folder `path` to read it: none of its files changes, and `write`, `sync` and
    /// `checkpoint` are refused. Batches that only the write-ahead log has are read into memory. The caller keeps
    /// other processes from writing to the folder meanwhile.
    ///
    /// # Errors
    /// As [`Rocks::open`]; but a folder that is not there, or lacks a table, is `InvalidData`.
    pub fn open_read_only(path: &Path, tables: &[Table], durability: Durability) -> io::Result<Rocks> {
        check_indexes(tables);
        let cache = new_cache(durability);
        let present = known_tables(path, tables)?;
        if let Some(lacking) = tables.iter().find(|table| present.iter().all(|name| name != table.name)) {
            return Err(lacks(path, lacking));
        }
        let mut options = engine_options(durability);
        options.create_if_missing(false);
        options.create_missing_column_families(false);
        let families = families(tables, durability, &cache);
        let db = DB::open_cf_descriptors_read_only(&options, path, families, false);
        let db = db.map_err(|error| fault(path, error))?;
        Ok(Rocks::over(db, path, tables, durability, true))
    }

    fn over(db: DB, path: &Path, tables: &[Table], durability: Durability, read_only: bool) -> Rocks {
        let mut writing = WriteOptions::default();
        writing.disable_wal(durability == Durability::Flush);
        let (path, tables, syncs) = (path.to_owned(), tables.to_vec(), Syncs::default());
        Rocks { db, path, tables, durability, read_only, reading: ReadOptions::default(), writing, syncs }
    }

    fn writable(&self) -> io::Result<()> {
        match self.read_only {
            true => Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "the database is open for reading only")),
            false => Ok(()),
        }
    }

    fn table(&self, table: Table) -> &ColumnFamily {
        self.db.cf_handle(table.name).expect("an engine is only asked for the tables that it was opened with")
    }

    fn fault(&self, error: rocksdb::Error) -> io::Error {
        fault(&self.path, error)
    }

    fn sync_now(&self) -> io::Result<()> {
        match self.durability {
            Durability::Log => self.db.flush_wal(true),
            Durability::Flush => {
                let all: Vec<&ColumnFamily> = self.tables.iter().map(|table| self.table(*table)).collect();
                let mut options = FlushOptions::default();
                options.set_wait(true);
                self.db.flush_cfs_opt(&all, &options)
            }
        }
        .map_err(|error| self.fault(error))
    }
}

impl Engine for Rocks {
    fn get(&self, table: Table, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.db.get_cf_opt(self.table(table), key, &self.reading).map_err(|error| self.fault(error))
    }

    fn first(&self, table: Table, from: &[u8], until: &[u8]) -> io::Result<Option<Pair>> {
        if from >= until {
            return Ok(None);
        }
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(until);
        if within_prefix(from, until) {
            options.set_prefix_same_as_start(true);
        } else {
            options.set_total_order_seek(true);
        }
        let mut iterator = self.db.raw_iterator_cf_opt(self.table(table), options);
        iterator.seek(from);
        match iterator.item() {
            Some((key, value)) => Ok(Some((key.to_vec(), value.to_vec()))),
            None => iterator.status().map(|()| None).map_err(|error| self.fault(error)),
        }
    }

    fn range<'a>(&'a self, table: Table, from: &[u8], until: &[u8], order: Order) -> Pairs<'a> {
        if from >= until {
            return Box::new(std::iter::empty());
        }
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(from);
        options.set_iterate_upper_bound(until);
        options.set_total_order_seek(true);
        let mut iterator = self.db.raw_iterator_cf_opt(self.table(table), options);
        match order {
            Order::Ascending => iterator.seek_to_first(),
            Order::Descending => iterator.seek_to_last(),
        }
        Box::new(RocksRange { rocks: self, iterator, order, fresh: true, over: false })
    }

    fn write(&self, batch: Batch) -> io::Result<()> {
        self.writable()?;
        let mut writes = WriteBatch::default();
        // Each edit is dropped once it is copied: a batch may be large.
        for edit in batch.edits {
            match edit {
                Edit::Put(table, key, value) => writes.put_cf(self.table(table), key, value),
                Edit::Delete(table, key) => writes.delete_cf(self.table(table), key),
                Edit::DeleteRange(table, from, until) if from < until => {
                    writes.delete_range_cf(self.table(table), from, until);
                }
                // RocksDB refuses a range that ends before it begins; the contract says that it is empty.
                Edit::DeleteRange(..) => {}
            }
        }
        self.db.write_opt(writes, &self.writing).map_err(|error| self.fault(error))
    }

    fn sync(&self) -> io::Result<()> {
        self.writable()?;
        self.syncs.share(|| self.sync_now())
    }

    fn checkpoint(&self, folder: &Path) -> io::Result<()> {
        self.writable()?;
        if folder.exists() {
            let message = format!("{} exists already; a checkpoint makes its folder", folder.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
        }
        let made = Checkpoint::new(&self.db).and_then(|checkpoint| checkpoint.create_checkpoint(folder));
        made.map_err(|error| fault(folder, error))
    }

    /// RocksDB drops a removed pair when it compacts the removal with it, and a blob file when no table names it any
    /// more; by itself it compacts a database that nobody writes to only a month later. Here each part of the keys is
    /// compacted that a file of the lowest level has.
    fn reclaim(&self, go_on: &dyn Fn() -> bool) -> io::Result<()> {
        self.sync()?;
        let files = self.db.live_files().map_err(|error| self.fault(error))?;
        let mut options = CompactOptions::default();
        // (RocksDB's own compactions go on beside.)
        options.set_exclusive_manual_compaction(false);
        for table in &self.tables {
            let of_table = || files.iter().filter(|file| file.column_family_name == table.name);
            let lowest = of_table().map(|file| file.level).max();
            let mut parts: Vec<_> = of_table()
                .filter(|file| Some(file.level) == lowest)
                .filter_map(|file| file.start_key.clone().zip(file.end_key.clone()))
                .collect();
            parts.sort_unstable();
            for (from, until) in parts {
                if !go_on() {
                    return Ok(());
                }
                self.db.compact_range_cf_opt(self.table(*table), Some(from), Some(until), &options);
            }
        }
        Ok(())
    }
}

struct RocksRange<'a> {
    rocks: &'a Rocks,
    iterator: DBRawIterator<'a>,
    order: Order,
    /// The iterator stands on the first pair.
    fresh: bool,
    over: bool,
}

impl Iterator for RocksRange<'_> {
    type Item = io::Result<Pair>;

    fn next(&mut self) -> Option<io::Result<Pair>> {
        if self.over {
            return None;
        }
        if !std::mem::take(&mut self.fresh) {
            match self.order {
                Order::Ascending => self.iterator.next(),
                Order::Descending => self.iterator.prev(),
            }
        }
        if let Some((key, value)) = self.iterator.item() {
            return Some(Ok((key.to_vec(), value.to_vec())));
        }
        self.over = true;
        match self.iterator.status() {
            Ok(()) => None,
            Err(error) => Some(Err(self.rocks.fault(error))),
        }
    }
}

/// Lets callers share syncs: a caller that comes while a sync runs is served by the next one.
#[derive(Default)]
struct Syncs {
    state: Mutex<SyncState>,
    done: Condvar,
}

#[derive(Default)]
struct SyncState {
    begun: u64,
    done: u64,
    running: bool,
    failed: Option<(io::ErrorKind, String)>,
}

impl Syncs {
    fn share(&self, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // A sync that runs already may have begun before the caller's batch was written.
        let wanted = state.begun + 1;
        loop {
            if state.done >= wanted {
                return Ok(());
            }
            if let Some((kind, message)) = &state.failed {
                return Err(io::Error::new(*kind, format!("an earlier sync failed: {message}")));
            }
            if !state.running {
                break;
            }
            state = self.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.running = true;
        state.begun = wanted;
        drop(state);
        let result = sync();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.running = false;
        match &result {
            Ok(()) => state.done = wanted,
            Err(error) => state.failed = Some((error.kind(), error.to_string())),
        }
        drop(state);
        self.done.notify_all();
        result
    }
}

/// Whether all keys of `from <= key < until` begin with the first [`PREFIX`] bytes of `from`.
fn within_prefix(from: &[u8], until: &[u8]) -> bool {
    let Some(prefix) = from.first_chunk::<PREFIX>() else { return false };
    if until.starts_with(prefix) {
        return true;
    }
    let mut after = *prefix;
    for byte in after.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            return until <= &after[..];
        }
    }
    // The prefix is all 0xff: nothing comes after it.
    true
}

/// Makes a folder, and those missing above it, so that it is there after a crash.
fn make_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    make_folder(parent)?;
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists || !path.is_dir() => return Err(error),
        _ => {}
    }
    File::open(parent)?.sync_all()
}

fn check_indexes(tables: &[Table]) {
    for (index, table) in tables.iter().enumerate() {
        assert_eq!(table.index, index, "a table's index is its place in the list: {}", table.name);
    }
}

fn new_cache(durability: Durability) -> Cache {
    Cache::new_lru_cache(match durability {
        Durability::Log => CACHE_LOG,
        Durability::Flush => CACHE_FLUSH,
    })
}

/// The names of the tables in the folder; an error if one of them is not in `tables`.
fn known_tables(path: &Path, tables: &[Table]) -> io::Result<Vec<String>> {
    let present = DB::list_cf(&Options::default(), path).map_err(|error| fault(path, error))?;
    match present.iter().find(|name| *name != "default" && tables.iter().all(|t| t.name != **name)) {
        Some(name) => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "{} holds a table {name:?} that is not known here: it belongs to something else, or to a newer version",
                path.display()
            ),
        )),
        None => Ok(present),
    }
}

fn lacks(path: &Path, table: &Table) -> io::Error {
    let path = path.display();
    let why = format!("{path} lacks the table {:?}: it belongs to something else, or to an older version", table.name);
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Refuses a folder whose tables are not the ones asked for.
fn check_tables(path: &Path, tables: &[Table], durability: Durability, cache: &Cache) -> io::Result<()> {
    if !path.join("CURRENT").exists() {
        return Ok(());
    }
    let present = known_tables(path, tables)?;
    let (here, missing): (Vec<Table>, Vec<Table>) =
        tables.iter().partition(|table| present.iter().any(|name| name == table.name));
    let Some(lacking) = missing.first() else { return Ok(()) };
    // The first opening may have crashed before it had made all tables; then those that are there are empty.
    let db = open_tables(path, &here, durability, cache)?;
    for table in here {
        let handle = db.cf_handle(table.name).expect("the database was opened with this table");
        let mut iterator = db.raw_iterator_cf(handle);
        iterator.seek_to_first();
        iterator.status().map_err(|error| fault(path, error))?;
        if iterator.valid() {
            return Err(lacks(path, lacking));
        }
    }
    Ok(())
}

fn open_tables(path: &Path, tables: &[Table], durability: Durability, cache: &Cache) -> io::Result<DB> {
    let families = families(tables, durability, cache);
    DB::open_cf_descriptors(&engine_options(durability), path, families).map_err(|error| fault(path, error))
}

fn families(tables: &[Table], durability: Durability, cache: &Cache) -> Vec<ColumnFamilyDescriptor> {
    let families =
        tables.iter().map(|table| ColumnFamilyDescriptor::new(table.name, table_options(*table, durability, cache)));
    families.chain([ColumnFamilyDescriptor::new("default", Options::default())]).collect()
}

fn write_buffers(durability: Durability) -> usize {
    match durability {
        Durability::Log => WRITE_BUFFERS_LOG,
        Durability::Flush => WRITE_BUFFERS_FLUSH,
    }
}

fn engine_options(durability: Durability) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_db_write_buffer_size(write_buffers(durability));
    // (Opening fails if the limit of this process is smaller than what it asks for by and by.)
    options.set_max_open_files(OpenFiles::of_process().store as i32);
    options.set_max_background_jobs(2);
    options.set_bytes_per_sync(SMOOTH);
    options.set_log_level(LogLevel::Warn);
    options.set_max_log_file_size(INFO_LOG);
    options.set_keep_log_file_num(INFO_LOGS);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    match durability {
        Durability::Log => {
            options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
            options.set_manual_wal_flush(true);
            options.set_wal_bytes_per_sync(SMOOTH);
            options.set_max_total_wal_size(WAL);
        }
        Durability::Flush => options.set_atomic_flush(true),
    }
    options
}

fn table_options(table: Table, durability: Durability, cache: &Cache) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_block_size(BLOCK);
    blocks.set_bloom_filter(BLOOM_BITS, false);
    // Indexes and filters count towards the cache, so that memory stays bounded however large the database is.
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_cache_index_and_filter_blocks_with_high_priority(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    let mut options = Options::default();
    options.set_write_buffer_size(write_buffers(durability));
    options.set_block_based_table_factory(&blocks);
    options.set_prefix_extractor(SliceTransform::create_fixed_prefix(PREFIX));
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_level_compaction_dynamic_level_bytes(true);
    if table.large_values {
        options.set_enable_blob_files(true);
        options.set_min_blob_size(BLOB);
        options.set_blob_file_size(BLOB_FILE);
        options.set_blob_compression_type(DBCompressionType::Lz4);
        if table.cached {
            options.set_blob_cache(cache);
        }
        options.set_enable_blob_gc(true);
        options.set_blob_gc_force_threshold(BLOB_GARBAGE);
    }
    options
}

/// RocksDB's error as one that an operator can act on.
fn fault(path: &Path, error: rocksdb::Error) -> io::Error {
    let said = error.to_string();
    let path = path.display();
    if said.contains("lock hold by current process")
        || (said.contains("While lock file") && said.contains("temporarily unavailable"))
    {
        let message = format!(
            "{path} is in use by another process, which holds the lock on {path}/LOCK: stop that one, or give this one \
             another data folder ({said})"
        );
        return io::Error::new(io::ErrorKind::ResourceBusy, message);
    }
    if said.contains("No space left on device") || said.contains("Disk quota exceeded") {
        return io::Error::new(io::ErrorKind::StorageFull, format!("no space is left for {path} ({said})"));
    }
    match error.kind() {
        rocksdb::ErrorKind::Corruption | rocksdb::ErrorKind::InvalidArgument => io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "the files in {path} are damaged or not ours: move the folder away, then let this node fetch everything \
                 from the others, or restore a backup ({said})"
            ),
        ),
        _ => io::Error::other(format!("{path}: {said}")),
    }
}

fn named(what: &str, path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {what} {}: {error}", path.display()))
}
