//! The buffer of a transaction on its way: what a client has sent between `tpc_begin` and `vote`.
//!
//! The buffer belongs to one session: no lock is held and nothing is looked up until the vote. A fault of a call
//! that the client does not wait for (too large, not served) is remembered here and told at the vote, as the only
//! other way to tell would be to close the connection.
//!
//! **Large transactions.** The buffer keeps the newest [`limits::COMMIT_INLINE`] bytes of records; earlier records,
//! and every blob, go through the log ahead of the commit ([`Staging`]).
//!
//! **Blobs.** The parts of a blob do not say to which transaction or object they belong; its end does. A blob that was
//! begun and not ended is forgotten when another begins, and with the transaction. A blob stays with its object,
//! whatever else is stored there, so that it need not be sent again after a conflict.
//!
//! **Promises.** Objects stay in the order in which they were first stored. A later store of the same object replaces
//! the earlier one: that is how a client that resolved a conflict sends the result. Checks stand beside stores. The
//! buffer never holds more than [`limits::TRANSACTION_BYTES`], nor all buffers more than
//! [`limits::TRANSACTIONS_BYTES`]; past it everything is let go of, and the vote fails. The buffer's reservation of
//! memory lasts until the outcome of its finish is known.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use super::staging::{Item, Staging};
use super::undos::{Touched, Undos};
use super::wish::{Record, Wish, Written};
use crate::command::{Base, Blob, Content, Span, Staged, Write};
use crate::config::{Sizes, limits};
use crate::server::bounds::{Budget, Reservation};
use crate::storage::{Digest, Hashing, Undone};
use crate::tpc::Read;
use crate::zodb::{Oid, Refusal, Tid, TransactionMeta};

/// Bytes that each entry costs beside its data.
pub const ENTRY_COST: usize = 256;

/// An object of the buffer.
#[derive(Debug)]
struct Kept {
    wish: Wish,
    blob: Option<Item>,
    /// The number of the call that stored the object.
    turn: u64,
}

/// The buffer of one transaction.
#[derive(Debug)]
pub struct Buffer {
    /// The client's name for the transaction.
    pub id: u64,
    pub meta: TransactionMeta,
    /// The tid that the transaction must have (a copy from another database).
    pub tid: Option<Tid>,
    order: Vec<Oid>,
    wishes: BTreeMap<Oid, Kept>,
    /// Objects that were restored once more with the same data, and how many of `order` came before: a `Data.fs` lists
    /// a blob's record twice, and a copy of it shall do so, too.
    again: Vec<(usize, Oid)>,
    checks: BTreeMap<Oid, Tid>,
    pub undos: Undos,
    turn: u64,
    /// The records that are here, the oldest first; perhaps some that were replaced since.
    here: VecDeque<(Oid, u64)>,
    /// Bytes of the records that are here.
    inline: usize,
    most_inline: usize,
    staging: Staging,
    /// The blob that is being sent.
    coming: Option<Item>,
    reserved: Reservation,
    fault: Option<Refusal>,
}

impl Buffer {
    /// `wall` is the time of day, since the Unix epoch.
    pub fn new(
        id: u64,
        meta: TransactionMeta,
        tid: Option<Tid>,
        wall: Duration,
        budget: Budget,
        sizes: Sizes,
    ) -> Buffer {
        let mut buffer = Buffer {
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
            most_inline: sizes.commit_inline,
            staging: Staging::new(sizes.piece),
            coming: None,
            reserved: Reservation::none(budget),
            fault: None,
        };
        if buffer.meta_too_long() {
            let why = format!("user, description and extension may have {} bytes each", limits::TRANSACTION_TEXT);
            buffer.fail(Refusal::TooLarge(why));
        }
        let latest = Tid::from_unix(wall + limits::TID_AHEAD);
        if let Some(tid) = tid.filter(|tid| *tid > latest) {
            // The storage's tids would be ahead of the clock for good; after the greatest tid there is none.
            buffer.fail(Refusal::BadValue(format!("tid {tid} lies in the future")));
        }
        buffer.weigh();
        buffer
    }

    /// Buffers a wish for `oid`, in place of an earlier one.
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

    /// Begins a blob; an earlier one that has not ended never will.
    pub fn begin_blob(&mut self) {
        if let Some(partial) = self.coming.take() {
            self.staging.forget(partial);
        }
        if self.fault.is_none() {
            self.coming = Some(self.staging.begin_blob());
        }
    }

    /// Adds to the blob that was begun.
    pub fn blob_chunk(&mut self, chunk: &[u8]) {
        if let Some(blob) = self.coming {
            self.staging.extend(blob, chunk);
            self.weigh();
        }
    }

    /// Ends the blob: it belongs to `oid`, with this record.
    pub fn end_blob(&mut self, oid: Oid, base: Tid, data: Bytes) -> Result<(), Refusal> {
        if self.fault.is_some() {
            return Ok(());
        }
        let Some(blob) = self.coming.take() else {
            return Err(Refusal::WrongTransaction("a blob ended that was not begun".into()));
        };
        self.staging.end(blob);
        // As a rule the same record has been stored by `storea` or `restorea` before.
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

    /// The client votes: a blob that has not ended never will.
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

    /// Notes which objects the undos touch, in place of an earlier note.
    pub fn touch(&mut self, touched: Touched) {
        if self.fault.is_none() {
            self.undos.touch(touched);
            self.weigh();
        }
    }

    /// The pieces to go into the log next, if there are any, and none are on their way.
    pub fn next_shipment(&mut self) -> Option<Vec<Bytes>> {
        self.staging.next_shipment()
    }

    /// The shipment is in the log; its pieces are numbered from `first` on.
    pub fn landed(&mut self, first: u64) {
        self.staging.landed(first);
        self.weigh();
    }

    /// Pieces in the log that are not needed any more.
    pub fn take_gone(&mut self) -> Vec<Span> {
        self.staging.take_gone()
    }

    /// Whether all that goes ahead of the vote is in the log.
    pub fn is_staged(&self) -> bool {
        self.staging.is_idle()
    }

    /// Bytes of data that are here.
    pub fn held(&self) -> usize {
        self.inline + self.staging.held()
    }

    /// Remembers why the vote will be refused (the first reason counts), and lets go of everything.
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

    /// Why the vote is to be refused, if it is.
    pub fn fault(&self) -> Option<&Refusal> {
        self.fault.as_ref()
    }

    /// The objects to write and their wishes, in the order of their first store.
    pub fn wishes(&self) -> impl Iterator<Item = (Oid, &Wish)> {
        self.order.iter().map(|oid| (*oid, &self.wishes[oid].wish))
    }

    /// The wish for one object.
    pub fn wished(&self, oid: Oid) -> Option<&Wish> {
        self.wishes.get(&oid).map(|kept| &kept.wish)
    }

    /// Where the data lies that the client stored of `oid`; empty if it stored none.
    pub fn written(&self, oid: Oid) -> Written {
        match self.wished(oid) {
            Some(Wish::Store { data: Record::Here(data), .. }) => Written::Here(data.clone()),
            Some(Wish::Store { data: Record::Ahead(item), .. }) => Written::Ahead(self.staged(*item)),
            _ => Written::Here(Bytes::new()),
        }
    }

    /// Where an item lies that went ahead.
    ///
    /// # Panics
    /// If the item belongs to none of the wishes.
    pub fn staged(&self, item: Item) -> Staged {
        self.staging.staged(item)
    }

    /// The write of an object, with the base that the vote found; `None`: the client stored nothing of it.
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

    /// The writes of a transaction whose vote is granted: its stores, and the objects as its undos left them.
    ///
    /// # Panics
    /// If `bases` names another object.
    pub fn voted_writes(&self, bases: &[(Oid, Base)]) -> Vec<Write> {
        let write = |&(oid, base): &(Oid, Base)| match self.undos.undone(oid) {
            Some(Undone { content, blob }) => Write { oid, base, content: content.clone(), blob: blob.clone() },
            None => self.write(oid, base).expect("a vote is about the objects of its buffer"),
        };
        bases.iter().map(write).collect()
    }

    /// All objects to write, each with the revision that the client has read, in the order in which the writes were
    /// asked for.
    pub fn reads(&self) -> Vec<(Oid, Read)> {
        let stores = self.wishes().map(|(oid, wish)| (oid, wish.read()));
        self.undos.weave(stores, |oid| self.wished(oid).is_some())
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

    /// Lets go of the record of a wish.
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
        while self.inline > self.most_inline
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

    /// The writes, and among them those that were sent once more.
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

    /// The reservation for the memory that the writes take until they are in the log.
    pub fn into_reservation(self) -> Reservation {
        self.reserved
    }

    fn meta_too_long(&self) -> bool {
        let meta = &self.meta;
        [&meta.user, &meta.description, &meta.extension].iter().any(|text| text.len() > limits::TRANSACTION_TEXT)
    }

    /// Reserves memory for what the buffer holds by now; fails if that is too much.
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
            let why = format!(
                "the transaction is too large: it has {entries} objects so far, and what is kept of them in memory may \
                 have {most} MiB, {ENTRY_COST} bytes for each: commit in several transactions"
            );
            self.fail(Refusal::TooLarge(why));
        } else if size <= self.reserved.bytes() {
            self.reserved.give_back(self.reserved.bytes() - size);
        } else if !self.reserved.take(size - self.reserved.bytes()) {
            let most = limits::TRANSACTIONS_BYTES >> 20;
            self.fail(Refusal::TooLarge(format!("all transactions together may have {most} MiB; try again later")));
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

    fn with_tid(tid: Option<Tid>) -> Buffer {
        Buffer::new(1, TransactionMeta::default(), tid, WALL, Budget::default(), Sizes::default())
    }

    fn begun() -> Buffer {
        with_tid(None)
    }

    #[test]
    fn a_later_store_replaces_the_earlier_one_in_its_place() {
        let mut buffer = begun();
        buffer.wish(Oid(5), store(1, b"five"));
        buffer.wish(Oid(2), store(1, b"two"));
        buffer.wish(Oid(5), store(3, b"resolved"));
        let wishes: Vec<_> = buffer.wishes().map(|(oid, wish)| (oid, wish.clone())).collect();
        assert_eq!(wishes, vec![(Oid(5), store(3, b"resolved")), (Oid(2), store(1, b"two"))]);
        assert_eq!(buffer.reserved.bytes(), "resolved".len() + "two".len() + 2 * ENTRY_COST);
    }

    #[test]
    fn a_record_that_is_restored_twice_is_written_and_listed_once_more() {
        let mut buffer = with_tid(Some(Tid(9)));
        let blob = || Wish::Restore { data: Some(Bytes::from_static(b"blob").into()), like: None };
        for (oid, wish) in [(5, blob()), (5, blob()), (2, store(0, b"two"))] {
            buffer.wish(Oid(oid), wish);
        }
        let writes = buffer.wishes().filter_map(|(oid, _)| buffer.write(oid, Base::Any)).collect();
        let writes = buffer.with_repeats(writes);
        assert_eq!(writes.iter().map(|write| write.oid.0).collect::<Vec<_>>(), [5, 5, 2]);
        assert_eq!(writes[1].content, Content::SameAs(Tid(9)));
    }

    #[test]
    fn a_reservation_outlives_the_buffer_and_is_given_back() {
        let budget = Budget::default();
        let mut buffer = Buffer::new(1, TransactionMeta::default(), None, WALL, budget.clone(), Sizes::default());
        buffer.wish(Oid(1), store(0, b"one"));
        let reserved = buffer.into_reservation();
        assert_eq!(budget.taken(), "one".len() + ENTRY_COST);
        drop(reserved);
        assert_eq!(budget.taken(), 0);
    }

    #[test]
    fn a_buffer_that_grows_too_large_lets_go_of_everything_and_remembers_why() {
        let mut buffer = begun();
        let megabyte = Bytes::from(vec![0u8; 1 << 20]);
        for n in 0..(limits::TRANSACTION_BYTES >> 20) as u64 + 1 {
            buffer.wish(Oid(n), Wish::Store { base: Tid::ZERO, data: megabyte.clone().into() });
        }
        assert!(matches!(buffer.fault(), Some(Refusal::TooLarge(_))));
        assert_eq!((buffer.order.len(), buffer.reserved.bytes()), (0, 0));
        buffer.wish(Oid(1), store(0, b"small"));
        assert_eq!(buffer.order.len(), 0);
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
        let mut buffer = begun();
        buffer.fail(Refusal::NotServed("blobs".into()));
        buffer.fail(Refusal::TooLarge("later".into()));
        assert_eq!(buffer.fault(), Some(&Refusal::NotServed("blobs".into())));
    }
}
