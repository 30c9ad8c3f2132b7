//! The simulated host: a [`World`] with virtual time, seeded chance, and no threads for offloaded work.
//!
//! Each host's wall clock is off by up to five seconds and may be set anew, or run at a wrong speed; its waits are up
//! to two percent too long or too short. Offloaded work (everything that touches a disk) happens at one moment, between
//! two drawn delays: a crash in the first delay loses the work, a crash in the second loses only its answer.
//!
//! **Turns.** Before a task goes on, the host is asked ([`World::turn`]). A host that *stands still* says no until it
//! is let go on: then everything that came due meanwhile happens at once, as with a process that was stopped, or a
//! machine that was suspended. And a host may be *restless*: now and then a task that could go on comes behind all
//! others that can, so that the order in which ready tasks run is the seed's.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use zrs::env::{Work, Working, World};

use crate::chance::Chance;
use crate::gate::Gate;
use crate::trace;

/// The time at which every run begins: 2026-01-01.
const EPOCH: Duration = Duration::from_secs(1_767_225_600);
/// By how many milliseconds wall clocks are off, at most.
const SKEW: u64 = 5_000;
/// So long after a host has gone on not all of its tasks may have had a turn.
const WAKING: Duration = Duration::from_millis(5);
/// Once in how many times a task lets the others go first, on a restless host; 0: never.
const RESTLESS: [u64; 4] = [0, 50, 8, 3];

/// The clock, chance, turns and disk delays of one host; a restart does not change them.
#[derive(Clone)]
pub struct Host(Arc<Inner>);

struct Inner {
    chance: Mutex<Chance>,
    turns: Mutex<Chance>,
    restless: u64,
    clock: Mutex<Clock>,
    /// By how many millionths waits are too long.
    drift: i64,
    /// For how many milliseconds the machine was suspended, as its kernel says.
    suspended: AtomicU64,
    /// Closed while the host stands still.
    still: Gate,
    /// When it last ended to stand still.
    went_on: Mutex<Option<Duration>>,
    /// Whether the host has died in the middle of a step, and only its tasks are still there.
    dead: AtomicBool,
    /// Closed while the disks answer nothing.
    disk: Gate,
    /// By how many milliseconds the disks are slower than they are by themselves, at most.
    slow: AtomicU64,
    /// The bytes that the disk of the log has left, as it says; `None`: it can't tell.
    free: Mutex<Option<u64>>,
}

/// A wall clock.
struct Clock {
    /// By how many milliseconds the clock is ahead.
    ahead: i64,
    /// By how many millionths it is too fast, and since when.
    fast: i64,
    since: Duration,
}

impl Clock {
    fn ahead(&self, now: Duration) -> i64 {
        self.ahead + now.saturating_sub(self.since).as_millis() as i64 * self.fast / 1_000_000
    }
}

impl Host {
    pub fn new(seed: u64, name: &str) -> Host {
        let mut chance = Chance::of(seed, name);
        let ahead = chance.below(2 * SKEW) as i64 - SKEW as i64;
        let drift = chance.below(40_000) as i64 - 20_000;
        let mut turns = Chance::of(seed, &format!("turns of {name}"));
        let restless = turns.one_of(&RESTLESS);
        Host(Arc::new(Inner {
            chance: Mutex::new(chance),
            turns: Mutex::new(turns),
            restless,
            clock: Mutex::new(Clock { ahead, fast: 0, since: Duration::ZERO }),
            drift,
            suspended: AtomicU64::new(0),
            still: Gate::default(),
            went_on: Mutex::new(None),
            dead: AtomicBool::new(false),
            disk: Gate::default(),
            slow: AtomicU64::new(0),
            free: Mutex::new(None),
        }))
    }

    /// Sets the wall clock ahead by so many milliseconds, or back.
    pub fn step_clock(&self, millis: i64) {
        self.0.clock.lock().unwrap().ahead += millis;
    }

    /// Lets the wall clock run faster by so many millionths than it did, or slower.
    pub fn run_clock(&self, faster: i64) {
        let mut clock = self.0.clock.lock().unwrap();
        let now = trace::now();
        *clock = Clock { ahead: clock.ahead(now), fast: clock.fast + faster, since: now };
    }

    /// From now on no task goes on.
    pub fn stand_still(&self) {
        self.0.still.close();
    }

    /// Ends [`Host::stand_still`]. `suspended`: for so many milliseconds the machine was suspended, as its kernel says.
    pub fn go_on(&self, suspended: u64) {
        self.0.suspended.fetch_add(suspended, Relaxed);
        *self.0.went_on.lock().unwrap() = Some(trace::now());
        self.0.still.open();
    }

    /// Whether the host stood still until a moment ago: its tasks may not all have had a turn since.
    pub fn has_just_gone_on(&self) -> bool {
        self.0.went_on.lock().unwrap().is_some_and(|went_on| trace::now() < went_on + WAKING)
    }

    pub fn stands_still(&self) -> bool {
        self.0.still.is_closed()
    }

    /// Ends in the middle of a step: no task goes on, and nothing is sent any more.
    pub fn die(&self) {
        self.0.dead.store(true, Relaxed);
        self.0.still.close();
    }

    pub fn is_dead(&self) -> bool {
        self.0.dead.load(Relaxed)
    }

    /// A new life begins, whatever the last one was held up by; its tasks must be gone.
    pub fn revive(&self) {
        self.0.dead.store(false, Relaxed);
        self.0.still.open();
    }

    /// From now on the disks answer nothing, or they answer again.
    pub fn stall_disks(&self, stall: bool) {
        if stall { self.0.disk.close() } else { self.0.disk.open() }
    }

    /// Makes the disks slower by up to so many milliseconds a call.
    pub fn slow_disks(&self, millis: u64) {
        self.0.slow.store(millis, Relaxed);
    }

    /// Sets how many bytes the disk of the log has left, as it says.
    pub fn set_free(&self, free: Option<u64>) {
        *self.0.free.lock().unwrap() = free;
    }

    /// The bytes that the disk of the log has left, as it says.
    pub fn free(&self) -> Option<u64> {
        *self.0.free.lock().unwrap()
    }

    /// A disk's delay: none as a rule, sometimes that of a disk, now and then that of a disk in trouble.
    fn delay(&self) -> Duration {
        let mut chance = self.0.chance.lock().unwrap();
        let usual = match chance.below(1_000) {
            0 => chance.millis(100..400),
            1..10 => chance.millis(5..40),
            10..300 => chance.millis(1..4),
            _ => Duration::ZERO,
        };
        match self.0.slow.load(Relaxed) {
            0 => usual,
            most => usual + chance.millis(0..most),
        }
    }
}

/// A node's name in the network.
pub fn name(node: u64) -> String {
    format!("n{node}")
}

impl World for Host {
    fn wall(&self) -> Duration {
        let now = trace::now();
        let ahead = self.0.clock.lock().unwrap().ahead(now);
        let true_time = EPOCH + now;
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

    fn suspended(&self) -> Duration {
        Duration::from_millis(self.0.suspended.load(Relaxed))
    }

    fn has_threads(&self) -> bool {
        false
    }

    fn turn(&self, context: &mut Context<'_>) -> Poll<()> {
        ready!(self.0.still.poll(context));
        if self.0.restless > 0 && self.0.turns.lock().unwrap().once_in(self.0.restless) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    fn offload(&self, work: Work) -> Working {
        let (before, after) = (self.delay(), self.delay());
        let host = self.clone();
        Box::pin(async move {
            pause(before).await;
            host.0.disk.pass().await;
            work();
            // (In the middle of the work the host may have died, or come to a standstill, or the disk to a stall.)
            host.0.still.pass().await;
            host.0.disk.pass().await;
            pause(after).await;
        })
    }
}

async fn pause(delay: Duration) {
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
}
