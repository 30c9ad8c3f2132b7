//! The trace of a run: everything that nodes and clients did to the world, in order.
//!
//! An event has the virtual time, the host or connection, a kind, and bytes: those that were written to a connection,
//! a batch that was written to a disk, what a fault did. The hash over all events is what `repeat` compares; with
//! `TRACE=file` the events themselves are kept, so that the first one that differs can be found with `diff`.
//!
//! The trace is its thread's own: a run is one thread.

use std::cell::RefCell;
use std::time::Duration;

/// A trace, in short.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Summary {
    /// Over all events.
    pub hash: String,
    pub events: u64,
}

#[derive(Default)]
struct Trace {
    hasher: blake3::Hasher,
    events: u64,
    /// The virtual time between the steps, when no host runs whose clock could be asked.
    now: Duration,
    lines: Option<Vec<String>>,
}

thread_local! {
    static TRACE: RefCell<Trace> = RefCell::default();
}

/// Forgets the last run. `keep`: the events themselves are kept.
pub fn begin(keep: bool) {
    TRACE.with(|trace| *trace.borrow_mut() = Trace { lines: keep.then(Vec::new), ..Trace::default() });
}

/// Sets the virtual time between two steps of the simulation.
pub fn step(now: Duration) {
    TRACE.with(|trace| trace.borrow_mut().now = now);
}

/// The virtual time since the run began.
pub fn now() -> Duration {
    turmoil::sim_elapsed().unwrap_or_else(|| TRACE.with(|trace| trace.borrow().now))
}

/// Adds an event of the host or connection `who`.
pub fn event(who: &str, kind: &str, bytes: &[u8]) {
    let at = now();
    TRACE.with(|trace| {
        let mut trace = trace.borrow_mut();
        trace.events += 1;
        let lengths = [who.len() as u64, kind.len() as u64, bytes.len() as u64].map(u64::to_be_bytes).concat();
        trace.hasher.update(&at.as_nanos().to_be_bytes()).update(&lengths);
        trace.hasher.update(who.as_bytes()).update(kind.as_bytes()).update(bytes);
        if let Some(lines) = &mut trace.lines {
            let hex: String = bytes.iter().take(400).map(|byte| format!("{byte:02x}")).collect();
            lines.push(format!("{:>10.6} {who} {kind} {} {hex}", at.as_secs_f64(), bytes.len()));
        }
    });
}

/// The summary of the trace so far.
pub fn summary() -> Summary {
    TRACE.with(|trace| {
        let trace = trace.borrow();
        Summary { hash: trace.hasher.finalize().to_hex()[..32].to_owned(), events: trace.events }
    })
}

/// The events themselves, if they were kept.
pub fn lines() -> Vec<String> {
    TRACE.with(|trace| trace.borrow_mut().lines.take().unwrap_or_default())
}
