//! Memory that many connections share: when it is used up, whoever holds most of it gives way.
//!
//! A bound for each connection bounds a sum only with few connections. A [`Pool`] bounds the sum: each connection has a
//! [`Share`] of it, and says how much it holds. Nobody is refused for being the last to ask, as most connections ask
//! for little; the one that holds most is told to close, until what the others hold fits.
//!
//! Those that have made no progress for [`limits::NO_PROGRESS`] come before all others. Else many that hold a little
//! each, and say nothing more, could fill the pool, and whoever works would hold most of it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::config::limits;
use crate::env::Env;

/// Memory that connections share; clones are the same pool.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

struct Inner {
    env: Env,
    began: Instant,
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
    /// Milliseconds from the pool's beginning to the last progress.
    moved: AtomicU64,
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
    pub fn new(env: &Env, limit: usize) -> Pool {
        let (env, began) = (env.clone(), env.now());
        Pool(Arc::new(Inner { env, began, limit, held: AtomicUsize::new(0), shares: Mutex::default() }))
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
        let (shares, now) = (self.shares(), self.now());
        let staying = || shares.all.values().filter(|holding| !holding.is_over.load(Relaxed));
        let mut sum: usize = staying().map(|holding| holding.bytes.load(Relaxed)).sum();
        while sum > self.0.limit {
            let rank = |holding: &&Arc<Holding>| {
                let bytes = holding.bytes.load(Relaxed);
                let silence = now.saturating_sub(holding.moved.load(Relaxed));
                (bytes > 0 && u128::from(silence) >= limits::NO_PROGRESS.as_millis(), bytes)
            };
            let Some(most) = staying().max_by_key(rank) else { return };
            sum -= most.bytes.load(Relaxed).min(sum);
            most.is_over.store(true, Relaxed);
            most.over.notify_one();
        }
    }

    fn now(&self) -> u64 {
        (self.0.env.now() - self.0.began).as_millis() as u64
    }

    fn shares(&self) -> MutexGuard<'_, Shares> {
        self.0.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Notes that the connection holds `bytes` now; if that is not what it held before, that is progress. For one task.
    pub fn hold(&self, bytes: usize) {
        let (held, before) = (&self.pool.0.held, self.holding.bytes.load(Relaxed));
        // (All connections change `held`: it is left alone if nothing is new.)
        if bytes == before {
            return;
        }
        self.progress();
        self.holding.bytes.store(bytes, Relaxed);
        if bytes < before {
            held.fetch_sub(before - bytes, Relaxed);
        } else if held.fetch_add(bytes - before, Relaxed) + (bytes - before) > self.pool.0.limit {
            self.pool.make_room();
        }
    }

    /// Notes that the other end has taken or sent something.
    pub fn progress(&self) {
        self.holding.moved.store(self.pool.now(), Relaxed);
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

    #[tokio::test(start_paused = true)]
    async fn those_without_progress_give_way_before_those_who_work() {
        let pool = Pool::new(&Env::system(), 105);
        let idle: Vec<Share> = (0..10).map(|_| pool.share()).collect();
        idle.iter().for_each(|share| share.hold(10));
        tokio::time::advance(limits::NO_PROGRESS).await;
        idle.iter().for_each(|share| share.hold(10));
        // (It goes on, though no byte of what it holds is free yet.)
        idle[3].progress();
        let active = pool.share();
        active.hold(11);
        let is_over = |share: &Share| share.over().now_or_never().is_some();
        assert!(!is_over(&active) && !is_over(&idle[3]));
        assert_eq!(idle.iter().filter(|share| is_over(share)).count(), 1);
        // When all who are there work, the most is what counts.
        idle.iter().for_each(Share::progress);
        active.hold(16);
        assert!(is_over(&active));
    }

    #[tokio::test]
    async fn whoever_holds_most_gives_way_until_the_rest_fits() {
        let pool = Pool::new(&Env::system(), 100);
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
