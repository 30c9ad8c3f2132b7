//! The parts of a transaction that go through the log ahead of its commit, as its client sends them: blobs, and records
//! beyond those that a commit takes along.
//!
//! An *item* is a blob or a record. Its bytes are cut into pieces of at most [`limits::PIECE`] (or less, in tests) and
//! hashed as they come; the pieces of all items stand in one line. The owner takes a shipment from the front of the
//! line, puts it into the log, and tells the staging the numbers of its pieces; one shipment is on its way at a time,
//! and small pieces share one. An item that has landed is its spans, its length and its hash.
//!
//! ```text
//!   extend 59,000 …   gathered                        nothing to ship
//!   … 1 MiB is full   a piece in line                 shipment [piece]      on its way
//!   end               the rest is a piece in line                           waits
//!   landed 7                                          shipment [rest]       on its way
//!   landed 9          item: pieces 7, 9               idle: it may be voted
//! ```
//!
//! An item may be forgotten at any time (its object was stored again, its blob was never ended). The pieces of it that
//! have a number, or get one later, are handed out by [`Staging::take_gone`], to be discarded.
//!
//! **Left out.** The log: `uploads` sends the shipments. The bound on memory: the session reads no more calls while
//! [`Staging::held`] is too much.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};

use crate::command::{Span, Staged};
use crate::config::limits;
use crate::storage::{Digest, Hashing};

/// A blob or a record of one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Item(u64);

/// All items of one transaction.
pub struct Staging {
    /// The most bytes of a piece.
    piece: usize,
    items: BTreeMap<Item, Progress>,
    next: u64,
    line: VecDeque<(Item, Bytes)>,
    /// The items of the pieces that are on their way, in order.
    flying: Vec<Item>,
    flying_bytes: usize,
    /// Bytes in line, and gathered for it.
    waiting_bytes: usize,
    gone: Vec<Span>,
}

struct Progress {
    length: u64,
    hash: Digest,
    /// The pieces that have a number.
    spans: Vec<Span>,
    /// Set while more of a blob may come.
    coming: Option<Box<Coming>>,
}

struct Coming {
    hashing: Hashing,
    gathered: BytesMut,
}

impl Default for Staging {
    fn default() -> Staging {
        Staging::new(limits::PIECE)
    }
}

impl Staging {
    /// No items; a piece has at most so many bytes.
    pub fn new(piece: usize) -> Staging {
        Staging {
            piece,
            items: BTreeMap::new(),
            next: 0,
            line: VecDeque::new(),
            flying: Vec::new(),
            flying_bytes: 0,
            waiting_bytes: 0,
            gone: Vec::new(),
        }
    }

    /// Adds a record, whole.
    pub fn record(&mut self, record: &Bytes) -> Item {
        let mut hashing = Hashing::record();
        hashing.update(record);
        let progress =
            Progress { length: record.len() as u64, hash: hashing.finish(), spans: Vec::new(), coming: None };
        let item = self.add(progress);
        let mut rest = record.clone();
        while !rest.is_empty() {
            let piece = rest.split_to(rest.len().min(self.piece));
            self.waiting_bytes += piece.len();
            self.line.push_back((item, piece));
        }
        item
    }

    /// Adds a blob, of which nothing has come yet.
    pub fn begin_blob(&mut self) -> Item {
        let coming = Box::new(Coming { hashing: Hashing::blob(), gathered: BytesMut::new() });
        self.add(Progress { length: 0, hash: [0; 32], spans: Vec::new(), coming: Some(coming) })
    }

    /// Adds bytes to a blob.
    ///
    /// # Panics
    /// If the item has ended.
    pub fn extend(&mut self, item: Item, mut chunk: &[u8]) {
        let progress = self.items.get_mut(&item).expect("an item that is extended was not forgotten");
        let coming = progress.coming.as_mut().expect("an item that is extended has not ended");
        coming.hashing.update(chunk);
        progress.length += chunk.len() as u64;
        self.waiting_bytes += chunk.len();
        while !chunk.is_empty() {
            let (now, later) = chunk.split_at(chunk.len().min(self.piece - coming.gathered.len()));
            coming.gathered.extend_from_slice(now);
            chunk = later;
            if coming.gathered.len() == self.piece {
                self.line.push_back((item, coming.gathered.split().freeze()));
            }
        }
    }

    /// Ends a blob.
    ///
    /// # Panics
    /// If the item has ended before.
    pub fn end(&mut self, item: Item) {
        let progress = self.items.get_mut(&item).expect("an item that ends was not forgotten");
        let coming = progress.coming.take().expect("an item ends once");
        progress.hash = coming.hashing.finish();
        if !coming.gathered.is_empty() {
            self.line.push_back((item, coming.gathered.freeze()));
        }
    }

    /// Forgets an item that is not needed after all.
    pub fn forget(&mut self, item: Item) {
        let Some(progress) = self.items.remove(&item) else { return };
        if let Some(coming) = progress.coming {
            self.waiting_bytes -= coming.gathered.len();
        }
        self.gone.extend(progress.spans);
    }

    /// Forgets all items.
    pub fn forget_all(&mut self) {
        for (_, progress) in std::mem::take(&mut self.items) {
            self.gone.extend(progress.spans);
        }
        self.line = VecDeque::new();
        self.waiting_bytes = 0;
    }

    /// The pieces to go into the log next; none while others are on their way.
    pub fn next_shipment(&mut self) -> Option<Vec<Bytes>> {
        if !self.flying.is_empty() {
            return None;
        }
        let mut shipment = Vec::new();
        while let Some((item, piece)) = self.line.front() {
            if !self.items.contains_key(item) {
                self.waiting_bytes -= piece.len();
                self.line.pop_front();
                continue;
            }
            let is_full = self.flying_bytes + piece.len() > self.piece || shipment.len() == limits::STAGE_PIECES;
            if is_full && !shipment.is_empty() {
                break;
            }
            self.waiting_bytes -= piece.len();
            self.flying_bytes += piece.len();
            self.flying.push(*item);
            shipment.extend(self.line.pop_front().map(|(_, piece)| piece));
        }
        (!shipment.is_empty()).then_some(shipment)
    }

    /// The last shipment is in the log; its pieces are numbered from `first` on.
    pub fn landed(&mut self, first: u64) {
        self.flying_bytes = 0;
        for (number, item) in (first..).zip(std::mem::take(&mut self.flying)) {
            let spans = self.items.get_mut(&item).map_or(&mut self.gone, |progress| &mut progress.spans);
            add(spans, number);
        }
    }

    /// Whether all items that have ended are in the log.
    pub fn is_idle(&self) -> bool {
        self.flying.is_empty() && self.line.iter().all(|(item, _)| !self.items.contains_key(item))
    }

    /// Bytes that are here and not in the log.
    pub fn held(&self) -> usize {
        self.waiting_bytes + self.flying_bytes
    }

    /// Pieces in the log that no item needs any more.
    pub fn take_gone(&mut self) -> Vec<Span> {
        std::mem::take(&mut self.gone)
    }

    /// Where an item lies that has ended and is in the log.
    pub fn staged(&self, item: Item) -> Staged {
        let Progress { length, hash, spans, .. } =
            self.items.get(&item).expect("an item that is asked for was not forgotten");
        Staged { pieces: spans.clone(), length: *length, hash: *hash }
    }

    /// Length and hash of an item that has ended.
    pub fn content(&self, item: Item) -> (u64, Digest) {
        let progress = self.items.get(&item).expect("an item that is asked for was not forgotten");
        (progress.length, progress.hash)
    }

    fn add(&mut self, progress: Progress) -> Item {
        let item = Item(self.next);
        self.next += 1;
        self.items.insert(item, progress);
        item
    }
}

impl std::fmt::Debug for Staging {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Staging").field("items", &self.items.len()).field("held", &self.held()).finish_non_exhaustive()
    }
}

/// Adds a piece to spans, in a row with the last one if it is.
pub fn add(spans: &mut Vec<Span>, number: u64) {
    match spans.last_mut() {
        Some(last) if last.first + u64::from(last.count) == number => last.count += 1,
        _ => spans.push(Span { first: number, count: 1 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(first: u64, count: u32) -> Span {
        Span { first, count }
    }

    fn lengths(shipment: Option<Vec<Bytes>>) -> Vec<usize> {
        shipment.unwrap_or_default().iter().map(Bytes::len).collect()
    }

    #[test]
    fn the_example_in_the_module_is_true() {
        let mut staging = Staging::default();
        let blob = staging.begin_blob();
        staging.extend(blob, &[1; 59_000]);
        assert_eq!(staging.next_shipment(), None);
        staging.extend(blob, &vec![2; limits::PIECE]);
        assert_eq!(staging.held(), limits::PIECE + 59_000);
        assert_eq!(lengths(staging.next_shipment()), [limits::PIECE]);
        staging.end(blob);
        assert_eq!(staging.next_shipment(), None, "one shipment is on its way");
        staging.landed(7);
        assert!(!staging.is_idle());
        assert_eq!(lengths(staging.next_shipment()), [59_000]);
        staging.landed(9);
        assert!(staging.is_idle());
        let staged = staging.staged(blob);
        assert_eq!((staged.pieces, staged.length), (vec![span(7, 1), span(9, 1)], limits::PIECE as u64 + 59_000));
        let mut hashing = Hashing::blob();
        hashing.update(&[1; 59_000]);
        hashing.update(&vec![2; limits::PIECE]);
        assert_eq!(staged.hash, hashing.finish());
        assert_eq!(staging.held(), 0);
    }

    #[test]
    fn small_records_share_a_shipment_and_pieces_in_a_row_are_one_span() {
        let mut staging = Staging::default();
        let small: Vec<Item> = (0..3).map(|n| staging.record(&Bytes::from(vec![n; 100]))).collect();
        let large = staging.record(&Bytes::from(vec![9; 2 * limits::PIECE + 5]));
        assert_eq!(lengths(staging.next_shipment()), [100, 100, 100]);
        staging.landed(1);
        for number in [4, 5, 6] {
            staging.next_shipment().unwrap();
            staging.landed(number);
        }
        assert!(staging.is_idle());
        assert_eq!(staging.staged(small[2]).pieces, [span(3, 1)]);
        assert_eq!(staging.staged(large).pieces, [span(4, 3)]);
    }

    #[test]
    fn a_shipment_has_so_many_pieces() {
        let mut staging = Staging::default();
        let most = limits::STAGE_PIECES;
        for _ in 0..most + 3 {
            staging.record(&Bytes::from_static(b"tiny"));
        }
        assert_eq!(staging.next_shipment().unwrap().len(), most);
        staging.landed(1);
        assert_eq!(lengths(staging.next_shipment()), [4, 4, 4]);
    }

    #[test]
    fn a_forgotten_item_is_not_sent_and_its_sent_pieces_are_given_out_once() {
        let mut staging = Staging::default();
        let first = staging.record(&Bytes::from(vec![1; limits::PIECE + 1]));
        let second = staging.record(&Bytes::from_static(b"second"));
        assert_eq!(lengths(staging.next_shipment()), [limits::PIECE]);
        staging.forget(first);
        assert_eq!(staging.take_gone(), []);
        staging.landed(1);
        assert_eq!(staging.take_gone(), [span(1, 1)]);
        assert_eq!(lengths(staging.next_shipment()), [6]);
        staging.landed(2);
        staging.forget(second);
        staging.forget(second);
        assert_eq!((staging.take_gone(), staging.take_gone()), (vec![span(2, 1)], vec![]));
        assert_eq!((staging.held(), staging.is_idle()), (0, true));
    }

    #[test]
    fn after_all_is_forgotten_pieces_that_land_are_given_out() {
        let mut staging = Staging::default();
        let blob = staging.begin_blob();
        staging.extend(blob, &vec![0; 2 * limits::PIECE + 10]);
        staging.next_shipment().unwrap();
        staging.forget_all();
        staging.landed(5);
        assert_eq!(staging.take_gone(), [span(5, 1)]);
        assert_eq!((staging.next_shipment(), staging.held(), staging.is_idle()), (None, 0, true));
    }

    #[test]
    fn an_empty_blob_has_no_pieces() {
        let mut staging = Staging::default();
        let blob = staging.begin_blob();
        staging.end(blob);
        assert!(staging.is_idle());
        let staged = staging.staged(blob);
        assert_eq!((staged.pieces, staged.length, staged.hash), (vec![], 0, Hashing::blob().finish()));
    }
}
