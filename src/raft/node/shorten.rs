//! Shortens the log: entries go that are on disk in the store, that are old or too many, and that nobody needs.
//!
//! | entries that | stay |
//! |---|---|
//! | are not yet durable in this node's store | always: after a crash they are applied again |
//! | follow a checkpoint that another node fetches | as long as it does |
//! | a node lacks that fetches a checkpoint, from any member | as long as it does; see `followed` |
//! | a member lacks that has fetched one within the last hour | until it has caught up (only the primary knows) |
//! | are younger than `--log-keep` | while the log has no more than `--log-size` |
//! | a member lacks that was heard within `--log-keep` | the same (only the primary knows) |
//!
//! So a node that was away for less than `--log-keep` comes back by the log, others by a checkpoint; and a member that
//! is there and slow does not pin the log for ever.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::inner::{Inner, Role};
use super::status;
use crate::config::limits;
use crate::raft::machine::Raft;
use crate::raft::members::ON_THEIR_WAY;

/// Shortens the log until the node stops.
pub async fn shorten_the_log(node: Arc<Inner>, raft: Raft) {
    let mut marks = Marks::every((node.config.log_keep / limits::LOG_MARKS).min(limits::MARK_LOG));
    while !node.stopping() {
        node.env().sleep(limits::SHORTEN_LOOK).await;
        node.checkpoints.sweep(node.fitness.no_room().is_some());
        node.catch_up.tidy().await;
        let now = node.env().now();
        marks.note(now, node.log.durable_now().map_or(0, |(entries, _)| entries));
        let wanted = Wanted {
            flushed: node.flushed.look().index,
            held: node.checkpoints.floor().into_iter().chain(followed(&node, &raft)).min(),
            old: marks.older_than(now, node.config.log_keep),
            needed: needed(&node, &raft),
            too_many: node.log.beyond(node.config.log_size),
        };
        // (Only whole files go: fewer entries than that would be missed, and make no room.)
        let gone = node.log.whole_files(wanted.entries());
        if gone <= node.log.purged().map_or(0, |place| place.index + 1) {
            continue;
        }
        if let Err(fatal) = purge(&node, &raft, gone).await {
            tracing::debug!("the log can't be shortened: {fatal}");
            return;
        }
    }
}

/// Has openraft purge the first `entries` entries, which it does after it has *built a snapshot* (it learns what the
/// store has flushed).
async fn purge(
    node: &Inner,
    raft: &Raft,
    entries: u64,
) -> Result<(), openraft::errors::Fatal<crate::raft::types::Types>> {
    let has_snapshot = |raft: &Raft| raft.metrics().look().snapshot.is_some_and(|last| last.index + 1 >= entries);
    if !has_snapshot(raft) {
        raft.trigger().snapshot().await?;
        for _ in 0..limits::SNAPSHOT_LOOKS {
            if has_snapshot(raft) {
                break;
            }
            node.env().sleep(node.config.heartbeat).await;
        }
    }
    // (Before openraft learns of it: it asks for what stands for the entries that go.)
    if has_snapshot(raft) && node.log.let_go(entries).await.is_ok() {
        raft.trigger().purge_log(entries - 1).await?;
        if let Some(running) = node.running.get() {
            running.peers.let_go(entries);
        }
    }
    Ok(())
}

/// How many entries every node has that fetches a database, from whomever; on the primary, also every member that has
/// fetched one lately, and has not caught up since. Without the ones that follow it would have to begin again, and
/// again, and any node may be the primary by then. But one that is away, or much too slow, must not fill this disk.
fn followed(node: &Inner, raft: &Raft) -> Option<u64> {
    let most = node.config.log_size.saturating_mul(2).max(limits::LOG_FOLLOWED);
    let is_too_much = node.log.size() > most || node.fitness.no_room().is_some();
    if is_too_much {
        return None;
    }
    let status = status::describe(node, Some(raft));
    let described = |folder| {
        let member = node.member_of(folder)?;
        status.members.iter().find(|described| described.node == member.id)
    };
    let entries = |folder| described(folder)?.log;
    let is_done = |folder| entries(folder).is_none_or(|entries| entries + ON_THEIR_WAY >= status.log);
    let away = |folder| {
        let silence = described(folder).and_then(|member| member.answered_ms).map(Duration::from_millis);
        silence.is_some_and(|silence| silence > limits::FOLLOWER_AWAY)
    };
    let followers = node.checkpoints.followers(is_done).into_iter().filter(|(folder, _)| !away(*folder));
    // (One that has not begun to follow reads what it has fetched, and is at the checkpoint's position.)
    followers.map(|(folder, position)| entries(folder).unwrap_or(0).max(position)).min()
}

/// On the primary: how many entries every member has that was heard lately; `None`: nothing is known, or asked for.
fn needed(node: &Inner, raft: &Raft) -> Option<u64> {
    if !matches!(node.role(), Role::Primary(_)) {
        return None;
    }
    let heard = |member: &&status::MemberStatus| {
        member.silence_ms.is_some_and(|silence| Duration::from_millis(silence) < node.config.log_keep)
    };
    let status = status::describe(node, Some(raft));
    let others = status.members.iter().filter(|member| member.node != status.node);
    others.filter(heard).map(|member| member.log.unwrap_or(0)).min()
}

/// What speaks for and against the purge of the log's first entries: how many of them.
struct Wanted {
    flushed: u64,
    held: Option<u64>,
    old: u64,
    needed: Option<u64>,
    too_many: u64,
}

impl Wanted {
    /// How many entries are to go. (One entry always stays, as openraft's own checks of a log go by its last entry.)
    fn entries(&self) -> u64 {
        let may = self.flushed.min(self.held.unwrap_or(u64::MAX)).saturating_sub(1);
        let not_needed = self.old.min(self.needed.unwrap_or(u64::MAX));
        may.min(not_needed.max(self.too_many))
    }
}

/// How long the log was at certain times.
struct Marks {
    every: Duration,
    made: VecDeque<(Instant, u64)>,
}

impl Marks {
    fn every(every: Duration) -> Marks {
        Marks { every, made: VecDeque::new() }
    }

    fn note(&mut self, now: Instant, entries: u64) {
        if self.made.back().is_none_or(|(at, _)| now >= *at + self.every) {
            self.made.push_back((now, entries));
        }
    }

    /// How many entries the log had at the last mark that is older than `age`.
    fn older_than(&mut self, now: Instant, age: Duration) -> u64 {
        while let Some((next, _)) = self.made.get(1)
            && now >= *next + age
        {
            self.made.pop_front();
        }
        self.made.front().filter(|(at, _)| now >= *at + age).map_or(0, |(_, entries)| *entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_stays_and_what_is_too_much_goes() {
        let wanted = || Wanted { flushed: 100, held: None, old: 50, needed: None, too_many: 0 };
        assert_eq!(wanted().entries(), 50);
        assert_eq!(Wanted { needed: Some(30), ..wanted() }.entries(), 30);
        // A slow member pins the log only while there is room.
        assert_eq!(Wanted { needed: Some(30), too_many: 80, ..wanted() }.entries(), 80);
        assert_eq!(Wanted { too_many: 500, ..wanted() }.entries(), 99);
        assert_eq!(Wanted { too_many: 500, held: Some(10), ..wanted() }.entries(), 9);
        assert_eq!(Wanted { flushed: 0, old: 50, ..wanted() }.entries(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn age_is_known_to_a_minute() {
        let mut marks = Marks::every(Duration::from_secs(60));
        let age = Duration::from_secs(3600);
        let begin = Instant::now();
        for second in 0..2 * 3600 {
            let now = begin + Duration::from_secs(second);
            marks.note(now, second);
            let old = marks.older_than(now, age);
            let exact = second.saturating_sub(3600);
            assert!(old <= exact && exact - old <= 60, "{second}: {old}");
        }
        assert!(marks.made.len() < 64);
    }
}
