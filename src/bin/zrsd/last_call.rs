//! Signals at the end of a life of the process that is to have another one.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// What becomes of a SIGTERM or SIGINT between the moment from which nobody waits for signals any more and the one in
/// which the process is another one.
pub struct LastCall {
    came: Arc<AtomicBool>,
    is_deadly: Arc<AtomicBool>,
}

impl LastCall {
    /// From now on signals are noted, beside what else heeds them.
    pub fn begin() -> io::Result<LastCall> {
        let call = LastCall { came: Arc::default(), is_deadly: Arc::default() };
        for number in [SIGTERM, SIGINT] {
            // (In this order: a signal that finds `is_deadly` unset has set `came` before.)
            flag::register(number, call.came.clone())?;
            flag::register_conditional_default(number, call.is_deadly.clone())?;
        }
        Ok(call)
    }

    /// Whether one came; the next one ends the process at once.
    pub fn is_over(&self) -> bool {
        self.is_deadly.store(true, Ordering::SeqCst);
        self.came.load(Ordering::SeqCst)
    }
}
