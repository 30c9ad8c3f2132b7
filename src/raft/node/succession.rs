//! An election at once, when the primary's process is known to have ended.
//!
//! Its lease is over then (`raft::obituary` says why), and the time that `election` leaves for one that is cut off is
//! saved. The members stand one after the other, so that seldom two of them stand at the same moment, until one leads:
//! who has older entries than another one wins nothing by its pre-vote, and makes room for that.
//!
//! ```text
//!   the word comes ─┬─ the lease is dropped ──────┬─ again: entries that were under way have renewed it ───▶
//!   first member    ├─ stands                     │
//!   second member   │                             ├─ stands
//!                   0                             STEP
//! ```
//!
//! After a lease all is as if nothing had been said.

use std::sync::Arc;
use std::time::Duration;

use openraft::raft::TransferLeaderRequest;

use super::inner::Inner;
use crate::raft::machine::Raft;
use crate::raft::types::Ballot;

/// How long each member leaves to the one before it: some syncs of a disk, and a way there and back.
const STEP: Duration = Duration::from_millis(40);

/// Stands for election whenever the primary's end is known, until the node stops.
pub async fn succeed(node: Arc<Inner>, raft: Raft) {
    let mut ended = node.ended.watching();
    while !node.stopping() {
        let told = *ended.look_now();
        if let Some(ballot) = told.filter(|ballot| follows(&raft, *ballot)) {
            tracing::info!("the process of the primary of term {} has ended, its witness says", ballot.term);
            succeed_to(&node, &raft, ballot).await;
        }
        if ended.changed().await.is_err() {
            return;
        }
    }
}

/// Whether the leader by this ballot is the last one that this node knows of.
fn follows(raft: &Raft, ballot: Ballot) -> bool {
    Ballot::from(&raft.metrics().look().vote) == ballot
}

async fn succeed_to(node: &Inner, raft: &Raft, ballot: Ballot) {
    let over = node.env().now() + node.config.election_timeout;
    let heirs: Vec<_> =
        node.members().into_iter().filter(|member| member.votes && member.incarnation != ballot.candidate).collect();
    let Some(own) = heirs.iter().position(|heir| heir.incarnation == node.caller.incarnation) else { return };
    for step in 0.. {
        if node.stopping() || node.env().now() >= over || !follows(raft, ballot) {
            return;
        }
        // openraft drops the lease of a leader that hands its role to another node: here, to nobody.
        let nobody = TransferLeaderRequest::new(ballot.into(), ballot.candidate, None);
        if raft.handle_transfer_leader(nobody).await.is_err() {
            return;
        }
        if step % heirs.len() == own
            && node.fitness.stands()
            && node.excluded().is_none()
            && raft.trigger().elect(true).await.is_err()
        {
            return;
        }
        node.env().sleep(STEP).await;
    }
}
