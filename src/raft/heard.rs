//! The leader's last signs of life, as a secondary has heard them.
//!
//! Raft goes on naming the leader of a term after that leader has died. Whether the leader is alive, and whether this
//! node has caught up with it, is judged here, from the appends that come in.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use super::types::{Incarnation, Place};
use crate::env::Env;

pub struct Heard {
    env: Env,
    last: Mutex<Option<Word>>,
    /// The last moment for which this node has surely applied every entry that was committed then.
    reached: Mutex<Option<Moment>>,
}

/// A moment, by a clock that stands still while the machine is suspended; and how long it had been suspended by then.
#[derive(Clone, Copy)]
struct Moment {
    at: Instant,
    suspended: Duration,
}

#[derive(Clone, Copy)]
struct Word {
    leader: Incarnation,
    term: u64,
    at: Moment,
    /// How many entries the leader had committed, as it last said; 0 until it has committed one of its own term. (What
    /// a new leader says before is only as far as it knows: the one before it may have answered more.)
    committed: u64,
    /// How many entries the leader had committed at some moment of this term, and when that was heard. Once this node
    /// has applied them, a newer goal takes their place.
    goal: (u64, Moment),
    /// Whether a goal was reached in this term.
    caught_up: bool,
}

impl Heard {
    pub fn new(env: Env) -> Heard {
        Heard { env, last: Mutex::new(None), reached: Mutex::new(None) }
    }

    /// Notes that an append of `leader` was accepted, which has committed up to `committed`.
    pub fn note(&self, leader: Incarnation, term: u64, committed: Option<Place>) {
        let committed = committed.filter(|place| place.term == term).map_or(0, |place| place.index + 1);
        let at = self.moment();
        let mut last = self.lock();
        *last = Some(match *last {
            Some(word) if (word.leader, word.term) == (leader, term) && word.goal.0 > 0 => {
                Word { at, committed: committed.max(word.committed), ..word }
            }
            _ => Word { leader, term, at, committed, goal: (committed, at), caught_up: false },
        });
    }

    /// The leader that was heard `within` that time, in this node's `term` or a later one; and whether the entries that
    /// this node has applied have once reached a goal of the leader's term. Must be called often, as it moves the goal.
    pub fn leader(&self, term: u64, within: Duration, applied: u64) -> Option<(Incarnation, bool)> {
        let mut last = self.lock();
        let word = last.as_mut()?;
        if word.goal.0 > 0 && applied >= word.goal.0 {
            *self.reached() = Some(word.goal.1);
            word.caught_up = true;
            word.goal = (word.committed, word.at);
        }
        // The leader of an earlier term may have been alive a moment ago, and leads no more.
        let alive = word.term >= term && self.env.now().saturating_duration_since(word.at.at) <= within;
        alive.then_some((word.leader, word.caught_up))
    }

    /// When a leader was last heard.
    pub fn last(&self) -> Option<Instant> {
        self.lock().map(|word| word.at.at)
    }

    /// How far this node's state may lie behind: the time since it was surely a leader's newest.
    pub fn lag(&self) -> Option<Duration> {
        let reached = (*self.reached())?;
        let slept = self.env.suspended().saturating_sub(reached.suspended);
        Some(self.env.now().saturating_duration_since(reached.at) + slept)
    }

    /// Notes that this node is primary itself, and is sure of it.
    pub fn leads(&self) {
        *self.reached() = Some(self.moment());
    }

    fn moment(&self) -> Moment {
        Moment { at: self.env.now(), suspended: self.env.suspended() }
    }

    fn reached(&self) -> MutexGuard<'_, Option<Moment>> {
        self.reached.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Word>> {
        self.last.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITHIN: Duration = Duration::from_secs(1);

    fn place(term: u64, index: u64) -> Option<Place> {
        Some(Place { term, index })
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_leader_is_caught_up_with_only_when_it_has_committed_in_its_own_term() {
        let heard = Heard::new(Env::system());
        let (old, new) = (Incarnation(1), Incarnation(2));
        heard.note(old, 1, place(1, 9));
        assert_eq!(heard.leader(1, WITHIN, 9), Some((old, false)));
        assert_eq!(heard.leader(1, WITHIN, 10), Some((old, true)));
        tokio::time::advance(WITHIN).await;
        // The new leader has not heard of all that the old one had answered.
        heard.note(new, 2, place(1, 7));
        assert_eq!(heard.leader(2, WITHIN, 10), Some((new, false)));
        // (The time that the machine was suspended is measured, and not quite still.)
        let lag = |heard: &Heard| heard.lag().unwrap().as_millis();
        assert_eq!(lag(&heard), WITHIN.as_millis());
        heard.note(new, 2, place(2, 12));
        assert_eq!(heard.leader(2, WITHIN, 12), Some((new, false)));
        assert_eq!(heard.leader(2, WITHIN, 13), Some((new, true)));
        assert_eq!(lag(&heard), 0);
    }
}
