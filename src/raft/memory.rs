//! What this node remembers of the other members, and what it knows of its own past.
//!
//! **How an old copy is found out.** In each handshake the initiator says what it remembers of the acceptor, and then
//! each side what it has itself. (In this order: a node says what it has after the other one has looked up what it
//! remembers, so that nothing proven meanwhile on another connection can seem to be missing.) A side that lacks what it
//! had proven is *excluded*: it takes no part any more, and says so. That is kept in its folder; the way back is the
//! newer folder, or an empty one.
//!
//! **What is remembered.** Votes that were granted, entries that were acknowledged or that a leader says it has synced,
//! and starts. In memory at once; in the log's slots every few seconds, and at an orderly end. After a crash it may
//! be a little less than was proven: then an old copy may not be found out, but no good one is refused.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::log::LogStore;
use super::past::{Past, Start};
use super::types::{Ballot, Incarnation};
use crate::env::Watch;

const START: &str = "start";
const PROVEN: &str = "proven";
const EXCLUDED: &str = "excluded";

/// The memory of a node; cheap to clone.
#[derive(Clone)]
pub struct Memory {
    shared: Arc<Shared>,
}

struct Shared {
    log: LogStore,
    start: Start,
    proven: Mutex<BTreeMap<Incarnation, Known>>,
    /// Whether `proven` has more than the disk.
    grown: AtomicBool,
    /// The last refusal between this node and another one, by that node's number.
    refusals: Mutex<BTreeMap<u64, String>>,
    /// Why this node takes no part.
    excluded: Watch<Option<String>>,
}

/// What is remembered of a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    past: Past,
    /// The newest command format that the member knew when the two last met; 0: they have not.
    format: u8,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Memory {
    /// Reads what was kept, and counts this start, whose id is `id`. `copied`: why the folder is known to be a copy; it
    /// stays as it is then.
    pub async fn open(log: LogStore, id: u64, copied: Option<String>) -> io::Result<Memory> {
        let last: Start = log.value(START)?.unwrap_or_default();
        let proven = log.value(PROVEN)?.unwrap_or_default();
        let excluded = copied.or(log.value(EXCLUDED)?);
        let start = Start { number: last.number + 1, id };
        if excluded.is_none() {
            log.set_value(START, &start).await?;
        }
        let shared = Shared {
            log,
            start,
            proven: Mutex::new(proven),
            grown: AtomicBool::new(false),
            refusals: Mutex::default(),
            excluded: Watch::new(excluded),
        };
        Ok(Memory { shared: Arc::new(shared) })
    }

    /// What this node has on its disk now.
    pub fn own(&self) -> io::Result<Past> {
        let (entries, vote) = self.shared.log.durable_now()?;
        Ok(Past { start: self.shared.start, vote, entries })
    }

    /// What a member is known to have had.
    pub fn of(&self, member: Incarnation) -> Option<Past> {
        lock(&self.shared.proven).get(&member).map(|known| known.past)
    }

    /// The newest command format that a member knows, as far as it is known.
    pub fn format_of(&self, member: Incarnation) -> Option<u8> {
        lock(&self.shared.proven).get(&member).map(|known| known.format).filter(|format| *format > 0)
    }

    /// Remembers what a member has said of itself in a handshake. (Not its entries: some of them may be about to be
    /// replaced by those of the leader that it has just voted for.)
    pub fn met(&self, member: Incarnation, said: Past, format: u8) {
        self.note(member, Past { entries: 0, ..said }, Some(format));
    }

    /// Remembers that a member has this vote on its disk, and so many entries of the leader that it names.
    pub fn saw(&self, member: Incarnation, vote: Ballot, entries: u64) {
        self.note(member, Past { start: Start::default(), vote: Some(vote), entries }, None);
    }

    fn note(&self, member: Incarnation, past: Past, format: Option<u8>) {
        let mut proven = lock(&self.shared.proven);
        let known = proven.entry(member).or_default();
        let format = format.unwrap_or(known.format);
        let other = format != known.format;
        known.format = format;
        if known.past.raise(&past) || other {
            self.shared.grown.store(true, Ordering::Relaxed);
        }
    }

    /// Takes what is remembered of `members` to the disk, if there is anything new.
    pub async fn keep(&self, members: &[Incarnation]) -> io::Result<()> {
        if !self.shared.grown.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let proven = {
            let mut proven = lock(&self.shared.proven);
            proven.retain(|member, _| members.contains(member));
            proven.clone()
        };
        self.shared.log.set_value(PROVEN, &proven).await
    }

    /// Why this node takes no part; changes wake the receiver.
    pub fn excluded(&self) -> &Watch<Option<String>> {
        &self.shared.excluded
    }

    /// Takes this node out, for good.
    pub fn exclude(&self, why: String) {
        self.shared.excluded.send_if(|excluded| {
            let first = excluded.is_none();
            if first {
                *excluded = Some(why);
            }
            first
        });
    }

    /// Keeps in the folder that this node takes no part.
    pub async fn keep_excluded(&self, why: &String) -> io::Result<()> {
        self.shared.log.set_value(EXCLUDED, why).await
    }

    /// Notes why node `node` was refused, or has refused this one; `None`: the two have shaken hands.
    pub fn refusal(&self, node: u64, why: Option<&str>) {
        let mut refusals = lock(&self.shared.refusals);
        match why {
            Some(why) => refusals.insert(node, why.to_owned()),
            None => refusals.remove(&node),
        };
    }

    /// The last refusal between this node and node `node`, if they have not shaken hands since.
    pub fn refusal_of(&self, node: u64) -> Option<String> {
        lock(&self.shared.refusals).get(&node).cloned()
    }
}

/// What is wrong with the data of node `node`, which node `reminded_by` knows.
pub fn outdated(node: u64, reminded_by: u64, lack: &str) -> String {
    format!(
        "node {node}'s data is older than what it had shown to node {reminded_by}: {lack}. Commits that it had \
         acknowledged may be missing, so it takes no part: put its newest folder back, or give it an empty one"
    )
}
