//! Threads that go ahead of others.

use std::io;
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// The priority of a thread that goes ahead of others, as of nice(1).
const AHEAD: i32 = -10;
/// The priority of any other.
const USUAL: i32 = 0;

/// A thread with a runtime of its own. It ends when this is dropped, and its tasks with it.
pub struct OwnThread {
    pub runtime: Handle,
    _alive: oneshot::Sender<()>,
}

impl OwnThread {
    /// Begins a thread called `name`, which goes ahead of others.
    pub fn begin(name: &str) -> io::Result<OwnThread> {
        let mut runtime = Builder::new_current_thread();
        // (A thread begins with the priority of the one that began it; those that wait for disks have none.)
        let runtime = runtime.enable_all().on_thread_start(|| set_priority(USUAL)).build()?;
        let handle = runtime.handle().clone();
        let (alive, ended) = oneshot::channel::<()>();
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            set_priority(AHEAD);
            let _ = runtime.block_on(ended);
            // (Work that hangs on a disk must not keep the thread.)
            runtime.shutdown_background();
        })?;
        Ok(OwnThread { runtime: handle, _alive: alive })
    }
}

/// Sets the calling thread's priority, if the system allows that: by it the kernel decides who gets a processor when
/// others want one too. (On Linux each thread has a priority of its own.)
fn set_priority(priority: i32) {
    if let Err(refused) = rustix::process::setpriority_process(None, priority) {
        tracing::debug!("a thread's priority can't be set to {priority}: {refused}");
    }
}
