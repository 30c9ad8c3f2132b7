//! `zrsctl adopt`: a person vouches for a copied or excluded data folder.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Args;

use zrs::engine::Folder;
use zrs::journal::{self, Directory};
use zrs::raft::offline::{self, Origin};

const TERMS: &str = "\
A folder that is not the newest one of its node may lack commits that the node has acknowledged; if the node runs from it
anyway, they can be lost for the whole cluster. Adopt it only if both of these are true:

  1. This is the newest folder of the node: the node has not run from another one since it was made.
  2. No other copy of it, the original among them, will ever start again.

What the other members remember still counts: if they know of more than this folder has, they refuse the node again.";

#[derive(Args)]
pub struct AdoptFlags {
    /// The data folder of a node that is stopped
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Do not ask: both of what is printed is true
    #[arg(long)]
    yes: bool,
}

/// Adopts the folder, once the person has agreed to what must be true.
pub fn adopt(flags: &AdoptFlags) -> anyhow::Result<()> {
    let path = flags.data.display();
    let folder = Folder::open_read_only(&flags.data)?;
    let found = match folder.log().is_dir() {
        true => {
            let files = Arc::new(Directory::open_read_only(&folder.log())?);
            let log = journal::inspect(files.clone()).map_err(io::Error::other).context("reading the log")?;
            log.map(|log| offline::origin(&*files, &log)).transpose()?
        }
        false => None,
    };
    drop(folder);
    let odd = match found {
        None | Some(Origin::New) => {
            bail!("no node has started from {path} yet, so there is nothing to adopt: start it")
        }
        Some(Origin::Original) => bail!("{path} is no copy, as far as it knows: there is nothing to adopt"),
        Some(Origin::Copy(odd)) => format!("is a copy: {odd}"),
        Some(Origin::Excluded(why)) => format!("takes no part: {why}"),
    };
    println!("{path} {odd}.\n\n{TERMS}\n");
    if !flags.yes {
        agree("Are both true?", "both are true")?;
    }
    let folder = Folder::open(&flags.data)?;
    let files = Directory::open(&folder.log())?;
    let found = offline::adopt(Arc::new(files)).with_context(|| format!("{path} could not be adopted"))?;
    if matches!(found, Origin::New | Origin::Original) {
        bail!("{path} has changed meanwhile; nothing was adopted");
    }
    println!("adopted {path}: start the node");
    Ok(())
}

/// Asks a person; an error if the answer is not yes. `terms`: what --yes stands for.
pub fn agree(question: &str, terms: &str) -> anyhow::Result<()> {
    if !io::stdin().is_terminal() {
        bail!("nothing was changed: say --yes if {terms}");
    }
    print!("{question} [yes/no] ");
    io::stdout().flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    match answer.trim() {
        "yes" => Ok(()),
        _ => bail!("nothing was changed"),
    }
}
