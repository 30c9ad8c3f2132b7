//! The plan of a pack: worked out on the primary, while commits go on.
//!
//! 1. [`Plan::reach`] marks the objects that can be reached from the root as of the pack time; [`Plan::beyond`] adds
//!    the objects that younger records lead to. Without garbage collection both are left out.
//! 2. [`Plan::page`] walks all objects and plans which revisions of each go, a bounded page at a time.
//! 3. [`Plan::transactions`] lists the transactions that never had a record, or list an object twice.
//!
//! The plan reads the store as it is: only this pack removes anything, and every commit meanwhile is younger
//! than the pack time. An object that has changed between its page and its step is planned again ([`Plan::object`]).
//!
//! **Memory**: a set of objects ([`Oids`]), a stack of those that are still to be read, and for one object at a time a
//! [`RevisionHead`] for each of its revisions.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::oids::Oids;
use super::references::{UnreadableRecord, references};
use crate::command::Removal;
use crate::config::limits;
use crate::engine::Order;
use crate::storage::keys;
use crate::storage::store::Store;
use crate::storage::value::{self, Stored, StoredBlob, TransactionHead};
use crate::zodb::{Oid, StorageId, Tid};

/// The plan of one pack. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Plan {
    store: Store,
    storage: StorageId,
    upto: Tid,
    gc: bool,
    /// The most revisions that a step may remove.
    most: usize,
    stop: Arc<AtomicBool>,
}

/// A reason why a pack can't go on.
#[derive(Debug)]
pub enum Fault {
    /// An object that can be reached from the root refers to this one, which is not there.
    Missing(Oid),
    /// A record can't be read.
    Unreadable(Oid, Tid, UnreadableRecord),
    /// The store can't be read.
    Io(io::Error),
    /// The pack was asked to stop ([`Plan::stop`]).
    Stopped,
}

/// The revisions of one object that go in one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// The removal, for the command.
    pub removal: Removal,
    /// The revisions go because nothing refers to the object.
    pub garbage: bool,
    /// Bytes that move to a revision that stays.
    pub moved: u64,
    /// Bytes that the nodes read to remove the revisions: of the records that do not lie in pieces.
    pub read: u64,
}

impl Planned {
    /// Bytes that the removal costs each node.
    pub fn bytes(&self) -> u64 {
        self.moved + self.read
    }
}

/// The fate, in a pack, of an object that nothing refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The object goes altogether.
    Going,
    /// The object stays: it has a revision that is younger than the pack time.
    Alive,
    /// The object is not there.
    Absent,
}

/// A part of the walk over all objects.
#[derive(Debug, Default)]
pub struct Page {
    /// In order of object ids; an object with more revisions than a step may remove comes more than once.
    pub planned: Vec<Planned>,
    /// The object to go on with; `None` at the end.
    pub next: Option<Oid>,
}

/// A revision without its record.
#[derive(Clone, Copy, Debug)]
struct RevisionHead {
    tid: Tid,
    /// The revision that the record lies with: this one, or an older one. `None`: the object is absent.
    holder: Option<Tid>,
    /// The older revision that this one was made to show again.
    link: Option<Tid>,
    /// The length of the record that lies with this revision.
    bytes: u64,
    /// How many of these bytes do not lie in pieces.
    inline: u64,
}

/// How many objects are read between two looks at [`Plan::stop`].
const LOOK: usize = 256;

impl Plan {
    /// A plan to pack `storage` up to `upto`; `gc`: with garbage collection.
    pub fn new(store: &Store, storage: StorageId, upto: Tid, gc: bool) -> Plan {
        Plan { store: store.clone(), storage, upto, gc, most: limits::PACK_REVISIONS, stop: Arc::default() }
    }

    /// With steps of at most so many revisions.
    pub fn in_steps_of(self, most: usize) -> Plan {
        Plan { most, ..self }
    }

    /// Ends all reading soon, with [`Fault::Stopped`].
    pub fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    /// The pack time.
    pub fn upto(&self) -> Tid {
        self.upto
    }

    /// Whether this pack could remove nothing: there are no objects, or none as old as the pack time; or there was a
    /// pack with this time or a later one, and nothing has committed between the two.
    pub fn is_idle(&self) -> io::Result<bool> {
        let summary = self.store.summary(self.storage);
        if summary.objects == 0 {
            return Ok(true);
        }
        let packed = summary.packed;
        let after = |tid: Tid, upto| self.store.transaction_at(self.storage, tid.next(), upto);
        if after(packed, self.upto)?.is_some() {
            return Ok(false);
        }
        // As in `FileStorage`: the first transaction after the pack time, if there is one, must have been packed too.
        Ok(packed == Tid::ZERO || after(self.upto, Tid::MAX.previous())?.is_none_or(|(tid, _)| tid <= packed))
    }

    /// Adds to `reached` the root and all objects that can be reached from it as of the pack time.
    pub fn reach(&self, reached: &mut Oids) -> Result<(), Fault> {
        let Some(root) = self.at_pack_time(Oid::ROOT)? else {
            // Without a root no object can be kept, so any object there is shows that something is wrong.
            let any = self.store.next_object(self.storage, Oid::ROOT, self.upto)?;
            return if any.is_none() { Ok(()) } else { Err(Fault::Missing(Oid::ROOT)) };
        };
        reached.insert(Oid::ROOT);
        let mut todo = self.fresh(self.references(Oid::ROOT, root)?, reached);
        let mut read = 0;
        while let Some(oid) = todo.pop() {
            self.look(&mut read)?;
            let shown = self.at_pack_time(oid)?.ok_or(Fault::Missing(oid))?;
            todo.extend(self.fresh(self.references(oid, shown)?, reached));
        }
        Ok(())
    }

    /// Adds the objects that records younger than the pack time lead to, up to the last transaction of the moment. A
    /// record that can't be read ends the pack, as it may refer to anything.
    pub fn beyond(&self, reached: &mut Oids) -> Result<(), Fault> {
        let (mut from, mut read) = (self.upto.next(), 0);
        while let Some((tid, _)) = self.store.transaction_at(self.storage, from, Tid::MAX.previous())? {
            let mut n = 0;
            while let Some((at, revision)) = self.store.record_at(self.storage, tid, n)? {
                self.look(&mut read)?;
                n = at + 1;
                let crate::zodb::State::Data(data) = revision.state else { continue };
                self.pardon(self.references(revision.oid, (tid, data))?, reached)?;
            }
            from = tid.next();
        }
        Ok(())
    }

    /// Adds these objects, and all that can be reached from them as of the pack time. Objects that are not there are
    /// passed over.
    pub fn pardon(&self, oids: Vec<Oid>, reached: &mut Oids) -> Result<(), Fault> {
        let mut todo = self.fresh_there(oids, reached)?;
        let mut read = 0;
        while let Some(oid) = todo.pop() {
            self.look(&mut read)?;
            if let Some(shown) = self.at_pack_time(oid)? {
                todo.extend(self.fresh_there(self.references(oid, shown)?, reached)?);
            }
        }
        Ok(())
    }

    /// Whether the object has any revision. Only such objects are noted: of others a client could name any number.
    pub fn is_there(&self, oid: Oid) -> io::Result<bool> {
        Ok(self.store.current(self.storage, oid)?.is_some())
    }

    /// The objects that the newest revision of an object refers to; none if it is absent.
    pub fn references_now(&self, oid: Oid) -> Result<Vec<Oid>, Fault> {
        let newest = Plan { upto: Tid::MAX.previous(), ..self.clone() }.at_pack_time(oid)?;
        newest.map_or(Ok(Vec::new()), |newest| self.references(oid, newest))
    }

    /// The fate of an object that is not reached.
    pub fn fate(&self, oid: Oid) -> io::Result<Fate> {
        Ok(match self.store.current(self.storage, oid)? {
            None => Fate::Absent,
            Some(current) if current.tid > self.upto => Fate::Alive,
            Some(current) if current.absent => Fate::Absent,
            Some(_) => Fate::Going,
        })
    }

    /// These objects, and all that can be reached from them, without the objects that are `known` and those that have
    /// changed since the pack time. An object that is not there counts only if this pack has `taken` it.
    pub fn led_to(
        &self,
        oids: Vec<Oid>,
        known: impl Fn(Oid) -> bool,
        taken: impl Fn(Oid) -> bool,
    ) -> Result<Oids, Fault> {
        let mut found = Oids::default();
        let (mut todo, mut read) = (oids, 0);
        while let Some(oid) = todo.pop() {
            self.look(&mut read)?;
            if found.contains(oid) || known(oid) {
                continue;
            }
            match self.fate(oid)? {
                Fate::Alive => continue,
                Fate::Absent if taken(oid) => {}
                Fate::Absent => continue,
                Fate::Going => {
                    if let Some(shown) = self.at_pack_time(oid)? {
                        todo.extend(self.references(oid, shown)?);
                    }
                }
            }
            found.insert(oid);
        }
        Ok(found)
    }

    /// Marks the objects that are not marked yet, and gives those.
    fn fresh(&self, oids: Vec<Oid>, reached: &mut Oids) -> Vec<Oid> {
        oids.into_iter().filter(|oid| reached.insert(*oid)).collect()
    }

    /// Marks the objects that are there and not marked yet, and gives those.
    fn fresh_there(&self, oids: Vec<Oid>, reached: &mut Oids) -> Result<Vec<Oid>, Fault> {
        let (mut fresh, mut read) = (Vec::new(), 0);
        for oid in oids {
            if !reached.contains(oid) {
                self.look(&mut read)?;
                if self.is_there(oid)? {
                    reached.insert(oid);
                    fresh.push(oid);
                }
            }
        }
        Ok(fresh)
    }

    fn look(&self, read: &mut usize) -> Result<(), Fault> {
        *read += 1;
        if read.is_multiple_of(LOOK) && self.stop.load(Relaxed) { Err(Fault::Stopped) } else { Ok(()) }
    }

    /// The revision that is current at the pack time, unless the object is absent then.
    fn at_pack_time(&self, oid: Oid) -> io::Result<Option<(Tid, bytes::Bytes)>> {
        self.store.steady(|| {
            let Some((tid, stored)) = self.store.newest(self.storage, oid, self.upto)? else { return Ok(None) };
            let shown = self.store.follow(self.storage, oid, tid, stored)?;
            Ok(shown.map(|(data, _)| (tid, data)))
        })
    }

    fn references(&self, oid: Oid, (tid, data): (Tid, bytes::Bytes)) -> Result<Vec<Oid>, Fault> {
        references(&data).map_err(|why| Fault::Unreadable(oid, tid, why))
    }

    /// Plans the objects from `from` on; `kept` says which of them are reached.
    pub fn page(&self, from: Oid, kept: impl Fn(Oid) -> bool) -> Result<Page, Fault> {
        let start = keys::revision(self.storage, from, Tid(u64::MAX));
        let end = keys::storage_end(self.storage);
        let mut page = Page::default();
        let mut object: Option<(Oid, Vec<RevisionHead>)> = None;
        let (mut read, mut bytes) = (0, 0);
        for pair in self.store.engine().range(keys::REVISIONS, &start, &end, Order::Ascending) {
            self.look(&mut read)?;
            let (oid, seen) = seen(pair?)?;
            bytes += seen.bytes;
            match &mut object {
                Some((of, revisions)) if *of == oid => revisions.push(seen),
                _ => {
                    if let Some((of, revisions)) = object.replace((oid, vec![seen])) {
                        page.planned.extend(self.planned(of, &revisions, !kept(of))?);
                    }
                    let full =
                        page.planned.len() >= self.most || read > 16 * self.most || bytes > 16 * limits::PACK_BYTES;
                    if full {
                        page.next = Some(oid);
                        return Ok(page);
                    }
                }
            }
        }
        if let Some((of, revisions)) = object {
            page.planned.extend(self.planned(of, &revisions, !kept(of))?);
        }
        Ok(page)
    }

    /// Plans one object, as it is now.
    pub fn object(&self, oid: Oid, kept: bool) -> Result<Vec<Planned>, Fault> {
        let start = keys::revision(self.storage, oid, Tid(u64::MAX));
        let end = keys::revision(self.storage, oid, Tid::ZERO);
        let mut revisions = Vec::new();
        for pair in self.store.engine().range(keys::REVISIONS, &start, &end, Order::Ascending) {
            revisions.push(seen(pair?)?.1);
        }
        self.planned(oid, &revisions, !kept)
    }

    /// Plans an object with these revisions, youngest first, in as many steps as it takes.
    fn planned(&self, oid: Oid, revisions: &[RevisionHead], unreached: bool) -> Result<Vec<Planned>, Fault> {
        let young = revisions.partition_point(|seen| seen.tid > self.upto);
        let Some(at_pack_time) = revisions.get(young) else { return Ok(Vec::new()) };
        let garbage = self.gc && unreached && at_pack_time.holder.is_some();
        let whole = garbage || at_pack_time.holder.is_none();
        let linked = revisions[..young].iter().filter(|_| self.gc).filter_map(|seen| seen.link);
        let shown_again: BTreeSet<Tid> = linked.collect();
        let goes = |seen: &&RevisionHead| !shown_again.contains(&seen.tid) && (whole || seen.tid < at_pack_time.tid);
        let going: Vec<RevisionHead> = revisions[young..].iter().filter(goes).rev().copied().collect();
        if going.is_empty() {
            return Ok(Vec::new());
        }
        let blobs = self.blobs(oid)?;
        let blob_of = |tid: Tid| blobs.iter().find(|(of, _)| *of == tid).map(|(_, holder)| *holder);
        // Oldest first: the newest revision, if it goes, must go last.
        let mut planned = Vec::new();
        // Removing a revision that shows an older record reads that record.
        let inline: BTreeMap<Tid, u64> = revisions.iter().map(|seen| (seen.tid, seen.inline)).collect();
        let cost = |seen: &RevisionHead| seen.holder.and_then(|holder| inline.get(&holder)).copied().unwrap_or(0);
        let mut rest = &going[..];
        while !rest.is_empty() {
            let mut read = 0;
            let fits = |(n, seen): &(usize, &RevisionHead)| {
                read += cost(seen);
                *n == 0 || (*n < self.most && read <= limits::PACK_BYTES)
            };
            let (tids, others) = rest.split_at(rest.iter().enumerate().take_while(fits).count());
            rest = others;
            let read = tids.iter().map(cost).sum();
            let leaving: BTreeSet<Tid> = tids.iter().map(|seen| seen.tid).collect();
            let records: BTreeSet<Tid> = tids.iter().filter_map(|seen| seen.holder).collect();
            let holders: BTreeSet<Tid> = tids.iter().filter_map(|seen| blob_of(seen.tid)).collect();
            let first = tids[0].tid;
            let shows = |seen: &RevisionHead| {
                seen.holder.is_some_and(|holder| records.contains(&holder))
                    || blob_of(seen.tid).is_some_and(|holder| holders.contains(&holder))
            };
            let heirs = revisions.iter().rev().filter(|seen| seen.tid > first && !leaving.contains(&seen.tid));
            let heirs: Vec<Tid> = heirs.filter(|seen| shows(seen)).map(|seen| seen.tid).collect();
            let moved = if heirs.is_empty() { 0 } else { tids.iter().map(|seen| seen.bytes).sum() };
            let tids = tids.iter().map(|seen| seen.tid).collect();
            let removal = Removal { oid, current: revisions[0].tid, tids, heirs };
            planned.push(Planned { removal, garbage, moved, read });
        }
        Ok(planned)
    }

    /// The blobs of an object: for each revision that has one, the revision with which the blob lies.
    fn blobs(&self, oid: Oid) -> io::Result<Vec<(Tid, Tid)>> {
        let start = keys::revision(self.storage, oid, Tid(u64::MAX));
        let end = keys::revision(self.storage, oid, Tid::ZERO);
        let mut blobs = Vec::new();
        for pair in self.store.engine().range(keys::BLOBS, &start, &end, Order::Ascending) {
            let (key, value) = pair?;
            let (_, _, tid) =
                keys::decode_revision(&key).ok_or_else(|| value::damaged("a blob's key is not 20 bytes"))?;
            let holder = match StoredBlob::decode(&key, &value)? {
                StoredBlob::Pieces(_) => tid,
                StoredBlob::SameAs(holder) => holder,
            };
            blobs.push((tid, holder));
        }
        Ok(blobs)
    }

    /// Transactions from `from` up to the pack time that hold no record, or list an object more than once; with the
    /// transaction to go on with.
    pub fn transactions(&self, from: Tid) -> Result<(Vec<Tid>, Option<Tid>), Fault> {
        let start = keys::transaction(self.storage, from);
        let end = keys::transaction(self.storage, self.upto.next());
        let (mut found, mut read) = (Vec::new(), 0);
        // The transaction that is being read, and the objects that it lists.
        let mut open: Option<(Tid, Vec<Oid>)> = None;
        let repeats = |open: Option<(Tid, Vec<Oid>)>| {
            let (tid, mut oids) = open?;
            let listed = oids.len();
            oids.sort_unstable();
            oids.dedup();
            (oids.len() < listed).then_some(tid)
        };
        for pair in self.store.engine().range(keys::TRANSACTIONS, &start, &end, Order::Ascending) {
            self.look(&mut read)?;
            let (key, value) = pair?;
            let (_, tid, part) = keys::decode_transaction(&key)
                .ok_or_else(|| value::damaged("a transaction's key is neither 12 nor 16 bytes"))?;
            if part > 0 {
                let oids = value::decode_oids(&key, &value)?;
                if let Some((_, listed)) = &mut open {
                    listed.extend(oids);
                }
                continue;
            }
            let head = TransactionHead::decode(&key, &value)?;
            found.extend(repeats(open.take()));
            if found.len() >= self.most || read > 16 * self.most {
                return Ok((found, Some(tid)));
            }
            match head.left {
                0 => found.push(tid),
                _ => open = Some((tid, head.oids)),
            }
        }
        found.extend(repeats(open));
        Ok((found, None))
    }
}

fn seen((key, value): (Vec<u8>, Vec<u8>)) -> io::Result<(Oid, RevisionHead)> {
    let (_, oid, tid) =
        keys::decode_revision(&key).ok_or_else(|| value::damaged("a revision's key is not 20 bytes"))?;
    let link = Stored::link(&value);
    let stored = Stored::decode(&key, value)?;
    let bytes = stored.length();
    let inline = if let Stored::Data(_) = &stored { bytes } else { 0 };
    let holder = match stored {
        Stored::Absent => None,
        Stored::SameAs(holder) => Some(holder),
        Stored::Data(_) | Stored::Pieces(_) => Some(tid),
    };
    Ok((oid, RevisionHead { tid, holder, link, bytes, inline }))
}

impl From<io::Error> for Fault {
    fn from(fault: io::Error) -> Fault {
        Fault::Io(fault)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Missing(oid) => write!(f, "object {oid} is referred to and not there"),
            Fault::Unreadable(oid, tid, why) => write!(f, "object {oid} of transaction {tid}: {why}"),
            Fault::Io(fault) => write!(f, "the database could not be read: {fault}"),
            Fault::Stopped => f.write_str("the pack was stopped"),
        }
    }
}

impl std::error::Error for Fault {}
