//! **One seat.** A number never has two seats, and a data folder is never seated under two numbers: not at one moment,
//! nor one after the other. And what has lost its seat to another folder of its number never gets it back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use zrs::server::Server;
use zrs::storage::Position;

use crate::seats::Seats;
use crate::seen;

pub const CHANGES: &str = "seats_once: changes of the members";
pub const FOLDERS: &str = "seats_once: nodes with another folder";

#[derive(Default)]
pub struct Seated {
    /// By entry of the log, the members that it makes.
    seen: BTreeMap<u64, Seats>,
    /// By folder, its number.
    numbers: BTreeMap<u64, u64>,
    /// By node, where it was at the last look.
    last: BTreeMap<u64, Position>,
}

impl Seated {
    /// Looks at what all nodes that run have applied.
    pub fn look(&mut self, servers: &BTreeMap<u64, Arc<Server>>) -> Result<(), String> {
        for (node, server) in servers {
            let Some(seats) = Seats::of(server.store()) else { continue };
            if self.last.insert(*node, seats.position) == Some(seats.position) {
                continue;
            }
            self.note(*node, seats)?;
        }
        Ok(())
    }

    fn note(&mut self, node: u64, seats: Seats) -> Result<(), String> {
        let fail = |why: String| Err(format!("seats_once: node {node} has at {:?} that {why}", seats.position));
        let numbers: BTreeSet<u64> = seats.numbers.values().copied().collect();
        if numbers.len() < seats.numbers.len() {
            return fail(format!("a number has two seats: {:?}", seats.numbers));
        }
        for (folder, number) in &seats.numbers {
            let known = *self.numbers.entry(*folder).or_insert(*number);
            if known != *number {
                return fail(format!("folder {folder:016x} of node {known} is node {number}'s"));
            }
        }
        if let Some(stranger) = seats.voters.iter().find(|folder| !seats.numbers.contains_key(folder)) {
            return fail(format!("folder {stranger:016x} votes and has no seat"));
        }
        let index = seats.position.index;
        if let Some(other) = self.seen.get(&index) {
            return if *other == seats { Ok(()) } else { fail(format!("{seats:?}, and another node has {other:?}")) };
        }
        // (An older one may be seen late, by a node that is behind.)
        let before = self.seen.range(..index).next_back().map(|(_, before)| before.clone());
        if let Some(before) = before {
            seen::check(CHANGES, 1);
            let votes = before.voters.symmetric_difference(&seats.voters).count();
            if votes > 1 && self.seen.range(index..).next().is_none() {
                return fail(format!("{:?} vote, and before that entry {:?} did", seats.voting(), before.voting()));
            }
            let other = |(folder, number): &(&u64, &u64)| before.folder(**number).is_some_and(|had| had != **folder);
            seen::check(FOLDERS, seats.numbers.iter().filter(other).count() as u64);
        }
        self.seen.insert(index, seats);
        Ok(())
    }
}
