//! Chance from a seed.
//!
//! Every part of a run draws from a generator of its own, made from the run's seed and the part's name: so a change in
//! one part (a client that reads once more) does not change what another part draws (the node that is killed).

use std::time::Duration;

/// A generator (splitmix64).
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The generator of the part called `name` in the run of `seed`.
    pub fn of(seed: u64, name: &str) -> Chance {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_be_bytes()).update(name.as_bytes());
        let bytes: [u8; 8] = hasher.finalize().as_bytes()[..8].try_into().unwrap();
        Chance(u64::from_be_bytes(bytes))
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.number() % end
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// A number of milliseconds in the range.
    pub fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(range.start + self.below(range.end - range.start))
    }

    /// One of them.
    pub fn one_of<T: Copy>(&mut self, among: &[T]) -> T {
        among[self.below(among.len() as u64) as usize]
    }
}
