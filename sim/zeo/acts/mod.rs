//! The acts of clients that speak the protocol, one a file.

pub mod append;
pub mod count;
pub mod cut;
pub mod download;
pub mod flag;
pub mod graft;
pub mod grow;
pub mod iterate;
pub mod junk;
pub mod live_and_die;
pub mod look;
pub mod look_back;
pub mod meet;
pub mod pack;
pub mod page;
pub mod pair;
pub mod ping;
pub mod take_oids;
pub mod transfer;
pub mod undo;
pub mod upload;
pub mod walk;
pub mod watch;

use std::collections::BTreeSet;

use zrs::zodb::Oid;

use crate::chance::Chance;

/// A branch that refers to so many objects grows no more.
const MANY: usize = 8;

/// Some of the objects, one to three.
fn some_of(oids: &[Oid], chance: &mut Chance) -> Vec<Oid> {
    let some = 1 + chance.below(3) as usize;
    let chosen: BTreeSet<Oid> = (0..some).map(|_| chance.one_of(oids)).collect();
    chosen.into_iter().collect()
}
