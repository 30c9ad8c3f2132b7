//! **Few outcomes are unknown.** A client that waits for its finish is answered, unless its connection was lost, to a
//! fault or an election. A stop that was planned hands the role over first: it costs no outcome. (docs/operations.md)

use std::collections::BTreeMap;

use crate::history::{End, Manner, Record};
use crate::seen;

pub const UNKNOWN: &str = "few_unknown: unknown";
pub const STOPPED: &str = "few_unknown: finishes with planned stops";

/// The faults that must cost no outcome.
pub const PLANNED: [&str; 3] = ["stop", "hand_over", "clock_step"];

/// `faults`: how often each has begun.
pub fn check(record: &Record, faults: &BTreeMap<String, u64>, clients: usize) -> Result<(), String> {
    let unknown = |manner: Manner| {
        record.attempts.iter().filter(move |attempt| attempt.end == End::Unknown && attempt.manner == manner)
    };
    seen::check(UNKNOWN, (unknown(Manner::Waits).count() + unknown(Manner::Risks).count()) as u64);
    let begun = |planned: bool| {
        faults
            .iter()
            .filter(|(name, _)| PLANNED.contains(&name.as_str()) == planned)
            .map(|(_, times)| times)
            .sum::<u64>()
    };
    let disturbed = begun(false);
    if disturbed == 0 {
        if begun(true) > 0 {
            seen::check(STOPPED, record.attempts.iter().filter(|a| matches!(a.end, End::Committed(_))).count() as u64);
        }
        if let Some(lost) = unknown(Manner::Waits).next() {
            return Err(format!("few_unknown: no node or link failed, but the outcome of {lost:?} is unknown"));
        }
    }
    // Each client waits for one finish at a time; a fault may cost a connection when it begins, and when it ends.
    let most = clients as u64 * (2 * disturbed + record.elections);
    let met = unknown(Manner::Waits).count() as u64;
    if met > most {
        return Err(format!(
            "few_unknown: {met} outcomes are unknown, after {disturbed} faults and {} elections",
            record.elections
        ));
    }
    Ok(())
}
