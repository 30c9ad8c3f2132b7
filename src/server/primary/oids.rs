//! Object ids for clients, from ranges that were reserved through the log.
//!
//! A range belongs to one reign: ids that are left when the reign ends are never given out. So no id is handed out
//! twice, whatever fails, and a client's `new_oids` seldom waits for the log.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::command::Outcome;
use crate::zodb::{Oid, StorageId};

/// The ranges of all storages in one reign.
#[derive(Default)]
pub struct Ranges(Mutex<BTreeMap<StorageId, Arc<Range>>>);

#[derive(Default)]
struct Range {
    /// From the first to the second, excluded.
    left: Mutex<(u64, u64)>,
    /// Held by the task that fetches the next range.
    fetching: tokio::sync::Mutex<()>,
}

impl Ranges {
    /// Objects that are being stored: neither their ids nor smaller ones are given out any more, as in `FileStorage`.
    /// (One beyond the range ends the range: the next one is reserved past it.)
    pub fn used(&self, storage: StorageId, oids: impl Iterator<Item = Oid>) {
        let Some(range) = self.ranges().get(&storage).cloned() else { return };
        let mut left = range.left();
        for Oid(oid) in oids {
            if oid >= left.1 {
                *left = (0, 0);
            } else if oid >= left.0 {
                left.0 = oid + 1;
            }
        }
    }

    /// `count` ids, ascending; `reserve` gets the next range through the log. `None` if that fails.
    pub async fn take<R>(&self, storage: StorageId, count: usize, reserve: impl Fn() -> R) -> Option<Vec<Oid>>
    where
        R: Future<Output = Option<Outcome>>,
    {
        let range = self.ranges().entry(storage).or_default().clone();
        if let Some(oids) = range.cut(count) {
            return Some(oids);
        }
        let _fetching = range.fetching.lock().await;
        // Another task may have fetched a range while this one waited.
        if let Some(oids) = range.cut(count) {
            return Some(oids);
        }
        let Some(Outcome::Oids { first, count: got }) = reserve().await else { return None };
        {
            let mut left = range.left();
            *left = (first.0, first.0 + u64::from(got));
        }
        range.cut(count)
    }

    fn ranges(&self) -> MutexGuard<'_, BTreeMap<StorageId, Arc<Range>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Range {
    fn left(&self) -> MutexGuard<'_, (u64, u64)> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cut(&self, count: usize) -> Option<Vec<Oid>> {
        let mut left = self.left();
        let (first, end) = *left;
        let next = first.checked_add(count as u64)?;
        if next > end {
            return None;
        }
        left.0 = next;
        Some((first..next).map(Oid).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u64, count: u32) -> std::future::Ready<Option<Outcome>> {
        std::future::ready(Some(Outcome::Oids { first: Oid(first), count }))
    }

    #[tokio::test]
    async fn ids_ascend_and_a_stored_one_is_skipped() {
        let ranges = Ranges::default();
        let one = StorageId(1);
        assert_eq!(ranges.take(one, 2, || range(10, 6)).await, Some(vec![Oid(10), Oid(11)]));
        ranges.used(one, [Oid(5), Oid(12)].into_iter());
        assert_eq!(ranges.take(one, 3, || range(0, 0)).await, Some(vec![Oid(13), Oid(14), Oid(15)]));
        assert_eq!(ranges.take(one, 1, || range(40, 6)).await, Some(vec![Oid(40)]));
        ranges.used(one, [Oid(99)].into_iter());
        assert_eq!(ranges.take(one, 1, || range(100, 6)).await, Some(vec![Oid(100)]));
    }

    #[tokio::test]
    async fn without_a_log_there_are_none() {
        let ranges = Ranges::default();
        assert_eq!(ranges.take(StorageId(1), 1, || std::future::ready(None)).await, None);
    }
}
