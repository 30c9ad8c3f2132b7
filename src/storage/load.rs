//! Reads of single objects.
//!
//! Every read is given a *view*: the youngest transaction that the read may know of. Revisions above the view are as if
//! they were not there, so a transaction that is applied meanwhile changes no answer. The common load, of the revision
//! that is the newest of all, is answered from memory (`hot`), or by two point reads: which revision is that, and the
//! revision itself. Only who looks back takes an iterator, which costs several times as much as a point read.
//!
//! ```text
//! revisions of an object      9   7   4        (youngest first, as in the table)
//! load_before(20, view 9) ->  9, no end        the newest of all: no view has a younger one
//! load_before(8,  view 9) ->  7, end 9         the seek starts at 7
//! load_before(8,  view 8) ->  7, no end        9 is above the view
//! load_before(20, view 8) ->  7, no end        the seek starts at the view, so there can be no end
//! load_before(4,  view 9) ->  None             the object exists, but not that early
//! load_before(4,  view 3) ->  NoObject         in this view there is none
//! ```

use std::io;

use bytes::Bytes;

use super::answered::Answered;
use super::digest::{self, Digest};
use super::keys;
use super::store::Store;
use super::value::{self, Current, Stored};
use crate::engine::Order;
use crate::zodb::{Oid, Refusal, StorageId, Tid};

/// A record and the span in which it is current.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The record, as the client sent it.
    pub data: Bytes,
    /// The transaction that wrote this revision.
    pub tid: Tid,
    /// The transaction that wrote the next revision, if the view has one.
    pub end: Option<Tid>,
}

impl Store {
    /// The newest revision older than `before`, as of `view` (`IMVCCStorage.loadBefore`).
    ///
    /// `Ok(None)`: the object exists, but all its revisions are as young as `before` or younger.
    /// Refused with `NoObject`: the view knows no such object, or it is absent at that time.
    pub fn load_before(&self, storage: StorageId, oid: Oid, before: Tid, view: Tid) -> Answered<Option<Loaded>> {
        if let Some(held) = self.hot().get(storage, oid, |tid| tid < before && tid <= view) {
            return Ok(Ok(Some(Loaded { data: held.data, tid: held.tid, end: None })));
        }
        self.steady(|| self.look_before(storage, oid, before, view))
    }

    fn look_before(&self, storage: StorageId, oid: Oid, before: Tid, view: Tid) -> Answered<Option<Loaded>> {
        let ticket = self.hot().ticket(storage, oid);
        match self.current(storage, oid)? {
            None => Ok(Err(Refusal::NoObject(oid))),
            Some(Current { tid, absent }) if tid < before && tid <= view => {
                if absent {
                    return Ok(Err(Refusal::NoObject(oid)));
                }
                let data = self.revision_data(storage, oid, tid)?;
                self.hot().keep(ticket, tid, &data);
                Ok(Ok(Some(Loaded { data, tid, end: None })))
            }
            Some(_) => self.load_older(storage, oid, before, view),
        }
    }

    /// As [`Store::load_before`], for who does not get the newest revision of all.
    fn load_older(&self, storage: StorageId, oid: Oid, before: Tid, view: Tid) -> Answered<Option<Loaded>> {
        let no_object = Ok(Err(Refusal::NoObject(oid)));
        // If `before` is above the view, the seek begins at the view, and the first revision found is the newest.
        let newest = before > view;
        let found = match before {
            Tid::ZERO => None,
            _ => self.newest(storage, oid, before.previous().min(view))?,
        };
        let Some((tid, stored)) = found else {
            // No revision is that early. Does the view have any revision of the object?
            let exists = !newest && self.newest(storage, oid, view)?.is_some();
            return if exists { Ok(Ok(None)) } else { no_object };
        };
        let Some((data, _)) = self.follow(storage, oid, tid, stored)? else {
            return no_object;
        };
        let end = if newest { None } else { self.next_younger(storage, oid, tid, view)? };
        Ok(Ok(Some(Loaded { data, tid, end })))
    }

    /// The record that transaction `tid` wrote (`IStorage.loadSerial`).
    pub fn load_serial(&self, storage: StorageId, oid: Oid, tid: Tid, view: Tid) -> Answered<Bytes> {
        if tid > view {
            return Ok(Err(Refusal::NoObject(oid)));
        }
        if let Some(held) = self.hot().get(storage, oid, |newest| newest == tid) {
            return Ok(Ok(held.data));
        }
        let shown = self.steady(|| match self.stored(storage, oid, tid)? {
            Some(stored) => self.follow(storage, oid, tid, stored),
            None => Ok(None),
        })?;
        Ok(shown.map(|(data, _)| data).ok_or(Refusal::NoObject(oid)))
    }

    /// Whether transaction `tid`, as `view` knows it, left the object with this record; `None`: absent.
    pub fn is_like(&self, storage: StorageId, oid: Oid, tid: Tid, view: Tid, data: Option<&Bytes>) -> io::Result<bool> {
        Ok(match data {
            Some(data) => self.load_serial(storage, oid, tid, view)?.as_ref() == Ok(data),
            None => tid <= view && self.stored(storage, oid, tid)? == Some(Stored::Absent),
        })
    }

    /// The newest revision that was applied, whatever any view says; without its data.
    pub fn current(&self, storage: StorageId, oid: Oid) -> io::Result<Option<Current>> {
        let key = keys::object(storage, oid);
        let value = self.engine().get(keys::OBJECTS, &key)?;
        value.map(|value| Current::decode(&key, &value)).transpose()
    }

    /// The tid of the newest revision as of `view`; refused with `NoObject` if there is none, or the object is absent.
    pub fn get_tid(&self, storage: StorageId, oid: Oid, view: Tid) -> Answered<Tid> {
        let current = self.steady(|| self.current_as_of(storage, oid, view))?;
        Ok(current.filter(|current| !current.absent).map(|current| current.tid).ok_or(Refusal::NoObject(oid)))
    }

    /// [`Store::current`], as of `view`.
    fn current_as_of(&self, storage: StorageId, oid: Oid, view: Tid) -> io::Result<Option<Current>> {
        match self.current(storage, oid)? {
            Some(current) if current.tid > view => self.older_current(storage, oid, view),
            current => Ok(current),
        }
    }

    /// [`Store::current_as_of`] a view that is older than the current revision.
    fn older_current(&self, storage: StorageId, oid: Oid, view: Tid) -> io::Result<Option<Current>> {
        let found = self.newest(storage, oid, view)?;
        Ok(found.map(|(tid, stored)| Current { tid, absent: stored == Stored::Absent }))
    }

    /// The first object from `at_least` on that is not absent in `view`: its id, tid and record, and the id of the next
    /// such object (`IStorageCurrentRecordIteration.record_iternext`).
    #[expect(clippy::type_complexity, reason = "the four parts of the protocol's answer")]
    pub fn next_object(
        &self,
        storage: StorageId,
        at_least: Oid,
        view: Tid,
    ) -> io::Result<Option<(Oid, Tid, Bytes, Option<Oid>)>> {
        self.steady(|| self.look_for_object(storage, at_least, view))
    }

    #[expect(clippy::type_complexity, reason = "the four parts of the protocol's answer")]
    fn look_for_object(
        &self,
        storage: StorageId,
        at_least: Oid,
        view: Tid,
    ) -> io::Result<Option<(Oid, Tid, Bytes, Option<Oid>)>> {
        let (from, until) = (keys::object(storage, at_least), keys::storage_end(storage));
        let mut first: Option<(Oid, Tid, Bytes)> = None;
        for pair in self.engine().range(keys::OBJECTS, &from, &until, Order::Ascending) {
            let (key, value) = pair?;
            let (_, oid) =
                keys::decode_object(&key).ok_or_else(|| value::damaged("an object's key is not 12 bytes"))?;
            let current = match Current::decode(&key, &value)? {
                current if current.tid <= view => Some(current),
                _ => self.older_current(storage, oid, view)?,
            };
            let Some(Current { tid, absent: false }) = current else { continue };
            if let Some((first, tid, data)) = first {
                return Ok(Some((first, tid, data, Some(oid))));
            }
            let data = self.revision_data(storage, oid, tid)?;
            first = Some((oid, tid, data));
        }
        Ok(first.map(|(oid, tid, data)| (oid, tid, data, None)))
    }

    fn revision_data(&self, storage: StorageId, oid: Oid, tid: Tid) -> io::Result<Bytes> {
        let shown = match self.stored(storage, oid, tid)? {
            Some(stored) => self.follow(storage, oid, tid, stored)?,
            None => None,
        };
        shown.map(|(data, _)| data).ok_or_else(|| missing(storage, oid, tid))
    }

    /// The newest revision that is not younger than `cap`: one seek.
    pub(super) fn newest(&self, storage: StorageId, oid: Oid, cap: Tid) -> io::Result<Option<(Tid, Stored)>> {
        let from = keys::revision(storage, oid, cap);
        let until = keys::revision(storage, oid, Tid::ZERO);
        let Some((key, value)) = self.engine().first(keys::REVISIONS, &from, &until)? else { return Ok(None) };
        let (_, _, tid) =
            keys::decode_revision(&key).ok_or_else(|| value::damaged("a revision's key is not 20 bytes"))?;
        Ok(Some((tid, Stored::decode(&key, value)?)))
    }

    /// The revision after that of `tid`, if `view` has it.
    fn next_younger(&self, storage: StorageId, oid: Oid, tid: Tid, view: Tid) -> io::Result<Option<Tid>> {
        let from = keys::revision(storage, oid, view);
        let until = keys::revision(storage, oid, tid);
        let Some(pair) = self.engine().range(keys::REVISIONS, &from, &until, Order::Descending).next() else {
            return Ok(None);
        };
        let younger = keys::decode_revision(&pair?.0).map(|(_, _, tid)| tid);
        younger.map(Some).ok_or_else(|| value::damaged("a revision's key is not 20 bytes"))
    }

    /// The revision of exactly `tid`.
    pub(super) fn stored(&self, storage: StorageId, oid: Oid, tid: Tid) -> io::Result<Option<Stored>> {
        let key = keys::revision(storage, oid, tid);
        let value = self.engine().get(keys::REVISIONS, &key)?;
        value.map(|value| Stored::decode(&key, value)).transpose()
    }

    /// The content hash of the revision of exactly `tid`; `None`: there is no such revision.
    pub fn content_of(&self, storage: StorageId, oid: Oid, tid: Tid) -> io::Result<Option<Digest>> {
        let stored = self.stored(storage, oid, tid)?;
        stored.map(|stored| self.content_hash(storage, oid, tid, &stored)).transpose()
    }

    /// The content hash of a revision, without reading data that lies in pieces.
    pub(super) fn content_hash(&self, storage: StorageId, oid: Oid, tid: Tid, stored: &Stored) -> io::Result<Digest> {
        match stored {
            Stored::Data(data) => Ok(digest::content(Some(data))),
            Stored::Absent => Ok(digest::content(None)),
            Stored::Pieces(staged) => Ok(staged.hash),
            Stored::SameAs(at) => match self.stored(storage, oid, *at)? {
                Some(holder @ (Stored::Data(_) | Stored::Pieces(_))) => self.content_hash(storage, oid, *at, &holder),
                _ => Err(value::damaged(format_args!(
                    "storage {storage}, object {oid}, transaction {tid}: its data is not with transaction {at}"
                ))),
            },
        }
    }

    /// The revision of exactly `tid`, and the older one that this revision was made to show again, if any.
    pub(super) fn linked(&self, storage: StorageId, oid: Oid, tid: Tid) -> io::Result<Option<(Stored, Option<Tid>)>> {
        let key = keys::revision(storage, oid, tid);
        let Some(value) = self.engine().get(keys::REVISIONS, &key)? else { return Ok(None) };
        let link = Stored::link(&value);
        Ok(Some((Stored::decode(&key, value)?, link)))
    }

    /// The record that a revision shows, and the tid of the revision with which the record lies if that is another;
    /// `None`: the object is absent.
    pub(super) fn follow(
        &self,
        storage: StorageId,
        oid: Oid,
        tid: Tid,
        stored: Stored,
    ) -> io::Result<Option<(Bytes, Option<Tid>)>> {
        match stored {
            Stored::Data(data) => Ok(Some((data, None))),
            Stored::Pieces(staged) => Ok(Some((self.read_staged(storage, &staged)?, None))),
            Stored::Absent => Ok(None),
            Stored::SameAs(data_tid) => match self.stored(storage, oid, data_tid)? {
                Some(Stored::Data(data)) => Ok(Some((data, Some(data_tid)))),
                Some(Stored::Pieces(staged)) => Ok(Some((self.read_staged(storage, &staged)?, Some(data_tid)))),
                _ => Err(value::damaged(format_args!(
                    "storage {storage}, object {oid}, transaction {tid}: its data is not with transaction {data_tid}"
                ))),
            },
        }
    }
}

/// The fault that another table names a revision which is not there.
pub(super) fn missing(storage: StorageId, oid: Oid, tid: Tid) -> io::Error {
    value::damaged(format_args!("storage {storage}, object {oid}, transaction {tid}: the revision is not there"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::TABLES;
    use super::super::testing::*;
    use super::*;
    use crate::command::Content;
    use crate::engine::SimDisk;

    const OID: Oid = Oid(1);

    /// The object of the module's example, with revisions 4, 7 and 9.
    fn example() -> Store {
        let store = store();
        apply(&store, commit(4, vec![over(0, 1, data("at 4"))]));
        apply(&store, commit(7, vec![over(4, 1, data("at 7"))]));
        apply(&store, commit(9, vec![over(7, 1, data("at 9"))]));
        store
    }

    #[test]
    fn the_example_in_the_module_is_true() {
        let store = example();
        let load = |before, view| store.load_before(S, OID, Tid(before), Tid(view)).unwrap();
        let at_7 =
            |end: Option<u64>| Ok(Some(Loaded { data: Bytes::from_static(b"at 7"), tid: Tid(7), end: end.map(Tid) }));
        assert_eq!(load(8, 9), at_7(Some(9)));
        assert_eq!(load(8, 8), at_7(None));
        assert_eq!(load(20, 8), at_7(None));
        assert_eq!(load(4, 9), Ok(None));
        assert_eq!(load(4, 3), Err(Refusal::NoObject(OID)));
        assert_eq!(load(0, 9), Ok(None));
    }

    #[test]
    fn the_common_load_is_two_point_reads() {
        let disk = SimDisk::new();
        let store = Store::open(Arc::new(disk.open(TABLES).unwrap())).unwrap();
        apply(&store, create("1"));
        apply(&store, commit(4, vec![over(0, 1, data("at 4"))]));
        apply(&store, commit(7, vec![over(4, 1, data("at 7"))]));
        for (before, view, reads) in [
            (Tid::MAX, Tid(7), 2),
            (Tid(8), Tid(9), 2),
            (Tid::MAX, Tid(6), 2),
            (Tid(7), Tid(6), 2),
            (Tid(7), Tid(9), 3),
        ] {
            let start = disk.counters().reads;
            store.load_before(S, OID, before, view).unwrap().unwrap().unwrap();
            assert_eq!(disk.counters().reads - start, reads, "load_before({before}), view {view}");
        }
    }

    #[test]
    fn what_was_deleted_is_still_there_for_who_looks_back() {
        let store = example();
        apply(&store, commit(12, vec![over(9, 1, Content::Absent)]));
        let no_object = Err(Refusal::NoObject(OID));
        assert_eq!(store.load_before(S, OID, Tid::MAX, Tid(12)).unwrap(), no_object);
        assert_eq!(store.get_tid(S, OID, Tid(12)).unwrap(), Err(Refusal::NoObject(OID)));
        assert_eq!(store.load_serial(S, OID, Tid(12), Tid(12)).unwrap(), Err(Refusal::NoObject(OID)));
        let loaded = store.load_before(S, OID, Tid(12), Tid(12)).unwrap().unwrap().unwrap();
        assert_eq!((loaded.tid, loaded.end), (Tid(9), Some(Tid(12))));
        assert_eq!(store.get_tid(S, OID, Tid(11)).unwrap(), Ok(Tid(9)));
    }

    #[test]
    fn data_shown_again_is_one_hop_away_however_often_it_is() {
        let store = example();
        apply(&store, commit(10, vec![over(9, 1, Content::SameAs(Tid(4)))]));
        apply(&store, commit(11, vec![over(10, 1, Content::SameAs(Tid(10)))]));
        assert_eq!(store.stored(S, OID, Tid(11)).unwrap(), Some(Stored::SameAs(Tid(4))));
        let loaded = store.load_before(S, OID, Tid::MAX, Tid::MAX).unwrap().unwrap().unwrap();
        assert_eq!((&loaded.data[..], loaded.tid), (&b"at 4"[..], Tid(11)));
        // A revision that shows an absence again is absent.
        apply(&store, commit(12, vec![over(11, 1, Content::Absent)]));
        apply(&store, commit(13, vec![over(12, 1, Content::SameAs(Tid(12)))]));
        assert!(store.current(S, OID).unwrap().unwrap().absent);
    }

    #[test]
    fn records_are_iterated_without_the_absent_ones() {
        let store = store();
        let all = [1, 3, 5, 8].map(|oid| over(0, oid, data("x"))).to_vec();
        apply(&store, commit(1, all));
        apply(&store, commit(2, vec![over(1, 3, Content::Absent), over(1, 8, Content::Absent)]));
        apply(&store, commit(3, vec![over(0, 9, data("young"))]));
        let walk = |view: u64| {
            let (mut seen, mut from) = (vec![], Some(Oid(0)));
            while let Some(at_least) = from {
                let Some((oid, _, _, next)) = store.next_object(S, at_least, Tid(view)).unwrap() else { break };
                seen.push(oid.0);
                from = next;
            }
            seen
        };
        assert_eq!(walk(1), [1, 3, 5, 8]);
        assert_eq!(walk(2), [1, 5]);
        assert_eq!(walk(3), [1, 5, 9]);
        assert_eq!(walk(0), [0; 0]);
    }

    #[test]
    fn a_damaged_record_is_a_fault_that_names_it() {
        let disk = SimDisk::new();
        let store = Store::open(Arc::new(disk.open(TABLES).unwrap())).unwrap();
        apply(&store, create("1"));
        apply(&store, commit(4, vec![over(0, 1, data("precious"))]));
        assert!(disk.damage(keys::REVISIONS, &keys::revision(S, OID, Tid(4)), 60));
        let named = "storage s1, object 0000000000000001, transaction 0000000000000004";
        let fault = store.load_before(S, OID, Tid::MAX, Tid::MAX).unwrap_err().to_string();
        assert!(fault.contains(named), "{fault}");
        let fault = store.recount(S).unwrap_err().to_string();
        assert!(fault.contains(named), "{fault}");
    }
}
