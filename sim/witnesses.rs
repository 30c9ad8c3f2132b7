//! The witnesses of the nodes: a killed process can't say anything more, and its witness says so to the others. (With
//! the power the witness is lost, too.) What the witness's process and the port for it do is left to the tests of the
//! real programs; here it is what nodes do who are told, at once or much too late.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::chance::Chance;

/// Words of a primary's end that have reached a node.
pub const HEARD: &str = "one_primary: obituaries";

/// How long such a word takes as a rule, in milliseconds; and at times, as the network keeps it.
const SOON: std::ops::Range<u64> = 1..15;
const LATE: std::ops::Range<u64> = 15..4_000;

pub struct Witnesses {
    chance: Chance,
    /// What the witness of each node was told last, in this life of the node.
    wills: BTreeMap<u64, Vec<u8>>,
    sent: Vec<Sent>,
}

struct Sent {
    due: Duration,
    from: u64,
    to: u64,
    frame: Vec<u8>,
}

impl Witnesses {
    pub fn new(seed: u64) -> Witnesses {
        Witnesses { chance: Chance::of(seed, "witnesses"), wills: BTreeMap::new(), sent: Vec::new() }
    }

    /// Tells the witness of a node what to send at the node's end.
    pub fn tell(&mut self, node: u64, frame: Vec<u8>) {
        self.wills.insert(node, frame);
    }

    /// The power of a node is gone, and its witness with it.
    pub fn forget(&mut self, node: u64) {
        self.wills.remove(&node);
    }

    /// The process of node `from` has ended. It may have led long ago.
    pub fn saw_the_end(&mut self, now: Duration, from: u64, others: impl Iterator<Item = u64>) {
        let Some(frame) = self.wills.remove(&from) else { return };
        for to in others {
            let late = self.chance.once_in(4);
            let due = now + self.chance.millis(if late { LATE } else { SOON });
            self.sent.push(Sent { due, from, to, frame: frame.clone() });
        }
    }

    /// What arrives by now: from whom, at whom, and the frame.
    pub fn arrived(&mut self, now: Duration) -> Vec<(u64, u64, Vec<u8>)> {
        let arrived = self.sent.extract_if(.., |sent| sent.due <= now);
        arrived.map(|Sent { from, to, frame, .. }| (from, to, frame)).collect()
    }
}
