//! `zrsctl recover`: makes one data folder the beginning of a new cluster, when a majority is gone for good.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Args;

use zrs::command::{self, Change, Command};
use zrs::engine::{Durability, Folder, Rocks};
use zrs::journal::Inspection;
use zrs::raft::offline::{self, LogContent, LogSummary};
use zrs::storage::{self, Store};
use zrs::zodb::{StorageId, Tid};

use crate::adopt::agree;
use crate::dump::{parts, sheet};

const TERMS: &str = "\
Do this only if a majority of the voters is gone for good. While they can be brought back, with their data, bring them
back instead: then nothing is lost.

  1. Transactions that were answered may be missing here, if only nodes that are gone had them; and some may appear that
     were never answered. Say zrsctl recover --data DIR without --yes on every node that is left, and recover the one
     whose log ends latest: the greatest term, then the greatest entry.
  2. No other node of the former cluster may ever start again with its data: empty their folders, and let them in by
     zrsctl member add. (They would not work together with this one, and could serve clients what is not true any more.)
  3. Clients whose caches are newer than this database refuse it: delete their cache files.";

/// The former log, while a recovery goes on.
const UNDER_WAY: &str = "log.recovering";

#[derive(Args)]
pub struct RecoverFlags {
    /// The data folder of a node that is stopped
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Do not ask: it is understood what may be lost
    #[arg(long)]
    yes: bool,
}

/// Shows what the folder has; recovers it once the person has agreed.
///
/// The log moves away before anything else happens: a folder whose recovery was cut off is no node's any more, and the
/// same command goes on with it.
pub fn recover(flags: &RecoverFlags) -> anyhow::Result<()> {
    let path = flags.data.display();
    let folder = Folder::open_read_only(&flags.data)?;
    show(&folder)?;
    drop(folder);
    println!("\n{TERMS}\n");
    if !flags.yes {
        agree("Recover this folder?", "all of that is understood")?;
    }
    let folder = Folder::open(&flags.data)?;
    let under_way = folder.path().join(UNDER_WAY);
    let sync = || std::fs::File::open(folder.path())?.sync_all();
    if !under_way.is_dir() {
        std::fs::rename(folder.log(), &under_way)?;
        sync()?;
    }
    let engine = Rocks::open(&folder.store(), storage::TABLES, Durability::Flush).context("opening the store")?;
    let store = Store::open(Arc::new(engine))?;
    let log = parts::open_log_in(&under_way)?.context("the log is empty")?;
    if store.applied().index > 0 || offline::begins_with(&log, &store)? {
        let applied = offline::replay(&log, &store).context("applying the rest of the log")?;
        println!("applied {applied} entries of the log");
        store.flush()?;
        store.rebase()?;
        store.flush()?;
    }
    drop(log);
    // (One that a start in between has made has nothing.)
    if folder.log().is_dir() {
        std::fs::rename(folder.log(), aside(&folder.log()))?;
    }
    let kept = aside(&folder.log());
    std::fs::rename(&under_way, &kept)?;
    sync()?;
    println!("the former log is kept as {}", kept.display());
    println!(
        "recovered {path}: start zrsd with it, alone (without --peers, with --listen HOST:PORT that others can reach), and \
         let the other nodes in with empty folders: zrsctl member add N=HOST:PORT"
    );
    Ok(())
}

/// Prints what lies in the folder.
fn show(folder: &Folder) -> anyhow::Result<()> {
    let path = folder.path().display();
    let under_way = folder.path().join(UNDER_WAY);
    let log = match under_way.is_dir() {
        true => {
            println!("{path}: a recovery was cut off, and goes on");
            parts::open_log_in(&under_way)?
        }
        false => parts::open_log(folder)?,
    };
    let store = parts::open_store(folder)?;
    let applied = store.as_ref().map_or(0, |store| store.applied().index);
    let Some(log) = log else {
        match applied {
            0 => bail!("no node has started from {path} yet, so there is nothing to recover: start it"),
            _ => bail!("the log of {path} is missing (log/): put the folder back as it was"),
        }
    };
    let mut last: BTreeMap<StorageId, (u64, Tid)> = BTreeMap::new();
    for (number, _) in store.iter().flat_map(Store::storages) {
        let summary = store.as_ref().map(|store| store.summary(number)).unwrap_or_default();
        last.insert(number, (summary.transactions, summary.last_tid));
    }
    tell(&log, &offline::summary(&log)?, applied)?;
    if let Some(store) = &store
        && !offline::goes_on(&log, store)?
    {
        println!("  (but these don't follow on it, and are left out: it was fetched from another node)");
    }
    for entry in offline::entries(&log, applied + 1, u64::MAX) {
        if let LogContent::Command(bytes) = entry?.content
            && let Ok(Command { change: Change::Commit(commit), .. }) = Command::decode(&bytes, command::FORMAT)
        {
            let (count, tid) = last.entry(commit.storage).or_default();
            (*count, *tid) = (*count + 1, commit.tid.max(*tid));
        }
    }
    for (number, (count, tid)) in last {
        println!("  storage {number}: {count} transactions at most, the last one {}", sheet::tid(tid));
    }
    Ok(())
}

fn tell(log: &Inspection, found: &LogSummary, applied: u64) -> anyhow::Result<()> {
    let Some(stamped) = &found.membership else { bail!("no cluster is known here: there is nothing to recover") };
    let node = found.node.map_or("a node".into(), |node| format!("node {node}"));
    println!("{node} of cluster {}", stamped.cluster);
    match found.last.or(found.purged) {
        Some(last) => println!("  its log ends with entry {} of term {}", last.index, last.term),
        None => println!("  its log is empty"),
    }
    let left = log.last.map_or(0, |(number, _)| number).saturating_sub(applied);
    println!("  its database has applied {applied} entries; {left} follow in the log, and are applied");
    if let Some(damage) = &found.damage {
        println!("  THE LOG IS DAMAGED, and ends there: {damage}");
    }
    if let Some(why) = &found.excluded {
        println!("  it took no part: {why}");
    }
    Ok(())
}

/// The name under which the log is kept.
fn aside(log: &Path) -> PathBuf {
    let name = |n: u32| log.with_file_name(if n == 0 { "log.lost".into() } else { format!("log.lost-{n}") });
    (0..).map(name).find(|path| !path.exists()).unwrap_or_else(|| name(0))
}
