//! The simulated host: a [`World`] with virtual time, seeded chance, and no threads for offloaded work.
//!
//! Each host's wall clock is off by up to five seconds and may be set anew; its waits are up to two percent too long
//! or too short. Offloaded work (everything that touches a disk) happens at one moment, between two drawn delays: a
//! crash in the first delay loses the work, a crash in the second loses only its answer.

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use zrs::env::{Work, Working, World};

use crate::chance::Chance;
use crate::trace;

/// The time at which every run begins: 2026-01-01.
const EPOCH: Duration = Duration::from_secs(1_767_225_600);
/// By how many milliseconds wall clocks are off, at most.
const SKEW: u64 = 5_000;

/// The clock, chance and disk delays of one host; a restart does not change them.
#[derive(Clone)]
pub struct Host(Arc<Inner>);

struct Inner {
    chance: Mutex<Chance>,
    /// By how many milliseconds the wall clock is ahead.
    ahead: AtomicI64,
    /// By how many millionths waits are too long.
    drift: i64,
}

impl Host {
    pub fn new(seed: u64, name: &str) -> Host {
        let mut chance = Chance::of(seed, name);
        let ahead = AtomicI64::new(chance.below(2 * SKEW) as i64 - SKEW as i64);
        let drift = chance.below(40_000) as i64 - 20_000;
        Host(Arc::new(Inner { chance: Mutex::new(chance), ahead, drift }))
    }

    /// Sets the wall clock ahead by so many milliseconds, or back.
    pub fn step_clock(&self, millis: i64) {
        self.0.ahead.fetch_add(millis, Relaxed);
    }

    /// A disk's delay: none as a rule, sometimes that of a disk, now and then that of a disk in trouble.
    fn delay(&self) -> Duration {
        let mut chance = self.0.chance.lock().unwrap();
        match chance.below(1_000) {
            0 => chance.millis(100..400),
            1..10 => chance.millis(5..40),
            10..300 => chance.millis(1..4),
            _ => Duration::ZERO,
        }
    }
}

impl World for Host {
    fn wall(&self) -> Duration {
        let ahead = self.0.ahead.load(Relaxed);
        let true_time = EPOCH + trace::now();
        let off = Duration::from_millis(ahead.unsigned_abs());
        if ahead < 0 { true_time - off } else { true_time + off }
    }

    fn stretch(&self, wanted: Duration) -> Duration {
        // A run takes seconds, so longer waits never end in it; and a wait for ever must not overflow.
        if wanted > Duration::from_secs(86_400) {
            return wanted;
        }
        let nanos = wanted.as_nanos() as i128;
        Duration::from_nanos((nanos + nanos * i128::from(self.0.drift) / 1_000_000) as u64)
    }

    fn seed(&self) -> u64 {
        self.0.chance.lock().unwrap().number()
    }

    fn has_threads(&self) -> bool {
        false
    }

    fn offload(&self, work: Work) -> Working {
        let (before, after) = (self.delay(), self.delay());
        Box::pin(async move {
            pause(before).await;
            work();
            pause(after).await;
        })
    }
}

async fn pause(delay: Duration) {
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
}
