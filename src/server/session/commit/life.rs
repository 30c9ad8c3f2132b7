//! The life of a transaction: a wait on its behalf ends with it.

use crate::env::Watch;

/// Owned by a transaction, and dropped with it.
pub struct Life(Watch<()>);

impl Default for Life {
    fn default() -> Life {
        Life(Watch::new(()))
    }
}

impl Life {
    /// The result of `wait`; `None` as soon as this life is dropped, and then `wait` is dropped as well.
    pub fn unless_over<F: Future>(&self, wait: F) -> impl Future<Output = Option<F::Output>> + use<F> {
        let mut life = self.0.watching();
        async move {
            tokio::select! { biased;
                _ = life.changed() => None,
                found = wait => Some(found),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn a_wait_is_dropped_when_its_transaction_is_over() {
        let life = Life::default();
        assert_eq!(life.unless_over(async { 5 }).await, Some(5));
        let held = Arc::new(());
        let hold = held.clone();
        let wait = life.unless_over(async move {
            std::future::pending::<()>().await;
            drop(hold);
        });
        let waiting = tokio::spawn(wait);
        tokio::task::yield_now().await;
        assert_eq!(Arc::strong_count(&held), 2);
        drop(life);
        assert_eq!(waiting.await.unwrap(), None);
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
