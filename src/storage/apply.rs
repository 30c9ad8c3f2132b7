//! What every command means.
//!
//! Each call writes one batch: what the command changes, and the position in the log. A command that is refused or stale changes
//! nothing but the position. Nothing here depends on anything but the command and what was applied before, so that every node comes to the same outcome.
//!
//! | command | means | else |
//! |---|---|---|
//! | `Barrier` | opens its reign, if that is greater than the open one | `Stale` |
//! | any other | is looked at if its reign is the open one | `Stale` |
//! | `CreateStorage` | gives the storage of that name, new or not | `BadValue`: no name, or too long |
//! | `ReserveOids` | takes `count` ids from `next_oid` on | `NoStorage`; `BadValue`: no ids left |
//! | `Commit` | writes the transaction | `NoStorage`; `BadValue`: tid not later than the last, an object twice, `SameAs` what is not there; `Conflict`: the first write whose base is not current |
//!
//! The primary has checked all of it under locks; apply checks again, as a primary may be wrong about being one.
//!
//! Objects that are stored or restored move `next_oid` past them.

use std::collections::BTreeSet;
use std::io;
use std::sync::MutexGuard;

use super::feed::Applied;
use super::keys::{self, OIDS_PER_PART};
use super::value::{self, Current, Stored, TransactionHead};
use super::{Position, State, Storage, Store, Summary, digest};
use crate::command::{Base, Change, Command, Commit, Content, Outcome, Reign, Write};
use crate::engine::Batch;
use crate::zodb::{Oid, Refusal, StorageId, Tid};

/// The longest name of a storage, in bytes.
pub const NAME_LIMIT: usize = 255;

/// What the state becomes once the batch is written.
enum Next {
    Same,
    Reign(Reign),
    Membership(Vec<u8>),
    Created(StorageId, String),
    Summed(StorageId, Summary),
    Committed(Applied, Summary),
}

/// An outcome and what it takes.
struct Decision {
    outcome: Outcome,
    batch: Batch,
    next: Next,
}

impl Decision {
    fn nothing(outcome: Outcome) -> Decision {
        Decision { outcome, batch: Batch::new(), next: Next::Same }
    }

    fn refuse(refusal: Refusal) -> Decision {
        Decision::nothing(Outcome::Refused(refusal))
    }
}

impl Store {
    /// Does what `command`, the log's entry at `at`, says.
    ///
    /// # Errors
    /// A fault of the engine, or damaged data. After a failed write nothing can be applied any more: the node must stop.
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
    fn turn(&self, at: Position) -> io::Result<MutexGuard<'_, bool>> {
        let turn = self.inner.writing.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if *turn {
            return Err(io::Error::other("a write to the store has failed before; nothing can be applied until a restart"));
        }
        let last = self.applied();
        // A log may begin with entry 0, and the position of that one can be the default.
        let first = last.index == 0 && at.index == 0;
        assert!(at.index == last.index + 1 || first, "entry {} is to be applied after {}", at.index, last.index);
        assert!(at.term >= last.term, "an entry of term {} is to be applied after one of {}", at.term, last.term);
        Ok(turn)
    }

    /// Writes the batch, and then lets everybody know.
    fn write(&self, mut failed: MutexGuard<'_, bool>, at: Position, mut batch: Batch, next: Next) -> io::Result<()> {
        batch.put(keys::META, keys::POSITION, value::seal(&keys::POSITION, value::POSITION, &at.to_bytes()));
        if let Err(fault) = self.engine().write(batch) {
            *failed = true;
            return Err(fault);
        }
        {
            // The feed is filled before the lock is let go: whoever sees the position or the tid finds it in the feed too.
            let mut state = self.inner.state.write().unwrap_or_else(|poisoned| poisoned.into_inner());
            state.position = at;
            state.take(at, next);
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
            batch.put(keys::META, keys::REIGN, value::seal(&keys::REIGN, value::REIGN, &body));
            return Ok(Decision { outcome: Outcome::Done, batch, next: Next::Reign(command.reign) });
        }
        if command.reign != open {
            return Ok(Decision::nothing(Outcome::Stale));
        }
        match &command.change {
            Change::Barrier => unreachable!("handled above"),
            Change::CreateStorage { name } => Ok(self.create_storage(name)),
            Change::ReserveOids { storage, count } => Ok(self.reserve_oids(*storage, *count)),
            Change::Commit(commit) => self.commit(commit),
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
        let last = self.state().storages.keys().next_back().map_or(0, |storage| storage.0);
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

    fn reserve_oids(&self, storage: StorageId, count: u32) -> Decision {
        let Some(mut summary) = self.summary_of(storage) else {
            return Decision::refuse(no_storage(storage));
        };
        let first = summary.next_oid;
        let Some(next) = first.0.checked_add(count.into()) else {
            return Decision::refuse(Refusal::BadValue(format!("storage {storage} has no {count} object ids left")));
        };
        summary.next_oid = Oid(next);
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
        let mut known = Vec::with_capacity(commit.writes.len());
        for write in &commit.writes {
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
        let mut digested = Vec::with_capacity(commit.writes.len());
        let mut bytes = 0;
        for (write, known) in commit.writes.iter().zip(known) {
            let Some((stored, content)) = self.resolve(storage, write)? else {
                return Ok(Decision::refuse(Refusal::BadValue(format!(
                    "object {} has no such revision that it could show again",
                    write.oid
                ))));
            };
            if let Stored::Data(data) = &stored {
                bytes += data.len() as u64;
            }
            put_revision(&mut batch, storage, write.oid, commit.tid, &stored);
            summary.objects += u64::from(!known);
            summary.next_oid = summary.next_oid.max(Oid(write.oid.0.saturating_add(1)));
            summary.present = digest::add(&summary.present, &digest::revision(write.oid, commit.tid, &content));
            digested.push((write.oid, content));
        }
        summary.last_tid = commit.tid;
        summary.bytes += bytes;
        summary.transactions += 1;
        summary.history = digest::history(&summary.history, commit.tid, &commit.meta, &digested);

        let oids: Vec<Oid> = commit.writes.iter().map(|write| write.oid).collect();
        put_transaction(&mut batch, commit, bytes, &oids);
        put_summary(&mut batch, storage, &summary);
        let next = Next::Committed(Applied { storage, tid: commit.tid, oids }, summary);
        Ok(Decision { outcome: Outcome::Committed(commit.tid), batch, next })
    }

    /// How a write is stored, and the hash of what it shows. `None`: the revision that it wants to show again does not exist.
    fn resolve(&self, storage: StorageId, write: &Write) -> io::Result<Option<(Stored, digest::Digest)>> {
        Ok(match &write.content {
            Content::Data(data) => Some((Stored::Data(data.clone()), digest::content(Some(data)))),
            Content::Absent => Some((Stored::Absent, digest::content(None))),
            Content::SameAs(tid) => match self.stored(storage, write.oid, *tid)? {
                None => None,
                Some(stored) => match self.follow(storage, write.oid, *tid, stored)? {
                    // The pointer goes to the data itself, so that a load has one hop at most.
                    Some((data, data_tid)) => Some((Stored::SameAs(data_tid.unwrap_or(*tid)), digest::content(Some(&data)))),
                    None => Some((Stored::Absent, digest::content(None))),
                },
            },
        })
    }

    fn summary_of(&self, storage: StorageId) -> Option<Summary> {
        self.state().storages.get(&storage).map(|storage| storage.summary.clone())
    }
}

impl State {
    fn take(&mut self, at: Position, next: Next) {
        match next {
            Next::Same => {}
            Next::Reign(reign) => self.reign = reign,
            Next::Membership(membership) => self.membership = Some((at, membership)),
            Next::Created(storage, name) => {
                self.storages.insert(storage, Storage::new(name, Summary::default()));
            }
            Next::Summed(storage, summary) => self.of(storage).summary = summary,
            Next::Committed(applied, summary) => {
                let storage = self.of(applied.storage);
                storage.summary = summary;
                storage.feed.publish(applied);
            }
        }
    }

    fn of(&mut self, storage: StorageId) -> &mut Storage {
        self.storages.get_mut(&storage).expect("apply has looked it up, and no storage is ever removed")
    }
}

fn no_storage(storage: StorageId) -> Refusal {
    Refusal::NoStorage(storage.to_string())
}

/// Why no storage could take this transaction, whatever is in it.
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
    let twice = commit.writes.iter().find(|write| !seen.insert(write.oid))?;
    Some(format!("object {} is written twice in transaction {}", twice.oid, commit.tid))
}

fn put_summary(batch: &mut Batch, storage: StorageId, summary: &Summary) {
    let key = keys::summary(storage);
    batch.put(keys::META, key, value::seal(&key, value::SUMMARY, &summary.to_bytes()));
}

fn put_revision(batch: &mut Batch, storage: StorageId, oid: Oid, tid: Tid, stored: &Stored) {
    let key = keys::revision(storage, oid, tid);
    batch.put(keys::REVISIONS, key, stored.encode(&key));
    let key = keys::object(storage, oid);
    let current = Current { tid, absent: *stored == Stored::Absent };
    batch.put(keys::OBJECTS, key, current.encode(&key));
}

fn put_transaction(batch: &mut Batch, commit: &Commit, bytes: u64, oids: &[Oid]) {
    let count = u32::try_from(oids.len()).expect("a transaction of more objects is refused");
    let first = oids[..oids.len().min(OIDS_PER_PART)].to_vec();
    let head = TransactionHead { meta: commit.meta.clone(), bytes, count, oids: first };
    let key = keys::transaction(commit.storage, commit.tid);
    batch.put(keys::TRANSACTIONS, key, head.encode(&key));
    for (part, oids) in (0u32..).zip(oids.chunks(OIDS_PER_PART)).skip(1) {
        let key = keys::transaction_part(commit.storage, commit.tid, part);
        batch.put(keys::TRANSACTIONS, key, value::encode_oids(&key, oids));
    }
}
