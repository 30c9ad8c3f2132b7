//! Object ids for clients, from ranges that were reserved through the log.
//!
//! A range belongs to one reign: ids that are left when the reign ends are never given out. So no id is handed out
//! twice, whatever fails, and a client's `new_oids` seldom waits for the log.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::command::Outcome;
use crate::zodb::{Oid, Refusal, StorageId};

/// The ranges of all storages in one reign.
#[derive(Default)]
pub struct Ranges(Mutex<BTreeMap<StorageId, Arc<Range>>>);

#[derive(Default)]
struct Range {
    left: Mutex<Left>,
    /// Held by the task that fetches the next range.
    fetching: tokio::sync::Mutex<()>,
}

/// The ids that may be given out, from `next` to before `end`; none if `next` is past it.
#[derive(Default)]
struct Left {
    /// Greater than every id that was given out, or that a transaction has voted for, in this reign.
    next: u64,
    end: u64,
}

impl Ranges {
    /// Objects that are being stored: neither their ids nor smaller ones are given out any more, as in `FileStorage`.
    pub fn used(&self, storage: StorageId, oids: impl Iterator<Item = Oid>) {
        let Some(Oid(next)) = oids.filter_map(Oid::next_given).max() else { return };
        let range = self.range(storage);
        let mut left = range.left();
        left.next = left.next.max(next);
    }

    /// `count` ids, ascending, or fewer; `reserve` gets the next range through the log, with no id below the one given.
    /// The refusal: there are none left. `None` if the log can't tell.
    pub async fn take<R>(
        &self,
        storage: StorageId,
        count: usize,
        reserve: impl Fn(Oid) -> R,
    ) -> Option<Result<Vec<Oid>, Refusal>>
    where
        R: Future<Output = Option<Outcome>>,
    {
        let range = self.range(storage);
        if let Some(oids) = range.cut(count) {
            return Some(Ok(oids));
        }
        let _fetching = range.fetching.lock().await;
        loop {
            // Another task may have fetched a range while this one waited; and what was fetched may be used up by
            // votes.
            if let Some(oids) = range.cut(count) {
                return Some(Ok(oids));
            }
            let from = Oid(range.left().next);
            match reserve(from).await {
                Some(Outcome::Oids { first, count: got }) => {
                    let mut left = range.left();
                    left.next = left.next.max(first.0);
                    left.end = first.0 + u64::from(got);
                }
                Some(Outcome::Refused(refusal)) => return Some(Err(refusal)),
                _ => return None,
            }
        }
    }

    fn range(&self, storage: StorageId) -> Arc<Range> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(storage).or_default().clone()
    }
}

impl Range {
    fn left(&self) -> MutexGuard<'_, Left> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cut(&self, count: usize) -> Option<Vec<Oid>> {
        let mut left = self.left();
        let first = left.next;
        if first >= left.end {
            return None;
        }
        left.next = left.end.min(first.saturating_add(count as u64));
        Some((first..left.next).map(Oid).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// A log that answers so, and notes from where on ids were asked for.
    struct Log(RefCell<Vec<Option<Outcome>>>, RefCell<Vec<u64>>);

    impl Log {
        fn new(answers: impl IntoIterator<Item = Option<Outcome>>) -> Log {
            Log(RefCell::new(answers.into_iter().collect()), RefCell::default())
        }

        fn reserve(&self, from: Oid) -> std::future::Ready<Option<Outcome>> {
            self.1.borrow_mut().push(from.0);
            std::future::ready(self.0.borrow_mut().remove(0))
        }
    }

    fn range(first: u64, count: u32) -> Option<Outcome> {
        Some(Outcome::Oids { first: Oid(first), count })
    }

    const ONE: StorageId = StorageId(1);

    fn ids(oids: impl IntoIterator<Item = u64>) -> Option<Result<Vec<Oid>, Refusal>> {
        Some(Ok(oids.into_iter().map(Oid).collect()))
    }

    #[tokio::test]
    async fn ids_ascend_and_a_stored_one_is_skipped() {
        let ranges = Ranges::default();
        let log = Log::new([range(10, 6), range(40, 6), range(100, 6)]);
        let take = |count| ranges.take(ONE, count, |from| log.reserve(from));
        assert_eq!(take(2).await, ids([10, 11]));
        ranges.used(ONE, [Oid(5), Oid(12)].into_iter());
        assert_eq!(take(9).await, ids([13, 14, 15]));
        assert_eq!(take(1).await, ids([40]));
        ranges.used(ONE, [Oid(99)].into_iter());
        assert_eq!(take(1).await, ids([100]));
        assert_eq!(*log.1.borrow(), [0, 16, 100]);
    }

    #[tokio::test]
    async fn a_range_begins_above_what_was_voted_before_it() {
        let ranges = Ranges::default();
        // The first range was reserved as the vote came; the second one is asked for above it.
        ranges.used(ONE, [Oid(20), Oid(u64::MAX)].into_iter());
        let log = Log::new([range(10, 6), range(21, 3)]);
        assert_eq!(ranges.take(ONE, 2, |from| log.reserve(from)).await, ids([21, 22]));
        assert_eq!(*log.1.borrow(), [21, 21]);
    }

    #[tokio::test]
    async fn without_a_log_there_are_none_and_a_refusal_is_told() {
        let ranges = Ranges::default();
        let refusal = Refusal::BadValue("none left".into());
        let log = Log::new([None, Some(Outcome::Refused(refusal.clone()))]);
        assert_eq!(ranges.take(ONE, 1, |from| log.reserve(from)).await, None);
        assert_eq!(ranges.take(ONE, 1, |from| log.reserve(from)).await, Some(Err(refusal)));
    }
}
