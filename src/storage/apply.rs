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
//! | `Roster` | keeps the nodes that are wanted | `BadValue`: made of another one than is set |
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
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use super::decision::{Decision, Next, no_storage};
use super::feed::Applied;
use super::marks::Marked;
use super::position::Position;
use super::put::{put_revision, put_summary, put_transaction};
use super::store::{Catalog, Storage, Store, Writing};
use super::summary::Summary;
use super::value::{self, PACKED, Stored};
use super::{digest, keys};
use crate::command::{Base, Change, Command, Commit, Content, Outcome, Write};
use crate::engine::Batch;
use crate::roster::Roster;
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
        let decision = self.decide(at, command)?;
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
        let changing = self.hot().begin(&batch);
        if let Err(fault) = self.engine().write(batch) {
            turn.failed = true;
            return Err(fault);
        }
        self.hot().end(changing);
        {
            // The feed is filled before the catalog's lock is released: a reader that sees the new position or tid also
            // finds the transaction in the feed.
            let mut catalog = self.inner.catalog.write().unwrap_or_else(|poisoned| poisoned.into_inner());
            if let Next::Removed(storage, summary) = &next {
                let removed = catalog.of(*storage).summary.bytes.saturating_sub(summary.bytes);
                self.inner.garbage.fetch_add(removed, Relaxed);
            }
            catalog.position = at;
            catalog.take(at, next);
            let Catalog { marks, reign, storages, .. } = &mut *catalog;
            let marked = storages.iter().map(|(&number, storage)| {
                let Storage { name, is_dropped, summary, .. } = storage;
                Marked { number, name, is_dropped: *is_dropped, summary }
            });
            marks.note(at.index, *reign, marked);
        }
        if removal {
            self.inner.removals.fetch_add(1, SeqCst);
        }
        self.inner.applied.send(at.index);
        Ok(())
    }

    fn decide(&self, at: Position, command: &Command) -> io::Result<Decision> {
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
            Change::Roster { after, roster } => Ok(self.keep_roster(at, *after, roster)),
        }
    }

    fn keep_roster(&self, at: Position, after: u64, roster: &Roster) -> Decision {
        // (Two wishes at a time: the later one was made without knowing of the other.)
        if self.catalog().roster.0.index != after {
            return Decision::refuse(Refusal::BadValue("the wanted members have changed meanwhile: ask again".into()));
        }
        let mut batch = Batch::new();
        let mut body = at.to_bytes().to_vec();
        body.extend(postcard::to_stdvec(roster).expect("a roster is plain data"));
        batch.put(keys::META, keys::ROSTER, value::seal(&keys::ROSTER, value::ROSTER, &body));
        Decision { outcome: Outcome::Done, batch, next: Next::Roster(roster.clone()) }
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
        let next = Next::Committed(Applied::new(storage, commit.tid, oids), summary);
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
            Next::Roster(roster) => self.roster = (at, roster),
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
#[path = "apply_tests.rs"]
mod tests;
