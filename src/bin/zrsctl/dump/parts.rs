//! The parts of a data folder, opened for reading only, and the ids and memberships that several dumps name.

use std::io;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;

use zrs::engine::{Durability, Folder, Rocks};
use zrs::journal::{Directory, Inspection};
use zrs::raft::offline::MemberList;
use zrs::storage::{self, Store};
use zrs::{journal, zodb};

/// The log; `None`: no node has started on this folder.
pub fn open_log(folder: &Folder) -> anyhow::Result<Option<Inspection>> {
    if folder.log().is_dir() { open_log_in(&folder.log()) } else { Ok(None) }
}

/// The log in this place.
pub fn open_log_in(place: &Path) -> anyhow::Result<Option<Inspection>> {
    let files = Directory::open_read_only(place).context("opening the log")?;
    journal::inspect(Arc::new(files)).context("opening the log")
}

/// The store; `None`: it is empty, as the node was killed before the store was first flushed.
pub fn open_store(folder: &Folder) -> anyhow::Result<Option<Store>> {
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

pub fn parse_oid(text: &str) -> Result<zodb::Oid, String> {
    parse_id(text).map(zodb::Oid)
}

pub fn parse_tid(text: &str) -> Result<zodb::Tid, String> {
    parse_id(text).map(zodb::Tid)
}

/// A membership in words.
pub fn members(membership: &MemberList) -> String {
    let set = |voters: &Vec<u64>| voters.iter().map(u64::to_string).collect::<Vec<_>>().join(" ");
    let voters: Vec<String> = membership.voters.iter().map(set).collect();
    let addresses: Vec<String> = membership.members.iter().map(|(node, address)| format!("{node}={address}")).collect();
    format!("voters {}; {}", voters.join(" to "), addresses.join(" "))
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
