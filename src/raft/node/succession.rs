//! An election at once, when the primary's process is known to have ended.
//!
//! Its lease is over then (`raft::obituary` says why), and the time that `election` leaves for one that is cut off is
//! saved. The members stand one after the other, so that seldom two of them stand at the same moment, until another
//! ballot is known: who has older entries than another one wins nothing by its pre-vote, and makes room for that.
//!
//! ```text
//!   the word comes ─┬─ the lease is dropped, until there is another ballot
//!   first member    ├─ stands                     ├                   ├ stands again ...
//!   second member   │                             ├─ stands           │
//!                   0                             1                   2  steps
//! ```
//!
//! If nobody has won after a lease (a majority may be away), `election` goes on by its own times.

use std::sync::Arc;
use std::time::Duration;

use openraft::raft::TransferLeaderRequest;

use super::inner::Inner;
use crate::raft::machine::Raft;
use crate::raft::types::Ballot;

/// How long each member leaves to the one before it: some syncs of a disk. Or a heartbeat, if that is longer, which is
/// chosen for the ways between the nodes.
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
    let (over, own) = (node.env().now() + node.config.election_timeout, node.caller.incarnation);
    let mut turns: Vec<_> = node.members().into_iter().filter(|member| member.votes).collect();
    turns.retain(|member| member.incarnation != ballot.candidate);
    let Some(turn) = turns.iter().position(|member| member.incarnation == own) else { return };
    // openraft drops the lease of a leader that hands its role to another node: here, to nobody.
    let nobody = TransferLeaderRequest::new(ballot.into(), ballot.candidate, None);
    if raft.handle_transfer_leader(nobody).await.is_err() {
        return;
    }
    for step in 0.. {
        if node.stopping() || node.env().now() >= over || !follows(raft, ballot) {
            return;
        }
        if step % turns.len() == turn
            && node.fitness.stands()
            && node.excluded().is_none()
            && raft.trigger().elect(true).await.is_err()
        {
            return;
        }
        node.env().sleep(STEP.max(node.config.heartbeat)).await;
    }
}
