//! `zrsctl dump`: what lies in the data folder of a stopped node, as text or JSON.
//!
//! **Promises.** Not a byte in the folder changes: its engines are opened for reading only, and its lock is shared. A
//! damaged entry or record has a line that says so, the lines after it follow, and the exit code is 1.
//!
//! **Left out.** The pickles themselves (`zrsctl export`, then ZODB's own tools), and folders in use: ask a running
//! node for its `/status`.

mod change;
mod log;
mod sheet;
mod store;
mod summary;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use clap::error::ErrorKind;
use clap::{Args, Subcommand};

use zrs::engine::{Durability, Folder, Rocks};
use zrs::storage::{self, Store};
use zrs::{raft, zodb};

use sheet::Sheet;

#[derive(Args)]
pub struct DumpFlags {
    /// The data folder of a node that is stopped
    #[arg(long, value_name = "DIR", global = true)]
    data: Option<PathBuf>,
    /// Print JSON: the summary as one document; log and store as a document a line
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Subcommand)]
enum Part {
    /// A line for each entry of the log: its index and term, its bytes, and what it says
    Log(log::LogFlags),
    /// The revisions of an object, a transaction, or the newest transactions, newest first
    Store(store::StoreFlags),
}

/// Prints what the flags ask for.
pub fn dump(flags: &DumpFlags) -> anyhow::Result<()> {
    let Some(data) = &flags.data else {
        let why = "dump needs --data DIR, the data folder of a stopped node\n";
        clap::Error::raw(ErrorKind::MissingRequiredArgument, why).exit();
    };
    let folder = Folder::open_read_only(data)?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut sheet = Sheet::new(&mut out, flags.json);
    let printed = match &flags.part {
        None => summary::print(&folder, &mut sheet),
        Some(Part::Log(which)) => log::print(&folder, which, &mut sheet),
        Some(Part::Store(which)) => store::print(&folder, which, &mut sheet),
    };
    let damaged = sheet.damaged();
    let flushed = io::Write::flush(&mut out);
    match printed.and_then(|()| Ok(flushed?)) {
        // The reader of a pipe (`head`, say) has enough.
        Err(why) if why.downcast_ref::<io::Error>().is_some_and(|why| why.kind() == io::ErrorKind::BrokenPipe) => {
            Ok(())
        }
        Ok(()) if damaged > 0 => anyhow::bail!("{damaged} of the values read are damaged; their lines say how"),
        printed => printed,
    }
}

/// The log's engine; `None`: no node has started on this folder.
fn open_log(folder: &Folder) -> anyhow::Result<Option<Rocks>> {
    if !folder.log().is_dir() {
        return Ok(None);
    }
    Rocks::open_read_only(&folder.log(), raft::TABLES, Durability::Log).context("opening the log").map(Some)
}

/// The store; `None`: it is empty, as the node was killed before the store was first flushed.
fn open_store(folder: &Folder) -> anyhow::Result<Option<Store>> {
    if !folder.store().is_dir() {
        anyhow::bail!("data folder {} has no database (store/)", folder.path().display());
    }
    let engine = Rocks::open_read_only(&folder.store(), storage::TABLES, Durability::Flush);
    match Store::open(Arc::new(engine.context("opening the store")?)) {
        // Opening an empty store would write its format.
        Err(why) if why.kind() == io::ErrorKind::ReadOnlyFilesystem => Ok(None),
        opened => opened.context("opening the store").map(Some),
    }
}

/// Reads an object or transaction id as it is printed everywhere: up to 16 hexadecimal digits, with or without `0x`.
fn parse_id(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    // (`from_str_radix` takes a sign, too.)
    let is_id = digits.len() <= 16 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let id = u64::from_str_radix(digits, 16).ok().filter(|_| is_id);
    id.ok_or_else(|| "write up to 16 hexadecimal digits, as zrs prints ids".to_owned())
}

fn parse_oid(text: &str) -> Result<zodb::Oid, String> {
    parse_id(text).map(zodb::Oid)
}

fn parse_tid(text: &str) -> Result<zodb::Tid, String> {
    parse_id(text).map(zodb::Tid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_hexadecimal() {
        assert_eq!(parse_oid("1"), Ok(zodb::Oid(1)));
        assert_eq!(parse_tid("0x040d31ff84f1076e"), Ok(zodb::Tid(0x040d_31ff_84f1_076e)));
        for wrong in ["", "x", "00000000000000001", "-1", "+"] {
            assert!(parse_oid(wrong).is_err(), "{wrong}");
        }
    }
}
