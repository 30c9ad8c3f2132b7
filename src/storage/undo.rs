//! Undo: the writes of a transaction that undoes others.
//!
//! Nothing is undone here: [`Store::undo`] only works out which older revision each object is to show again, and the
//! transaction says so ([`Content::SameAs`]) when it is committed. The session asks while the objects are locked, so
//! that the answer is still true at the commit.
//!
//! **The verdict on an object** is `FileStorage`'s (`_transactionalUndoRecord`). The object gets the state from before
//! the undone transaction if that transaction's revision is still current, or if the current revision shows the same:
//! because it was made to show that very revision again, or because the data are equal. Otherwise a merge would be
//! needed, which takes the application's classes: the undo fails, and with it the whole transaction. The client is told
//! of all objects that stand in the way.
//!
//! ```text
//! revisions of an object   1 "a"   2 "b"             undo 2         ->  as 1
//!                          1 "a"   2 "b"   3 as 1    undo 3         ->  as 2
//!                          1 "a"   2 "b"   3 as 1    undo 1         ->  absent: 3 shows the same as 1
//!                          1 "a"   2 "b"   3 "c"     undo 2         ->  fails: 3 is neither 2 nor shows the same
//!                          1 "a"   2 "b"   3 "c"     undo 3, then 2 ->  as 1: each works on the one before
//! ```
//!
//! **Left out**: blobs that changed meanwhile. As in `FileStorage`, only records are compared, and those of two blobs
//! are equal as a rule.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::answered::Answered;
use super::digest::{self, Digest};
use super::stop::Stop;
use super::store::Store;
use super::value::{self, Stored, UNPACKED};
use super::{keys, load};
use crate::command::{Blob, Content};
use crate::engine::Order;
use crate::zodb::{Oid, Refusal, StorageId, Tid};

/// A write of the undoing transaction itself, beside its undos: a store, a restore, or a deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnWrite {
    /// How many of the transaction's undos came before this write.
    pub undos: usize,
    /// The object's new content.
    pub content: Content,
}

/// An object as an undo leaves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undone {
    /// `SameAs` the older revision that the object shows again, or `Absent`.
    pub content: Content,
    /// The blob of that revision.
    pub blob: Option<Blob>,
}

impl Store {
    /// The objects that a transaction wrote, in order, each once; refused if the transaction can't be undone (any
    /// more), or wrote more than `most` records. An error once `stop` was asked for.
    pub fn undoable(&self, storage: StorageId, tid: Tid, most: usize, stop: &Stop) -> Answered<Vec<Oid>> {
        let refuse = |why: &str| Ok(Err(Refusal::NotUndoable(format!("transaction {tid} {why}"))));
        let Some(head) = self.transaction(storage, tid)? else { return refuse("is not there (any more)") };
        if tid <= self.undo_floor(storage) {
            return refuse("can't be undone any more: the database was packed since");
        }
        if head.meta.status != UNPACKED {
            return refuse("is not undoable");
        }
        if head.count as usize > most {
            let why = format!("transaction {tid} has {} records: more than can be undone at a time", head.count);
            return Ok(Err(Refusal::TooLarge(why)));
        }
        let mut oids = head.oids;
        if oids.len() < head.count as usize {
            let (from, until) = (keys::transaction_part(storage, tid, 1), keys::transaction(storage, tid.next()));
            for pair in self.engine().range(keys::TRANSACTIONS, &from, &until, Order::Ascending) {
                stop.look()?;
                let (key, part) = pair?;
                oids.extend(value::decode_oids(&key, &part)?);
            }
        }
        let mut seen = BTreeSet::new();
        oids.retain(|oid| seen.insert(*oid));
        Ok(Ok(oids))
    }

    /// The objects as undoing the transactions `undos`, one after the other, leaves them. `own`: the other writes of
    /// the undoing transaction; objects that it writes itself after the undo are left out.
    ///
    /// Refused with `NotUndoable`, or with `UndoFailed`, which says what is wrong with which object. An error once
    /// `stop` was asked for. The answer is true as long as no other transaction writes those objects.
    pub fn undo(
        &self,
        storage: StorageId,
        undos: &[Tid],
        own: &BTreeMap<Oid, OwnWrite>,
        stop: &Stop,
    ) -> Answered<BTreeMap<Oid, Undone>> {
        // Each content with the number of the undo that made it.
        let mut made: BTreeMap<Oid, (usize, Content)> = BTreeMap::new();
        for (n, &tid) in undos.iter().enumerate() {
            let oids = match self.undoable(storage, tid, usize::MAX, stop)? {
                Ok(oids) => oids,
                Err(refusal) => return Ok(Err(refusal)),
            };
            let mut failures = Vec::new();
            for oid in oids {
                stop.look()?;
                let own = own.get(&oid).filter(|own| own.undos <= n);
                let now = match (made.get(&oid), own) {
                    (Some((by, content)), Some(own)) if *by >= own.undos => Some(content),
                    (_, Some(own)) => Some(&own.content),
                    (Some((_, content)), None) => Some(content),
                    (None, None) => None,
                };
                match self.undo_object(storage, oid, tid, now)? {
                    Ok(content) => drop(made.insert(oid, (n, content))),
                    Err(why) => failures.push((oid, why.to_owned())),
                }
            }
            if !failures.is_empty() {
                return Ok(Err(Refusal::UndoFailed(failures)));
            }
        }
        made.retain(|oid, (by, _)| own.get(oid).is_none_or(|own| *by >= own.undos));
        let mut undone = BTreeMap::new();
        for (oid, (_, content)) in made {
            stop.look()?;
            let blob = match content {
                Content::SameAs(tid) => self.blob(storage, oid, tid)?.map(|_| Blob::SameAs(tid)),
                _ => None,
            };
            undone.insert(oid, Undone { content, blob });
        }
        Ok(Ok(undone))
    }

    /// The object's content once its revision `tid` is undone; or why that can't be. `now`: the content that the
    /// undoing transaction has given to the object already; `None`: none, so the current revision counts.
    fn undo_object(
        &self,
        storage: StorageId,
        oid: Oid,
        tid: Tid,
        now: Option<&Content>,
    ) -> io::Result<Result<Content, &'static str>> {
        let before = self.newest(storage, oid, tid.previous())?.map(|(before, _)| before);
        if !self.shows(storage, oid, tid, now)? {
            let wanted = self.hash_at(storage, oid, tid)?;
            let found = match now {
                None => match self.current(storage, oid)? {
                    Some(current) => self.hash_at(storage, oid, current.tid)?,
                    None => None,
                },
                Some(Content::Data(data)) => Some(digest::content(Some(data))),
                Some(Content::Staged(staged)) => Some(staged.hash),
                Some(Content::Absent) => None,
                Some(Content::SameAs(at)) => self.hash_at(storage, oid, *at)?,
            };
            match (wanted, found) {
                (Some(wanted), Some(found)) if wanted == found => {}
                (Some(_), Some(_)) if before.is_none() => {
                    return Ok(Err("Can't undo an add transaction followed by conflicting transactions."));
                }
                (Some(_), Some(_)) => return Ok(Err("Some data were modified by a later transaction")),
                (None, _) | (_, None) => return Ok(Err("The object was deleted, or its creation undone, meanwhile")),
            }
        }
        Ok(Ok(before.map_or(Content::Absent, Content::SameAs)))
    }

    /// Whether an object is as revision `tid` left it: by that revision itself, or by one that was made to show it
    /// again.
    fn shows(&self, storage: StorageId, oid: Oid, tid: Tid, now: Option<&Content>) -> io::Result<bool> {
        match now {
            Some(Content::SameAs(at)) => Ok(*at == tid),
            Some(_) => Ok(false),
            None => match self.current(storage, oid)? {
                Some(current) if current.tid == tid => Ok(true),
                Some(current) => Ok(self.linked(storage, oid, current.tid)?.and_then(|(_, link)| link) == Some(tid)),
                None => Ok(false),
            },
        }
    }

    /// The content hash of revision `tid`; `None`: the object is absent.
    fn hash_at(&self, storage: StorageId, oid: Oid, tid: Tid) -> io::Result<Option<Digest>> {
        match self.stored(storage, oid, tid)?.ok_or_else(|| load::missing(storage, oid, tid))? {
            Stored::Absent => Ok(None),
            stored => self.content_hash(storage, oid, tid, &stored).map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::command::{Change, Outcome};
    use crate::config::limits;

    /// Undoes `undos` and commits that as `tid`; or tells the objects that stand in the way.
    fn undo(store: &Store, tid: u64, undos: &[u64]) -> Result<(), Vec<u64>> {
        let undos: Vec<Tid> = undos.iter().copied().map(Tid).collect();
        match store.undo(S, &undos, &BTreeMap::new(), &Stop::default()).unwrap() {
            Ok(undone) => {
                let base = |oid| store.current(S, oid).unwrap().unwrap().tid;
                let write = |(oid, undone): (Oid, Undone)| over(base(oid).0, oid.0, undone.content);
                let writes = undone.into_iter().map(write).collect();
                assert_eq!(apply(store, commit(tid, writes)), Outcome::Committed(Tid(tid)));
                Ok(())
            }
            Err(Refusal::UndoFailed(failures)) => Err(failures.into_iter().map(|(oid, _)| oid.0).collect()),
            Err(other) => panic!("{other}"),
        }
    }

    fn text(store: &Store, oid: u64) -> Option<String> {
        let loaded = store.load_before(S, Oid(oid), Tid::MAX, Tid::MAX).unwrap().ok()??;
        Some(String::from_utf8(loaded.data.to_vec()).unwrap())
    }

    fn example(last: Option<Content>) -> Store {
        let store = store();
        apply(&store, commit(1, vec![over(0, 5, data("a"))]));
        apply(&store, commit(2, vec![over(1, 5, data("b"))]));
        if let Some(last) = last {
            apply(&store, commit(3, vec![over(2, 5, last)]));
        }
        store
    }

    #[test]
    fn the_examples_in_the_module_are_true() {
        let store = example(None);
        undo(&store, 3, &[2]).unwrap();
        assert_eq!(text(&store, 5).unwrap(), "a");
        undo(&store, 4, &[3]).unwrap();
        assert_eq!(text(&store, 5).unwrap(), "b");

        let store = example(Some(Content::SameAs(Tid(1))));
        undo(&store, 4, &[1]).unwrap();
        assert_eq!(text(&store, 5), None);

        let store = example(Some(data("c")));
        assert_eq!(undo(&store, 4, &[2]), Err(vec![5]));
        assert_eq!(undo(&store, 4, &[2, 3]), Err(vec![5]));
        undo(&store, 4, &[3, 2]).unwrap();
        assert_eq!(text(&store, 5).unwrap(), "a");
    }

    #[test]
    fn an_absence_is_undone_only_where_it_is_the_same_one() {
        // Created, undone, redone; and undone again by showing transaction 2 again.
        let store = store();
        apply(&store, commit(1, vec![over(0, 5, data("a"))]));
        undo(&store, 2, &[1]).unwrap();
        undo(&store, 3, &[2]).unwrap();
        undo(&store, 4, &[3]).unwrap();
        assert_eq!(text(&store, 5), None);
        undo(&store, 5, &[2]).unwrap();
        assert_eq!(text(&store, 5).unwrap(), "a");
        // A deletion is another absence.
        apply(&store, commit(6, vec![over(5, 5, Content::Absent)]));
        assert_eq!(undo(&store, 7, &[2]), Err(vec![5]));
        undo(&store, 7, &[6]).unwrap();
        assert_eq!(text(&store, 5).unwrap(), "a");
    }

    #[test]
    fn all_objects_that_stand_in_the_way_are_told() {
        let store = store();
        apply(&store, commit(1, vec![over(0, 7, data("a")), over(0, 5, data("a")), over(0, 6, data("a"))]));
        apply(&store, commit(2, vec![over(1, 6, data("b")), over(1, 7, Content::Absent)]));
        assert_eq!(undo(&store, 3, &[1]), Err(vec![7, 6]));
    }

    #[test]
    fn what_is_packed_or_unknown_cannot_be_undone() {
        let store = example(None);
        let refused = |tid| {
            matches!(
                store.undo(S, &[Tid(tid)], &BTreeMap::new(), &Stop::default()).unwrap(),
                Err(Refusal::NotUndoable(_))
            )
        };
        assert!(refused(9) && !refused(2));
        assert_eq!(apply(&store, Change::PackBegin { storage: S, upto: Tid(1) }), Outcome::Done);
        assert!(refused(1) && !refused(2));
        assert_eq!(store.undo_floor(S), Tid(1));
        let log = store.undo_log(S, Tid::MAX, 0, 20, &Stop::default(), |_| true).unwrap();
        assert_eq!(log.iter().map(|entry| entry.tid.0).collect::<Vec<_>>(), [2]);
        // As long as a Data.fs would have it: two headers, one text, one byte of data.
        assert_eq!(log[0].size, 23 + "user 2".len() as u64 + 42 + 1);
    }

    #[test]
    fn a_large_transaction_is_undone_whole() {
        let store = store();
        let count = 2 * keys::OIDS_PER_PART as u64 + 3;
        let all = |base, text: &str| (0..count).map(|oid| over(base, oid, data(text))).collect();
        apply(&store, commit(1, all(0, "a")));
        apply(&store, commit(2, all(1, "b")));
        undo(&store, 3, &[2]).unwrap();
        for oid in [0, 511, 512, 1024, count - 1] {
            assert_eq!(text(&store, oid).unwrap(), "a");
        }
        let undoable = |most, stop: &Stop| store.undoable(S, Tid(2), most, stop);
        let count = count as usize;
        assert_eq!(undoable(count, &Stop::default()).unwrap().unwrap().len(), count);
        assert!(matches!(undoable(count - 1, &Stop::default()).unwrap(), Err(Refusal::TooLarge(_))));
    }

    #[test]
    fn a_read_that_nobody_waits_for_ends() {
        let store = store();
        apply(&store, commit(1, (0..2_000).map(|oid| over(0, oid, data("a"))).collect()));
        let stop = Stop::default();
        stop.ask();
        store.undoable(S, Tid(1), usize::MAX, &stop).unwrap_err();
        store.undo(S, &[Tid(1)], &BTreeMap::new(), &stop).unwrap_err();
        store.undo_log(S, Tid::MAX, 0, 20, &stop, |_| true).unwrap_err();
    }

    #[test]
    fn a_log_of_long_texts_ends_early() {
        let store = store();
        let most = limits::HISTORY_BYTES / limits::TRANSACTION_TEXT;
        for n in 1..=most as u64 + 5 {
            let mut change = commit(n, vec![]);
            let Change::Commit(commit) = &mut change else { unreachable!("it is a commit") };
            commit.meta.description = vec![b'x'; limits::TRANSACTION_TEXT];
            apply(&store, change);
        }
        let log = store.undo_log(S, Tid::MAX, 0, i64::MAX, &Stop::default(), |_| true).unwrap();
        assert!((most - 1..=most + 1).contains(&log.len()), "{}", log.len());
    }
}
