//! The simulation: a whole cluster and its clients in one thread, in virtual time, by a seed.
//!
//! The real server, storage, log and client run over simulated seams (`zrs::net::Network`, `zrs::env::World`,
//! `zrs::engine::SimDisk`); nothing above the seams knows. Each seed draws its own network delays, disk delays, clocks,
//! load and faults; the promises that must hold all the same stand in `checks/`. A seed's run is the same each time, so
//! that a failure can be looked at as often as it takes.
//!
//! ```text
//! cargo test --test sim                      the everyday seeds
//! SEED=7 cargo test --test sim               one seed, twice, and its story
//! SEEDS=500 FROM=1000 cargo test --test sim  many
//! SHRINK=7 cargo test --test sim             one that fails, with as few faults as can be
//! TRACE=/tmp/t SEED=7 cargo test --test sim  writes the events to /tmp/t.7.1 and /tmp/t.7.2
//! LOG=zrs=debug SEED=7 cargo test --test sim -- with the servers' log, in virtual time, on standard error
//! ```
//!
//! | to be found in | |
//! |---|---|
//! | `runner` | the parent process, which hands out the seeds, and its children, which run them |
//! | `run` | one run, from its first millisecond to its verdict |
//! | `faults/` | the faults: a menu, one fault an item |
//! | `workload/` | what Rust clients do: a menu, one workload a file |
//! | `zeo/` | clients that speak the protocol as Python's does, and what these do: a menu, one act a file |
//! | `checks/` | what must hold: one promise a file |
//! | `cluster`, `node`, `folder`, `links`, `network`, `host`, `disk` | the simulated hosts, and the seams |
//! | `members`, `seats` | who has a seat, and which folders may be lost |
//! | `witnesses` | what the witness of a killed node says |
//! | `moments` | where in the middle of something a fault may hit a node |
//! | `things`, `value` | the objects that clients share, and their states |
//! | `history`, `stream` | what clients did and were sent; `model`: the database that follows from it |
//! | `ledger`, `packs` | what nodes were seen to apply; `packed`: what packs may leave of it |
//! | `seen`, `trace` | what is written down for people, and for `repeat` |
//! | `shrink`, `excerpt` | a failed run with as few faults as can be |
//! | `chance` | a stream of chance for each part, from the seed and the part's name |
//!
//! docs/testing.md says how to add a fault, a workload or a check.

mod chance;
mod checks;
mod cluster;
mod disk;
mod excerpt;
mod faults;
mod folder;
mod gate;
mod history;
mod host;
mod ledger;
mod links;
mod members;
mod model;
mod moments;
mod network;
mod node;
mod packed;
mod packs;
mod repeat;
mod run;
mod runner;
mod seats;
mod seen;
mod shrink;
mod stream;
mod things;
mod trace;
mod value;
mod witnesses;
mod workload;
mod zeo;

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Ok(seeds) = std::env::var(runner::CHILD) {
        runner::child(&seeds);
        return ExitCode::SUCCESS;
    }
    // `cargo test NAME` gives every test program the name, and wants only tests that are called so.
    let mut arguments = std::env::args().skip(1);
    if arguments
        .any(|argument| argument == "--list" || !(argument.starts_with('-') || "simulation".contains(&argument)))
    {
        println!("0 passed, 0 failed");
        return ExitCode::SUCCESS;
    }
    match runner::number("SHRINK") {
        Some(seed) => shrink::parent(seed),
        None => runner::parent(),
    }
}
