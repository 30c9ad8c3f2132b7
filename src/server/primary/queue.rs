//! The queue to the log: one for each reign.
//!
//! All proposals of a primary wait here, in order, and one task takes them to the log. Beside each proposal stands its
//! callback for the outcome (`settle`), so that this queue knows nothing of transactions and packs.
//!
//! ```text
//!   place ─► fill(change, settle) ─► run: Node::propose ─► outcome ─► settle(&outcome) ─► answer
//! ```
//!
//! **Bounds.** At most [`limits::PROPOSALS`] changes wait.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

use crate::command::{Change, Outcome, Reign};
use crate::config::limits;
use crate::env::{Env, Watching};
use crate::raft::{Node, Unknown};

/// The outcome of a proposal, to come. An error of the receiver: the reign ended before the proposal was made or
/// answered.
pub type Pending = oneshot::Receiver<Result<Outcome, Unknown>>;

/// The callback that settles a proposal: called with the outcome, before the proposer gets its answer.
type Settle = Box<dyn FnOnce(&Result<Outcome, Unknown>) + Send>;

/// The changes that wait for the log.
#[derive(Default)]
pub struct Queue {
    line: Mutex<Line>,
    filled: Notify,
}

#[derive(Default)]
struct Line {
    waiting: VecDeque<Queued>,
    /// How many changes were put in that don't belong to the data of transactions under way.
    others: u64,
    /// The reign is over: nothing is proposed any more.
    closed: bool,
}

struct Queued {
    change: Change,
    settle: Settle,
    answer: oneshot::Sender<Result<Outcome, Unknown>>,
}

/// Queued proposals that will never be made.
pub struct Dropped {
    _waiting: VecDeque<Queued>,
}

/// Why there is no place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPlace {
    /// The reign is over.
    Closed,
    Full,
}

/// The last place in the queue. Nothing else gets in before it is filled or dropped.
pub struct Place<'a> {
    line: MutexGuard<'a, Line>,
    filled: &'a Notify,
}

impl Place<'_> {
    /// [`Queue::others`] so far.
    pub fn others(&self) -> u64 {
        self.line.others
    }

    /// Puts `change` into this place. `settle` is called with the change's outcome.
    pub fn fill(mut self, change: Change, settle: impl FnOnce(&Result<Outcome, Unknown>) + Send + 'static) -> Pending {
        let (answer, pending) = oneshot::channel();
        self.line.others += u64::from(!matches!(change, Change::Stage { .. } | Change::Discard { .. }));
        self.line.waiting.push_back(Queued { change, settle: Box::new(settle), answer });
        self.filled.notify_one();
        pending
    }
}

impl Queue {
    /// A place at the end.
    pub fn place(&self) -> Result<Place<'_>, NoPlace> {
        let line = self.line();
        if line.closed {
            return Err(NoPlace::Closed);
        }
        if line.waiting.len() >= limits::PROPOSALS {
            return Err(NoPlace::Full);
        }
        Ok(Place { line, filled: &self.filled })
    }

    /// How many changes were put in so far beside those that bring pieces of transactions under way, or discard them.
    pub fn others(&self) -> u64 {
        self.line().others
    }

    /// Proposes a change that has nothing to settle; `None` if the change is not known to have applied.
    pub async fn change(&self, change: Change) -> Option<Outcome> {
        let pending = self.place().ok()?.fill(change, |_| {});
        pending.await.ok()?.ok()
    }

    /// Takes nothing more, and gives back the proposals that wait. Dropping the proposals, which must happen without a
    /// lock held (their settling may own anything), tells their proposers.
    #[must_use]
    pub fn close(&self) -> Dropped {
        let mut line = self.line();
        line.closed = true;
        Dropped { _waiting: std::mem::take(&mut line.waiting) }
    }

    /// Takes the queue to the log, in order, until the reign has `ended`; outcomes are awaited beside.
    pub async fn run(self: Arc<Queue>, reign: Reign, node: Node, env: Env, mut ended: Watching<bool>) {
        loop {
            // All sessions that are ready come first, so that the log gets their changes at once: each time its threads
            // are woken costs as much as a change.
            tokio::task::yield_now().await;
            let batch = std::mem::take(&mut self.line().waiting);
            if batch.is_empty() {
                tokio::select! { biased;
                    _ = ended.until(|ended| *ended) => return,
                    () = self.filled.notified() => continue,
                }
            }
            for Queued { change, settle, answer } in batch {
                if *ended.look() {
                    return;
                }
                let proposal = node.propose(reign, change).await;
                env.spawn(async move {
                    let outcome = proposal.outcome().await;
                    settle(&outcome);
                    let _ = answer.send(outcome);
                });
            }
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zodb::StorageId;

    fn change() -> Change {
        Change::PackEnd { storage: StorageId(1) }
    }

    #[test]
    fn there_are_so_many_places() {
        let queue = Queue::default();
        let held: Vec<Pending> =
            (0..limits::PROPOSALS).map(|_| queue.place().unwrap().fill(change(), |_| {})).collect();
        assert_eq!(queue.place().err(), Some(NoPlace::Full));
        drop(held);
        assert_eq!(queue.place().err(), Some(NoPlace::Full), "a proposal stands though its asker went away");
    }

    #[tokio::test]
    async fn a_closed_queue_answers_nobody_and_settles_nothing() {
        let queue = Queue::default();
        let pending = queue.place().unwrap().fill(change(), |_| panic!("settled without an outcome"));
        drop(queue.close());
        assert!(pending.await.is_err());
        assert_eq!(queue.place().err(), Some(NoPlace::Closed));
        assert_eq!(queue.change(change()).await, None);
    }
}
