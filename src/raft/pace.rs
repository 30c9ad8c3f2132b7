//! How fast a database is fetched.

use tokio::time::Instant;

use crate::env::Env;

/// How fast something is fetched: where it began, in time and in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    since: Instant,
    from: u64,
}

impl Pace {
    /// From now on, with `done` bytes there.
    pub fn begin(env: &Env, done: u64) -> Pace {
        Pace { since: env.now(), from: done }
    }

    /// Bytes in a second on average, until now, with `done` bytes there.
    pub fn rate(&self, env: &Env, done: u64) -> u64 {
        let seconds = env.now().saturating_duration_since(self.since).as_secs_f64();
        if seconds > 0.0 { (done.saturating_sub(self.from) as f64 / seconds) as u64 } else { 0 }
    }
}
