//! The primary's lease: how far this node may rely on being the only leader.
//!
//! openraft reckons the lease by the monotonic clock, which stands still while a machine is suspended. To the others
//! the time went on, and they may have elected another leader. So after a suspension the lease counts for nothing until
//! this node has committed a barrier again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openraft::{Instant as _, LinearizerOption};

use super::machine::Raft;
use super::types::Place;
use crate::config::limits;
use crate::env::Env;

pub struct Lease {
    env: Env,
    length: Duration,
    /// For how many nanoseconds the machine had been suspended when the last barrier was proposed.
    suspended: AtomicU64,
}

impl Lease {
    pub fn new(env: Env, length: Duration) -> Lease {
        let lease = Lease { env, length, suspended: AtomicU64::new(0) };
        lease.confirm(lease.env.suspended());
        lease
    }

    /// For how long after a majority's last answer no other node can lead.
    pub fn length(&self) -> Duration {
        self.length
    }

    /// Notes that a barrier has applied which was proposed when the machine had been suspended for so long.
    pub fn confirm(&self, suspended: Duration) {
        self.suspended.store(suspended.as_nanos() as u64, Ordering::Relaxed);
    }

    /// How long the machine was suspended since the last barrier, if that matters.
    fn slept(&self) -> Option<Duration> {
        let before = Duration::from_nanos(self.suspended.load(Ordering::Relaxed));
        Some(self.env.suspended().saturating_sub(before)).filter(|slept| *slept > limits::SUSPENDED)
    }

    /// For how long the lease holds yet, by the last answers that consensus has counted.
    pub fn left(&self, raft: &Raft) -> Option<Duration> {
        let acked = raft.metrics().look().last_quorum_acked?;
        Some((self.length * 9 / 10).saturating_sub(acked.elapsed()))
    }

    /// On the primary, while its lease holds: the last entry whose outcome may have been told.
    pub async fn read_index(&self, raft: &Raft) -> Result<Place, String> {
        // (In this order: the machine may be suspended between the two.)
        let index = self.leads_by_its_clock(raft).await?;
        match self.slept() {
            Some(slept) => Err(format!("this machine was suspended for {:.1} s", slept.as_secs_f64())),
            None => Ok(index),
        }
    }

    /// The same for a node that has no reign yet. If consensus does not answer (its disk hangs, say), the lease counts
    /// as over; the last tenth of it is not used, as clocks run at different speeds.
    pub async fn leads_by_its_clock(&self, raft: &Raft) -> Result<Place, String> {
        self.asked(raft, false, Duration::ZERO).await
    }

    /// The same for a new leader, which has no lease before a majority has answered it once: waits for that.
    pub async fn awaited(&self, raft: &Raft) -> Result<Place, String> {
        self.asked(raft, true, self.length / 2).await
    }

    async fn asked(&self, raft: &Raft, asks_others: bool, patience: Duration) -> Result<Place, String> {
        let sure = LinearizerOption::new(Some(self.length * 9 / 10), asks_others).with_wait_timeout(patience);
        let asked = self.env.timeout(self.length, raft.get_read_linearizer(sure)).await;
        let linearizer = asked.map_err(|_| "consensus does not answer".to_owned())?.map_err(|e| e.to_string())?;
        Ok(Place::from(*linearizer.read_log_id().log_id()))
    }
}
