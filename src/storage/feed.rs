//! The transactions applied lately: sessions follow the feed to send invalidations to their clients.
//!
//! A ring of the newest transactions of one storage, bounded in transactions and in object ids, and a watch of the
//! latest tid. A session that wakes asks for the transactions [`after`](Feed::after) its own view; a session that has
//! fallen behind the ring gets the same from the table of transactions (`Store::changed_since`). Nothing here reads the
//! engine.
//!
//! **Promises.** Transactions come in tid order, each once. A transaction in the feed can be read from the store, and
//! the storage's summary counts it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use bytes::Bytes;

use crate::config::limits;
use crate::env::{Watch, Watching};
use crate::zodb::{Oid, StorageId, Tid};

/// The most transactions that a ring holds.
pub const RING_TRANSACTIONS: usize = limits::FEED;
/// The most oids that a ring holds (8 bytes each, and some 10 more in each encoding that clients speak), unless its
/// newest transaction alone has more.
pub const RING_OIDS: usize = limits::FEED_OIDS;

/// A transaction that has been applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The storage of the transaction.
    pub storage: StorageId,
    /// The transaction's id.
    pub tid: Tid,
    /// The objects that the transaction wrote, in its order, each once.
    pub oids: Vec<Oid>,
    /// The messages by which clients are told of the transaction.
    messages: Messages,
}

/// A message for each encoding, made when it is first needed, and then shared by all clients that speak it.
#[derive(Clone, Debug, Default)]
struct Messages([OnceLock<Bytes>; 2]);

/// (They follow from the transaction.)
impl PartialEq for Messages {
    fn eq(&self, _: &Messages) -> bool {
        true
    }
}

impl Eq for Messages {}

impl Applied {
    /// The transaction `tid` of `storage`, which wrote `oids`.
    pub fn new(storage: StorageId, tid: Tid, oids: Vec<Oid>) -> Applied {
        Applied { storage, tid, oids, messages: Messages::default() }
    }

    /// The message by which clients are told of it, in the encoding with that number (0 or 1): as `make` has made it
    /// when it was first asked for.
    pub fn message(&self, encoding: usize, make: impl FnOnce() -> Bytes) -> &Bytes {
        self.messages.0[encoding].get_or_init(make)
    }
}

/// The latest transactions of a storage.
#[derive(Debug)]
pub struct Feed {
    latest: Watch<Tid>,
    packs: Watch<u64>,
    dropped: Watch<bool>,
    ring: Mutex<Ring>,
}

#[derive(Debug)]
struct Ring {
    /// The newest transaction that the ring does not hold any more; all younger ones are in the ring.
    floor: Tid,
    entries: VecDeque<Arc<Applied>>,
    oids: usize,
}

impl Feed {
    /// The feed of a storage whose newest transaction, when the store was opened, was `latest`.
    pub(super) fn new(latest: Tid) -> Feed {
        let ring = Ring { floor: latest, entries: VecDeque::new(), oids: 0 };
        Feed { latest: Watch::new(latest), packs: Watch::new(0), dropped: Watch::new(false), ring: Mutex::new(ring) }
    }

    /// The newest transaction; all transactions up to it can be read.
    pub fn latest(&self) -> Tid {
        *self.latest.look()
    }

    /// The transactions younger than `view`, oldest first. `None`: the ring does not reach back so far.
    pub fn after(&self, view: Tid) -> Option<Vec<Arc<Applied>>> {
        let ring = self.ring();
        if view < ring.floor {
            return None;
        }
        let first = ring.entries.partition_point(|applied| applied.tid <= view);
        Some(ring.entries.range(first..).cloned().collect())
    }

    /// The oldest transaction younger than `view`. `None`: the ring does not reach back so far, or there is none.
    pub fn first_after(&self, view: Tid) -> Option<Tid> {
        let ring = self.ring();
        let first = ring.entries.partition_point(|applied| applied.tid <= view);
        ring.entries.get(first).filter(|_| view >= ring.floor).map(|applied| applied.tid)
    }

    /// Wakes for every newer transaction (once for several that came together).
    pub fn watching(&self) -> Watching<Tid> {
        self.latest.watching()
    }

    /// Counts the packs that have ended.
    pub fn packs(&self) -> Watching<u64> {
        self.packs.watching()
    }

    /// Becomes true when the storage is dropped: nothing comes any more.
    pub fn dropped(&self) -> Watching<bool> {
        self.dropped.watching()
    }

    pub(super) fn end(&self) {
        self.dropped.send(true);
    }

    pub(super) fn packed(&self) {
        self.packs.send_if(|count| {
            *count += 1;
            true
        });
    }

    pub(super) fn publish(&self, applied: Applied) {
        let tid = applied.tid;
        let mut ring = self.ring();
        debug_assert!(tid > ring.floor);
        ring.oids += applied.oids.len();
        ring.entries.push_back(Arc::new(applied));
        while ring.entries.len() > 1 && (ring.entries.len() > RING_TRANSACTIONS || ring.oids > RING_OIDS) {
            let oldest = ring.entries.pop_front().expect("the ring has more than one entry");
            ring.oids -= oldest.oids.len();
            ring.floor = oldest.tid;
        }
        drop(ring);
        self.latest.send(tid);
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(tid: u64, oids: usize) -> Applied {
        Applied::new(StorageId(1), Tid(tid), (0..oids as u64).map(Oid).collect())
    }

    fn tids(feed: &Feed, view: u64) -> Option<Vec<u64>> {
        feed.after(Tid(view)).map(|all| all.iter().map(|applied| applied.tid.0).collect())
    }

    #[test]
    fn what_came_before_the_feed_is_not_in_it() {
        let feed = Feed::new(Tid(5));
        assert_eq!(feed.latest(), Tid(5));
        assert_eq!(tids(&feed, 5), Some(vec![]));
        assert_eq!(tids(&feed, 4), None);
        feed.publish(applied(6, 1));
        feed.publish(applied(9, 1));
        assert_eq!(feed.latest(), Tid(9));
        assert_eq!(tids(&feed, 5), Some(vec![6, 9]));
        assert_eq!(tids(&feed, 7), Some(vec![9]));
        assert_eq!(tids(&feed, 9), Some(vec![]));
    }

    #[test]
    fn the_ring_forgets_by_number_of_transactions() {
        let feed = Feed::new(Tid(0));
        for tid in 1..=RING_TRANSACTIONS as u64 + 2 {
            feed.publish(applied(tid, 0));
        }
        assert_eq!(tids(&feed, 1), None);
        assert_eq!(tids(&feed, 2).map(|all| all.len()), Some(RING_TRANSACTIONS));
    }

    #[test]
    fn the_ring_forgets_by_number_of_oids_but_never_the_newest() {
        let feed = Feed::new(Tid(0));
        feed.publish(applied(1, RING_OIDS));
        feed.publish(applied(2, 1));
        assert_eq!(tids(&feed, 0), None);
        assert_eq!(tids(&feed, 1), Some(vec![2]));
        feed.publish(applied(3, RING_OIDS + 1));
        assert_eq!(tids(&feed, 2), Some(vec![3]));
    }

    #[tokio::test]
    async fn a_watcher_wakes_and_finds_the_transaction() {
        let feed = Feed::new(Tid(0));
        let mut watching = feed.watching();
        feed.publish(applied(1, 1));
        watching.changed().await.unwrap();
        assert_eq!(*watching.look(), Tid(1));
        assert_eq!(tids(&feed, 0), Some(vec![1]));
    }
}
