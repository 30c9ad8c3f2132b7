//! **A vote is a promise.** A transaction that was voted commits when its client finishes it, and is refused by nobody:
//! its locks are held until the outcome is known. Only the end of the reign, or of the connection, may come between.
//! Nor is a vote refused for anything but a conflict, or an object that is not there, or a record that a pack which
//! goes on can't read. (`src/tpc/mod.rs`)

use crate::history::Record;
use crate::seen;
use crate::stream::Event;

pub const MISSING: &str = "votes_are_kept: missing objects";
pub const FINISHES: &str = "votes_are_kept: finishes";

/// Why a vote is refused whose records may refer to anything.
const UNREADABLE: &str = "while a pack is going on, object ";

pub fn check(record: &Record) -> Result<(), String> {
    let has_junk = record.has_junk();
    for (number, stream) in record.streams.iter().enumerate() {
        let mut voted = None;
        for event in &stream.events {
            match event {
                Event::Voted { mark, .. } => voted = Some(*mark),
                Event::Finished { mark, .. } if voted != Some(*mark) => {
                    return Err(format!("votes_are_kept: {}: {event:?} without a vote", stream.name(number)));
                }
                Event::Finished { .. } => seen::check(FINISHES, 1),
                Event::Missing { .. } => seen::check(MISSING, 1),
                Event::Refused { finish: false, why, .. } if has_junk && why.contains(UNREADABLE) => {}
                Event::Refused { .. } => {
                    return Err(format!("votes_are_kept: {}: {event:?}", stream.name(number)));
                }
                _ => {}
            }
        }
    }
    Ok(())
}
