//! Where a data folder comes from: how a copy of it is known by itself.
//!
//! The folder keeps what a copy can't have ([`Identity`]) of its file `slots`: above all the time at which that file
//! was made, to the nanosecond. A folder that was copied or put back by `cp`, `rsync` or `tar` has another. Where a
//! file system keeps no such time, the number of the file says as much as can be known, and the machine's id whether it
//! is the same file system. Such a node may lack what the original has acknowledged since; so it takes no part until a
//! person who knows better vouches for the folder (`zrsctl adopt`).
//!
//! **Left out.** A disk that was moved to another machine is still the original. Copies of whole disks, or of volumes
//! below a file system, keep everything: other members can know those, if they remember more than the copy has
//! ([`memory`]).

use std::io;
use std::sync::Arc;

use super::formation::INCARNATION;
use super::log::{LogStore, value};
use super::memory;
use crate::journal::{Files, Identity, Journal, SLOTS, Sizes, Values};

const ORIGIN: &str = "origin";

/// Compares the folder with what it says of itself; gives the difference, in words, if it is a copy. A new folder is
/// made to say what it is.
pub async fn check(log: &LogStore, files: &dyn Files) -> io::Result<Option<String>> {
    let found = files.identity(SLOTS)?;
    let known = log.value::<Identity>(ORIGIN)?;
    let is_new = log.value::<u64>(INCARNATION)?.is_none();
    match known.filter(|_| !is_new) {
        Some(known) => match difference(&known, &found) {
            Some(odd) => Ok(Some(odd)),
            None => {
                let now = updated(&known, found);
                if !known.machine.is_empty() && now.machine != known.machine {
                    tracing::info!("this data folder was on another machine before, and is the same one");
                }
                if now != known {
                    log.set_value(ORIGIN, &now).await?;
                }
                Ok(None)
            }
        },
        None => log.set_value(ORIGIN, &found).await.map(|()| None),
    }
}

/// Why a node does not start from a copied folder.
pub fn copied(node: u64, odd: &str) -> String {
    format!(
        "the data folder of node {node} is a copy, or was put back from one: {odd}. What the node had acknowledged since \
         may be missing, so it takes no part. If this is the newest copy and the original will never start again: stop \
         the node and say zrsctl adopt --data DIR. Else put the original back"
    )
}

/// How a folder differs from the one in which it was noted what `known` says; `None` if nothing says that it is
/// another.
fn difference(known: &Identity, found: &Identity) -> Option<String> {
    if let (Some(was), Some(is)) = (known.born, found.born) {
        let (was, is) = (was.as_secs_f64(), is.as_secs_f64());
        // (File numbers may change at each mount, machines' ids with each container: this says more than both.)
        return (known.born != found.born)
            .then(|| format!("its file log/{SLOTS} was made at {is:.6}, and says {was:.6} (seconds since 1970)"));
    }
    if known.inode != found.inode {
        let (was, is) = (known.inode, found.inode);
        return Some(format!("its file log/{SLOTS} has the inode number {is}, and had {was}"));
    }
    let differ = |was: &str, is: &str| !was.is_empty() && !is.is_empty() && was != is;
    // (The same start of the kernel is the same machine.)
    let other_machine = differ(&known.machine, &found.machine) && known.boot != found.boot;
    other_machine.then(|| "it was made on another machine (/etc/machine-id differs)".into())
}

/// What to keep of a folder that is the same: what is known now, and what was known and can't be told now.
fn updated(known: &Identity, found: Identity) -> Identity {
    let or = |found: String, known: &str| if found.is_empty() { known.to_owned() } else { found };
    Identity {
        machine: or(found.machine, &known.machine),
        boot: or(found.boot, &known.boot),
        born: found.born.or(known.born),
        ..found
    }
}

/// What a folder is, as it knows itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A copy, for the reason given.
    Copy(String),
    /// Excluded, as members remember more than it has.
    Excluded(String),
    /// Neither, as far as it knows.
    Original,
    /// No node has ever started from it.
    New,
}

/// Looks at the folder with the log in `files`, which no node uses, and the log's values.
pub fn look(files: &dyn Files, values: &Values) -> io::Result<Origin> {
    if !values.contains_key(INCARNATION) {
        return Ok(Origin::New);
    }
    let known = value::<Identity>(values, ORIGIN)?;
    let found = files.identity(SLOTS)?;
    if let Some(odd) = known.and_then(|known| difference(&known, &found)) {
        return Ok(Origin::Copy(odd));
    }
    Ok(memory::excluded(values)?.map_or(Origin::Original, Origin::Excluded))
}

/// Makes the copied or excluded folder with the log in `files`, which no node uses, one that may take part again;
/// durable on return. Gives what it was.
///
/// What the members remember of its votes and entries still counts: with less, the node is excluded again.
pub fn adopt(files: Arc<dyn Files>) -> io::Result<Origin> {
    let mut journal = Journal::open(files.clone(), Sizes::default(), 0).map_err(io::Error::other)?;
    let found = look(&*files, journal.values())?;
    if matches!(found, Origin::Copy(_) | Origin::Excluded(_)) {
        let identity = postcard::to_stdvec(&files.identity(SLOTS)?).expect("an identity is plain data");
        for (name, value) in memory::vouched(journal.values())? {
            journal.set(name, value)?;
        }
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
        let at = |nanos| Some(Duration::from_nanos(nanos));
        let known = Identity { machine: "m".into(), boot: "b".into(), inode: 12, born: at(7) };
        let changed = |known: &Identity, change: fn(&mut Identity)| {
            let mut found = known.clone();
            change(&mut found);
            difference(known, &found)
        };
        let same = |change| changed(&known, change);
        assert_eq!(same(|_| {}), None);
        assert!(same(|found| found.born = Some(Duration::from_nanos(8_000))).unwrap().contains("was made at 0.000008"));
        // A machine that was started anew, a container on another host, a volume that was attached again.
        assert_eq!(same(|found| found.boot = "c".into()), None);
        assert_eq!(same(|found| (found.machine, found.boot) = ("n".into(), "c".into())), None);
        assert_eq!(same(|found| found.inode = 13), None);
        // Where times are not kept.
        let known = Identity { born: None, ..known.clone() };
        let same = |change| changed(&known, change);
        assert_eq!(same(|_| {}), None);
        assert_eq!(same(|found| *found = Identity { inode: 12, ..Identity::default() }), None);
        assert!(same(|found| found.inode = 13).unwrap().contains("inode number 13, and had 12"));
        assert!(
            same(|found| (found.machine, found.boot) = ("n".into(), "c".into())).unwrap().contains("another machine")
        );
        assert_eq!(same(|found| found.machine = "n".into()), None, "the kernel is the same");
    }

    #[test]
    fn what_can_not_be_told_now_is_not_forgotten() {
        let known = Identity { machine: "m".into(), boot: "b".into(), inode: 12, born: None };
        let found = Identity { boot: "c".into(), inode: 12, ..Identity::default() };
        let kept = Identity { boot: "c".into(), ..known.clone() };
        assert_eq!(updated(&known, found), kept);
    }
}
