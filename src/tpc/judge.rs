//! The judgement on a vote, once its locks are held and its objects' serials are known.
//!
//! The rules are those of `FileStorage`:
//!
//! | call | wants |
//! |---|---|
//! | `store` | the current serial, also where the object is absent; any serial where the object was never stored |
//! | `deleteObject` | the current serial, of an object that was stored |
//! | `restore` | nothing |
//! | `undo` | nothing here; its objects are looked at under the locks |
//! | `checkCurrentSerialInTransaction` | the current serial, of an object that is not absent |
//!
//! A failed check or deletion outweighs conflicts: clients can resolve conflicts, but not those.

use super::words::{CurrentSerial, Read, Vote};
use crate::command::Base;
use crate::zodb::{Conflict, Oid, Refusal, Tid};

pub(super) enum Judgement {
    /// The base of each write, which `storage::apply` checks once more.
    Voted(Vec<(Oid, Base)>),
    Conflicts(Vec<Conflict>),
    Failed(Refusal),
}

/// The objects whose serials [`judge`] needs: in order, each once.
pub(super) fn questions(vote: &Vote) -> Vec<Oid> {
    let mut oids = Vec::with_capacity(vote.writes.len() + vote.checks.len());
    oids.extend(vote.writes.iter().filter(|(_, read)| *read != Read::Any).map(|&(oid, _)| oid));
    oids.extend(vote.checks.iter().map(|&(oid, _)| oid));
    oids.sort_unstable();
    oids.dedup();
    oids
}

/// `current` answers [`questions`], one for one; `last` is the storage's last tid.
pub(super) fn judge(vote: &Vote, current: &[(Oid, Option<CurrentSerial>)], last: Tid) -> Judgement {
    let of = |oid: Oid| {
        let at = current.binary_search_by_key(&oid, |&(o, _)| o).expect("serials answer the question, in its order");
        current[at].1
    };
    if let Some(tid) = vote.brings_tid
        && tid <= last
    {
        return Judgement::Failed(Refusal::BadValue(format!("tid {tid} is not later than the last one, {last}")));
    }
    for &(oid, read) in &vote.checks {
        match of(oid) {
            None | Some(CurrentSerial { absent: true, .. }) => return Judgement::Failed(Refusal::NoObject(oid)),
            Some(CurrentSerial { tid, .. }) if tid != read => {
                return Judgement::Failed(Refusal::ReadConflict(Conflict { oid, committed: tid, read }));
            }
            Some(_) => {}
        }
    }
    let mut bases = Vec::with_capacity(vote.writes.len());
    let mut conflicts = Vec::new();
    for &(oid, read) in &vote.writes {
        let read = match read {
            Read::Serial(read) => read,
            Read::Existing(read) => match of(oid) {
                None => return Judgement::Failed(Refusal::NoObject(oid)),
                Some(CurrentSerial { tid, .. }) if tid != read => {
                    return Judgement::Failed(Refusal::Conflict(Conflict { oid, committed: tid, read }));
                }
                Some(_) => read,
            },
            Read::Any => {
                bases.push((oid, Base::Any));
                continue;
            }
            Read::Current => {
                bases.push((oid, Base::Serial(of(oid).map_or(Tid::ZERO, |current| current.tid))));
                continue;
            }
        };
        match of(oid) {
            None => bases.push((oid, Base::Serial(Tid::ZERO))),
            Some(CurrentSerial { tid, .. }) if tid == read => bases.push((oid, Base::Serial(tid))),
            Some(CurrentSerial { tid, .. }) => conflicts.push(Conflict { oid, committed: tid, read }),
        }
    }
    if conflicts.is_empty() { Judgement::Voted(bases) } else { Judgement::Conflicts(conflicts) }
}
