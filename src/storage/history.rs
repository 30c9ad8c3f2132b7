//! Reads along the time: an object's revisions, and the transactions.

use std::io;

use super::answered::Answered;
use super::feed::Applied;
use super::keys::{self, OIDS_PER_PART};
use super::load::missing;
use super::stop::Stop;
use super::store::Store;
use super::value::{self, PACKED, Stored, TransactionHead, UNPACKED};
use crate::config::limits;
use crate::engine::Order;
use crate::zodb::{Oid, Refusal, Revision, State, StorageId, Tid, TransactionMeta};

/// A revision of an object, without its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryEntry {
    /// The transaction that wrote the revision.
    pub tid: Tid,
    /// The meta data of that transaction.
    pub meta: TransactionMeta,
    /// The length of the record that lies with this revision: 0 if the object is absent, or shows older data again.
    pub size: u64,
}

/// A transaction in an undo log, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UndoEntry {
    /// The transaction's id.
    pub tid: Tid,
    /// The transaction's meta data.
    pub meta: TransactionMeta,
    /// Bytes that the transaction takes (or would take) in a `Data.fs`.
    pub size: u64,
}

/// Bytes that each entry of a history is counted with, beside its texts.
const ENTRY_COST: usize = 64;

impl Store {
    /// The newest `size` revisions as of `view`, newest first (`IStorage.history`); `NoObject` if there is none. Fewer
    /// if their meta data comes to [`limits::HISTORY_BYTES`].
    pub fn history(&self, storage: StorageId, oid: Oid, size: usize, view: Tid) -> Answered<Vec<HistoryEntry>> {
        self.steady(|| self.look_back(storage, oid, size, view))
    }

    fn look_back(&self, storage: StorageId, oid: Oid, size: usize, view: Tid) -> Answered<Vec<HistoryEntry>> {
        let from = keys::revision(storage, oid, view);
        let until = keys::revision(storage, oid, Tid::ZERO);
        let mut entries = Vec::new();
        let mut exists = false;
        let mut bytes = 0;
        for pair in self.engine().range(keys::REVISIONS, &from, &until, Order::Ascending) {
            let (key, value) = pair?;
            exists = true;
            if size == 0 {
                break;
            }
            let (_, _, tid) =
                keys::decode_revision(&key).ok_or_else(|| value::damaged("a revision's key is not 20 bytes"))?;
            let length = Stored::decode(&key, value)?.length();
            let head = self.transaction(storage, tid)?.ok_or_else(|| {
                value::damaged(format_args!(
                    "storage {storage}: transaction {tid} is missing, but object {oid} has a revision of it"
                ))
            })?;
            bytes += ENTRY_COST + head.meta.user.len() + head.meta.description.len() + head.meta.extension.len();
            entries.push(HistoryEntry { tid, meta: head.meta, size: length });
            if entries.len() == size || bytes >= limits::HISTORY_BYTES {
                break;
            }
        }
        Ok(if exists { Ok(entries) } else { Err(Refusal::NoObject(oid)) })
    }

    /// The objects that the transactions after `after`, up to and including `upto`, have written; in order of their
    /// ids, each once. `None`: those transactions have more than `most` writes; so `most` bounds the time as well.
    pub fn changed_since(
        &self,
        storage: StorageId,
        after: Tid,
        upto: Tid,
        most: usize,
    ) -> io::Result<Option<Vec<Oid>>> {
        let mut all = Vec::new();
        let few = self.for_written(storage, after, upto, |_, _, oids| {
            all.extend(oids);
            all.len() <= most
        })?;
        all.sort_unstable();
        all.dedup();
        Ok(few.then_some(all))
    }

    /// The transactions after `after`, up to and including `upto`, oldest first. `None`: they, and their writes, are
    /// together more than `most`.
    pub fn transactions_since(
        &self,
        storage: StorageId,
        after: Tid,
        upto: Tid,
        most: usize,
    ) -> io::Result<Option<Vec<Applied>>> {
        let mut all: Vec<Applied> = Vec::new();
        let mut items = 0;
        let few = self.for_written(storage, after, upto, |tid, part, oids| {
            items += oids.len() + usize::from(part == 0);
            match all.last_mut() {
                Some(applied) if applied.tid == tid => applied.oids.extend(oids),
                _ => all.push(Applied::new(storage, tid, oids)),
            }
            items <= most
        })?;
        Ok(few.then_some(all))
    }

    /// Calls `each` with the transactions after `after`, up to and including `upto`, oldest first, and what they wrote:
    /// of a large one in parts, which are numbered from 0. `false`: so did `each`, and the rest was left out.
    fn for_written(
        &self,
        storage: StorageId,
        after: Tid,
        upto: Tid,
        mut each: impl FnMut(Tid, u32, Vec<Oid>) -> bool,
    ) -> io::Result<bool> {
        if after >= upto {
            return Ok(true);
        }
        let (from, until) = (keys::transaction(storage, after.next()), keys::transaction(storage, upto.next()));
        for pair in self.engine().range(keys::TRANSACTIONS, &from, &until, Order::Ascending) {
            let (key, value) = pair?;
            let (tid, part) = decode_key(&key)?;
            let oids = match part {
                0 => TransactionHead::decode(&key, &value)?.oids,
                _ => value::decode_oids(&key, &value)?,
            };
            if !each(tid, part, oids) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The transactions that can be undone as of `view` (`IStorageUndoable.undoLog`), newest first: of those that
    /// `wanted` takes, number `first` up to but without number `last`. The log goes back as far as
    /// [`Store::undo_floor`].
    ///
    /// There may be fewer: the search ends after [`limits::UNDO_SEARCH`] transactions, and when the meta data found
    /// comes to [`limits::HISTORY_BYTES`]. An error once `stop` was asked for.
    pub fn undo_log(
        &self,
        storage: StorageId,
        view: Tid,
        first: i64,
        last: i64,
        stop: &Stop,
        mut wanted: impl FnMut(&UndoEntry) -> bool,
    ) -> io::Result<Vec<UndoEntry>> {
        let from = keys::transaction(storage, self.undo_floor(storage).next());
        let until = keys::transaction(storage, view.next());
        let (mut found, mut entries, mut bytes) = (0, Vec::new(), 0);
        if last <= 0 {
            return Ok(entries);
        }
        for pair in self.engine().range(keys::TRANSACTIONS, &from, &until, Order::Descending).take(limits::UNDO_SEARCH)
        {
            stop.look()?;
            let (key, value) = pair?;
            let (tid, 0) = decode_key(&key)? else { continue };
            let TransactionHead { meta, length, .. } = TransactionHead::decode(&key, &value)?;
            let entry = UndoEntry { tid, meta, size: length };
            if entry.meta.status != UNPACKED || !wanted(&entry) {
                continue;
            }
            if found >= first {
                bytes += ENTRY_COST + entry.meta.user.len() + entry.meta.description.len() + entry.meta.extension.len();
                entries.push(entry);
            }
            found += 1;
            if found >= last || bytes >= limits::HISTORY_BYTES {
                break;
            }
        }
        Ok(entries)
    }

    /// The first transaction from `at_least` to `at_most`, both included. Its status is `b'p'` if a pack has reached
    /// it.
    pub fn transaction_at(
        &self,
        storage: StorageId,
        at_least: Tid,
        at_most: Tid,
    ) -> io::Result<Option<(Tid, TransactionMeta)>> {
        if at_least > at_most {
            return Ok(None);
        }
        let (from, until) = (keys::transaction(storage, at_least), keys::transaction(storage, at_most.next()));
        let Some((key, value)) = self.engine().first(keys::TRANSACTIONS, &from, &until)? else { return Ok(None) };
        // A transaction's own key comes before the keys of its parts, so the first key found is a transaction's own.
        let (tid, _) = decode_key(&key)?;
        let mut meta = TransactionHead::decode(&key, &value)?.meta;
        if tid <= self.summary(storage).packed {
            meta.status = PACKED;
        }
        Ok(Some((tid, meta)))
    }

    /// Of the objects that a transaction lists, in the order in which they were stored: the first one from number `n`
    /// (counted from 0) on, as the transaction left it, with its number. `None`: there is none, or no such transaction.
    /// Revisions that a pack has removed are passed over.
    ///
    /// Where the object shows an older revision again, `data_tid` names that one (which may show a still older one
    /// itself). As in a `FileStorage`, a packed revision has no `data_tid`.
    pub fn record_at(&self, storage: StorageId, tid: Tid, n: usize) -> io::Result<Option<(usize, Revision)>> {
        self.steady(|| self.look_for_record(storage, tid, n))
    }

    /// [`Store::record_at`] for a reader that comes back, perhaps after a pack step: of the `left` last objects that
    /// the transaction lists (`None`: of all of them) the first one, and how many come after that one.
    ///
    /// The reader counts from the end because a pack shortens the list: an object that is listed more than once stays
    /// only where it stands last. So no object is ever passed over; an object that was given before may come again.
    pub fn record_of_last(
        &self,
        storage: StorageId,
        tid: Tid,
        left: Option<usize>,
    ) -> io::Result<Option<(usize, Revision)>> {
        self.steady(|| {
            let Some(head) = self.transaction(storage, tid)? else { return Ok(None) };
            let count = head.count as usize;
            let from = left.map_or(0, |left| count.saturating_sub(left));
            let found = self.look_for_record(storage, tid, from)?;
            Ok(found.map(|(n, revision)| (count.saturating_sub(n + 1), revision)))
        })
    }

    fn look_for_record(&self, storage: StorageId, tid: Tid, from: usize) -> io::Result<Option<(usize, Revision)>> {
        let mut n = from;
        loop {
            // The list lies in parts, the first of them with the transaction itself.
            let (first, oids) = match n / OIDS_PER_PART {
                0 => (0, self.transaction(storage, tid)?.map(|head| head.oids)),
                part => {
                    let Ok(number) = u32::try_from(part) else { return Ok(None) };
                    let key = keys::transaction_part(storage, tid, number);
                    let value = self.engine().get(keys::TRANSACTIONS, &key)?;
                    (part * OIDS_PER_PART, value.map(|value| value::decode_oids(&key, &value)).transpose()?)
                }
            };
            let Some(oids) = oids.filter(|oids| first + oids.len() > n) else { return Ok(None) };
            for &oid in &oids[n - first..] {
                match self.linked(storage, oid, tid)? {
                    Some(linked) => return Ok(Some((n, self.revision_of(storage, oid, tid, linked)?))),
                    None if self.may_be_packed(storage, tid) => n += 1,
                    None => return Err(missing(storage, oid, tid)),
                }
            }
        }
    }

    fn revision_of(
        &self,
        storage: StorageId,
        oid: Oid,
        tid: Tid,
        (stored, link): (Stored, Option<Tid>),
    ) -> io::Result<Revision> {
        let state = self.follow(storage, oid, tid, stored)?.map_or(State::Absent, |(data, _)| State::Data(data));
        // A pack may have removed the revision that this one was linked to.
        let data_tid = match link {
            Some(link) if !self.may_be_packed(storage, tid) && self.stored(storage, oid, link)?.is_some() => Some(link),
            _ => None,
        };
        Ok(Revision { oid, tid, state, data_tid })
    }

    /// Whether a pack may have removed revisions of transaction `tid`.
    fn may_be_packed(&self, storage: StorageId, tid: Tid) -> bool {
        self.with(storage, |storage| tid <= storage.summary.packed)
    }

    pub(super) fn transaction(&self, storage: StorageId, tid: Tid) -> io::Result<Option<TransactionHead>> {
        let key = keys::transaction(storage, tid);
        let value = self.engine().get(keys::TRANSACTIONS, &key)?;
        value.map(|value| TransactionHead::decode(&key, &value)).transpose()
    }
}

/// The transaction that a key belongs to, and the part of its list of objects.
pub(super) fn decode_key(key: &[u8]) -> io::Result<(Tid, u32)> {
    let decoded = keys::decode_transaction(key).map(|(_, tid, part)| (tid, part));
    decoded.ok_or_else(|| value::damaged("a transaction's key is neither 12 nor 16 bytes"))
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::command::{Change, Content, Outcome};

    #[test]
    fn a_history_is_told_from_the_view_back() {
        let store = store();
        apply(&store, commit(4, vec![over(0, 1, data("four"))]));
        apply(&store, commit(7, vec![over(4, 1, Content::Absent)]));
        apply(&store, commit(9, vec![over(7, 1, Content::SameAs(Tid(4)))]));
        let history = |size, view| -> Vec<(u64, Vec<u8>, u64)> {
            let entries = store.history(S, Oid(1), size, Tid(view)).unwrap().unwrap();
            entries.into_iter().map(|e| (e.tid.0, e.meta.user, e.size)).collect()
        };
        let [four, seven, nine] = [(4, b"user 4".to_vec(), 4), (7, b"user 7".to_vec(), 0), (9, b"user 9".to_vec(), 0)];
        assert_eq!(history(10, 20), [nine, seven.clone(), four.clone()]);
        assert_eq!(history(10, 8), [seven.clone(), four]);
        assert_eq!(history(1, 8), [seven]);
        assert_eq!(history(0, 8), []);
        assert_eq!(store.history(S, Oid(1), 1, Tid(3)).unwrap(), Err(Refusal::NoObject(Oid(1))));
        assert_eq!(store.history(S, Oid(2), 0, Tid(9)).unwrap(), Err(Refusal::NoObject(Oid(2))));
    }

    #[test]
    fn a_history_of_long_texts_ends_early() {
        let store = store();
        let text = limits::TRANSACTION_TEXT;
        let most = limits::HISTORY_BYTES.div_ceil(text + ENTRY_COST + "user 1000".len());
        for n in 1..=most as u64 + 5 {
            let mut change = commit(n, vec![over(n - 1, 1, data("x"))]);
            let Change::Commit(commit) = &mut change else { unreachable!("it is a commit") };
            commit.meta.description = vec![b'x'; text];
            assert_eq!(apply(&store, change), Outcome::Committed(Tid(n)));
        }
        let entries = store.history(S, Oid(1), usize::MAX, Tid::MAX).unwrap().unwrap();
        assert!((most - 1..=most + 1).contains(&entries.len()), "{}", entries.len());
        assert_eq!(entries[0].tid.0, most as u64 + 5);
    }

    #[test]
    fn a_large_transaction_is_read_in_parts() {
        let store = store();
        let count = 2 * OIDS_PER_PART as u64 + 3;
        // In an order of its own, which must be kept.
        let writes = (0..count).rev().map(|oid| over(0, oid, data(&oid.to_string()))).collect();
        apply(&store, commit(5, writes));
        apply(&store, commit(6, vec![over(5, 7, data("seven"))]));
        for n in [0, 1, 511, 512, 513, 1023, 1024, 1026] {
            let (at, revision) = store.record_at(S, Tid(5), n).unwrap().unwrap();
            assert_eq!(at, n);
            assert_eq!(revision.oid, Oid(count - 1 - n as u64));
            let text = revision.oid.0.to_string();
            assert_eq!(revision.state, State::Data(text.into_bytes().into()));
        }
        assert_eq!(store.record_at(S, Tid(5), count as usize).unwrap(), None);
        assert_eq!(store.record_at(S, Tid(5), usize::MAX).unwrap(), None);
        let all: Vec<Oid> = (0..count).map(Oid).collect();
        let changed = |after, upto, most| store.changed_since(S, Tid(after), Tid(upto), most).unwrap();
        assert_eq!(changed(0, 6, usize::MAX), Some(all.clone()));
        assert_eq!(changed(4, 5, all.len()), Some(all.clone()));
        assert_eq!(changed(4, 5, all.len() - 1), None);
        assert_eq!(changed(5, 6, 1), Some(vec![Oid(7)]));
        let since = |after, most| store.transactions_since(S, Tid(after), Tid(6), most).unwrap();
        let applied = |tid, oids| Applied::new(S, Tid(tid), oids);
        // (In the order in which they were written.)
        let written = all.iter().rev().copied().collect();
        assert_eq!(since(0, count as usize + 3), Some(vec![applied(5, written), applied(6, vec![Oid(7)])]));
        assert_eq!(since(0, count as usize + 2), None);
        assert_eq!(since(5, 2), Some(vec![applied(6, vec![Oid(7)])]));
        assert_eq!(since(6, 0), Some(vec![]));
        // Between two transactions' own keys lie the keys of the first one's parts, which are no transactions.
        assert_eq!(store.transaction_at(S, Tid(6), Tid::MAX).unwrap().unwrap().0, Tid(6));
        assert_eq!(store.transaction_at(S, Tid(0), Tid(4)).unwrap(), None);
        let (summary, recount) = store.recount(S).unwrap();
        assert!(recount.agrees(&summary));
        assert_eq!((summary.transactions, summary.objects), (2, count));
    }
}
