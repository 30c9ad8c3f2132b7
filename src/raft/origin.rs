//! Where a data folder comes from: how a copy of it is known by itself.
//!
//! The folder keeps what a copy can't have ([`Identity`]): of its file `slots`, the number and the time at which it was
//! made, and the machine. A folder that was copied or put back by `cp`, `rsync` or `tar` has others, and so has one
//! whose disk was moved to another machine. Such a node may lack what the original has acknowledged since; so it takes
//! no part until a person who knows better *adopts* the folder (`zrsctl adopt`).
//!
//! **Left out.** Copies of whole disks below a file system: they keep everything. Other members can know those, if they
//! remember more than the copy has ([`memory`](super::memory)).

use std::io;
use std::sync::Arc;

use super::formation::INCARNATION;
use super::log::{LogStore, value};
use crate::journal::{Files, Identity, Journal, SLOTS, Sizes, Values};

const ORIGIN: &str = "origin";

/// Compares the folder with what it says of itself; gives the difference, in words, if it is a copy. A new folder is
/// made to say what it is.
pub async fn check(log: &LogStore, files: &dyn Files) -> io::Result<Option<String>> {
    let found = files.identity(SLOTS)?;
    match log.value::<Identity>(ORIGIN)? {
        Some(known) if known == found => Ok(None),
        Some(known) => match difference(&known, &found) {
            Some(odd) => Ok(Some(odd)),
            // The machine was started anew, say.
            None => log.set_value(ORIGIN, &found).await.map(|()| None),
        },
        None => log.set_value(ORIGIN, &found).await.map(|()| None),
    }
}

/// Why a node does not start from a copied folder.
pub fn copied(node: u64, odd: &str) -> String {
    format!(
        "the data folder of node {node} is a copy, or was put back from one: {odd}. What the node had acknowledged since \
         may be missing, so it takes no part. If this is the newest copy and the original will never start again: stop \
         the node and say zrsctl adopt --data DIR. Else put the original back, or give the node an empty folder"
    )
}

/// How a folder differs from the one in which it was noted what `known` says; `None` if nothing says that it is another.
fn difference(known: &Identity, found: &Identity) -> Option<String> {
    if !known.machine.is_empty() && !found.machine.is_empty() && known.machine != found.machine {
        return Some("it was made on another machine (/etc/machine-id differs)".into());
    }
    if known.inode != found.inode {
        let (was, is) = (known.inode, found.inode);
        return Some(format!("its file log/{SLOTS} has the inode number {is}, and had {was}"));
    }
    if let (Some(was), Some(is)) = (known.born, found.born)
        && was != is
    {
        return Some(format!("its file log/{SLOTS} was made at another time than it says"));
    }
    let same_boot = !known.boot.is_empty() && known.boot == found.boot;
    if same_boot && known.device != 0 && found.device != 0 && known.device != found.device {
        return Some("it lies on another device".into());
    }
    None
}

/// What a folder is, as it knows itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A copy, for the reason given.
    Copy(String),
    /// No copy, as far as it knows.
    Original,
    /// No node has ever started from it.
    New,
}

/// Looks at the folder with the log in `files`, which no node uses, and the log's values.
pub fn look(files: &dyn Files, values: &Values) -> io::Result<Origin> {
    if !values.contains_key(INCARNATION) {
        return Ok(Origin::New);
    }
    let Some(known) = value::<Identity>(values, ORIGIN)? else { return Ok(Origin::Original) };
    Ok(difference(&known, &files.identity(SLOTS)?).map_or(Origin::Original, Origin::Copy))
}

/// Makes the copied folder with the log in `files`, which no node uses, the node's own; durable on return. Gives what
/// it was; only a copy is changed.
pub fn adopt(files: Arc<dyn Files>) -> io::Result<Origin> {
    let mut journal = Journal::open(files.clone(), Sizes::default(), 0).map_err(io::Error::other)?;
    let found = look(&*files, journal.values())?;
    if matches!(found, Origin::Copy(_)) {
        let identity = postcard::to_stdvec(&files.identity(SLOTS)?).expect("an identity is plain data");
        journal.set(ORIGIN, identity)?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_copy_differs_and_a_restart_does_not() {
        let known = Identity {
            machine: "m".into(),
            boot: "b".into(),
            device: 5,
            inode: 12,
            born: Some(Duration::from_nanos(7)),
        };
        let same = |change: fn(&mut Identity)| {
            let mut found = known.clone();
            change(&mut found);
            difference(&known, &found)
        };
        assert_eq!(same(|_| {}), None);
        // A machine that was started anew may count its devices otherwise.
        assert_eq!(same(|found| (found.boot, found.device) = ("c".into(), 6)), None);
        // In a container, much may be unknown.
        assert_eq!(same(|found| *found = Identity { inode: 12, ..Identity::default() }), None);
        assert!(same(|found| found.machine = "n".into()).unwrap().contains("another machine"));
        assert!(same(|found| found.inode = 13).unwrap().contains("inode number 13, and had 12"));
        assert!(same(|found| found.born = Some(Duration::from_nanos(8))).unwrap().contains("another time"));
        assert!(same(|found| found.device = 6).unwrap().contains("another device"));
    }
}
