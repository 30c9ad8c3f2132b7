//! `zrsctl dump`: what lies in the data folder of a stopped node, as text or JSON.
//!
//! **Promises.** Not a byte in the folder changes: its engines are opened for reading only, and its lock is shared. A
//! damaged entry or record has a line that says so, the lines after it follow, and the exit code is 1.
//!
//! **Left out.** The pickles themselves (`zrsctl export`, then ZODB's own tools), and folders in use: ask a running
//! node for its `/status`.

mod change;
mod log;
pub mod parts;
pub mod sheet;
mod store;
mod summary;

use std::io;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, Subcommand};

use zrs::engine::Folder;

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
