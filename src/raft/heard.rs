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
}

#[derive(Clone, Copy)]
struct Word {
    leader: u64,
    term: u64,
    at: Instant,
    /// How many entries the leader had committed when it was first heard in this term.
    goal: u64,
}

impl Heard {
    pub fn new(env: Env) -> Heard {
        Heard { env, last: Mutex::new(None) }
    }

    /// An append of `leader` was accepted; it has committed up to `committed`.
    pub fn note(&self, leader: u64, term: u64, committed: Option<Place>) {
        let committed = committed.map_or(0, |place| place.index + 1);
        let at = self.env.now();
        let mut last = self.lock();
        let goal = match &*last {
            Some(word) if (word.leader, word.term) == (leader, term) && word.goal > 0 => word.goal,
            _ => committed,
        };
        *last = Some(Word { leader, term, at, goal });
    }

    /// The leader that was heard `within` that time, and whether `applied` entries reach what it had committed at first.
    pub fn leader(&self, within: Duration, applied: u64) -> Option<(u64, bool)> {
        let word = (*self.lock())?;
        let alive = self.env.now().saturating_duration_since(word.at) <= within;
        alive.then_some((word.leader, word.goal > 0 && applied >= word.goal))
    }

    /// How long ago a leader was heard.
    pub fn silence(&self) -> Option<Duration> {
        let word = (*self.lock())?;
        Some(self.env.now().saturating_duration_since(word.at))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Word>> {
        self.last.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
