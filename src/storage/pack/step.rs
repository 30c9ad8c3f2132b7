//! The meaning of a pack's commands.
//!
//! | command | means | else |
//! |---|---|---|
//! | `PackBegin` | sets `packing`: the pack time, at most `last_tid` | `BadValue`: a pack is going on; the time is 0 |
//! | `PackStep` | removes the revisions that it names; if any, sets `packed` to the pack time | `BadValue`: see below |
//! | `PackEnd` | sets `packing` to nothing | |
//!
//! A `PackStep` is a `BadValue` if no pack is going on; if it names a revision younger than the pack time; if it names
//! the newest revision of an object, but not all.
//!
//! A step leaves an object alone that has a newer revision than the one it was planned with, and passes over revisions
//! that are not there. Where a revision that stays shows data that lies with one that goes, the data moves to the one
//! that stays, so that every revision shows the same after a step as before. A transaction goes with its last
//! revision; until then the list of its objects stays as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::Ordering::Relaxed;

use crate::command::{Outcome, PackStep, Removal, Staged};
use crate::engine::{Batch, Order};
use crate::storage::decision::{Decision, Next, no_storage};
use crate::storage::keys::OIDS_PER_PART;
use crate::storage::put::{put_listed, put_summary};
use crate::storage::store::Store;
use crate::storage::summary::Summary;
use crate::storage::value::{self, Stored, StoredBlob, TransactionHead};
use crate::storage::{digest, keys};
use crate::zodb::{Oid, Refusal, StorageId, Tid};

/// A step on its way into a batch.
struct Stepping {
    storage: StorageId,
    summary: Summary,
    batch: Batch,
    /// How many revisions of each transaction go.
    gone: BTreeMap<Tid, u32>,
    /// Bytes of the pieces that go.
    garbage: u64,
}

/// A revision that stays, and may have to take over the data of one that goes.
struct Heir {
    tid: Tid,
    /// The stored revision, and the older one that it was made to show again.
    record: Option<(Stored, Option<Tid>)>,
    blob: Option<StoredBlob>,
}

impl Store {
    pub(in crate::storage) fn pack_begin(&self, storage: StorageId, upto: Tid) -> Decision {
        let Some(mut summary) = self.summary_of(storage) else { return Decision::refuse(no_storage(storage)) };
        if summary.packing != Tid::ZERO {
            return Decision::refuse(Refusal::BadValue("a pack is going on already".into()));
        }
        // Capped, so that every later commit is younger than the pack time.
        summary.packing = upto.min(summary.last_tid);
        if summary.packing == Tid::ZERO {
            return Decision::refuse(Refusal::BadValue("there is nothing to pack up to that time".into()));
        }
        let mut batch = Batch::new();
        put_summary(&mut batch, storage, &summary);
        Decision { outcome: Outcome::Done, batch, next: Next::Summed(storage, summary) }
    }

    pub(in crate::storage) fn pack_end(&self, storage: StorageId) -> Decision {
        let Some(mut summary) = self.summary_of(storage) else { return Decision::refuse(no_storage(storage)) };
        summary.packing = Tid::ZERO;
        let mut batch = Batch::new();
        put_summary(&mut batch, storage, &summary);
        Decision { outcome: Outcome::Done, batch, next: Next::Packed(storage, summary) }
    }

    pub(in crate::storage) fn pack_step(&self, step: &PackStep) -> io::Result<Decision> {
        let storage = step.storage;
        let Some(summary) = self.summary_of(storage) else { return Ok(Decision::refuse(no_storage(storage))) };
        let upto = summary.packing;
        if upto == Tid::ZERO {
            return Ok(Decision::refuse(Refusal::BadValue("no pack is going on".into())));
        }
        let mut stepping = Stepping { storage, summary, batch: Batch::new(), gone: BTreeMap::new(), garbage: 0 };
        let mut seen = BTreeSet::new();
        for removal in &step.objects {
            let oid = removal.oid;
            if !seen.insert(oid) || removal.tids.iter().any(|tid| *tid > upto) {
                let why =
                    format!("a pack up to {upto} can't remove younger revisions of object {oid}, or name it twice");
                return Ok(Decision::refuse(Refusal::BadValue(why)));
            }
            let current = self.current(storage, oid)?;
            if current.is_none_or(|current| current.tid != removal.current) {
                continue;
            }
            if !self.remove(&mut stepping, removal)? {
                let why = format!("object {oid} can't lose its newest revision and keep others");
                return Ok(Decision::refuse(Refusal::BadValue(why)));
            }
        }
        for (tid, count) in std::mem::take(&mut stepping.gone) {
            self.lessen(&mut stepping, tid, count)?;
        }
        if !step.objects.is_empty() && !step.transactions.is_empty() {
            // Removing a revision changes its transaction; one batch must not decide on a head that it changes.
            let why = "a step removes revisions or looks at transactions, not both";
            return Ok(Decision::refuse(Refusal::BadValue(why.into())));
        }
        for &tid in step.transactions.iter().filter(|tid| **tid <= upto) {
            match self.transaction(storage, tid)? {
                Some(head) if head.left == 0 => self.lessen(&mut stepping, tid, 0)?,
                Some(head) => self.list_once(&mut stepping, tid, head)?,
                None => {}
            }
        }
        let Stepping { mut summary, mut batch, garbage, .. } = stepping;
        if batch.is_empty() {
            return Ok(Decision::nothing(Outcome::Done));
        }
        self.inner.garbage.fetch_add(garbage, Relaxed);
        summary.packed = summary.packed.max(upto);
        put_summary(&mut batch, storage, &summary);
        Ok(Decision { outcome: Outcome::Done, batch, next: Next::Removed(storage, summary) })
    }

    /// Removes revisions of one object. `false`: the newest revision would go and an older one stay.
    fn remove(&self, stepping: &mut Stepping, removal: &Removal) -> io::Result<bool> {
        let (storage, oid) = (stepping.storage, removal.oid);
        let tids: BTreeSet<Tid> = removal.tids.iter().copied().collect();
        if tids.contains(&removal.current) {
            if self.has_others(storage, oid, &tids)? {
                return Ok(false);
            }
            stepping.batch.delete(keys::OBJECTS, keys::object(storage, oid));
            stepping.summary.objects -= 1;
        }
        let mut heirs = Vec::with_capacity(removal.heirs.len());
        for &tid in removal.heirs.iter().filter(|tid| !tids.contains(tid)) {
            heirs.push(Heir {
                tid,
                record: self.linked(storage, oid, tid)?,
                blob: self.stored_blob(storage, oid, tid)?,
            });
        }
        for tid in tids {
            let Some(stored) = self.stored(storage, oid, tid)? else { continue };
            let content = self.content_hash(storage, oid, tid, &stored)?;
            let blob = self.find_blob(storage, oid, tid)?;
            let content = digest::with_blob(content, blob.as_ref().map(|(_, staged)| &staged.hash));
            let part = digest::revision(oid, tid, &content);
            stepping.summary.present = digest::subtract(&stepping.summary.present, &part);
            *stepping.gone.entry(tid).or_default() += 1;

            let key = keys::revision(storage, oid, tid);
            stepping.batch.delete(keys::REVISIONS, key);
            if matches!(stored, Stored::Data(_) | Stored::Pieces(_)) {
                let showing = heirs.iter().filter_map(|heir| match &heir.record {
                    Some((Stored::SameAs(holder), link)) if *holder == tid => Some((heir.tid, *link)),
                    _ => None,
                });
                stepping.hand_on_record(oid, stored, showing);
            }
            if let Some(blob) = self.stored_blob(storage, oid, tid)? {
                stepping.batch.delete(keys::BLOBS, key);
                let shows = |heir: &&Heir| heir.blob == Some(StoredBlob::SameAs(tid));
                stepping.hand_on_blob(oid, blob, heirs.iter().filter(shows).map(|heir| heir.tid));
            }
        }
        Ok(true)
    }

    /// Whether the object has a revision that is not among `tids`.
    fn has_others(&self, storage: StorageId, oid: Oid, tids: &BTreeSet<Tid>) -> io::Result<bool> {
        let from = keys::revision(storage, oid, Tid(u64::MAX));
        let until = keys::revision(storage, oid, Tid::ZERO);
        for pair in self.engine().range(keys::REVISIONS, &from, &until, Order::Ascending) {
            let (_, _, tid) =
                keys::decode_revision(&pair?.0).ok_or_else(|| value::damaged("a revision's key is not 20 bytes"))?;
            if !tids.contains(&tid) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Counts `count` revisions of a transaction as gone, and removes the transaction if none is left.
    fn lessen(&self, stepping: &mut Stepping, tid: Tid, count: u32) -> io::Result<()> {
        let storage = stepping.storage;
        let astray = || {
            value::damaged(format_args!(
                "storage {storage}: transaction {tid} has fewer revisions left than the tables hold"
            ))
        };
        let head = self.transaction(storage, tid)?.ok_or_else(astray)?;
        let left = head.left.checked_sub(count).ok_or_else(astray)?;
        let key = keys::transaction(storage, tid);
        if left > 0 {
            let head = TransactionHead { left, ..head };
            stepping.batch.put(keys::TRANSACTIONS, key, head.encode(&key));
            return Ok(());
        }
        stepping.batch.delete(keys::TRANSACTIONS, key);
        let parts = head.count.div_ceil(OIDS_PER_PART as u32);
        let part = |number| keys::transaction_part(storage, tid, number);
        stepping.batch.delete_range(keys::TRANSACTIONS, part(1), part(parts.max(1)));
        stepping.summary.transactions -= 1;
        Ok(())
    }

    /// Lists each object of a transaction only where it stands last: of two records of one object in a transaction, a
    /// `FileStorage` keeps the last.
    fn list_once(&self, stepping: &mut Stepping, tid: Tid, mut head: TransactionHead) -> io::Result<()> {
        let storage = stepping.storage;
        let mut oids = std::mem::take(&mut head.oids);
        let parts = head.count.div_ceil(OIDS_PER_PART as u32);
        for number in 1..parts {
            let key = keys::transaction_part(storage, tid, number);
            let value = self.engine().get(keys::TRANSACTIONS, &key)?;
            let value = value.ok_or_else(|| {
                value::damaged(format_args!("storage {storage}: part {number} of transaction {tid} is missing"))
            })?;
            oids.extend(value::decode_oids(&key, &value)?);
        }
        let listed = oids.len();
        let mut seen = BTreeSet::new();
        oids.reverse();
        oids.retain(|oid| seen.insert(*oid));
        oids.reverse();
        if oids.len() == listed {
            return Ok(());
        }
        stepping.batch.delete_range(
            keys::TRANSACTIONS,
            keys::transaction_part(storage, tid, 1),
            keys::transaction_part(storage, tid, parts),
        );
        head.count = u32::try_from(oids.len()).expect("the shortened list is shorter than the old one, which fits");
        put_listed(&mut stepping.batch, storage, tid, head, &oids);
        Ok(())
    }
}

impl Stepping {
    /// Moves the record of a revision that goes to the first revision that shows it; removes the record if there is
    /// none.
    fn hand_on_record(&mut self, oid: Oid, stored: Stored, mut showing: impl Iterator<Item = (Tid, Option<Tid>)>) {
        let Some((holder, _)) = showing.next() else {
            self.summary.bytes -= stored.length();
            if let Stored::Pieces(staged) = &stored {
                self.drop_pieces(staged);
            }
            return;
        };
        let key = keys::revision(self.storage, oid, holder);
        self.batch.put(keys::REVISIONS, key, stored.encode(&key));
        for (tid, link) in showing {
            let key = keys::revision(self.storage, oid, tid);
            self.batch.put(keys::REVISIONS, key, Stored::SameAs(holder).encode_linked(&key, link));
        }
    }

    /// Moves the blob of a revision that goes, like its record.
    fn hand_on_blob(&mut self, oid: Oid, blob: StoredBlob, mut showing: impl Iterator<Item = Tid>) {
        let StoredBlob::Pieces(staged) = &blob else { return };
        let Some(holder) = showing.next() else { return self.drop_pieces(staged) };
        let key = keys::revision(self.storage, oid, holder);
        self.batch.put(keys::BLOBS, key, blob.encode(&key));
        for tid in showing {
            let key = keys::revision(self.storage, oid, tid);
            self.batch.put(keys::BLOBS, key, StoredBlob::SameAs(holder).encode(&key));
        }
    }

    fn drop_pieces(&mut self, staged: &Staged) {
        for span in &staged.pieces {
            let end = span.first.saturating_add(span.count.into());
            self.batch.delete_range(
                keys::PIECES,
                keys::piece(self.storage, span.first),
                keys::piece(self.storage, end),
            );
        }
        self.garbage += staged.length;
    }
}
