//! A gate: while it is closed, nothing goes on behind it; when it opens, all that waits goes on, first come first.

use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

/// A gate, open at first.
#[derive(Default)]
pub struct Gate(Mutex<State>);

#[derive(Default)]
struct State {
    is_closed: bool,
    waiting: Vec<Waker>,
}

impl Gate {
    pub fn close(&self) {
        self.0.lock().unwrap().is_closed = true;
    }

    /// Opens the gate, and wakes what waits.
    pub fn open(&self) {
        let waiting = {
            let mut state = self.0.lock().unwrap();
            state.is_closed = false;
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    pub fn is_closed(&self) -> bool {
        self.0.lock().unwrap().is_closed
    }

    /// Ready while the gate is open; else the task is woken when it opens.
    pub fn poll(&self, context: &Context<'_>) -> Poll<()> {
        let mut state = self.0.lock().unwrap();
        if !state.is_closed {
            return Poll::Ready(());
        }
        if state.waiting.iter().all(|waker| !waker.will_wake(context.waker())) {
            state.waiting.push(context.waker().clone());
        }
        Poll::Pending
    }

    /// Waits until the gate is open.
    pub async fn pass(&self) {
        std::future::poll_fn(|context| self.poll(context)).await;
    }
}
