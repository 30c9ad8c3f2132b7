//! Long reads for clients: on threads that may block, few at a time.
//!
//! The log and the store use the same threads: a client that could fill them with reads would hold up fsyncs and apply,
//! and with them the reign. So all long reads of a kind share a few turns; more of them wait, first come, first served.
//! A turn ends when its read has ended, not when its caller goes away; but then the read is asked to stop, so that a
//! client that asks and disconnects, again and again, gains nothing.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::env::Env;
use crate::storage::Stop;

/// The turns of one kind of long reads.
pub struct LongReads {
    env: Env,
    turns: Arc<Semaphore>,
}

/// Asks a read to stop when its caller goes away.
struct Caller(Stop);

impl Drop for Caller {
    fn drop(&mut self) {
        self.0.ask();
    }
}

impl LongReads {
    /// At most `most` reads at a time.
    pub fn new(env: &Env, most: usize) -> LongReads {
        LongReads { env: env.clone(), turns: Arc::new(Semaphore::new(most)) }
    }

    /// Does `read` when its turn comes. The read is asked to stop when the future is dropped.
    pub fn begin<T, R>(&self, read: R) -> impl Future<Output = T> + Send + use<T, R>
    where
        T: Send + 'static,
        R: FnOnce(&Stop) -> T + Send + 'static,
    {
        let (env, turns) = (self.env.clone(), self.turns.clone());
        async move {
            let turn = turns.acquire_owned().await.expect("the turns are never closed");
            let stop = Stop::default();
            let _caller = Caller(stop.clone());
            let read = move || {
                let _turn = turn;
                read(&stop)
            };
            env.offload(read).await
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_turn_ends_with_the_read_and_not_with_its_caller() {
        let env = Env::system();
        let reads = LongReads::new(&env, 1);
        let (begun, has_begun) = mpsc::channel();
        let (end, may_end) = mpsc::channel();
        let first = reads.begin(move |stop| {
            begun.send(stop.clone()).unwrap();
            may_end.recv().unwrap();
        });
        let mut first = Box::pin(first);
        let wait = Duration::from_millis(50);
        assert!(env.timeout(wait, &mut first).await.is_err());
        let stop = has_begun.recv().unwrap();
        stop.look().unwrap();
        let mut second = Box::pin(reads.begin(|stop| stop.look().is_ok()));
        assert!(env.timeout(wait, &mut second).await.is_err(), "there is one turn");
        drop(first);
        stop.look().unwrap_err();
        assert!(env.timeout(wait, &mut second).await.is_err(), "the first read still has it");
        end.send(()).unwrap();
        assert!(second.await);
        // A caller that goes away while it waits leaves the line.
        drop(reads.begin(|_| ()));
        reads.begin(|_| ()).await;
    }
}
