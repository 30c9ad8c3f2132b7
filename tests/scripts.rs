//! Golden scripts: stories for machines, with what they answered printed beneath each line ([`runner`]).

#[path = "scripts/packing.rs"]
mod packing;
#[path = "scripts/runner.rs"]
mod runner;
#[path = "scripts/storage.rs"]
mod storage;
#[path = "scripts/tpc.rs"]
mod tpc;

use runner::play_all;

#[test]
fn two_phase_commit() {
    play_all("tpc", || {
        let mut stage = tpc::Stage::default();
        move |input: &str| stage.play(input)
    });
}

#[test]
fn the_storage() {
    play_all("storage", || {
        let mut stage = storage::Stage::default();
        move |input: &str| stage.play(input)
    });
}
