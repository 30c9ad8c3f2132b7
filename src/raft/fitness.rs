//! Whether this node is fit to lead, and what it knows of the others in that.
//!
//! A node is unfit while its disk is nearly full, while its clock is far ahead of a majority's, and once it could not
//! read a record of its database. An unfit node goes on as a member: it votes and acknowledges. It does not lead while
//! another node that is fit can.
//!
//! **A disk that is nearly full** has less free than its reserve. From then on the primary takes no new transactions,
//! if it can't hand its role over. The half of the reserve is for what is under way then, and for a secondary to keep
//! up with that; below it, a secondary takes no more entries. The other half is for packs, exports and the shutdown.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::wire::Checkup;
use crate::config::limits;
use crate::env::Env;

/// What makes a node unfit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    Disk,
    Clock,
    Database,
    /// It is to leave, or to vote no more.
    Part,
}

/// Why this node is unfit, if it is, and how the others are.
pub struct Fitness {
    env: Env,
    causes: Mutex<BTreeMap<Cause, String>>,
    /// Why nothing more is to be written, while this node is primary.
    stop: Mutex<Option<String>>,
    /// Whether half of the disk's reserve is used up.
    is_short: AtomicBool,
    /// Whether this node stands for election.
    stands: AtomicBool,
    others: Mutex<BTreeMap<u64, Seen>>,
    began: Instant,
}

/// Another node, as it was when it last answered.
#[derive(Clone, Debug)]
struct Seen {
    at: Instant,
    /// By how much this node's clock is ahead of that one's, in milliseconds.
    ahead: i64,
    unfit: Option<String>,
    has_room: bool,
    progress: Progress,
}

/// How far another node was when it last answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// How many log entries it had applied.
    pub applied: u64,
    /// How long it had not been sure to have all.
    pub lag: Option<Duration>,
}

impl Fitness {
    /// Whether this node stands for election: it is fit, or nobody else is, as it was looked at last.
    pub fn stands(&self) -> bool {
        self.stands.load(Ordering::Relaxed)
    }

    pub fn let_stand(&self, stands: bool) {
        self.stands.store(stands, Ordering::Relaxed);
    }

    pub fn new(env: Env) -> Fitness {
        Fitness {
            began: env.now(),
            env,
            causes: Mutex::default(),
            stop: Mutex::default(),
            is_short: AtomicBool::new(false),
            stands: AtomicBool::new(true),
            others: Mutex::default(),
        }
    }

    /// Sets or clears a cause; a change is logged.
    pub fn set(&self, cause: Cause, why: Option<String>) {
        let mut causes = self.causes();
        match (causes.contains_key(&cause), why) {
            (false, Some(why)) => {
                match cause {
                    // (As somebody wished.)
                    Cause::Part => tracing::info!("this node is to lead no more: {why}"),
                    _ => tracing::error!("this node is not fit to lead: {why}"),
                }
                causes.insert(cause, why);
            }
            (true, Some(why)) => drop(causes.insert(cause, why)),
            (true, None) => {
                causes.remove(&cause);
                tracing::info!("this node is fit again, as to its {cause}");
            }
            (false, None) => {}
        }
    }

    /// Why this node is unfit.
    pub fn unfit(&self) -> Option<String> {
        let causes = self.causes();
        (!causes.is_empty()).then(|| causes.values().cloned().collect::<Vec<_>>().join("; "))
    }

    /// Why this node's disk makes it unfit.
    pub fn no_room(&self) -> Option<String> {
        self.causes().get(&Cause::Disk).cloned()
    }

    /// What could not be read of this node's database.
    pub fn damage(&self) -> Option<String> {
        self.causes().get(&Cause::Database).cloned()
    }

    /// Why this node takes no new entries: half of the reserve is left for what goes on without them.
    pub fn is_full(&self) -> Option<String> {
        self.no_room().filter(|_| self.is_short.load(Ordering::Relaxed))
    }

    /// How this node is, for another one that asks: it has applied so many entries, and last been sure to have all so
    /// long ago.
    pub fn checkup(&self, applied: u64, lag: Option<Duration>) -> Checkup {
        let clock = self.env.wall().as_millis() as u64;
        let lag = lag.map(|lag| lag.as_millis() as u64);
        Checkup { clock, unfit: self.unfit(), has_room: self.no_room().is_none(), applied, lag }
    }

    /// Notes an answer of node `node` to a question that was asked at `asked`.
    pub fn saw(&self, node: u64, asked: Instant, answer: Checkup) {
        let now = self.env.now();
        // (That node looked at its clock in between.)
        let mine = self.env.wall().saturating_sub(now.saturating_duration_since(asked) / 2);
        let ahead = mine.as_millis() as i64 - answer.clock as i64;
        let progress = Progress { applied: answer.applied, lag: answer.lag.map(Duration::from_millis) };
        let seen = Seen { at: now, ahead, unfit: answer.unfit, has_room: answer.has_room, progress };
        self.others().insert(node, seen);
    }

    /// Judges this node's clock by those of the other `voters`.
    pub fn judge_clock(&self, voters: &BTreeSet<u64>) {
        let members = voters.len();
        let is_ahead = self.causes().contains_key(&Cause::Clock);
        let most = if is_ahead { limits::CLOCK_RIGHT } else { limits::CLOCK_AHEAD }.as_millis() as i64;
        let behind: Vec<i64> =
            self.fresh(|node, seen| (voters.contains(&node) && seen.ahead > most).then_some(seen.ahead));
        let why = (behind.len() > members / 2).then(|| {
            let least = behind.iter().min().copied().unwrap_or(0) / 1000;
            format!(
                "its clock is {least} s or more ahead of those of {} of {members} nodes, and its transactions would \
                 have times to come: set its clock",
                behind.len()
            )
        });
        self.set(Cause::Clock, why);
    }

    /// Judges the room on this node's disk, of which so many bytes are free `place`, and `reserve` should be.
    pub fn judge_disk(&self, free: u64, reserve: u64, place: &str) {
        // (A little more is wanted to begin again, so that it does not begin and end all the time.)
        let wanted = if self.no_room().is_some() { reserve + reserve / 4 } else { reserve };
        let mib = |bytes: u64| bytes >> 20;
        let why = (free < wanted).then(|| {
            let (free, reserve) = (mib(free), mib(reserve));
            format!(
                "its disk is nearly full: {free} MiB are free at {place}, and {reserve} are kept (--disk-reserve); \
                 make room"
            )
        });
        self.is_short.store(free < reserve / 2, Ordering::Relaxed);
        self.set(Cause::Disk, why);
    }

    /// Whether another one of the `voters` was seen lately that is fit to lead.
    pub fn is_fit_elsewhere(&self, voters: &BTreeSet<u64>) -> bool {
        !self.fresh(|node, seen| (voters.contains(&node) && seen.unfit.is_none()).then_some(())).is_empty()
    }

    /// Whether node `node` was seen lately.
    pub fn is_seen(&self, node: u64) -> bool {
        !self.fresh(|other, _| (other == node).then_some(())).is_empty()
    }

    /// How long ago node `node` last answered (if it never did, since this node's start), and how far it was then.
    pub fn heard_of(&self, node: u64) -> (Duration, Option<Progress>) {
        let others = self.others();
        let seen = others.get(&node);
        let since = seen.map_or(self.began, |seen| seen.at);
        (self.env.now().saturating_duration_since(since), seen.map(|seen| seen.progress))
    }

    /// Why node `node` is unfit, as it said lately.
    pub fn unfit_of(&self, node: u64) -> Option<String> {
        self.fresh(|other, seen| (other == node).then(|| seen.unfit.clone()).flatten()).pop()
    }

    /// Whether a node has said lately that it is fit.
    pub fn is_seen_fit(&self, node: u64) -> bool {
        !self.fresh(|other, seen| (other == node && seen.unfit.is_none()).then_some(())).is_empty()
    }

    /// Why nothing more is to be written while this node is primary.
    pub fn no_room_to_commit(&self) -> Option<String> {
        self.stop.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Judges whether this node, as primary of a cluster with these voters, should have more written: not if its own
    /// disk is nearly full and no other node can take the role, and not if too few nodes are there that have room.
    pub fn judge_room(&self, voters: &BTreeSet<u64>) {
        let (own, members) = (self.no_room(), voters.len());
        let count =
            |room| self.fresh(|node, seen| (voters.contains(&node) && seen.has_room == room).then_some(())).len();
        let full = count(false) + usize::from(own.is_some());
        let with_room = count(true) + usize::from(own.is_none());
        let stop = match own {
            Some(why) if self.is_short.load(Ordering::Relaxed) || !self.is_fit_elsewhere(voters) => {
                Some(format!("the primary takes nothing more, as {why}"))
            }
            _ if full > 0 && with_room <= members / 2 => Some(format!(
                "the disks of {full} of {members} nodes are nearly full, and only {with_room} are there that have room: \
                 make room on them"
            )),
            _ => None,
        };
        *self.stop.lock().unwrap_or_else(PoisonError::into_inner) = stop;
    }

    /// What operators should know beside why this node is unfit: clocks that differ.
    pub fn alarms(&self) -> Vec<String> {
        let most = limits::CLOCK_AHEAD.as_millis() as i64;
        let odd = |node, seen: &Seen| {
            let seconds = seen.ahead.abs() / 1000;
            let word = if seen.ahead > 0 { "ahead of" } else { "behind" };
            (seen.ahead.abs() > most).then(|| format!("this node's clock is {seconds} s {word} node {node}'s"))
        };
        self.unfit().into_iter().chain(self.fresh(odd)).collect()
    }

    fn fresh<T>(&self, mut of: impl FnMut(u64, &Seen) -> Option<T>) -> Vec<T> {
        let now = self.env.now();
        let is_fresh = |seen: &Seen| now.saturating_duration_since(seen.at) <= limits::CHECKUP_AGE;
        self.others().iter().filter(|(_, seen)| is_fresh(seen)).filter_map(|(node, seen)| of(*node, seen)).collect()
    }

    fn causes(&self) -> MutexGuard<'_, BTreeMap<Cause, String>> {
        self.causes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn others(&self) -> MutexGuard<'_, BTreeMap<u64, Seen>> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cause::Disk => "disk",
            Cause::Clock => "clock",
            Cause::Database => "database",
            Cause::Part => "part in the cluster",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> BTreeSet<u64> {
        BTreeSet::from([1, 2, 3])
    }

    fn fitness() -> Fitness {
        Fitness::new(Env::system())
    }

    /// Node `node` says that its clock is so many seconds ahead of ours.
    fn says(fitness: &Fitness, node: u64, seconds: i64, has_room: bool) {
        let clock = (fitness.env.wall().as_millis() as i64 + seconds * 1000) as u64;
        let unfit = (!has_room).then(|| "full".to_owned());
        fitness.saw(node, fitness.env.now(), Checkup { clock, unfit, has_room, applied: 7, lag: Some(40) });
    }

    #[tokio::test]
    async fn a_clock_ahead_of_a_majority_is_unfit() {
        let fitness = fitness();
        says(&fitness, 2, -40, true);
        fitness.judge_clock(&three());
        // (Observers have no say.)
        says(&fitness, 4, -40, true);
        fitness.judge_clock(&three());
        assert_eq!(fitness.unfit(), None, "one of two that differ may be right");
        assert_eq!(fitness.alarms().len(), 2);
        says(&fitness, 3, -50, true);
        fitness.judge_clock(&three());
        assert!(
            fitness.unfit().unwrap().starts_with("its clock is 39 s or more ahead of those of 2 of 3 nodes")
                || fitness.unfit().unwrap().starts_with("its clock is 40 s"),
            "{:?}",
            fitness.unfit()
        );
        says(&fitness, 3, -27, true);
        fitness.judge_clock(&three());
        assert!(fitness.unfit().is_some(), "it does not come and go");
        says(&fitness, 3, -20, true);
        fitness.judge_clock(&three());
        assert_eq!(fitness.unfit(), None);
        // Behind the others it leads: tids grow all the same.
        says(&fitness, 2, 40, true);
        says(&fitness, 3, 40, true);
        fitness.judge_clock(&three());
        assert_eq!(fitness.unfit(), None);
        assert_eq!(fitness.alarms().len(), 3);
    }

    #[tokio::test]
    async fn a_full_disk_is_unfit_until_there_is_clearly_room() {
        let fitness = fitness();
        fitness.judge_disk(100 << 20, 100 << 20, "/data");
        assert_eq!(fitness.no_room(), None);
        fitness.judge_disk(99 << 20, 100 << 20, "/data");
        assert!(fitness.no_room().unwrap().contains("99 MiB are free at /data, and 100 are kept"));
        fitness.judge_disk(120 << 20, 100 << 20, "/data");
        assert!(fitness.no_room().is_some());
        fitness.judge_disk(125 << 20, 100 << 20, "/data");
        assert_eq!(fitness.no_room(), None);
    }

    #[tokio::test]
    async fn writing_goes_on_while_a_majority_has_room() {
        let fitness = fitness();
        says(&fitness, 2, 0, false);
        let judged = |fitness: &Fitness, members| {
            fitness.judge_room(&(1..=members).collect());
            fitness.no_room_to_commit()
        };
        assert!(judged(&fitness, 3).unwrap().contains("1 of 3 nodes"), "the third one is away");
        assert!(!fitness.is_fit_elsewhere(&three()));
        says(&fitness, 3, 0, true);
        assert!(fitness.is_fit_elsewhere(&three()));
        assert_eq!(judged(&fitness, 3), None);
        assert!(fitness.is_seen_fit(3) && !fitness.is_seen_fit(2) && !fitness.is_seen_fit(4));
        assert_eq!((fitness.unfit_of(2).as_deref(), fitness.unfit_of(3)), (Some("full"), None));
        // Its own disk too: it hands the role over; if that takes too long, it stops.
        fitness.judge_disk(3 << 20, 4 << 20, "/data");
        assert!(judged(&fitness, 3).unwrap().contains("the disks of 2 of 3 nodes"));
        says(&fitness, 2, 0, true);
        assert_eq!(judged(&fitness, 3), None);
        assert_eq!(fitness.is_full(), None);
        fitness.judge_disk(1 << 20, 4 << 20, "/data");
        assert!(fitness.is_full().is_some());
        assert!(judged(&fitness, 3).unwrap().contains("its disk is nearly full"));
        let alone = self::fitness();
        alone.judge_disk(0, 1 << 20, "/data");
        assert!(judged(&alone, 1).unwrap().contains("nearly full"));
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_never_heard_of_is_silent_since_the_start() {
        let fitness = fitness();
        fitness.env.sleep(Duration::from_secs(5)).await;
        let seconds = |node| fitness.heard_of(node).0.as_secs();
        assert_eq!((seconds(2), fitness.heard_of(2).1), (5, None));
        says(&fitness, 2, 0, true);
        fitness.env.sleep(Duration::from_secs(60)).await;
        let progress = Progress { applied: 7, lag: Some(Duration::from_millis(40)) };
        assert_eq!((seconds(2), fitness.heard_of(2).1), (60, Some(progress)));
        assert_eq!(seconds(3), 65);
    }
}
