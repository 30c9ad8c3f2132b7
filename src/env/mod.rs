//! The only source of time, chance and threads.
//!
//! Code that reads the time, waits, draws a number or leaves work to a thread asks the [`Env`] it was given, and so
//! runs the same in production and in simulation, where time is virtual, chance comes from a seed, a host's clock may
//! drift or be set wrong, and there are no threads. openraft asks for these things by static functions, which find the
//! Env in a task-local that [`Env::spawn`] hands down to every task.
//!
//! [`Watch`] is here because tokio's own watch wakes its waiters in an order drawn from the operating system's chance.

mod alarm;
mod thread;
mod watch;

use std::future::Future;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep};

pub use alarm::Alarm;
use thread::OwnThread;
pub use watch::{Closed, Look, Watch, Watching};

/// Work for a thread that may block.
pub type Work = Box<dyn FnOnce() + Send>;
/// A future that is done when the work is.
pub type Working = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A host's clock, chance and threads, which differ between production and simulation.
pub trait World: Send + Sync + 'static {
    /// This host's wall clock: the time since the Unix epoch, right or wrong.
    fn wall(&self) -> Duration;
    /// How long a wait of `wanted` takes on this host, whose clock may drift.
    fn stretch(&self, wanted: Duration) -> Duration;
    /// A random number.
    fn seed(&self) -> u64;
    /// Does `work` where it may block.
    fn offload(&self, work: Work) -> Working;

    /// Grows by the time for which this machine is suspended; where it begins means nothing.
    fn suspended(&self) -> Duration {
        Duration::ZERO
    }

    /// Whether there are threads; without them, all work happens by [`World::offload`].
    fn has_threads(&self) -> bool;

    /// Whether a task may go on now; if not, the task is to be woken when it may. Asked on hosts without threads only,
    /// each time before a task goes on: so a simulation has the order of tasks in its hand.
    fn turn(&self, _context: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}

tokio::task_local! {
    static CURRENT: Env;
}

/// A runtime in which tasks run wherever they are begun.
#[derive(Clone)]
enum Home {
    Own(Arc<OwnThread>),
    Shared(Handle),
}

/// A handle to this host's [`World`]; cheap to clone.
#[derive(Clone)]
pub struct Env {
    world: Arc<dyn World>,
    /// Where tasks run; `None`: in the runtime of the caller.
    home: Option<Home>,
}

impl std::fmt::Debug for Env {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Env")
    }
}

impl Env {
    /// A handle to `world`.
    pub fn new(world: impl World) -> Env {
        Env { world: Arc::new(world), home: None }
    }

    /// The operating system's clock, chance and threads.
    pub fn system() -> Env {
        Env::new(System)
    }

    /// The Env of the running task.
    ///
    /// # Panics
    /// Outside of tasks begun by [`Env::spawn`] or [`Env::scope`].
    pub fn current() -> Env {
        CURRENT.with(Env::clone)
    }

    /// Runs `future` with this Env as [`Env::current`].
    pub fn scope<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        CURRENT.scope(self.clone(), future)
    }

    /// Begins a task that has this Env as [`Env::current`].
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let future = CURRENT.scope(self.clone(), future);
        if self.world.has_threads() { self.begin(future) } else { self.begin(self.in_turn(future)) }
    }

    fn begin<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        match &self.home {
            Some(Home::Own(thread)) => thread.runtime.spawn(future),
            Some(Home::Shared(runtime)) => runtime.spawn(future),
            None => tokio::spawn(future),
        }
    }

    /// `future`, which goes on when the host says so.
    fn in_turn<F>(&self, future: F) -> Pin<Box<dyn Future<Output = F::Output> + Send>>
    where
        F: Future + Send + 'static,
    {
        let (world, mut future) = (self.world.clone(), Box::pin(future));
        Box::pin(std::future::poll_fn(move |context| {
            ready!(world.turn(context));
            future.as_mut().poll(context)
        }))
    }

    /// Ends the thread that this Env has of its own, and returns once the tasks there are gone. Not to be called there.
    pub async fn end_own_thread(&self) {
        if let Some(Home::Own(thread)) = &self.home {
            thread.end().await;
        }
    }

    /// This Env, whose tasks run in the runtime of the running task, wherever they are begun.
    pub fn here(&self) -> Env {
        Env { home: Some(Home::Shared(Handle::current())), ..self.clone() }
    }

    /// This Env, with a thread called `name` on which all of its tasks run, ahead of the process' other threads where
    /// the system allows that. (In simulation, there are no threads: it is this Env.)
    pub fn on_own_thread(&self, name: &str) -> std::io::Result<Env> {
        if !self.world.has_threads() {
            return Ok(self.clone());
        }
        Ok(Env { home: Some(Home::Own(Arc::new(OwnThread::begin(name)?))), ..self.clone() })
    }

    /// The wall clock: time since the Unix epoch. It may jump; only tids and logs are made from it.
    pub fn wall(&self) -> Duration {
        self.world.wall()
    }

    /// The monotonic clock, for measuring spans.
    pub fn now(&self) -> Instant {
        Instant::now()
    }

    /// Grows by the time for which this machine is suspended, which [`Env::now`] does not count.
    pub fn suspended(&self) -> Duration {
        self.world.suspended()
    }

    /// Waits for `duration`, by this host's clock.
    pub fn sleep(&self, duration: Duration) -> Sleep {
        tokio::time::sleep(self.world.stretch(duration))
    }

    /// Waits until `deadline`; done at once if the deadline is past.
    pub fn sleep_until(&self, deadline: Instant) -> Sleep {
        self.sleep(deadline.saturating_duration_since(Instant::now()))
    }

    /// The same, for many waits one after the other, of which most are given up. May be dropped and begun again.
    pub async fn wake(&self, alarm: &mut Alarm, deadline: Instant) {
        while self.now() < deadline {
            alarm.doze(deadline, || self.sleep_until(deadline)).await;
        }
    }

    /// `Err` if `future` is not done within `duration`.
    pub fn timeout<F: Future>(&self, duration: Duration, future: F) -> tokio::time::Timeout<F> {
        tokio::time::timeout(self.world.stretch(duration), future)
    }

    /// A random number, for ids and for seeding generators.
    pub fn seed(&self) -> u64 {
        self.world.seed()
    }

    /// Does `work` on a thread that may block, and gives its result.
    pub async fn offload<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = tokio::sync::oneshot::channel();
        let work: Work = Box::new(move || {
            let _ = tell.send(work());
        });
        self.world.offload(work).await;
        told.await.expect("offloaded work runs to its end unless it panics, and then the task that waits panics too")
    }
}

impl Env {
    /// Gives `queue` a worker of its own, in production a thread called `name`: again and again it takes all that
    /// waits, at most `limit`, does `work` on it, which may block, and hands the result to `tell`, which must not. The
    /// worker ends when `tell` says so, or when nothing more can come.
    pub fn worker<T, R>(
        &self,
        name: &str,
        limit: usize,
        mut queue: mpsc::Receiver<T>,
        mut work: impl FnMut(Vec<T>) -> R + Send + 'static,
        mut tell: impl FnMut(R) -> ControlFlow<()> + Send + 'static,
    ) -> std::io::Result<()>
    where
        T: Send + 'static,
        R: Send + 'static,
    {
        if !self.world.has_threads() {
            let env = self.clone();
            self.spawn(async move {
                let mut group = Vec::new();
                while queue.recv_many(&mut group, limit).await > 0 {
                    let taken = std::mem::take(&mut group);
                    let done = env.offload(move || {
                        let done = work(taken);
                        (work, done)
                    });
                    let (again, done) = done.await;
                    work = again;
                    if tell(done).is_break() {
                        return;
                    }
                }
            });
            return Ok(());
        }
        let thread = std::thread::Builder::new().name(name.to_owned());
        thread.spawn(move || {
            let mut group = Vec::new();
            while queue.blocking_recv_many(&mut group, limit) > 0 {
                if tell(work(std::mem::take(&mut group))).is_break() {
                    return;
                }
            }
        })?;
        Ok(())
    }
}

struct System;

/// What is added to the time suspended: in a time namespace, the clock that counts it may be behind the other one.
const BIAS: Duration = Duration::from_secs(100 * 365 * 86_400);

impl World for System {
    fn has_threads(&self) -> bool {
        true
    }

    fn wall(&self) -> Duration {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
    }

    fn suspended(&self) -> Duration {
        use rustix::time::{ClockId, clock_gettime};
        let at = |clock| Duration::try_from(clock_gettime(clock)).unwrap_or_default();
        loop {
            let (before, with, after) = (at(ClockId::Monotonic), at(ClockId::Boottime), at(ClockId::Monotonic));
            // (This thread may have lost its processor between the looks.)
            if after.saturating_sub(before) < Duration::from_millis(1) {
                return (with + BIAS).saturating_sub(before);
            }
        }
    }

    fn stretch(&self, wanted: Duration) -> Duration {
        wanted
    }

    fn seed(&self) -> u64 {
        rand::random()
    }

    fn offload(&self, work: Work) -> Working {
        Box::pin(async {
            let _ = tokio::task::spawn_blocking(work).await;
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    use super::*;

    /// A host without threads, which lets a task wait so many times.
    struct Slow(Arc<AtomicU32>);

    impl World for Slow {
        fn wall(&self) -> Duration {
            Duration::ZERO
        }

        fn stretch(&self, wanted: Duration) -> Duration {
            wanted
        }

        fn seed(&self) -> u64 {
            0
        }

        fn offload(&self, work: Work) -> Working {
            work();
            Box::pin(std::future::ready(()))
        }

        fn has_threads(&self) -> bool {
            false
        }

        fn turn(&self, context: &mut Context<'_>) -> Poll<()> {
            if self.0.load(SeqCst) == 0 {
                return Poll::Ready(());
            }
            self.0.fetch_sub(1, SeqCst);
            context.waker().wake_by_ref();
            Poll::Pending
        }
    }

    #[tokio::test]
    async fn a_task_goes_on_when_its_host_says_so() {
        let left = Arc::new(AtomicU32::new(3));
        let env = Env::new(Slow(left.clone()));
        let seen = left.clone();
        let first = env.spawn(async move {
            assert_eq!(seen.load(SeqCst), 0, "the host was asked first");
            Env::current().seed()
        });
        assert_eq!(first.await.expect("it ends well"), 0);
        assert_eq!(left.load(SeqCst), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_takes_the_timer_of_one_that_was_given_up_and_is_not_shorter_for_that() {
        let (env, mut alarm) = (Env::system(), Alarm::default());
        let begin = env.now();
        let at = |ms| begin + Duration::from_millis(ms);
        assert!(env.timeout(Duration::from_millis(1), env.wake(&mut alarm, at(5))).await.is_err());
        assert_eq!(alarm.deadline(), Some(at(5)));
        assert!(env.timeout(Duration::from_millis(2), env.wake(&mut alarm, at(8))).await.is_err());
        assert_eq!(alarm.deadline(), Some(at(5)), "the timer stays as it is");
        env.wake(&mut alarm, at(8)).await;
        assert_eq!(env.now(), at(8));
        assert!(env.timeout(Duration::from_millis(1), env.wake(&mut alarm, at(30))).await.is_err());
        env.wake(&mut alarm, at(20)).await;
        assert_eq!(env.now(), at(20), "an earlier moment than that of the timer");
        env.wake(&mut alarm, at(3)).await;
        assert_eq!(env.now(), at(20), "a moment that has passed");
    }
}
