//! Cancelling: ends a long read whose answer is no longer awaited.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

/// Shared by a long read and the task that waits for its answer; clones are the same one. The default does not stop.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Tells the read that its answer is not wanted any more.
    pub fn ask(&self) {
        self.0.store(true, Relaxed);
    }

    /// An error of the kind `Interrupted` once the read was asked to stop. A long read calls this for every record;
    /// beside reading the record it costs nothing.
    pub fn look(&self) -> io::Result<()> {
        if self.0.load(Relaxed) {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "the read was stopped: its client is gone"));
        }
        Ok(())
    }
}
