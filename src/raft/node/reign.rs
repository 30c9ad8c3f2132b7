//! Reigns: when this node may act as the primary, and which node is primary otherwise.
//!
//! openraft's leader does not step down when it loses its majority; it refuses proposals once its lease has lapsed, and
//! goes on in the same term when the lease returns. So leadership alone says little. A *reign* opens when this node
//! leads, has its lease, and has applied a barrier of its own; the reign ends for good when the lease is lost, the term
//! moves on, or a proposal is forwarded to another node.
//!
//! ```text
//! leader of term 7      ├────────────────────────────────────────────────┤
//! lease                 ├──────────┤           ├─────────────────────────┤
//! barrier applied          │                      │
//! reign 7.1                ├───────┤              │
//! reign 7.2                                       ├──────────────────────┤
//! ```
//!
//! Between the two reigns no other node can have led: that would have moved the term. But a command proposed in 7.1 may
//! still commit before the barrier of 7.2; after the barrier, apply refuses the command as stale.

use std::sync::Arc;

use openraft::ServerState;

use super::heirs;
use super::inner::{Inner, Member, Role, Running};
use super::proposal::submit;
use crate::command::{Change, Command, Outcome, Reign};
use crate::config::limits;
use crate::raft::machine::Raft;

/// Publishes this node's role until the node stops.
pub async fn rule(node: Arc<Inner>, raft: Raft) {
    let mut last = Reign::default();
    loop {
        if node.stopping() {
            return;
        }
        match leads(&raft) {
            Some(_) if !votes(&node) => {
                node.publish(follow(&node, &raft));
                hand_on(&node, &raft).await;
            }
            Some(term) => {
                let number = if last.term == term { last.number + 1 } else { 1 };
                let reign = Reign { term, number };
                // The number counts as used even if the reign does not open: an abandoned barrier may still apply.
                last = reign;
                if open(&node, &raft, reign).await {
                    tracing::info!("primary: reign {reign} begins");
                    node.publish(Role::Primary(reign));
                    let why = hold(&node, &raft, reign).await;
                    tracing::info!("primary no more: reign {reign} ends, as {why}");
                    node.publish(follow(&node, &raft));
                    continue;
                }
            }
            None => node.publish(follow(&node, &raft)),
        }
        node.pause(&raft).await;
    }
}

/// The term that this node leads, if it leads.
fn leads(raft: &Raft) -> Option<u64> {
    let metrics = raft.metrics();
    let metrics = metrics.look();
    (metrics.state == ServerState::Leader && metrics.running_state.is_ok()).then_some(metrics.current_term)
}

/// Whether this node votes, by the members that it knows of. (openraft lets a node lead that is to vote no more, as
/// long as it does not know that this is committed.)
fn votes(node: &Inner) -> bool {
    node.member_of(node.caller.incarnation).is_none_or(|own| own.votes)
}

/// For a node that leads, and may not: has a voter take over.
async fn hand_on(node: &Arc<Inner>, raft: &Raft) {
    let heir = heirs::fit(node).and_then(|heir| node.member(heir));
    if let Some(Member { id, incarnation, .. }) = heir {
        tracing::info!("this node leads and is no voter: node {id} is to take over");
        let _ = raft.trigger().transfer_leader(incarnation).await;
    }
}

/// Proposes the barrier of a new reign; whether it was applied, and this node still leads.
async fn open(node: &Arc<Inner>, raft: &Raft, reign: Reign) -> bool {
    let Some(Running { lease, .. }) = node.running.get() else { return false };
    if lease.awaited(raft).await.is_err() {
        return false;
    }
    let suspended = node.env().suspended();
    let barrier = Command { reign, change: Change::Barrier };
    let proposal = submit(raft, barrier.encode(node.choose_format())).await;
    match node.env().timeout(limits::PEER_CALL_TIMEOUT, proposal.outcome()).await {
        Ok(Ok(Outcome::Done)) => {
            lease.confirm(suspended);
            leads(raft) == Some(reign.term) && lease.read_index(raft).await.is_ok()
        }
        Ok(Ok(outcome)) => {
            tracing::debug!("the barrier of reign {reign} came to nothing: {outcome:?}");
            false
        }
        Ok(Err(_)) | Err(_) => false,
    }
}

/// Keeps the lease by heartbeats; returns why the reign is over, once it is.
async fn hold(node: &Arc<Inner>, raft: &Raft, reign: Reign) -> String {
    let Some(Running { lease, .. }) = node.running.get() else { return "this node does not run".into() };
    let mut abdicated = node.abdicated.watching();
    let _ = abdicated.look_now();
    let mut sure = node.env().now();
    loop {
        if node.stopping() {
            return "this node stops".into();
        }
        if leads(raft) != Some(reign.term) {
            return "another node leads".into();
        }
        if abdicated.look().is_some_and(|ended| ended >= reign) {
            return "its role is handed over, or a proposal was refused".into();
        }
        // Consensus would say the same, but maybe late: it may have the vote for the next primary to write down first.
        let asked = node.env().now();
        if let Some(still) = Some(asked - sure).filter(|still| *still > lease.length()) {
            return format!("the lease has lapsed: this process stood still for {:.1} s", still.as_secs_f64());
        }
        if let Err(why) = lease.read_index(raft).await {
            return format!("the lease has lapsed: {why}");
        }
        sure = asked;
        node.heard.leads();
        if raft.trigger().heartbeat().await.is_err() {
            return "consensus has stopped".into();
        }
        let soon = lease.left(raft).map_or(node.config.heartbeat, |left| left.max(node.config.heartbeat / 8));
        tokio::select! { biased;
            _ = abdicated.changed() => {}
            // (The lease may end before the next heartbeat: then the reign does, too.)
            () = node.pause(raft) => {}
            () = node.env().sleep(soon), if soon < node.config.heartbeat => {}
        }
    }
}

/// This node's role while another node, or none, is primary.
fn follow(node: &Inner, raft: &Raft) -> Role {
    let term = raft.metrics().look().current_term;
    let patience = node.config.election_timeout * 2;
    let applied = node.store.applied().index;
    match node.heard.leader(term, patience, applied) {
        Some((leader, caught_up)) if leader != node.caller.incarnation => match node.member_of(leader) {
            Some(primary) => Role::Secondary { primary, caught_up },
            None => Role::Candidate,
        },
        _ => Role::Candidate,
    }
}
