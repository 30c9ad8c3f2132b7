//! A timer for waits that are cut short as a rule.

use std::pin::Pin;

use tokio::time::{Instant, Sleep};

/// What [`Env::wake`](super::Env::wake) keeps between waits.
///
/// A timer that is the next of all costs a system call to set, and another one to go off. A wait that was given up
/// leaves its timer here, and the next one takes that over, and sets another one only when it goes off too early:
/// however many waits are given up, there is one timer in the time that each of them would have taken.
#[derive(Debug, Default)]
pub struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Returns at `deadline`, or before; `make` makes a timer for it.
    pub(super) async fn doze(&mut self, deadline: Instant, make: impl FnOnce() -> Sleep) {
        let sleep = match &mut self.0 {
            Some(sleep) if sleep.deadline() <= deadline => sleep,
            other => other.insert(Box::pin(make())),
        };
        sleep.await;
        self.0 = None;
    }

    #[cfg(test)]
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.0.as_ref().map(|sleep| sleep.deadline())
    }
}
