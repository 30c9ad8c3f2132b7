//! openraft's view of the world: tokio, with time and chance from the task's [`Env`], and [`Watch`] for its watches.
//!
//! openraft calls its runtime's static functions; the Env reaches them by the task-local that `Env::spawn` hands down.
//! Two things must not come from the operating system if a seed is to give the same run twice: the numbers that
//! openraft draws (election timeouts), and the order in which tokio's own watch wakes its waiters.

use std::future::Future;
use std::time::Duration;

use openraft_rt::watch::{RecvError, SendError};
use openraft_rt::{AsyncRuntime, Instant, OptionalSend, OptionalSync, WatchReceiver, WatchSender};
use openraft_rt_tokio::{TokioInstant, TokioMpsc, TokioMutex, TokioOneshot, TokioRuntime};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::env::{Env, Look, Watch, Watching};

/// The runtime that `Types` names.
#[derive(Debug)]
pub struct Runtime(TokioRuntime);

impl AsyncRuntime for Runtime {
    type JoinError = tokio::task::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = tokio::task::JoinHandle<T>;
    type Sleep = tokio::time::Sleep;
    type Instant = TokioInstant;
    type TimeoutError = tokio::time::error::Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = tokio::time::Timeout<T>;
    type ThreadLocalRng = SmallRng;
    type Mpsc = TokioMpsc;
    type Watch = OrderedWatch;
    type Oneshot = TokioOneshot;
    type Mutex<T: OptionalSend + 'static> = TokioMutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        Env::current().spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        Env::current().sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        Self::sleep(deadline - TokioInstant::now())
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> Self::Timeout<R, F> {
        Env::current().timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: Self::Instant, future: F) -> Self::Timeout<R, F> {
        Self::timeout(deadline - TokioInstant::now(), future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        join_error.is_panic()
    }

    fn thread_rng() -> SmallRng {
        SmallRng::seed_from_u64(Env::current().seed())
    }

    fn new(threads: usize) -> Self {
        Runtime(TokioRuntime::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }
}

/// [`Watch`] under openraft's name for it.
#[derive(Debug)]
pub struct OrderedWatch;

impl openraft_rt::Watch for OrderedWatch {
    type Sender<T: OptionalSend + OptionalSync> = Watch<T>;
    type Receiver<T: OptionalSend + OptionalSync> = Watching<T>;
    type Ref<'a, T: OptionalSend + 'a> = Look<'a, T>;

    fn channel<T: OptionalSend + OptionalSync>(init: T) -> (Watch<T>, Watching<T>) {
        let watch = Watch::new(init);
        let watching = watch.watching();
        (watch, watching)
    }
}

impl<T: OptionalSend + OptionalSync> WatchSender<OrderedWatch, T> for Watch<T> {
    fn send(&self, value: T) -> Result<(), SendError<T>> {
        if !self.is_watched() {
            return Err(SendError(value));
        }
        Watch::send(self, value);
        Ok(())
    }

    fn send_if_modified<F>(&self, modify: F) -> bool
    where
        F: FnOnce(&mut T) -> bool,
    {
        self.send_if(modify)
    }

    fn borrow_watched(&self) -> Look<'_, T> {
        self.look()
    }

    fn subscribe(&self) -> Watching<T> {
        self.watching()
    }
}

impl<T: OptionalSend + OptionalSync> WatchReceiver<OrderedWatch, T> for Watching<T> {
    async fn changed(&mut self) -> Result<(), RecvError> {
        Watching::changed(self).await.map_err(|_| RecvError(()))
    }

    fn borrow_watched(&self) -> Look<'_, T> {
        self.look()
    }

    fn borrow_and_update(&mut self) -> Look<'_, T> {
        self.look_now()
    }
}
