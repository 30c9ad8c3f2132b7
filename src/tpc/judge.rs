//! The verdict on a vote, once its locks are held and its objects' serials are known.
//!
//! As `FileStorage` does it: `store` wants the serial that is current, also where that is the end of the object (deleted, or
//! its creation undone), and takes any where there never was one; `deleteObject` wants that serial, and that there is one;
//! `restore` looks at nothing, and `undo` only later; `checkCurrentSerialInTransaction` wants the object to be there, with
//! that serial. A failed check or deletion outweighs conflicts: those can be resolved, it can't.

use super::{CurrentSerial, Read, Vote};
use crate::command::Base;
use crate::zodb::{Conflict, Oid, Refusal, Tid};

pub(super) enum Judgement {
    /// What each write is based on, for `storage::apply` to look at once more.
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
