//! The meaning of every command.
//!
//! Each call writes one batch: the command's changes, and the position in the log. A command that is refused or stale
//! changes nothing but the position. The outcome depends on nothing but the command and the commands applied before, so
//! it is the same on every node.
//!
//! | command | means | else |
//! |---|---|---|
//! | `Barrier` | opens its reign, if that is greater than the open one; removes unclaimed pieces | `Stale` |
//! | any other | is looked at if its reign is the open one | `Stale` |
//! | `CreateStorage` | gives the storage of that name, new or not | `BadValue`: no name, or too long |
//! | `DropStorage` | ends a storage; its number is never given again | `NoStorage`; `BadValue`: it is not empty |
//! | `ReserveOids` | takes up to `count` ids, none below `from` | `NoStorage`; `BadValue`: no ids left |
//! | `PackBegin` | sets the pack time, at most the last tid | `NoStorage`; `BadValue`: a pack is going on |
//! | `PackStep`, `PackEnd` | see `pack::step` | |
//! | `Stage` | keeps pieces, numbered | `NoStorage`; `BadValue`: an empty piece, or one above 1 MiB |
//! | `Discard` | removes those of the pieces that are unclaimed | `NoStorage` |
//! | `Commit` | writes the transaction | `NoStorage`; `BadValue`; `Conflict`: see below |
//!
//! A `Commit` is a `Conflict` at its first write whose base is not current. It is a `BadValue` if its tid is not later
//! than the last; if it writes an object twice (but for `repeats`); if it says `SameAs` a revision that is not there;
//! if it names a piece that is not there, or that belongs to a revision.
//!
//! The primary has checked all of this under locks; apply checks again, as a primary may be wrong about being one.
//!
//! A copied transaction of status "packed" moves `packed` up to its tid. An object that is stored or restored moves
//! `next_oid` past its id.

use std::collections::BTreeSet;
use std::io;
use std::sync::MutexGuard;
use std::sync::atomic::Ordering::SeqCst;

use super::decision::{Decision, Next, no_storage};
use super::feed::Applied;
use super::position::Position;
use super::put::{put_revision, put_summary, put_transaction};
use super::store::{Catalog, Storage, Store, Writing};
use super::summary::Summary;
use super::value::{self, PACKED, Stored};
use super::{digest, keys};
use crate::command::{Base, Change, Command, Commit, Content, Outcome, Write};
use crate::engine::Batch;
use crate::zodb::{Oid, Refusal, StorageId, Tid};

/// Bytes of a record's header, and of the pointer of a record without data, in a `Data.fs` (`ZODB.FileStorage.format`).
const RECORD_HEADER: u64 = 42;
const POINTER: u64 = 8;

/// The longest name of a storage, in bytes.
pub const NAME_LIMIT: usize = 255;

impl Store {
    /// Applies `command`, the log's entry at `at`.
    ///
    /// # Errors
    /// A fault of the engine, or damaged data. After a failed write nothing can be applied any more: the node must
    /// stop.
    ///
    /// # Panics
    /// If `at` is not the position after [`Store::applied`].
    pub fn apply(&self, at: Position, command: &Command) -> io::Result<Outcome> {
        let turn = self.turn(at)?;
        let decision = self.decide(command)?;
        self.write(turn, at, decision.batch, decision.next)?;
        Ok(decision.outcome)
    }

    /// Counts an entry of the log that has no command as applied. Errors and panics as [`Store::apply`].
    pub fn pass(&self, at: Position) -> io::Result<()> {
        let turn = self.turn(at)?;
        self.write(turn, at, Batch::new(), Next::Same)
    }

    /// Keeps Raft's membership, which is the log's entry at `at`. Errors and panics as [`Store::apply`].
    pub fn set_membership(&self, at: Position, membership: &[u8]) -> io::Result<()> {
        let turn = self.turn(at)?;
        let mut batch = Batch::new();
        let body = [&at.to_bytes()[..], membership].concat();
        batch.put(keys::META, keys::MEMBERSHIP, value::seal(&keys::MEMBERSHIP, value::MEMBERSHIP, &body));
        self.write(turn, at, batch, Next::Membership(membership.to_vec()))
    }

    /// The right to write the entry at `at`.
    fn turn(&self, at: Position) -> io::Result<MutexGuard<'_, Writing>> {
        let turn = self.writing();
        if turn.failed {
            return Err(io::Error::other(
                "a write to the store has failed before; nothing can be applied until a restart",
            ));
        }
        let last = self.applied();
        assert!(at.index == last.index + 1, "entry {} is to be applied after {}", at.index, last.index);
        assert!(at.term >= last.term, "an entry of term {} is to be applied after one of {}", at.term, last.term);
        Ok(turn)
    }

    /// Writes the batch, then brings the catalog up to it and wakes the watchers of [`Store::applied_watch`].
    fn write(&self, mut turn: MutexGuard<'_, Writing>, at: Position, mut batch: Batch, next: Next) -> io::Result<()> {
        batch.put(keys::META, keys::POSITION, value::seal(&keys::POSITION, value::POSITION, &at.to_bytes()));
        let removal = matches!(next, Next::Removed(..));
        if removal {
            self.inner.removals.fetch_add(1, SeqCst);
        }
        if let Err(fault) = self.engine().write(batch) {
            turn.failed = true;
            return Err(fault);
        }
        {
            // The feed is filled before the catalog's lock is released: a reader that sees the new position or tid also
            // finds the transaction in the feed.
            let mut catalog = self.inner.catalog.write().unwrap_or_else(|poisoned| poisoned.into_inner());
            catalog.position = at;
            catalog.take(at, next);
        }
        if removal {
            self.inner.removals.fetch_add(1, SeqCst);
        }
        self.inner.applied.send(at.index);
        Ok(())
    }

    fn decide(&self, command: &Command) -> io::Result<Decision> {
        let open = self.reign();
        if let Change::Barrier = command.change {
            if command.reign <= open {
                return Ok(Decision::nothing(Outcome::Stale));
            }
            let mut batch = Batch::new();
            let body = value::reign_bytes(command.reign);
            // Pieces staged in earlier reigns belong to transactions that are over.
            self.drop_unclaimed(&[], &[0xff; 4], &mut batch)?;
            batch.put(keys::META, keys::REIGN, value::seal(&keys::REIGN, value::REIGN, &body));
            return Ok(Decision { outcome: Outcome::Done, batch, next: Next::Reign(command.reign) });
        }
        if command.reign != open {
            return Ok(Decision::nothing(Outcome::Stale));
        }
        match &command.change {
            Change::Barrier => unreachable!("handled above"),
            Change::CreateStorage { name } => Ok(self.create_storage(name)),
            Change::ReserveOids { storage, count, from } => Ok(self.reserve_oids(*storage, *count, *from)),
            Change::Commit(commit) => self.commit(commit),
            Change::Stage { storage, pieces } => Ok(self.stage(*storage, pieces)),
            Change::Discard { storage, pieces } => self.discard(*storage, pieces),
            Change::PackBegin { storage, upto } => Ok(self.pack_begin(*storage, *upto)),
            Change::PackStep(step) => self.pack_step(step),
            Change::PackEnd { storage } => Ok(self.pack_end(*storage)),
            Change::DropStorage { name } => self.drop_storage(name),
        }
    }

    fn create_storage(&self, name: &str) -> Decision {
        if let Some(storage) = self.storage(name) {
            return Decision::nothing(Outcome::Storage(storage));
        }
        if name.is_empty() || name.len() > NAME_LIMIT {
            let why = format!("a storage's name has 1 to {NAME_LIMIT} bytes, not {}", name.len());
            return Decision::refuse(Refusal::BadValue(why));
        }
        let last = self.catalog().storages.keys().next_back().map_or(0, |storage| storage.0);
        // One below the largest number, so that every storage's keys have an end.
        let Some(storage) = last.checked_add(1).filter(|&number| number < u32::MAX).map(StorageId) else {
            return Decision::refuse(Refusal::BadValue("there are no storage numbers left".into()));
        };
        let mut batch = Batch::new();
        let key = keys::name(storage);
        batch.put(keys::META, key, value::seal(&key, value::NAME, name.as_bytes()));
        put_summary(&mut batch, storage, &Summary::default());
        Decision { outcome: Outcome::Storage(storage), batch, next: Next::Created(storage, name.to_owned()) }
    }

    fn drop_storage(&self, name: &str) -> io::Result<Decision> {
        let Some(storage) = self.storage(name) else {
            return Ok(Decision::refuse(Refusal::NoStorage { name: name.to_owned(), known: Vec::new() }));
        };
        if let Some(why) = self.summary(storage).not_empty(name) {
            return Ok(Decision::refuse(Refusal::BadValue(why)));
        }
        let mut batch = Batch::new();
        let key = keys::name(storage);
        batch.put(keys::META, key, value::seal(&key, value::DROPPED, name.as_bytes()));
        batch.delete(keys::META, keys::summary(storage));
        self.drop_unclaimed(&storage.0.to_be_bytes(), &keys::storage_end(storage), &mut batch)?;
        Ok(Decision { outcome: Outcome::Done, batch, next: Next::Dropped(storage) })
    }

    fn reserve_oids(&self, storage: StorageId, count: u32, from: Oid) -> Decision {
        let Some(mut summary) = self.summary_of(storage) else {
            return Decision::refuse(no_storage(storage));
        };
        let first = summary.next_oid.max(from);
        let left = Oid::NOT_GIVEN.0.saturating_sub(first.0);
        if left == 0 {
            let why = format!("storage {storage} has no object ids left: objects are stored with ids up to 2^63");
            return Decision::refuse(Refusal::BadValue(why));
        }
        let count = count.min(u32::try_from(left).unwrap_or(u32::MAX));
        summary.next_oid = Oid(first.0 + u64::from(count));
        let mut batch = Batch::new();
        put_summary(&mut batch, storage, &summary);
        Decision { outcome: Outcome::Oids { first, count }, batch, next: Next::Summed(storage, summary) }
    }

    fn commit(&self, commit: &Commit) -> io::Result<Decision> {
        let storage = commit.storage;
        let Some(mut summary) = self.summary_of(storage) else {
            return Ok(Decision::refuse(no_storage(storage)));
        };
        if let Some(why) = improper(commit, summary.last_tid) {
            return Ok(Decision::refuse(Refusal::BadValue(why)));
        }
        let writes = || commit.writes.iter().filter(|write| !repeats(commit, write));
        let mut known = Vec::with_capacity(commit.writes.len());
        for write in writes() {
            let current = self.current(storage, write.oid)?;
            let committed = current.map_or(Tid::ZERO, |current| current.tid);
            if committed >= commit.tid {
                return Err(value::damaged(format_args!(
                    "storage {storage}, object {}: its newest revision {committed} is not older than transaction {}",
                    write.oid, commit.tid
                )));
            }
            match write.base {
                Base::Serial(read) if read != committed => {
                    return Ok(Decision::nothing(Outcome::conflict(write.oid, committed, read)));
                }
                Base::Serial(_) | Base::Any => known.push(current.is_some()),
            }
        }

        let mut batch = Batch::new();
        if self.claim(commit, &mut batch)?.is_none() {
            let why = "the transaction names staged data that is not there, or not its own";
            return Ok(Decision::refuse(Refusal::BadValue(why.into())));
        }
        let mut digested = Vec::with_capacity(commit.writes.len());
        let mut bytes = 0;
        let mut length =
            commit.writes.len() as u64 * RECORD_HEADER + (commit.writes.len() - known.len()) as u64 * POINTER;
        for (write, known) in writes().zip(known) {
            let Some((stored, content)) = self.resolve(storage, write)? else {
                return Ok(Decision::refuse(Refusal::BadValue(format!(
                    "object {} has no such revision that it could show again",
                    write.oid
                ))));
            };
            let Ok(blob) = self.resolve_blob(storage, write)? else {
                let why = format!("object {} has no such blob that it could show again", write.oid);
                return Ok(Decision::refuse(Refusal::BadValue(why)));
            };
            let content = digest::with_blob(content, blob.as_ref().map(|(_, hash)| hash));
            if let Some((blob, _)) = blob {
                let key = keys::revision(storage, write.oid, commit.tid);
                batch.put(keys::BLOBS, key, blob.encode(&key));
            }
            bytes += stored.length();
            length += if stored.length() == 0 { POINTER } else { stored.length() };
            put_revision(&mut batch, commit, write, &stored);
            summary.objects += u64::from(!known);
            summary.next_oid = summary.next_oid.max(write.oid.next_given().unwrap_or_default());
            summary.present = digest::add(&summary.present, &digest::revision(write.oid, commit.tid, &content));
            digested.push((write.oid, content));
        }
        summary.last_tid = commit.tid;
        summary.bytes += bytes;
        summary.transactions += 1;
        if commit.meta.status == PACKED {
            // The transaction was copied from a packed database, and all before it had been packed too.
            summary.packed = summary.packed.max(commit.tid);
        }
        summary.history = digest::history(&summary.history, commit.tid, &commit.meta, &digested);

        let listed: Vec<Oid> = commit.writes.iter().map(|write| write.oid).collect();
        let oids: Vec<Oid> = writes().map(|write| write.oid).collect();
        put_transaction(&mut batch, commit, length, &listed, oids.len());
        put_summary(&mut batch, storage, &summary);
        let next = Next::Committed(Applied { storage, tid: commit.tid, oids }, summary);
        Ok(Decision { outcome: Outcome::Committed(commit.tid), batch, next })
    }

    /// How a write is stored, and the hash of the content it shows. `None`: the revision that the write is to show
    /// again does not exist.
    fn resolve(&self, storage: StorageId, write: &Write) -> io::Result<Option<(Stored, digest::Digest)>> {
        Ok(match &write.content {
            Content::Data(data) => Some((Stored::Data(data.clone()), digest::content(Some(data)))),
            Content::Absent => Some((Stored::Absent, digest::content(None))),
            Content::SameAs(tid) => match self.stored(storage, write.oid, *tid)? {
                None => None,
                Some(Stored::Absent) => Some((Stored::Absent, digest::content(None))),
                Some(stored) => {
                    // The new pointer leads to the revision that holds the data, so that a load has one hop at most.
                    let at = if let Stored::SameAs(at) = stored { at } else { *tid };
                    Some((Stored::SameAs(at), self.content_hash(storage, write.oid, *tid, &stored)?))
                }
            },
            Content::Staged(staged) => Some((Stored::Pieces(staged.clone()), staged.hash)),
        })
    }
}

impl Catalog {
    fn take(&mut self, at: Position, next: Next) {
        match next {
            Next::Same => {}
            Next::Reign(reign) => self.reign = reign,
            Next::Membership(membership) => self.membership = Some((at, membership)),
            Next::Created(storage, name) => {
                self.storages.insert(storage, Storage::new(name, Summary::default()));
            }
            Next::Dropped(storage) => self.of(storage).mark_dropped(),
            Next::Summed(storage, summary) | Next::Removed(storage, summary) => self.of(storage).summary = summary,
            Next::Packed(storage, summary) => {
                let storage = self.of(storage);
                storage.summary = summary;
                storage.feed.packed();
            }
            Next::Committed(applied, summary) => {
                let storage = self.of(applied.storage);
                storage.summary = summary;
                storage.feed.publish(applied);
            }
        }
    }

    fn of(&mut self, storage: StorageId) -> &mut Storage {
        self.storages.get_mut(&storage).expect("apply has looked it up, and no storage leaves the catalog")
    }
}

/// Why no storage after `last` could take this transaction, whatever its objects are.
fn improper(commit: &Commit, last: Tid) -> Option<String> {
    if commit.tid <= last {
        return Some(format!("transaction {} is not later than the last one, {last}", commit.tid));
    }
    if commit.tid >= Tid::MAX {
        return Some(format!("{} is too great for a transaction", commit.tid));
    }
    if u32::try_from(commit.writes.len()).is_err() {
        return Some(format!("{} objects are too many for a transaction", commit.writes.len()));
    }
    let mut seen = BTreeSet::new();
    let wrong = commit.writes.iter().find(|write| seen.insert(write.oid) == repeats(commit, write))?;
    Some(match repeats(commit, wrong) {
        true => format!("object {} repeats a write that does not stand before it", wrong.oid),
        false => format!("object {} is written twice in transaction {}", wrong.oid, commit.tid),
    })
}

/// Whether `write` only lists its object once more, as an earlier write of the same commit left it. `Data.fs` files
/// have such records (a stored blob's), and a copy of the file has to list them too.
fn repeats(commit: &Commit, write: &Write) -> bool {
    write.content == Content::SameAs(commit.tid)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use bytes::Bytes;

    use super::super::TABLES;
    use super::super::testing::*;
    use super::*;
    use crate::command::Reign;
    use crate::engine::{DiskFaults, SimDisk};

    fn reserve(count: u32) -> Change {
        Change::ReserveOids { storage: S, count, from: Oid(0) }
    }

    fn oids(first: u64, count: u32) -> Outcome {
        Outcome::Oids { first: Oid(first), count }
    }

    fn refusal(outcome: Outcome) -> Refusal {
        match outcome {
            Outcome::Refused(refusal) => refusal,
            other => panic!("{other:?} is no refusal"),
        }
    }

    #[test]
    fn a_storage_is_created_once() {
        let store = store();
        assert_eq!(apply(&store, create("1")), Outcome::Storage(S));
        assert_eq!(apply(&store, create("temp")), Outcome::Storage(StorageId(2)));
        assert_eq!(store.storages(), [(S, "1".to_owned()), (StorageId(2), "temp".to_owned())]);
        assert_eq!(store.storage("temp"), Some(StorageId(2)));
        assert_eq!(store.storage("none"), None);
        for name in ["", &"x".repeat(256)] {
            assert!(matches!(refusal(apply(&store, create(name))), Refusal::BadValue(_)));
        }
    }

    #[test]
    fn a_storage_is_dropped_while_it_is_empty_and_its_number_is_not_given_again() {
        let disk = SimDisk::new();
        let open = || Store::open(Arc::new(disk.open(TABLES).unwrap())).unwrap();
        let store = open();
        apply(&store, create("1"));
        let typo = StorageId(2);
        assert_eq!(apply(&store, create("typo")), Outcome::Storage(typo));
        assert_eq!(apply(&store, Change::ReserveOids { storage: typo, count: 5, from: Oid(0) }), oids(1, 5));
        let pieces = vec![Bytes::from_static(b"on its way")];
        assert_eq!(apply(&store, Change::Stage { storage: typo, pieces }), Outcome::Staged(1));
        let feed = store.feed(typo);
        apply(&store, commit(5, vec![over(0, 1, data("kept"))]));

        assert!(
            matches!(refusal(apply(&store, drop_storage("1"))), Refusal::BadValue(why) if why.ends_with("it has 1 transaction"))
        );
        let unknown = Refusal::NoStorage { name: "tpyo".into(), known: Vec::new() };
        assert_eq!(refusal(apply(&store, drop_storage("tpyo"))), unknown);
        assert!(!*feed.dropped().look());
        assert_eq!(apply(&store, drop_storage("typo")), Outcome::Done);
        assert!(*feed.dropped().look());

        let check = |store: &Store| {
            assert_eq!(store.storages(), [(S, "1".to_owned())]);
            assert_eq!((store.storage("typo"), store.summaries().1.len()), (None, 1));
            // Readers who still have its number find nothing there.
            assert_eq!((store.last_tid(typo), store.count_unclaimed(typo, 9).unwrap()), (Tid::ZERO, 0));
            assert!(store.piece(typo, 1).is_err());
            assert_eq!(store.load_before(typo, Oid(1), Tid::MAX, Tid(9)).unwrap(), Err(Refusal::NoObject(Oid(1))));
        };
        check(&store);
        let late = Change::ReserveOids { storage: typo, count: 1, from: Oid(0) };
        assert!(matches!(refusal(apply(&store, late)), Refusal::NoStorage { .. }));
        drop(store);
        let store = open();
        check(&store);
        assert!(matches!(refusal(apply(&store, drop_storage("typo"))), Refusal::NoStorage { .. }));
        assert_eq!(apply(&store, create("typo")), Outcome::Storage(StorageId(3)));
        assert_eq!(store.summary(StorageId(3)), Summary::default());
    }

    #[test]
    fn oids_begin_after_the_root_and_jump_over_what_is_stored() {
        let store = store();
        assert_eq!(apply(&store, reserve(3)), oids(1, 3));
        assert_eq!(apply(&store, reserve(0)), oids(4, 0));
        apply(&store, commit(1, vec![over(0, 2, data("inside")), restore(10, data("beyond"))]));
        assert_eq!(apply(&store, reserve(2)), oids(11, 2));
        let far = |from, count| Change::ReserveOids { storage: S, count, from: Oid(from) };
        assert_eq!(apply(&store, far(9, 2)), oids(13, 2));
        assert_eq!(apply(&store, far(20, 2)), oids(20, 2));
    }

    #[test]
    fn ids_of_the_upper_half_do_not_end_the_supply_and_at_its_end_there_are_fewer() {
        let store = store();
        let last = Oid::NOT_GIVEN.0 - 1;
        let stored = [u64::MAX, u64::MAX - 1, last + 1].map(|oid| restore(oid, data("far")));
        apply(&store, commit(1, stored.into()));
        assert_eq!(apply(&store, reserve(2)), oids(1, 2));
        apply(&store, commit(2, vec![restore(last - 2, data("near"))]));
        assert_eq!(apply(&store, reserve(7)), oids(last - 1, 2));
        assert!(matches!(refusal(apply(&store, reserve(1))), Refusal::BadValue(_)));
        apply(&store, commit(3, vec![restore(last, data("the last that is given"))]));
        assert!(matches!(refusal(apply(&store, reserve(1))), Refusal::BadValue(_)));
    }

    #[test]
    fn a_barrier_opens_only_a_greater_reign_and_what_is_older_is_stale() {
        let store = store();
        let reign = |term, number| Reign { term, number };
        assert_eq!(apply_in(&store, reign(2, 1), Change::Barrier), Outcome::Done);
        assert_eq!(apply_in(&store, reign(2, 1), Change::Barrier), Outcome::Stale);
        assert_eq!(apply_in(&store, reign(1, 9), Change::Barrier), Outcome::Stale);
        assert_eq!(store.reign(), reign(2, 1));
        assert_eq!(apply_in(&store, reign(2, 1), reserve(1)), oids(1, 1));
        assert_eq!(apply_in(&store, reign(2, 0), reserve(1)), Outcome::Stale);
        assert_eq!(apply_in(&store, reign(2, 2), Change::Barrier), Outcome::Done);
        let late = commit(1, vec![over(0, 0, data("root"))]);
        assert_eq!(apply_in(&store, reign(2, 1), late), Outcome::Stale);
        assert_eq!(store.last_tid(S), Tid::ZERO);
        // No barrier has opened this reign.
        assert_eq!(apply_in(&store, reign(2, 3), reserve(1)), Outcome::Stale);
    }

    #[test]
    fn a_refused_transaction_leaves_nothing_but_its_position() {
        let store = store();
        apply(&store, commit(5, vec![over(0, 1, data("a"))]));
        let before = store.summary(S);
        let tried = [
            (commit(5, vec![]), "a tid again"),
            (commit(4, vec![]), "an older tid"),
            (commit(Tid::MAX.0, vec![]), "a tid that no view can be above"),
            (commit(6, vec![over(0, 2, data("b")), over(0, 2, data("c"))]), "an object twice"),
            (commit(6, vec![restore(2, Content::SameAs(Tid(6)))]), "a repetition of nothing"),
            (commit(6, vec![over(0, 2, data("b")), over(0, 1, data("c"))]), "a lost update"),
            (commit(6, vec![over(4, 2, data("b"))]), "a base that never was"),
            (commit(6, vec![over(0, 2, data("b")), over(5, 1, Content::SameAs(Tid(4)))]), "no such revision"),
        ];
        for (change, why) in tried {
            let index = store.applied().index;
            assert!(matches!(apply(&store, change), Outcome::Refused(_)), "{why}");
            assert_eq!(store.applied().index, index + 1, "{why}");
            assert_eq!(store.summary(S), before, "{why}");
            assert_eq!(store.current(S, Oid(2)).unwrap(), None, "{why}");
        }
        assert_eq!(store.feed(S).latest(), Tid(5));
    }

    #[test]
    fn a_repeated_record_is_listed_twice_and_stored_once() {
        let store = store();
        let writes = vec![restore(1, data("blob")), restore(2, data("x")), restore(1, Content::SameAs(Tid(5)))];
        assert_eq!(apply(&store, commit(5, writes)), Outcome::Committed(Tid(5)));
        let listed: Vec<_> = (0..4).map_while(|n| Some(store.record_at(S, Tid(5), n).unwrap()?.1)).collect();
        assert_eq!(listed.iter().map(|record| record.oid.0).collect::<Vec<_>>(), [1, 2, 1]);
        assert_eq!(listed[0], listed[2]);
        assert_eq!(listed[2].data_tid, None);
        assert_eq!(store.changed_since(S, Tid::ZERO, Tid(5), 9).unwrap(), Some(vec![Oid(1), Oid(2)]));
        let (summary, recount) = store.recount(S).unwrap();
        assert!(recount.agrees(&summary));
        assert_eq!(summary.objects, 2);
    }

    #[test]
    fn the_first_write_that_meets_another_is_the_conflict() {
        let store = store();
        apply(&store, commit(5, vec![over(0, 1, data("a")), over(0, 2, data("a"))]));
        let writes = vec![over(5, 1, data("b")), over(4, 2, data("b")), over(3, 3, data("b"))];
        assert_eq!(apply(&store, commit(6, writes)), Outcome::conflict(Oid(2), Tid(5), Tid(4)));
        // A restore asks for no serial.
        let writes = vec![restore(1, data("b")), restore(2, Content::Absent)];
        assert_eq!(apply(&store, commit(7, writes)), Outcome::Committed(Tid(7)));
        assert_eq!(apply(&store, commit(8, vec![over(7, 2, data("c"))])), Outcome::Committed(Tid(8)));
    }

    #[test]
    fn an_unknown_storage_is_refused() {
        let store = empty();
        let unknown = Refusal::NoStorage { name: "s1".into(), known: Vec::new() };
        assert_eq!(refusal(apply(&store, reserve(1))), unknown);
        assert_eq!(refusal(apply(&store, commit(1, vec![]))), unknown);
    }

    #[test]
    fn positions_membership_and_reign_are_there_after_reopening() {
        let disk = SimDisk::new();
        let open = || Store::open(Arc::new(disk.open(TABLES).unwrap())).unwrap();
        let store = open();
        assert_eq!(store.applied(), Position::default());
        store.set_membership(Position { index: 1, term: 0 }, b"first").unwrap();
        store.pass(Position { index: 2, term: 3 }).unwrap();
        let at = Position { index: 3, term: 3 };
        store.set_membership(at, b"second").unwrap();
        apply_in(&store, Reign { term: 3, number: 4 }, Change::Barrier);
        drop(store);
        let store = open();
        assert_eq!(store.applied(), Position { index: 4, ..at });
        assert_eq!(store.membership(), Some((at, b"second".to_vec())));
        assert_eq!(store.reign(), Reign { term: 3, number: 4 });
    }

    #[test]
    #[should_panic(expected = "entry 3 is to be applied after 1")]
    fn an_entry_left_out_stops_everything() {
        let store = store();
        let _ = store.pass(Position { index: 3, ..Position::default() });
    }

    #[test]
    fn after_a_failed_write_nothing_is_applied_any_more() {
        let disk = SimDisk::new();
        let store = Store::open(Arc::new(disk.open(TABLES).unwrap())).unwrap();
        apply(&store, create("1"));
        disk.set_faults(DiskFaults { writes_after: Some(0), ..DiskFaults::default() });
        let at = next(&store);
        let command = Command { reign: store.reign(), change: commit(1, vec![over(0, 0, data("root"))]) };
        assert!(store.apply(at, &command).is_err());
        disk.set_faults(DiskFaults::default());
        assert!(store.apply(at, &command).is_err());
        assert_eq!(store.last_tid(S), Tid::ZERO);
        assert_eq!(store.feed(S).latest(), Tid::ZERO);
    }

    #[test]
    fn readers_beside_apply_see_whole_transactions() {
        let store = store();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let feed = store.feed(S);
                    while !done.load(Ordering::SeqCst) {
                        let view = feed.latest();
                        if view == Tid::ZERO {
                            continue;
                        }
                        assert!(store.last_tid(S) >= view);
                        for oid in 0..4 {
                            let loaded = store.load_before(S, Oid(oid), Tid::MAX, view).unwrap().unwrap().unwrap();
                            assert_eq!((loaded.tid, loaded.end), (view, None));
                            assert_eq!(loaded.data, view.to_string());
                        }
                    }
                });
            }
            for tid in 1..300 {
                let writes = (0..4).map(|oid| over(tid - 1, oid, data(&Tid(tid).to_string()))).collect();
                assert_eq!(apply(&store, commit(tid, writes)), Outcome::Committed(Tid(tid)));
            }
            done.store(true, Ordering::SeqCst);
        });
    }

    #[tokio::test]
    async fn the_watch_tells_when_an_entry_was_applied() {
        let store = store();
        let mut watching = store.applied_watch();
        apply(&store, commit(1, vec![]));
        watching.changed().await.unwrap();
        assert_eq!(*watching.look(), store.applied().index);
    }
}
