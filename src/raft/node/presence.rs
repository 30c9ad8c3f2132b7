//! Words for the node's log about who is there: a member falls silent, comes back and catches up, another node leads.
//!
//! Each change is said once, by the node that knows it best: the primary speaks of the other members, a secondary of
//! its primary. (That a reign of this node begins and ends is said in `reign`.)

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::inner::{Inner, Role};
use super::status;
use crate::raft::machine::Raft;
use crate::raft::members::ON_THEIR_WAY;
use crate::roster::Part;

/// Election timeouts of silence after which a member counts as away: a moment without a processor is no news.
const LEASES: u32 = 3;

/// Tells of changes until the node stops.
pub async fn tell(node: Arc<Inner>, raft: Raft) {
    let patience = node.config.election_timeout * LEASES;
    let mut roll = Roll::default();
    let mut known = None;
    while !node.stopping() {
        node.env().sleep(node.config.heartbeat).await;
        match node.role() {
            Role::Primary(_) => {
                let now = node.env().now();
                let status = status::describe(&node, Some(&raft));
                let others: Vec<_> = status.members.iter().filter(|member| member.node != status.node).collect();
                roll.keep_only(&others.iter().map(|member| member.node).collect::<Vec<_>>());
                let seen = others.iter().map(|member| {
                    // (Of one that has not answered yet since this node leads, or since it joined.)
                    let known = now.saturating_duration_since(roll.known_since(member.node, now));
                    let silence = member.answered_ms.map(Duration::from_millis).unwrap_or(known);
                    let presence = match member.log {
                        _ if silence > patience => Presence::Away { silence },
                        Some(log) => Presence::There { behind: status.log.saturating_sub(log) },
                        None => Presence::There { behind: status.log },
                    };
                    (member.node, presence)
                });
                let seen: Vec<_> = seen.collect();
                let votes = |node: u64| others.iter().any(|member| member.node == node && member.part == Part::Voter);
                for news in roll.call(seen.into_iter()) {
                    match &news {
                        News::Away { silence, member } => {
                            let since = clock(node.env().wall().saturating_sub(*silence));
                            let means = match votes(*member) {
                                true => remaining(roll.there(votes) + 1, roll.size(votes) + 1),
                                false => "it is an observer, and nobody waits for it".into(),
                            };
                            tracing::warn!("{news} since {since}; {means}");
                        }
                        News::Back { .. } | News::CaughtUp { .. } => tracing::info!("{news}"),
                    }
                }
                known = Some(node.config.node);
            }
            Role::Secondary { primary, .. } => {
                roll = Roll::default();
                if known != Some(primary.id) {
                    tracing::info!("secondary: node {} at {} is primary", primary.id, primary.address);
                    known = Some(primary.id);
                }
            }
            Role::Candidate | Role::Forming(_) | Role::Excluded(_) => roll = Roll::default(),
        }
    }
}

/// Whether a member is there, as the primary sees it now.
#[derive(Clone, Copy, Debug)]
enum Presence {
    Away {
        silence: Duration,
    },
    /// How many entries of the log the member does not have yet.
    There {
        behind: u64,
    },
}

/// The last word about each other member.
#[derive(Default)]
struct Roll {
    members: BTreeMap<u64, Standing>,
    /// Since when each is called.
    since: BTreeMap<u64, Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Away,
    Behind,
    UpToDate,
}

/// A change that is worth a line.
#[derive(Clone, Debug, PartialEq, Eq)]
enum News {
    Away { member: u64, silence: Duration },
    Back { member: u64, behind: u64 },
    CaughtUp { member: u64 },
}

impl Roll {
    /// Takes in what is seen of all members, and gives the changes. At first all count as there and up to date.
    fn call(&mut self, seen: impl Iterator<Item = (u64, Presence)>) -> Vec<News> {
        let mut news = Vec::new();
        for (member, presence) in seen {
            let standing = self.members.entry(member).or_insert(Standing::UpToDate);
            match (*standing, presence) {
                (Standing::Away, Presence::Away { .. }) => {}
                (_, Presence::Away { silence }) => {
                    *standing = Standing::Away;
                    news.push(News::Away { member, silence });
                }
                (Standing::Away, Presence::There { behind }) => {
                    *standing = Standing::Behind;
                    news.push(News::Back { member, behind });
                }
                (Standing::Behind, Presence::There { behind }) if behind <= ON_THEIR_WAY => {
                    *standing = Standing::UpToDate;
                    news.push(News::CaughtUp { member });
                }
                (Standing::Behind | Standing::UpToDate, Presence::There { .. }) => {}
            }
        }
        news
    }

    fn known_since(&mut self, member: u64, now: Instant) -> Instant {
        *self.since.entry(member).or_insert(now)
    }

    /// Forgets all others.
    fn keep_only(&mut self, members: &[u64]) {
        self.members.retain(|member, _| members.contains(member));
        self.since.retain(|member, _| members.contains(member));
    }

    /// How many of those that fit are there.
    fn there(&self, fits: impl Fn(u64) -> bool) -> usize {
        let there = |(member, standing): &(&u64, &Standing)| fits(**member) && **standing != Standing::Away;
        self.members.iter().filter(there).count()
    }

    fn size(&self, fits: impl Fn(u64) -> bool) -> usize {
        self.members.keys().filter(|member| fits(**member)).count()
    }
}

impl fmt::Display for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            News::Away { member, .. } => write!(f, "node {member} unreachable"),
            News::Back { member, behind: 0 } => write!(f, "node {member} is back"),
            News::Back { member, behind: 1 } => write!(f, "node {member} is back, 1 entry behind"),
            News::Back { member, behind } => write!(f, "node {member} is back, {behind} entries behind"),
            News::CaughtUp { member } => write!(f, "node {member} has caught up"),
        }
    }
}

/// What the loss of a member means.
fn remaining(there: usize, all: usize) -> String {
    let losses = there.saturating_sub(all / 2 + 1);
    match losses {
        _ if there < all / 2 + 1 => format!("{there} of {all} remain, too few to write"),
        0 => format!("{there} of {all} remain, one more loss stops all writing"),
        1 => format!("{there} of {all} remain, one more loss does no harm"),
        more => format!("{there} of {all} remain, {more} more losses do no harm"),
    }
}

/// The time of day, in UTC.
fn clock(wall: Duration) -> String {
    let seconds = wall.as_secs() % 86_400;
    format!("{:02}:{:02}:{:02} UTC", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_said_once() {
        let away = Presence::Away { silence: Duration::from_secs(1) };
        let there = |behind| Presence::There { behind };
        let mut roll = Roll::default();
        let mut said = Vec::new();
        for seen in [there(0), there(900), away, away, there(370), there(200), there(3), there(200), away, there(0)] {
            said.extend(roll.call([(2, seen), (3, there(0))].into_iter()).iter().map(ToString::to_string));
        }
        let expected = [
            "node 2 unreachable",
            "node 2 is back, 370 entries behind",
            "node 2 has caught up",
            "node 2 unreachable",
            "node 2 is back",
        ];
        assert_eq!(said, expected);
        assert_eq!((roll.there(|_| true), roll.size(|_| true)), (2, 2));
        assert_eq!((roll.there(|member| member == 2), roll.size(|member| member == 2)), (1, 1));
        roll.keep_only(&[3]);
        assert_eq!(roll.size(|_| true), 1);
    }

    #[test]
    fn what_a_loss_means_is_said() {
        assert_eq!(remaining(2, 3), "2 of 3 remain, one more loss stops all writing");
        assert_eq!(remaining(1, 3), "1 of 3 remain, too few to write");
        assert_eq!(remaining(4, 5), "4 of 5 remain, one more loss does no harm");
        assert_eq!(remaining(6, 7), "6 of 7 remain, 2 more losses do no harm");
        assert_eq!(clock(Duration::from_secs(86_400 + 12 * 3_600 + 3 * 60 + 4)), "12:03:04 UTC");
    }
}
