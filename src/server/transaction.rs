//! A transaction on its way: what a client has sent between `tpc_begin` and `vote`.
//!
//! It is a plain buffer of one session: no lock is held and nothing is looked up until the vote. What is wrong with a
//! call that the client does not wait for (too large, not served) is remembered here and told at the vote, as the only
//! other way to tell would be to close the connection.
//!
//! **Promises.** Objects stay in the order in which they were first stored. A later store of the same object replaces the
//! earlier one: that is how a client that resolved a conflict sends the result. Checks stand beside stores. The buffer
//! never holds more than [`limits::TRANSACTION_BYTES`], nor all buffers more than [`limits::TRANSACTIONS_BYTES`]; past it
//! everything is let go of, and the vote fails. What a buffer has of that it keeps until the outcome of its finish is known.
//!
//! **Left out.** Blobs (they are answered with a clear refusal at the vote), and staging of large transactions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;

use super::undo::Undos;
use crate::command::{Base, Content, Write};
use crate::config::limits;
use crate::tpc::Read;
use crate::zodb::{Oid, Refusal, Tid, TransactionMeta};

/// What each entry costs beside its data.
const ENTRY_COST: usize = 64;
/// What each object costs that is undone, with the write that comes of it.
const UNDONE_COST: usize = 256;

/// The memory that all transactions of a node share; clones are the same budget.
#[derive(Clone, Debug, Default)]
pub struct Budget(Arc<AtomicUsize>);

impl Budget {
    /// Takes `bytes`, unless that would be more than [`limits::TRANSACTIONS_BYTES`] in all.
    fn take(&self, bytes: usize) -> bool {
        let before = self.0.fetch_add(bytes, Relaxed);
        if before + bytes > limits::TRANSACTIONS_BYTES {
            self.0.fetch_sub(bytes, Relaxed);
            return false;
        }
        true
    }

    fn give_back(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Relaxed);
    }
}

/// The part of the budget that one transaction has; given back when it is dropped.
#[derive(Debug)]
pub struct Reservation {
    bytes: usize,
    budget: Budget,
}

impl Reservation {
    fn take(&mut self, bytes: usize) -> bool {
        let taken = self.budget.take(bytes);
        self.bytes += if taken { bytes } else { 0 };
        taken
    }

    fn give_back(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.budget.give_back(bytes);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

/// What a client wants of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// `storea`: the data, and the serial that the client had read.
    Store { base: Tid, data: Bytes },
    /// `deleteObject`.
    Delete { base: Tid },
    /// `restorea`: as it is, whatever is there. `None`: an undone creation. `like`: the transaction that may have
    /// written the same data before.
    Restore { data: Option<Bytes>, like: Option<Tid> },
}

/// The buffer of one transaction.
#[derive(Debug)]
pub struct Transaction {
    /// The client's name for it.
    pub id: u64,
    pub meta: TransactionMeta,
    /// The tid it must have (a copy from another database).
    pub tid: Option<Tid>,
    order: Vec<Oid>,
    wishes: BTreeMap<Oid, Wish>,
    /// Objects that were restored once more with the same data, and how many of `order` came before: a copied `Data.fs`
    /// lists a blob's record twice, and shall come back so.
    again: Vec<(usize, Oid)>,
    checks: BTreeMap<Oid, Tid>,
    /// What it undoes.
    pub undos: Undos,
    reserved: Reservation,
    fault: Option<Refusal>,
}

impl Transaction {
    /// `wall` is the time of day, since the Unix epoch.
    pub fn new(id: u64, meta: TransactionMeta, tid: Option<Tid>, wall: Duration, budget: Budget) -> Transaction {
        let bytes = meta.user.len() + meta.description.len() + meta.extension.len();
        let mut transaction = Transaction {
            id,
            meta,
            tid,
            order: Vec::new(),
            wishes: BTreeMap::new(),
            again: Vec::new(),
            checks: BTreeMap::new(),
            undos: Undos::default(),
            reserved: Reservation { bytes: 0, budget },
            fault: None,
        };
        if transaction.meta_too_long() {
            let why = format!("user, description and extension may have {} bytes each", limits::TRANSACTION_TEXT);
            transaction.fail(Refusal::TooLarge(why));
        }
        let latest = Tid::from_unix(wall + limits::TID_AHEAD);
        if let Some(tid) = tid.filter(|tid| *tid > latest) {
            // The storage's tids would be ahead of the clock for good; after the last one of all there is none.
            transaction.fail(Refusal::BadValue(format!("tid {tid} lies in the future")));
        }
        transaction.grow(bytes);
        transaction
    }

    /// Buffers what is wished of `oid`, in place of what was before.
    pub fn wish(&mut self, oid: Oid, wish: Wish) {
        let size = wish.size();
        if size > limits::OBJECT {
            let why = format!("object {oid} has {size} bytes; an object may have {}", limits::OBJECT);
            return self.fail(Refusal::TooLarge(why));
        }
        if self.repeats(oid, &wish) {
            if self.grow(ENTRY_COST) {
                self.again.push((self.order.len(), oid));
                self.count();
            }
            return;
        }
        if !self.grow(size) {
            return;
        }
        self.undos.stored(oid);
        match self.wishes.insert(oid, wish) {
            Some(earlier) => self.reserved.give_back(earlier.size()),
            None => self.order.push(oid),
        }
        self.count();
    }

    /// Buffers `checkCurrentSerialInTransaction`; of two checks of an object the later counts.
    pub fn check(&mut self, oid: Oid, serial: Tid) {
        if self.grow(ENTRY_COST) {
            if self.checks.insert(oid, serial).is_some() {
                self.reserved.give_back(ENTRY_COST);
            }
            self.count();
        }
    }

    /// Buffers `undoa`.
    pub fn undo(&mut self, tid: Tid) {
        if self.grow(ENTRY_COST) {
            self.undos.push(tid);
            self.count();
        }
    }

    /// Takes in which objects the undos touch, in place of what was known of that before.
    pub fn touch(&mut self, oids: Vec<Oid>) {
        self.reserved.give_back(self.undos.touched().len() * UNDONE_COST);
        self.undos.touch(Vec::new());
        if self.grow(oids.len() * UNDONE_COST) {
            self.undos.touch(oids);
            self.count();
        }
    }

    /// Remembers why this transaction can't be; the first reason is the one told.
    pub fn fail(&mut self, why: Refusal) {
        self.fault.get_or_insert(why);
        self.order = Vec::new();
        self.wishes = BTreeMap::new();
        self.again = Vec::new();
        self.checks = BTreeMap::new();
        self.undos = Undos::default();
        self.reserved.give_back(self.reserved.bytes);
    }

    /// Why the vote must fail, if it must.
    pub fn fault(&self) -> Option<&Refusal> {
        self.fault.as_ref()
    }

    /// The objects to write and what is wished of them, in the order of their first store.
    pub fn wishes(&self) -> impl Iterator<Item = (Oid, &Wish)> {
        self.order.iter().map(|oid| (*oid, &self.wishes[oid]))
    }

    /// What is wished of one object.
    pub fn wished(&self, oid: Oid) -> Option<&Wish> {
        self.wishes.get(&oid)
    }

    /// The objects that must not have changed, and the serials they must have.
    pub fn checks(&self) -> impl Iterator<Item = (Oid, Tid)> + '_ {
        self.checks.iter().map(|(oid, serial)| (*oid, *serial))
    }

    fn repeats(&self, oid: Oid, wish: &Wish) -> bool {
        let Wish::Restore { data, .. } = wish else { return false };
        let before = self.wishes.get(&oid);
        self.tid.is_some() && matches!(before, Some(Wish::Restore { data: before, .. }) if before == data)
    }

    /// The writes with those among them that were sent once more.
    pub fn with_repeats(&self, writes: Vec<Write>) -> Vec<Write> {
        let Some(tid) = self.tid.filter(|_| !self.again.is_empty()) else { return writes };
        let repeat = |oid| Write { oid, base: Base::Any, content: Content::SameAs(tid), blob: None };
        let mut again = self.again.iter().peekable();
        let mut all = Vec::with_capacity(writes.len() + self.again.len());
        for (before, write) in writes.into_iter().enumerate() {
            while let Some((_, oid)) = again.next_if(|(after, _)| *after <= before) {
                all.push(repeat(*oid));
            }
            all.push(write);
        }
        all.extend(again.map(|(_, oid)| repeat(*oid)));
        all
    }

    /// What is left of it when its writes are on their way: the memory that they take until they are in the log.
    pub fn into_reservation(self) -> Reservation {
        self.reserved
    }

    fn meta_too_long(&self) -> bool {
        let meta = &self.meta;
        [&meta.user, &meta.description, &meta.extension].iter().any(|text| text.len() > limits::TRANSACTION_TEXT)
    }

    /// Takes `size` more into account; `false` if the transaction is (or was) too large for it.
    fn grow(&mut self, size: usize) -> bool {
        if self.fault.is_some() {
            return false;
        }
        if self.reserved.bytes + size > limits::TRANSACTION_BYTES {
            self.fail(Refusal::TooLarge(format!("a transaction may have {} MiB", limits::TRANSACTION_BYTES >> 20)));
            return false;
        }
        if !self.reserved.take(size) {
            let most = limits::TRANSACTIONS_BYTES >> 20;
            self.fail(Refusal::TooLarge(format!("all transactions together may have {most} MiB; try again later")));
            return false;
        }
        true
    }

    fn count(&mut self) {
        let undos = self.undos.tids().len() + self.undos.touched().len();
        if self.order.len() + self.again.len() + self.checks.len() + undos > limits::TRANSACTION_LOCKS {
            let why = format!("a transaction may have {} objects", limits::TRANSACTION_LOCKS);
            self.fail(Refusal::TooLarge(why));
        }
    }
}

impl Wish {
    fn size(&self) -> usize {
        let data = match self {
            Wish::Store { data, .. } | Wish::Restore { data: Some(data), .. } => data.len(),
            Wish::Delete { .. } | Wish::Restore { data: None, .. } => 0,
        };
        data + ENTRY_COST
    }

    /// What the client has read of the object before, where that counts.
    pub fn read(&self) -> Read {
        match self {
            Wish::Store { base, .. } => Read::Serial(*base),
            Wish::Delete { base } => Read::Existing(*base),
            Wish::Restore { .. } => Read::Any,
        }
    }

    /// As it goes into the command, based on what the vote found.
    pub fn write(&self, oid: Oid, base: Base) -> Write {
        let content = match self {
            Wish::Store { data, .. } | Wish::Restore { data: Some(data), .. } => Content::Data(data.clone()),
            Wish::Delete { .. } | Wish::Restore { data: None, .. } => Content::Absent,
        };
        Write { oid, base, content, blob: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(base: u64, data: &'static [u8]) -> Wish {
        Wish::Store { base: Tid(base), data: Bytes::from_static(data) }
    }

    const WALL: Duration = Duration::from_secs(1_789_209_000);

    fn with_tid(tid: Option<Tid>) -> Transaction {
        Transaction::new(1, TransactionMeta::default(), tid, WALL, Budget::default())
    }

    fn begun() -> Transaction {
        with_tid(None)
    }

    #[test]
    fn a_later_store_replaces_the_earlier_one_in_its_place() {
        let mut transaction = begun();
        transaction.wish(Oid(5), store(1, b"five"));
        transaction.wish(Oid(2), store(1, b"two"));
        transaction.wish(Oid(5), store(3, b"resolved"));
        let wishes: Vec<_> = transaction.wishes().map(|(oid, wish)| (oid, wish.clone())).collect();
        assert_eq!(wishes, vec![(Oid(5), store(3, b"resolved")), (Oid(2), store(1, b"two"))]);
        assert_eq!(transaction.reserved.bytes, "resolved".len() + "two".len() + 2 * ENTRY_COST);
    }

    #[test]
    fn a_record_that_is_restored_twice_is_written_and_listed_once_more() {
        let mut transaction = with_tid(Some(Tid(9)));
        let blob = || Wish::Restore { data: Some(Bytes::from_static(b"blob")), like: None };
        for (oid, wish) in [(5, blob()), (5, blob()), (2, store(0, b"two"))] {
            transaction.wish(Oid(oid), wish);
        }
        let writes = transaction.wishes().map(|(oid, wish)| wish.write(oid, Base::Any)).collect();
        let writes = transaction.with_repeats(writes);
        assert_eq!(writes.iter().map(|write| write.oid.0).collect::<Vec<_>>(), [5, 5, 2]);
        assert_eq!(writes[1].content, Content::SameAs(Tid(9)));
    }

    #[test]
    fn what_is_reserved_outlives_the_buffer_and_is_given_back() {
        let budget = Budget::default();
        let mut transaction = Transaction::new(1, TransactionMeta::default(), None, WALL, budget.clone());
        transaction.wish(Oid(1), store(0, b"one"));
        let reserved = transaction.into_reservation();
        assert_eq!(budget.0.load(Relaxed), "one".len() + ENTRY_COST);
        drop(reserved);
        assert_eq!(budget.0.load(Relaxed), 0);
    }

    #[test]
    fn what_is_too_large_is_let_go_of_and_remembered() {
        let mut transaction = begun();
        let megabyte = Bytes::from(vec![0u8; 1 << 20]);
        for n in 0..(limits::TRANSACTION_BYTES >> 20) as u64 + 1 {
            transaction.wish(Oid(n), Wish::Store { base: Tid::ZERO, data: megabyte.clone() });
        }
        assert!(matches!(transaction.fault(), Some(Refusal::TooLarge(_))));
        assert_eq!((transaction.order.len(), transaction.reserved.bytes), (0, 0));
        transaction.wish(Oid(1), store(0, b"small"));
        assert_eq!(transaction.order.len(), 0);
    }

    #[test]
    fn a_tid_may_lie_a_little_in_the_future_and_not_more() {
        let latest = Tid::from_unix(WALL + limits::TID_AHEAD);
        assert_eq!(with_tid(Some(latest)).fault(), None);
        for tid in [latest.next(), Tid::MAX] {
            assert!(matches!(with_tid(Some(tid)).fault(), Some(Refusal::BadValue(_))));
        }
    }

    #[test]
    fn the_first_fault_is_the_one_told() {
        let mut transaction = begun();
        transaction.fail(Refusal::NotServed("blobs".into()));
        transaction.fail(Refusal::TooLarge("later".into()));
        assert_eq!(transaction.fault(), Some(&Refusal::NotServed("blobs".into())));
    }
}
