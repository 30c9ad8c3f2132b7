//! What a secondary has heard of its primary, and when.
//!
//! Raft's own word for the leader of a term stays what it was when the leader dies; whether it is alive, and
//! whether this node has caught up with it, is seen here, from the appends that come in.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use super::types::Place;
use crate::env::Env;

pub struct Heard {
    env: Env,
    last: Mutex<Option<Word>>,
    /// The last moment of which this node has surely applied all that was committed then.
    reached: Mutex<Option<Instant>>,
}

#[derive(Clone, Copy)]
struct Word {
    leader: u64,
    term: u64,
    at: Instant,
    /// How many entries the leader said last that it had committed.
    committed: u64,
    /// What it had committed at some moment of this term, and when that was heard. Once applied here, a newer one takes
    /// its place.
    goal: (u64, Instant),
    /// Whether a goal was reached in this term.
    caught_up: bool,
}

impl Heard {
    pub fn new(env: Env) -> Heard {
        Heard { env, last: Mutex::new(None), reached: Mutex::new(None) }
    }

    /// An append of `leader` was accepted; it has committed up to `committed`.
    pub fn note(&self, leader: u64, term: u64, committed: Option<Place>) {
        let committed = committed.map_or(0, |place| place.index + 1);
        let at = self.env.now();
        let mut last = self.lock();
        *last = Some(match *last {
            Some(word) if (word.leader, word.term) == (leader, term) && word.goal.0 > 0 => {
                Word { at, committed: committed.max(word.committed), ..word }
            }
            _ => Word { leader, term, at, committed, goal: (committed, at), caught_up: false },
        });
    }

    /// The leader that was heard `within` that time, in this node's `term` or a later one, and whether the `applied` entries have once reached what it had
    /// committed in its term. To be asked often: it moves the goal on.
    pub fn leader(&self, term: u64, within: Duration, applied: u64) -> Option<(u64, bool)> {
        let mut last = self.lock();
        let word = last.as_mut()?;
        if word.goal.0 > 0 && applied >= word.goal.0 {
            *self.reached() = Some(word.goal.1);
            word.caught_up = true;
            word.goal = (word.committed, word.at);
        }
        // In an earlier term it may have been alive a moment ago, and is leader no more.
        let alive = word.term >= term && self.env.now().saturating_duration_since(word.at) <= within;
        alive.then_some((word.leader, word.caught_up))
    }

    /// How old the state is that this node has surely applied: the time since it was a leader's newest.
    pub fn lag(&self) -> Option<Duration> {
        let reached = (*self.reached())?;
        Some(self.env.now().saturating_duration_since(reached))
    }

    /// This node was primary itself until now.
    pub fn led(&self) {
        *self.reached() = Some(self.env.now());
    }

    fn reached(&self) -> MutexGuard<'_, Option<Instant>> {
        self.reached.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Word>> {
        self.last.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
