//! Threads that go ahead of others.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// The priority of a thread that goes ahead of others, as of nice(1).
const AHEAD: i32 = -10;
/// How long work that blocks may go on after the end.
const LAST: Duration = Duration::from_secs(1);
/// The priority of any other.
const USUAL: i32 = 0;

/// A thread with a runtime of its own. It ends when this is dropped, and its tasks with it.
pub struct OwnThread {
    pub runtime: Handle,
    /// Dropped to end the thread.
    alive: Mutex<Option<oneshot::Sender<()>>>,
    /// Gives an error once the thread's tasks are gone.
    tasks: Mutex<Option<oneshot::Receiver<()>>>,
}

impl OwnThread {
    /// Begins a thread called `name`, which goes ahead of others.
    pub fn begin(name: &str) -> io::Result<OwnThread> {
        let mut runtime = Builder::new_current_thread();
        // (A thread begins with the priority of the one that began it; those that wait for disks have none.)
        let runtime = runtime.enable_all().on_thread_start(|| set_priority(USUAL)).build()?;
        let handle = runtime.handle().clone();
        let (alive, ended) = oneshot::channel::<()>();
        let (working, tasks) = oneshot::channel::<()>();
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            set_priority(AHEAD);
            let _ = runtime.block_on(ended);
            // (Work that hangs on a disk must not keep the thread.)
            runtime.shutdown_timeout(LAST);
            drop(working);
        })?;
        Ok(OwnThread { runtime: handle, alive: Mutex::new(Some(alive)), tasks: Mutex::new(Some(tasks)) })
    }

    /// Ends the thread, and returns once its tasks are gone.
    pub async fn end(&self) {
        drop(self.alive.lock().unwrap_or_else(PoisonError::into_inner).take());
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(tasks) = tasks {
            let _ = tasks.await;
        }
    }
}

/// Sets the calling thread's priority, if the system allows that: by it the kernel decides who gets a processor when
/// others want one too. (On Linux each thread has a priority of its own.)
fn set_priority(priority: i32) {
    if let Err(refused) = rustix::process::setpriority_process(None, priority) {
        tracing::debug!("a thread's priority can't be set to {priority}: {refused}");
    }
}
