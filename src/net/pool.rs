//! Memory that many connections share: when it is used up, whoever holds most of it gives way.
//!
//! A bound for each connection bounds a sum only with few connections. A [`Pool`] bounds the sum: each connection has a
//! [`Share`] of it, and says how much it holds. Nobody is refused for being the last to ask, as most connections ask
//! for little; the one that holds most is told to close, until what the others hold fits.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Memory that connections share; clones are the same pool.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

struct Inner {
    /// Bytes.
    limit: usize,
    held: AtomicUsize,
    shares: Mutex<Shares>,
}

#[derive(Default)]
struct Shares {
    next: u64,
    all: BTreeMap<u64, Arc<Holding>>,
}

#[derive(Default)]
struct Holding {
    bytes: AtomicUsize,
    is_over: AtomicBool,
    over: Notify,
}

/// One connection's share of a pool, empty at first; given back when it is dropped.
pub struct Share {
    pool: Pool,
    number: u64,
    holding: Arc<Holding>,
}

impl Pool {
    /// A pool of `limit` bytes.
    pub fn new(limit: usize) -> Pool {
        Pool(Arc::new(Inner { limit, held: AtomicUsize::new(0), shares: Mutex::default() }))
    }

    /// A share for one more connection.
    pub fn share(&self) -> Share {
        let mut shares = self.shares();
        shares.next += 1;
        let (number, holding) = (shares.next, Arc::<Holding>::default());
        shares.all.insert(number, holding.clone());
        Share { pool: self.clone(), number, holding }
    }

    /// Tells the connections that hold most to close, until the others' sum is within the limit.
    fn make_room(&self) {
        let shares = self.shares();
        let staying = || shares.all.values().filter(|holding| !holding.is_over.load(Relaxed));
        let mut sum: usize = staying().map(|holding| holding.bytes.load(Relaxed)).sum();
        while sum > self.0.limit {
            let Some(most) = staying().max_by_key(|holding| holding.bytes.load(Relaxed)) else { return };
            sum -= most.bytes.load(Relaxed).min(sum);
            most.is_over.store(true, Relaxed);
            most.over.notify_one();
        }
    }

    fn shares(&self) -> MutexGuard<'_, Shares> {
        self.0.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Notes that the connection holds `bytes` now.
    pub fn hold(&self, bytes: usize) {
        let (held, before) = (&self.pool.0.held, self.holding.bytes.swap(bytes, Relaxed));
        if bytes <= before {
            held.fetch_sub(before - bytes, Relaxed);
        } else if held.fetch_add(bytes - before, Relaxed) + (bytes - before) > self.pool.0.limit {
            self.pool.make_room();
        }
    }

    /// Returns when this connection has to close, as it holds most of a pool that is used up. For one task.
    pub async fn over(&self) {
        self.holding.over.notified().await;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.hold(0);
        self.pool.shares().all.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn whoever_holds_most_gives_way_until_the_rest_fits() {
        let pool = Pool::new(100);
        let shares: Vec<Share> = (0..4).map(|_| pool.share()).collect();
        let over = || -> Vec<bool> { shares.iter().map(|share| share.over().now_or_never().is_some()).collect() };
        for (share, bytes) in shares.iter().zip([10, 50, 40, 0]) {
            share.hold(bytes);
        }
        assert_eq!(over(), [false; 4]);
        // The newcomer asks for one byte, and the largest closes for it: once.
        shares[3].hold(1);
        assert_eq!(over(), [false, true, false, false]);
        // It has not closed yet, and counts no more.
        shares[3].hold(50);
        assert_eq!(over(), [false; 4]);
        shares[0].hold(11);
        assert_eq!(over(), [false, false, false, true]);
        // Two at once.
        shares[0].hold(101);
        assert_eq!(over(), [true, false, false, false]);
        drop(shares);
        assert_eq!(pool.0.held.load(Relaxed), 0);
        assert!(pool.shares().all.is_empty());
    }
}
