//! A transaction on its way: what a client has sent between `tpc_begin` and `vote`.
//!
//! It is a plain buffer of one session: no lock is held and nothing is looked up until the vote. What is wrong with a
//! call that the client does not wait for (too large, not served) is remembered here and told at the vote, as the only
//! other way to tell would be to close the connection.
//!
//! **Large ones.** Of its records a transaction keeps the newest [`limits::COMMIT_INLINE`] bytes here; what came before them, and
//! every blob, goes through the log ahead of it ([`Staging`]).
//!
//! **Blobs.** Their parts do not say to which transaction or object they belong; the end of a blob does. A blob that was begun and
//! not ended is forgotten when another begins, and with the transaction. A blob stays with its object, whatever else is
//! stored there, so that it need not be sent again after a conflict.
//!
//! **Promises.** Objects stay in the order in which they were first stored. A later store of the same object replaces the
//! earlier one: that is how a client that resolved a conflict sends the result. Checks stand beside stores. The buffer
//! never holds more than [`limits::TRANSACTION_BYTES`], nor all buffers more than [`limits::TRANSACTIONS_BYTES`]; past it
//! everything is let go of, and the vote fails. What a buffer has of that it keeps until the outcome of its finish is known.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use super::budget::{Budget, Reservation};
use super::staging::{Item, Staging};
use super::undo::{Touched, Undos};
use crate::command::{Base, Blob, Content, Span, Staged, Write};
use crate::config::limits;
use crate::storage::{Digest, Hashing};
use crate::tpc::Read;
use crate::zodb::{Oid, Refusal, Tid, TransactionMeta};

/// What each entry costs beside its data.
pub(super) const ENTRY_COST: usize = 256;

/// A record as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    Here(Bytes),
    /// In the log, or on its way there.
    Ahead(Item),
}

impl From<Bytes> for Record {
    fn from(data: Bytes) -> Record {
        Record::Here(data)
    }
}

/// What a client wants of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// `storea`: the data, and the serial that the client had read.
    Store { base: Tid, data: Record },
    /// `deleteObject`.
    Delete { base: Tid },
    /// `restorea`: as it is, whatever is there. `None`: an undone creation. `like`: the transaction that may have
    /// written the same data before.
    Restore { data: Option<Record>, like: Option<Tid> },
}

/// Where the data lies that is stored of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    Here(Bytes),
    /// In the log.
    Ahead(Staged),
}

impl Written {
    pub fn length(&self) -> u64 {
        match self {
            Written::Here(data) => data.len() as u64,
            Written::Ahead(staged) => staged.length,
        }
    }

    /// How many pieces it is read from.
    pub fn pieces(&self) -> u64 {
        match self {
            Written::Here(_) => 0,
            Written::Ahead(staged) => staged.pieces.iter().map(|span| u64::from(span.count)).sum(),
        }
    }
}

/// What is kept of one object.
#[derive(Debug)]
struct Kept {
    wish: Wish,
    blob: Option<Item>,
    /// Which call of the transaction it was.
    turn: u64,
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
    wishes: BTreeMap<Oid, Kept>,
    /// Objects that were restored once more with the same data, and how many of `order` came before: a copied `Data.fs`
    /// lists a blob's record twice, and shall come back so.
    again: Vec<(usize, Oid)>,
    checks: BTreeMap<Oid, Tid>,
    /// What it undoes.
    pub undos: Undos,
    turn: u64,
    /// Which records are here, the oldest first; perhaps some that were replaced since.
    here: VecDeque<(Oid, u64)>,
    /// Bytes of the records that are here.
    inline: usize,
    staging: Staging,
    /// The blob that is being sent.
    coming: Option<Item>,
    reserved: Reservation,
    fault: Option<Refusal>,
}

impl Transaction {
    /// `wall` is the time of day, since the Unix epoch.
    pub fn new(id: u64, meta: TransactionMeta, tid: Option<Tid>, wall: Duration, budget: Budget) -> Transaction {
        let mut transaction = Transaction {
            id,
            meta,
            tid,
            order: Vec::new(),
            wishes: BTreeMap::new(),
            again: Vec::new(),
            checks: BTreeMap::new(),
            undos: Undos::default(),
            turn: 0,
            here: VecDeque::new(),
            inline: 0,
            staging: Staging::default(),
            coming: None,
            reserved: Reservation::none(budget),
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
        transaction.weigh();
        transaction
    }

    /// Buffers what is wished of `oid`, in place of what was before.
    pub fn wish(&mut self, oid: Oid, wish: Wish) {
        if self.fault.is_some() {
            return;
        }
        let size = wish.here().map_or(0, Bytes::len);
        if size > limits::OBJECT {
            let why = format!("object {oid} has {size} bytes; an object may have {}", limits::OBJECT);
            return self.fail(Refusal::TooLarge(why));
        }
        if self.repeats(oid, &wish) {
            self.again.push((self.order.len(), oid));
            return self.weigh();
        }
        self.undos.stored(oid);
        self.turn += 1;
        if wish.here().is_some() {
            self.inline += size;
            self.here.push_back((oid, self.turn));
        }
        match self.wishes.entry(oid) {
            Entry::Vacant(place) => {
                self.order.push(oid);
                place.insert(Kept { wish, blob: None, turn: self.turn });
            }
            Entry::Occupied(mut place) => {
                let kept = place.get_mut();
                let blob = kept.blob.take_if(|_| matches!(wish, Wish::Delete { .. }));
                let earlier = std::mem::replace(&mut kept.wish, wish);
                kept.turn = self.turn;
                blob.into_iter().for_each(|blob| self.staging.forget(blob));
                self.release(&earlier);
            }
        }
        self.send_ahead();
        self.weigh();
    }

    /// A blob begins; one that has not ended never will.
    pub fn begin_blob(&mut self) {
        if let Some(partial) = self.coming.take() {
            self.staging.forget(partial);
        }
        if self.fault.is_none() {
            self.coming = Some(self.staging.begin_blob());
        }
    }

    /// More of the blob that was begun.
    pub fn blob_chunk(&mut self, chunk: &[u8]) {
        if let Some(blob) = self.coming {
            self.staging.extend(blob, chunk);
            self.weigh();
        }
    }

    /// The blob is whole, and belongs to `oid`, with this record.
    pub fn end_blob(&mut self, oid: Oid, base: Tid, data: Bytes) -> Result<(), Refusal> {
        if self.fault.is_some() {
            return Ok(());
        }
        let Some(blob) = self.coming.take() else {
            return Err(Refusal::WrongTransaction("a blob ended that was not begun".into()));
        };
        self.staging.end(blob);
        // As a rule the same record has come by `storea` or `restorea` before.
        match self.wished(oid) {
            Some(Wish::Store { data: before, .. }) if self.is_same(before, &data) => {}
            Some(Wish::Restore { data: Some(before), .. }) if self.is_same(before, &data) => {}
            Some(Wish::Restore { .. }) => self.wish(oid, Wish::Restore { data: Some(data.into()), like: None }),
            _ => self.wish(oid, Wish::Store { base, data: data.into() }),
        }
        if let Some(earlier) = self.wishes.get_mut(&oid).and_then(|kept| kept.blob.replace(blob)) {
            self.staging.forget(earlier);
        }
        self.weigh();
        Ok(())
    }

    /// The client votes: what has not ended never will.
    pub fn end(&mut self) {
        if let Some(partial) = self.coming.take() {
            self.staging.forget(partial);
            self.weigh();
        }
    }

    /// Buffers `checkCurrentSerialInTransaction`; of two checks of an object the later counts.
    pub fn check(&mut self, oid: Oid, serial: Tid) {
        if self.fault.is_none() {
            self.checks.insert(oid, serial);
            self.weigh();
        }
    }

    /// Buffers `undoa`.
    pub fn undo(&mut self, tid: Tid) {
        if self.fault.is_none() {
            self.undos.push(tid, self.order.len());
            self.weigh();
        }
    }

    /// Takes in which objects the undos touch, in place of what was known of that before.
    pub fn touch(&mut self, touched: Touched) {
        if self.fault.is_none() {
            self.undos.touch(touched);
            self.weigh();
        }
    }

    /// What is to go into the log next, if anything is, and nothing is on its way.
    pub fn load(&mut self) -> Option<Vec<Bytes>> {
        self.staging.load()
    }

    /// The load is in the log; its pieces are numbered from `first` on.
    pub fn landed(&mut self, first: u64) {
        self.staging.landed(first);
        self.weigh();
    }

    /// Pieces that were in the log and are not needed any more.
    pub fn take_gone(&mut self) -> Vec<Span> {
        self.staging.take_gone()
    }

    /// Whether all that has to be in the log before the vote is there.
    pub fn is_staged(&self) -> bool {
        self.staging.is_idle()
    }

    /// Bytes of data that are here.
    pub fn held(&self) -> usize {
        self.inline + self.staging.held()
    }

    /// Remembers why this transaction can't be; the first reason is the one told.
    pub fn fail(&mut self, why: Refusal) {
        self.fault.get_or_insert(why);
        self.order = Vec::new();
        self.wishes = BTreeMap::new();
        self.again = Vec::new();
        self.checks = BTreeMap::new();
        self.here = VecDeque::new();
        self.inline = 0;
        self.coming = None;
        self.staging.forget_all();
        self.undos = Undos::default();
        self.reserved.give_back(self.reserved.bytes());
    }

    /// Why the vote must fail, if it must.
    pub fn fault(&self) -> Option<&Refusal> {
        self.fault.as_ref()
    }

    /// The objects to write and what is wished of them, in the order of their first store.
    pub fn wishes(&self) -> impl Iterator<Item = (Oid, &Wish)> {
        self.order.iter().map(|oid| (*oid, &self.wishes[oid].wish))
    }

    /// What is wished of one object.
    pub fn wished(&self, oid: Oid) -> Option<&Wish> {
        self.wishes.get(&oid).map(|kept| &kept.wish)
    }

    /// Where the data lies that `oid` was stored with; nothing if it was not.
    pub fn written(&self, oid: Oid) -> Written {
        match self.wished(oid) {
            Some(Wish::Store { data: Record::Here(data), .. }) => Written::Here(data.clone()),
            Some(Wish::Store { data: Record::Ahead(item), .. }) => Written::Ahead(self.staged(*item)),
            _ => Written::Here(Bytes::new()),
        }
    }

    /// Where a record lies that went ahead.
    ///
    /// # Panics
    /// If it is none of this transaction's wishes.
    pub fn staged(&self, item: Item) -> Staged {
        self.staging.staged(item)
    }

    /// A write of this transaction, based on what the vote found; `None`: there is none of this object.
    pub fn write(&self, oid: Oid, base: Base) -> Option<Write> {
        let Kept { wish, blob, .. } = self.wishes.get(&oid)?;
        let content = match wish {
            Wish::Store { data, .. } | Wish::Restore { data: Some(data), .. } => match data {
                Record::Here(data) => Content::Data(data.clone()),
                Record::Ahead(item) => Content::Staged(self.staged(*item)),
            },
            Wish::Delete { .. } | Wish::Restore { data: None, .. } => Content::Absent,
        };
        Some(Write { oid, base, content, blob: blob.map(|blob| Blob::Staged(self.staged(blob))) })
    }

    /// The objects that must not have changed, and the serials they must have.
    pub fn checks(&self) -> impl Iterator<Item = (Oid, Tid)> + '_ {
        self.checks.iter().map(|(oid, serial)| (*oid, *serial))
    }

    fn repeats(&self, oid: Oid, wish: &Wish) -> bool {
        let Wish::Restore { data, .. } = wish else { return false };
        let Some(Wish::Restore { data: before, .. }) = self.wished(oid).filter(|_| self.tid.is_some()) else {
            return false;
        };
        match (before, data) {
            (None, None) => true,
            (Some(before), Some(Record::Here(data))) => self.is_same(before, data),
            _ => false,
        }
    }

    fn is_same(&self, record: &Record, data: &Bytes) -> bool {
        match record {
            Record::Here(record) => record == data,
            Record::Ahead(item) => {
                let (length, hash) = self.staging.content(*item);
                length == data.len() as u64 && hash == hash_of(data)
            }
        }
    }

    /// The record of a wish is not needed any more.
    fn release(&mut self, wish: &Wish) {
        match wish {
            Wish::Store { data, .. } | Wish::Restore { data: Some(data), .. } => match data {
                Record::Here(data) => self.inline -= data.len(),
                Record::Ahead(item) => self.staging.forget(*item),
            },
            Wish::Delete { .. } | Wish::Restore { data: None, .. } => {}
        }
    }

    /// Puts the oldest records in line for the log, while there are too many.
    fn send_ahead(&mut self) {
        while self.inline > limits::COMMIT_INLINE
            && let Some((oid, turn)) = self.here.pop_front()
        {
            let Some(kept) = self.wishes.get_mut(&oid).filter(|kept| kept.turn == turn) else { continue };
            let (Wish::Store { data, .. } | Wish::Restore { data: Some(data), .. }) = &mut kept.wish else { continue };
            if let Record::Here(here) = data {
                self.inline -= here.len();
                *data = Record::Ahead(self.staging.record(here));
            }
        }
        if self.here.len() > 2 * self.wishes.len() + 16 {
            let wishes = &self.wishes;
            self.here.retain(|(oid, turn)| wishes.get(oid).is_some_and(|kept| kept.turn == *turn));
        }
    }

    /// The writes with those among them that were sent once more.
    pub fn with_repeats(&self, writes: Vec<Write>) -> Vec<Write> {
        let Some(tid) = self.tid.filter(|_| !self.again.is_empty()) else { return writes };
        let repeat = |oid| Write { oid, base: Base::Any, content: Content::SameAs(tid), blob: None };
        let mut again = self.again.iter().peekable();
        let mut all = Vec::with_capacity(writes.len() + self.again.len());
        let mut before = 0;
        for write in writes {
            while let Some((_, oid)) = again.next_if(|(after, _)| *after <= before) {
                all.push(repeat(*oid));
            }
            before += usize::from(self.wishes.contains_key(&write.oid));
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

    /// Takes into account what there is by now; fails if that is too much.
    fn weigh(&mut self) {
        if self.fault.is_some() {
            return;
        }
        let undos = self.undos.tids().len() + self.undos.touched().len();
        let entries = self.order.len() + self.again.len() + self.checks.len() + undos;
        let texts = self.meta.user.len() + self.meta.description.len() + self.meta.extension.len();
        let size = texts + entries * ENTRY_COST + self.held();
        if entries > limits::TRANSACTION_LOCKS {
            let why = format!("a transaction may have {} objects", limits::TRANSACTION_LOCKS);
            self.fail(Refusal::TooLarge(why));
        } else if size > limits::TRANSACTION_BYTES {
            let most = limits::TRANSACTION_BYTES >> 20;
            let why = format!("what is kept of a transaction while it is sent may have {most} MiB");
            self.fail(Refusal::TooLarge(why));
        } else if size <= self.reserved.bytes() {
            self.reserved.give_back(self.reserved.bytes() - size);
        } else if !self.reserved.take(size - self.reserved.bytes()) {
            let most = limits::TRANSACTIONS_BYTES >> 20;
            self.fail(Refusal::TooLarge(format!("all transactions together may have {most} MiB; try again later")));
        }
    }
}

impl Wish {
    /// The record, if it is here.
    fn here(&self) -> Option<&Bytes> {
        match self {
            Wish::Store { data: Record::Here(data), .. } | Wish::Restore { data: Some(Record::Here(data)), .. } => {
                Some(data)
            }
            _ => None,
        }
    }

    /// What the client has read of the object before, where that counts.
    pub fn read(&self) -> Read {
        match self {
            Wish::Store { base, .. } => Read::Serial(*base),
            Wish::Delete { base } => Read::Existing(*base),
            Wish::Restore { .. } => Read::Any,
        }
    }
}

fn hash_of(record: &[u8]) -> Digest {
    let mut hashing = Hashing::record();
    hashing.update(record);
    hashing.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(base: u64, data: &'static [u8]) -> Wish {
        Wish::Store { base: Tid(base), data: Bytes::from_static(data).into() }
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
        assert_eq!(transaction.reserved.bytes(), "resolved".len() + "two".len() + 2 * ENTRY_COST);
    }

    #[test]
    fn a_record_that_is_restored_twice_is_written_and_listed_once_more() {
        let mut transaction = with_tid(Some(Tid(9)));
        let blob = || Wish::Restore { data: Some(Bytes::from_static(b"blob").into()), like: None };
        for (oid, wish) in [(5, blob()), (5, blob()), (2, store(0, b"two"))] {
            transaction.wish(Oid(oid), wish);
        }
        let writes = transaction.wishes().filter_map(|(oid, _)| transaction.write(oid, Base::Any)).collect();
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
        assert_eq!(budget.taken(), "one".len() + ENTRY_COST);
        drop(reserved);
        assert_eq!(budget.taken(), 0);
    }

    #[test]
    fn what_is_too_large_is_let_go_of_and_remembered() {
        let mut transaction = begun();
        let megabyte = Bytes::from(vec![0u8; 1 << 20]);
        for n in 0..(limits::TRANSACTION_BYTES >> 20) as u64 + 1 {
            transaction.wish(Oid(n), Wish::Store { base: Tid::ZERO, data: megabyte.clone().into() });
        }
        assert!(matches!(transaction.fault(), Some(Refusal::TooLarge(_))));
        assert_eq!((transaction.order.len(), transaction.reserved.bytes()), (0, 0));
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
