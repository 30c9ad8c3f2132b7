//! From the folder to the cluster: waits for the stamp, runs Raft, and initialises the log if this node is the founder.

use std::collections::BTreeMap;
use std::sync::Arc;

use openraft::errors::{InitializeError, RaftError};
use openraft::{Config as RaftConfig, SnapshotPolicy};

use super::inner::{Inner, Role, Running};
use super::{presence, reign, upkeep};
use crate::config::{Config, limits};
use crate::raft::machine::StateMachine;
use crate::raft::peers::{Peers, Raft};
use crate::raft::stamp::{Stamp, cluster_name};

/// Joins the cluster; the node has a fault if it can't.
pub async fn take_part(node: Arc<Inner>) {
    if let Err(fault) = join(&node).await {
        let why = format!("this node can't take part: {fault:#}");
        tracing::error!("{why}");
        node.fault.send(Some(why));
    }
}

async fn join(node: &Arc<Inner>) -> anyhow::Result<()> {
    let mut waiting = node.formation.waiting.watching();
    let tell = async {
        loop {
            node.publish(Role::Forming(waiting.look_now().clone()));
            if waiting.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let stamp = tokio::select! {
        biased;
        stamp = node.formation.await_stamp() => stamp?,
        () = tell => unreachable!("the role is told until there is a stamp"),
    };
    if node.log.has_voted() && stamp.members.len() > 1 {
        // Before the restart this node may have confirmed a primary's lease, which openraft has forgotten. Until that
        // lease is over, this node must not help to elect another primary.
        node.env().sleep(node.config.election_timeout).await;
    }
    if node.stopping() {
        return Ok(());
    }
    let peers = Peers::new(node.caller.clone(), stamp.cluster);
    let machine = StateMachine::new(node.store.clone(), &node.log);
    let raft =
        Raft::new(node.config.node, raft_config(&node.config)?, peers.clone(), node.log.clone(), machine).await?;
    if node.running.set(Running { raft: raft.clone(), peers }).is_err() {
        anyhow::bail!("a node joins its cluster once");
    }
    node.publish(Role::Candidate);
    node.caller.env.spawn(reign::rule(node.clone(), raft.clone()));
    node.caller.env.spawn(upkeep::flush_as_the_log_grows(node.clone()));
    node.caller.env.spawn(upkeep::watch_for_faults(node.clone(), raft.clone()));
    node.caller.env.spawn(presence::tell(node.clone(), raft.clone()));
    initialize(node, &raft, &stamp).await
}

/// The founder's last step, until it has succeeded once.
async fn initialize(node: &Inner, raft: &Raft, stamp: &Stamp) -> anyhow::Result<()> {
    if stamp.members.keys().next() != Some(&node.config.node) || raft.is_initialized().await? {
        return Ok(());
    }
    node.formation.stamp_others(stamp).await;
    match raft.initialize(stamp.members.clone()).await {
        Ok(()) => {
            tracing::info!("cluster {} has formed", cluster_name(&stamp.cluster));
            Ok(())
        }
        // Another leader's entries came first: the cluster runs.
        Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
        Err(fault) => Err(fault.into()),
    }
}

/// openraft's settings, from this node's.
fn raft_config(config: &Config) -> anyhow::Result<Arc<RaftConfig>> {
    let lease = config.election_timeout.as_millis() as u64;
    let settings = RaftConfig {
        cluster_name: "zrs".into(),
        // Also how long openraft waits for a heartbeat's answer: half a lease, so that a moment without a
        // processor costs no reign. `reign::hold` sends them as often as the configuration says.
        heartbeat_interval: lease / 2,
        // Drawn and waited for when the lease is over.
        election_timeout_min: lease * 3 / 5,
        election_timeout_max: lease,
        enable_pre_vote: Some(true),
        enable_leader_restore: Some(false),
        snapshot_policy: SnapshotPolicy::Never,
        max_payload_entries: limits::APPEND_ENTRIES,
        ..RaftConfig::default()
    };
    Ok(Arc::new(settings.validate()?))
}

/// Warns if `--peers` differs from the members in the stamp: the option matters only until the cluster has formed.
pub fn warn_of_changed_peers(node: &Inner) {
    let Some(stamp) = node.formation.stamp.look().clone() else { return };
    let known: BTreeMap<u64, String> = stamp.members.iter().map(|(id, s)| (*id, s.address.clone())).collect();
    if !node.config.peers.is_empty() && node.config.peers != known {
        tracing::warn!("--peers differs from the cluster's own list, which rules: {known:?}");
    }
}
