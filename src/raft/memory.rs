//! What this node remembers of the other members, and what it knows of its own past.
//!
//! **How an old copy is found out.** In each handshake the initiator says what it remembers of the acceptor, and then
//! each side what it has itself. (In this order: a node says what it has after the other one has looked up what it
//! remembers, so that nothing proven meanwhile on another connection can seem to be missing.) A side that lacks what it
//! had proven is *excluded*: it takes no part any more, and says so. That is kept in its folder; the way back is the
//! newer folder.
//!
//! **What is remembered.** Votes that were granted, entries that were acknowledged or that a leader says it has synced,
//! and starts. In memory at once; in the log's slots every few seconds, and at an orderly end. After a crash it may
//! be a little less than was proven: then an old copy may not be found out, but no good one is refused.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::log::{LogStore, value};
use super::past::{Past, Start};
use super::types::{Ballot, Incarnation};
use crate::env::{Env, Watch};
use crate::journal::Values;

/// Characters of a refusal that are kept: it may have come from anybody.
const REFUSAL: usize = 500;
/// Nodes that refuse each other try again all the time, so an older refusal is over.
const REFUSAL_AGE: Duration = Duration::from_secs(60);

/// By how much a person's word raises the number of starts: above those of all copies that may have run.
const ADOPTED: u64 = 1 << 20;

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
    /// The last refusal between this node and another one, by that node's number, and when it was.
    refusals: Mutex<BTreeMap<u64, (Instant, String)>>,
    /// Why this node takes no part.
    excluded: Watch<Option<String>>,
    /// Whether the folder is a copy: it stays as it is then.
    is_copy: bool,
    env: Env,
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
    /// Reads what was kept, and counts this start. `copied`: why the folder is known to be a copy; it stays as it is
    /// then.
    pub async fn open(log: LogStore, env: Env, copied: Option<String>) -> io::Result<Memory> {
        let last: Start = log.value(START)?.unwrap_or_default();
        // (It is worth less than a node that starts.)
        let proven =
            log.value(PROVEN).inspect_err(|fault| tracing::warn!("what members have shown is forgotten: {fault}"));
        let proven = proven.ok().flatten().unwrap_or_default();
        let is_copy = copied.is_some();
        let noted: Option<String> = log.value(EXCLUDED)?;
        let excluded = copied.or(noted.filter(|why| !why.is_empty()));
        let start = Start { number: last.number.saturating_add(1), id: env.seed() };
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
            is_copy,
            env,
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

    /// Keeps in the folder that this node takes no part, for starts at which nobody is there who knows. (A copy is
    /// known as such at each start, until it is adopted.)
    pub async fn keep_excluded(&self) -> io::Result<()> {
        let why = self.shared.excluded.look().clone();
        match why {
            Some(why) if !self.shared.is_copy => self.shared.log.set_value(EXCLUDED, &why).await,
            _ => Ok(()),
        }
    }

    /// Notes why node `node` was refused, or has refused this one; `None`: the two have shaken hands.
    pub fn refusal(&self, node: u64, why: Option<&str>) {
        let mut refusals = lock(&self.shared.refusals);
        match why {
            Some(why) => refusals.insert(node, (self.shared.env.now(), why.chars().take(REFUSAL).collect())),
            None => refusals.remove(&node),
        };
    }

    /// The refusal between this node and node `node` within the last minute, if they have not shaken hands since.
    pub fn refusal_of(&self, node: u64) -> Option<String> {
        let now = self.shared.env.now();
        let refusals = lock(&self.shared.refusals);
        let recent = refusals.get(&node).filter(|(at, _)| now.saturating_duration_since(*at) < REFUSAL_AGE);
        recent.map(|(_, why)| why.clone())
    }
}

/// What a journal's values are to be changed to when a person vouches for the folder: it is not excluded, and is newer
/// than any other copy that has run. What it had shown otherwise still counts.
pub fn vouched(values: &Values) -> io::Result<Vec<(&'static str, Vec<u8>)>> {
    let last: Start = value(values, START)?.unwrap_or_default();
    let start = Start { number: last.number.saturating_add(ADOPTED), ..last };
    let bytes = |plain: postcard::Result<Vec<u8>>| plain.expect("values of the log are plain data");
    Ok(vec![(START, bytes(postcard::to_stdvec(&start))), (EXCLUDED, bytes(postcard::to_stdvec("")))])
}

/// How many starts the folder with these values has seen.
pub fn starts(values: &Values) -> io::Result<u64> {
    Ok(value::<Start>(values, START)?.unwrap_or_default().number)
}

/// Why the folder with these values is excluded, if it is.
pub fn excluded(values: &Values) -> io::Result<Option<String>> {
    Ok(value::<String>(values, EXCLUDED)?.filter(|why| !why.is_empty()))
}

/// What is wrong with the data of node `node`, which node `reminded_by` knows.
pub fn outdated(node: u64, reminded_by: u64, lack: &str) -> String {
    format!(
        "node {node}'s data is older than what it had shown to node {reminded_by}: {lack}. Commits that it had \
         acknowledged may be missing, so it takes no part. Put its newest folder back, and zrsctl adopt --data DIR it if \
         it was copied; if there is none, keep this one, and treat the node as one that lost its disk"
    )
}
