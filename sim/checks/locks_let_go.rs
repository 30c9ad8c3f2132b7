//! **A vote waits for nobody who is gone.** A vote is answered as soon as no transaction before it holds or wants the
//! same objects: those that have ended, have been aborted, or have lost their clients don't count any more.
//! (`src/tpc/mod.rs`)
//!
//! Looked at in runs in which nothing goes wrong, as there only locks make a vote wait for long.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::history::{Attempt, Record};
use crate::seen;

pub const VOTES: &str = "locks_let_go: votes";
pub const WAITED: &str = "locks_let_go: votes that waited";

/// The faults that let no vote wait.
pub const HARMLESS: [&str; 1] = ["clock_step"];
/// How long an answer may take beside that: slow disks, a slow network, a connection whose end is noticed late, a
/// pack's step with the same objects, data that go ahead. (A lock that nobody frees lasts until the transaction's
/// timeout.)
const SLACK: Duration = Duration::from_millis(2_000);
/// By how much a vote that was sent later may have come earlier.
const OVERTAKES: Duration = Duration::from_millis(200);

pub fn check(record: &Record, faults: &BTreeMap<String, u64>) -> Result<(), String> {
    if faults.iter().any(|(name, times)| *times > 0 && !HARMLESS.contains(&name.as_str())) {
        return Ok(());
    }
    for attempt in &record.attempts {
        for (asked, answered) in &attempt.votes {
            seen::check(VOTES, 1);
            seen::check(WAITED, u64::from(*answered > *asked + SLACK));
            let excused = excused(record, attempt, *asked);
            if *answered > excused + SLACK {
                return Err(format!(
                    "locks_let_go: the vote of attempt {} of client {} at {asked:?} was answered at {answered:?}, but \
                     from {excused:?} on there was no other transaction before it with the same objects",
                    attempt.mark, attempt.client
                ));
            }
        }
    }
    Ok(())
}

/// The moment from which on there was nobody to wait for: no transaction that had voted before on the same objects.
fn excused(record: &Record, attempt: &Attempt, asked: Duration) -> Duration {
    let came_before = |other: &&Attempt| {
        let voted = other.votes.first().map_or(other.began, |(asked, _)| *asked);
        other.mark != attempt.mark && voted < asked + OVERTAKES && other.ended > asked
    };
    let meets = |other: &&Attempt| attempt.objects().any(|oid| other.objects().any(|its| its == oid));
    record.attempts.iter().filter(came_before).filter(meets).map(|other| other.ended).max().unwrap_or(asked)
}
