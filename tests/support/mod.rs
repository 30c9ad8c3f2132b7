//! Real processes for tests: nodes of `zrsd`, and Python workers with stock clients.
//!
//! Nodes are started by their command line, watched through their HTTP address, and killed; nothing here knows the
//! server's code. The data and logs of a test that panics are kept, and the ends of the logs are printed.

#![allow(dead_code)] // (each test program uses a part)

pub mod cluster;
pub mod http;
pub mod ports;
pub mod python;
pub mod zrsctl;

use std::time::{Duration, Instant};

/// How long to wait for something that takes well under a second on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// Calls `look` until it gives something, and returns that.
///
/// # Panics
/// If that takes longer than `within`; `what` names what was waited for.
pub fn wait_for<T>(what: impl Fn() -> String, within: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {}", what());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A generator of chance, whose seed is printed; `ZRS_SEED=N` repeats it.
pub fn chance() -> impl FnMut(u64) -> u64 {
    let seed = std::env::var("ZRS_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(1, |d| u64::from(d.subsec_nanos()) | 1)
    });
    println!("ZRS_SEED={seed}");
    let mut state: u64 = seed;
    move |below| {
        // splitmix64
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }
}
