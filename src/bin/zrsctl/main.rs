//! The operator's tool: shows a cluster, hands the primary's role over, changes the members, drops empty storages,
//! moves sites in and out, vouches for data folders and looks into them.
#![forbid(unsafe_code)]

mod adopt;
mod ask;
mod cluster;
mod datafs;
mod dump;
mod glance;
mod member;
mod owner;
mod recover;

use std::path::PathBuf;
use std::process::ExitCode;
use std::slice;

use clap::{Parser, Subcommand};

use zrs::env::Env;

const EXAMPLES: &str = "\
Examples:
  zrsctl status
  zrsctl status --http a:8180,b:8180,c:8180
  zrsctl transfer --to 2
  zrsctl storage list
  zrsctl storage drop mian
  zrsctl member list
  zrsctl member add 4=db4:8100 --wait
  zrsctl import Data.fs --blobs blobs --data /var/lib/zrs
  zrsctl export --data /var/lib/zrs Data.fs --blobs blobs
  zrsctl adopt --data /var/lib/zrs
  zrsctl recover --data /var/lib/zrs
  zrsctl dump --data /var/lib/zrs
  zrsctl dump log --data /var/lib/zrs --from 1000
  zrsctl dump store --data /var/lib/zrs --oid 1

--http is the address that zrsd got by its own --http; without it, 127.0.0.1:8180 is asked. Any node of a cluster will do.
Exit codes: 0 done, and by status all is well; 1 failed, and by status something is wrong; 2 wrong usage.";

/// Shows a cluster of zrsd at a glance, hands the primary's role over, changes the members, drops empty storages, moves
/// Data.fs files in and out, vouches for a copied data folder, and prints what a stopped node's folder holds.
#[derive(Parser)]
#[command(name = "zrsctl", version, after_help = EXAMPLES, max_term_width = 110)]
struct Flags {
    /// The HTTP address of a node, or of several
    #[arg(long, global = true, value_name = "HOST:PORT,...", value_delimiter = ',', default_value = ask::USUAL)]
    #[arg(value_parser = ask::address)]
    http: Vec<String>,
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Shows which node is primary, how the others are, and what is wrong. Any node knows of all; if several are asked,
    /// each tells of itself
    Status {
        /// Print what the nodes answer, unchanged, a document each
        #[arg(long)]
        json: bool,
    },
    /// Hands the primary's role over. Ask any node
    Transfer {
        /// The node to take over [default: the most advanced one]
        #[arg(long, value_name = "N")]
        to: Option<u64>,
    },
    /// Lists the storages, or drops an empty one
    Storage(cluster::StorageFlags),
    /// Shows the members of the cluster, or changes them while it runs: lets nodes in, takes them out, puts a new one
    /// in the place of one that is gone. Ask any node
    Member(member::MemberFlags),
    /// Makes data folders of a FileStorage's Data.fs, for nodes that have not started yet. All nodes of a cluster must
    /// begin with the same data: import on every host, or copy the folder, before their first start
    Import(datafs::ImportFlags),
    /// Writes a Data.fs, which FileStorage opens, from the data folder of a stopped node: all transactions it has
    /// applied
    Export(datafs::ExportFlags),
    /// Vouches for the data folder of a stopped node. A node whose folder is a copy (moved to another disk, or put
    /// back) takes no part until a person says that it is the newest one
    Adopt(adopt::AdoptFlags),
    /// Makes the data folder of a stopped node the beginning of a new cluster, when a majority of the voters is gone
    /// for good. What was answered may be lost: it says what to look at first
    Recover(recover::RecoverFlags),
    /// Prints what lies in the data folder of a stopped node, for people who debug: a summary, its log, or its store.
    /// Changes nothing in the folder
    Dump(dump::DumpFlags),
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let env = Env::system();
    match runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(env.scope(run(flags)))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("zrsctl: {why:#}");
            ExitCode::FAILURE
        }
    }
}

impl Task {
    /// The data folders that it writes into.
    fn writes(&self) -> &[PathBuf] {
        match self {
            Task::Import(flags) => &flags.data,
            Task::Export(flags) => slice::from_ref(&flags.data),
            Task::Adopt(flags) => slice::from_ref(&flags.data),
            Task::Recover(flags) => slice::from_ref(&flags.data),
            Task::Status { .. } | Task::Transfer { .. } | Task::Storage(_) | Task::Member(_) | Task::Dump(_) => &[],
        }
    }
}

async fn run(flags: Flags) -> anyhow::Result<()> {
    flags.task.writes().iter().try_for_each(|folder| owner::check(folder))?;
    match flags.task {
        Task::Status { json } => cluster::status(&flags.http, json).await,
        Task::Transfer { to } => cluster::transfer(&flags.http, to).await,
        Task::Storage(storage) => cluster::storage(&flags.http, &storage).await,
        Task::Member(member) => member::member(&flags.http, &member).await,
        Task::Import(flags) => datafs::import(flags).await,
        Task::Export(flags) => datafs::export(flags).await,
        Task::Adopt(flags) => adopt::adopt(&flags),
        Task::Recover(flags) => recover::recover(&flags),
        Task::Dump(flags) => dump::dump(&flags),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags() {
        use clap::CommandFactory as _;
        Flags::command().debug_assert();
        let flags = Flags::parse_from(["zrsctl", "--http", "a:1,b:1", "transfer", "--to", "2"]);
        assert_eq!(flags.http, ["a:1", "b:1"]);
        assert!(matches!(flags.task, Task::Transfer { to: Some(2) }));
        let after = Flags::parse_from(["zrsctl", "storage", "drop", "mian", "--http", "a:1,http://b:1/"]);
        assert_eq!(after.http, ["a:1", "b:1"]);
        assert_eq!(Flags::parse_from(["zrsctl", "status"]).http, [ask::USUAL]);
        assert!(Flags::try_parse_from(["zrsctl", "status", "--http", "a"]).is_err());
    }
}
