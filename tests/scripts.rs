//! Golden scripts: stories for machines, with what they answered printed beneath each line ([`runner`]).

#[path = "scripts/runner.rs"]
mod runner;
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
