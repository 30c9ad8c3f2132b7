//! A value that tasks can wait on: they see the latest one, and wake first in, first out when it changes.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, RwLock, RwLockReadGuard};

use tokio::sync::Notify;

/// The sending half. Clones share the value; when the last is dropped, waiters get [`Closed`].
#[derive(Debug)]
pub struct Watch<T>(Arc<Shared<T>>);

/// The receiving half: remembers which value it has seen.
#[derive(Debug)]
pub struct Watching<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

/// The last sender is gone: no other value will come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

#[derive(Debug)]
struct Shared<T> {
    value: RwLock<T>,
    version: AtomicU64,
    closed: AtomicBool,
    senders: AtomicUsize,
    receivers: AtomicUsize,
    changed: Notify,
}

/// A look at the value; keep it short, senders wait for it.
#[derive(Debug)]
pub struct Look<'a, T>(RwLockReadGuard<'a, T>);

impl<T> Deref for Look<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> Shared<T> {
    fn look(&self) -> Look<'_, T> {
        Look(self.value.read().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }
}

impl<T> Watch<T> {
    /// A watch whose first value is `value`.
    pub fn new(value: T) -> Watch<T> {
        Watch(Arc::new(Shared {
            value: RwLock::new(value),
            version: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            senders: AtomicUsize::new(1),
            receivers: AtomicUsize::new(0),
            changed: Notify::new(),
        }))
    }

    /// A receiver that has seen the present value.
    pub fn watching(&self) -> Watching<T> {
        self.0.receivers.fetch_add(1, SeqCst);
        Watching { seen: self.0.version.load(SeqCst), shared: self.0.clone() }
    }

    /// The present value, which can't change while it is looked at.
    pub fn look(&self) -> Look<'_, T> {
        self.0.look()
    }

    /// Changes the value and wakes all waiters.
    pub fn send(&self, value: T) {
        self.send_if(|present| {
            *present = value;
            true
        });
    }

    /// Changes the value in place; waiters wake if `change` says so. Gives what `change` said.
    pub fn send_if(&self, change: impl FnOnce(&mut T) -> bool) -> bool {
        {
            let mut value = self.0.value.write().unwrap_or_else(|poisoned| poisoned.into_inner());
            if !change(&mut value) {
                return false;
            }
            self.0.version.fetch_add(1, SeqCst);
        }
        self.0.changed.notify_waiters();
        true
    }

    /// Whether there is a receiver.
    pub fn is_watched(&self) -> bool {
        self.0.receivers.load(SeqCst) > 0
    }
}

impl<T> Watching<T> {
    /// Waits for a value that this receiver has not seen, and counts it as seen.
    pub async fn changed(&mut self) -> Result<(), Closed> {
        loop {
            let mut notified = std::pin::pin!(self.shared.changed.notified());
            notified.as_mut().enable();
            let version = self.shared.version.load(SeqCst);
            if version != self.seen {
                self.seen = version;
                return Ok(());
            }
            if self.shared.closed.load(SeqCst) {
                return Err(Closed);
            }
            notified.await;
        }
    }

    /// Waits until `wanted` is true of the value (at once, if it is already).
    pub async fn until(&mut self, mut wanted: impl FnMut(&T) -> bool) -> Result<(), Closed> {
        loop {
            if wanted(&self.look_now()) {
                return Ok(());
            }
            self.changed().await?;
        }
    }

    /// The present value, which can't change while it is looked at.
    pub fn look(&self) -> Look<'_, T> {
        self.shared.look()
    }

    /// Looks, and counts the value as seen.
    pub fn look_now(&mut self) -> Look<'_, T> {
        let look = self.shared.look();
        self.seen = self.shared.version.load(SeqCst);
        look
    }
}

impl<T> Clone for Watch<T> {
    fn clone(&self) -> Watch<T> {
        self.0.senders.fetch_add(1, SeqCst);
        Watch(self.0.clone())
    }
}

impl<T> Drop for Watch<T> {
    fn drop(&mut self) {
        if self.0.senders.fetch_sub(1, SeqCst) == 1 {
            self.0.closed.store(true, SeqCst);
            self.0.changed.notify_waiters();
        }
    }
}

impl<T> Clone for Watching<T> {
    fn clone(&self) -> Watching<T> {
        self.shared.receivers.fetch_add(1, SeqCst);
        Watching { shared: self.shared.clone(), seen: self.seen }
    }
}

impl<T> Drop for Watching<T> {
    fn drop(&mut self) {
        self.shared.receivers.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waiters_see_the_latest_value_and_then_the_end() {
        let watch = Watch::new(1);
        let mut watching = watch.watching();
        watch.send(2);
        watch.send(3);
        watching.changed().await.unwrap();
        assert_eq!(*watching.look(), 3);
        drop(watch);
        assert_eq!(watching.changed().await, Err(Closed));
    }

    #[tokio::test]
    async fn until_returns_at_once_when_it_is_so_already() {
        let watch = Watch::new(5);
        watch.watching().until(|v| *v == 5).await.unwrap();
    }
}
