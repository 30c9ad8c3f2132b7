//! Standing for election as soon as nobody else can be primary any more, and not later.
//!
//! A primary relies on nine tenths of its lease *T*, and ends its reign by its own clock then. Voters refuse all votes
//! within *T* of what they last heard of it. openraft stands for election only after 1.6 to 2 *T*: its election timeout
//! begins after the lease, and has to be longer than a heartbeat may take. So here a voter asks for the election by
//! itself, after 1.15 to 1.55 *T*, drawn by chance, so that seldom two of them stand at the same moment. openraft
//! stands all the same where this does not: where no primary was heard of since the start, for example.
//!
//! ```text
//!   since the last word of the primary          0.9 T   T    1.15 T ────── 1.55 T   1.6 T ────── 2 T
//!   the primary ends its reign by its own clock   ┤
//!   voters grant votes                                  ├──────────────────────────────────────────▶
//!   a voter stands                                             ├──────────────┤
//!   openraft stands                                                                 ├────────────┤
//! ```
//!
//! The election begins with a pre-vote, which disturbs nobody: who has older entries, or is cut off, wins nothing.

use std::sync::Arc;
use std::time::Duration;

use super::inner::{Inner, Role};
use crate::raft::machine::Raft;

/// The least and the most that a voter waits beyond the lease, in hundredths of it.
const BEYOND: std::ops::Range<u64> = 15..55;
/// How much longer it waits to stand again, if nobody leads then, in hundredths of a lease.
const AGAIN: u64 = 40;

/// Stands for election whenever the primary has been silent for too long, until the node stops.
pub async fn stand(node: Arc<Inner>, raft: Raft) {
    let lease = node.config.election_timeout;
    let mut patience = drawn(&node, lease);
    // When this node was last primary itself, and when it last stood.
    let (mut led, mut stood) = (None, None);
    while !node.stopping() {
        let now = node.env().now();
        if let Role::Primary(_) = node.role() {
            led = Some(now);
            node.env().sleep(node.config.heartbeat).await;
            continue;
        }
        let due = match (node.heard.last().max(led), stood) {
            (Some(heard), Some(stood)) if stood > heard => Some(stood + patience + lease * AGAIN as u32 / 100),
            (Some(heard), _) => Some(heard + lease + patience),
            (None, _) => None,
        };
        match due {
            Some(due) if due <= now => {
                let own = node.member_of(node.caller.incarnation);
                let may_stand = node.fitness.stands() && own.is_some_and(|own| own.votes);
                if may_stand && node.excluded().is_none() {
                    if raft.trigger().elect(true).await.is_err() {
                        // Consensus has stopped.
                        return;
                    }
                    tracing::debug!("this node stands for election");
                }
                stood = Some(now);
                patience = drawn(&node, lease);
            }
            // (A primary is heard every heartbeat: the time has to be looked at again then.)
            Some(due) => node.env().sleep(due - now).await,
            None => node.env().sleep(lease).await,
        }
    }
}

fn drawn(node: &Inner, lease: Duration) -> Duration {
    let hundredths = BEYOND.start + node.env().seed() % (BEYOND.end - BEYOND.start);
    lease * hundredths as u32 / 100
}
