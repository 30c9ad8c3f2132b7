//! Long reads end early when nobody waits for them any more.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

/// Shared by a long read and whoever waits for it; clones are the same. The default was not asked to stop.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Nobody waits any more.
    pub fn ask(&self) {
        self.0.store(true, Relaxed);
    }

    /// An error if nobody waits any more. A long read looks at every record; that costs nothing beside reading it.
    pub fn look(&self) -> io::Result<()> {
        if self.0.load(Relaxed) {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "nobody waits for this read any more"));
        }
        Ok(())
    }
}
