//! From the folder to the cluster: waits for the stamp, runs Raft, and initialises the log if this node is the founder.

use std::io;
use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use openraft::errors::{InitializeError, RaftError};
use openraft::{Config as RaftConfig, SnapshotPolicy};

use super::inner::{Inner, Role, Running};
use super::{checkup, compare, election, presence, reign, shorten, steward, succession, upkeep};
use crate::config::{Config, limits};
use crate::env::Watch;
use crate::raft::formation::Begun;
use crate::raft::hello::Purpose;
use crate::raft::lease::Lease;
use crate::raft::link::Target;
use crate::raft::machine::{Raft, StateMachine};
use crate::raft::peers::Peers;
use crate::raft::stamp::{Stamp, cluster_name, peers_list};

/// Joins the cluster; the node has a fault if it can't.
pub async fn take_part(node: Arc<Inner>) {
    let mut stopping = node.stopping.watching();
    let joined = tokio::select! {
        biased;
        _ = stopping.until(|stopping| *stopping) => return,
        joined = join(&node) => joined,
    };
    // (One that is excluded can't join for that reason.)
    if let Err(fault) = joined
        && node.excluded().is_none()
    {
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
    let stamped = node.formation.stamp.look().is_some();
    let mut excluded = node.caller.memory.excluded().watching();
    let mut durable = node.log.durable();
    let stamp = tokio::select! {
        biased;
        _ = excluded.until(Option::is_some) => return exclude(node).await,
        // (Its log writes nothing any more, so what it waits for never comes. Later `upkeep` watches that.)
        _ = durable.until(Result::is_err) => {
            anyhow::bail!(durable.look().clone().err().unwrap_or_default());
        }
        stamp = begin(node) => stamp?,
        () = tell => unreachable!("the role is told until there is a stamp"),
    };
    // (A cluster that began with one node may have more, also by entries that are not applied here yet.)
    let is_ahead = node.log.durable_now().is_ok_and(|(entries, _)| entries > node.store.applied().index);
    if stamped && (stamp.members.len() > 1 || node.members().len() > 1 || is_ahead) {
        tokio::join!(greet(node, &stamp), async {
            // Before the restart this node may have confirmed a primary's lease, which openraft has forgotten. Until
            // that lease is over, this node must not help to elect another primary.
            if node.log.has_voted() {
                node.env().sleep(node.config.election_timeout).await;
            }
        });
    }
    if node.excluded().is_some() {
        return exclude(node).await;
    }
    let peers = Peers::new(node.caller.clone(), stamp.cluster);
    let failed = Watch::new(None);
    let format = node.caller.newest.format;
    let (machine, applying) =
        StateMachine::new(node.store.clone(), &node.log, node.flushed.clone(), &node.work, format, failed.clone());
    let raft = Raft::new(node.caller.incarnation, raft_config(&node.config)?, peers.clone(), node.log.clone(), machine)
        .await?;
    let lease = Lease::new(node.caller.env.clone(), node.config.election_timeout);
    if node.running.set(Running { raft: raft.clone(), peers, lease, applying: Mutex::new(Some(applying)) }).is_err() {
        anyhow::bail!("a node joins its cluster once");
    }
    node.publish(Role::Candidate);
    let env = &node.caller.env;
    // (From here on there is something to stop: also for what was learnt meanwhile.)
    env.spawn(exclude_when_told(node.clone()));
    env.spawn(reign::rule(node.clone(), raft.clone()));
    env.spawn(election::stand(node.clone(), raft.clone()));
    env.spawn(succession::succeed(node.clone(), raft.clone()));
    env.spawn(upkeep::flush_as_the_log_grows(node.clone()));
    env.spawn(shorten::shorten_the_log(node.clone(), raft.clone()));
    env.spawn(upkeep::give_space_back(node.clone()));
    env.spawn(upkeep::watch_for_faults(node.clone(), raft.clone(), failed));
    env.spawn(upkeep::keep_memory_fresh(node.clone()));
    env.spawn(presence::tell(node.clone(), raft.clone()));
    env.spawn(checkup::look(node.clone()));
    env.spawn(compare::keep(node.clone()));
    env.spawn(steward::keep(node.clone(), raft.clone()));
    initialize(node, &raft, &stamp).await
}

/// Returns the stamp once this node has one. A node that is let in to a cluster that runs has none before it begins
/// again, with that cluster's database.
async fn begin(node: &Inner) -> io::Result<Stamp> {
    let mut was_cut_off = false;
    loop {
        let admission = match node.formation.begin().await? {
            Begun::Stamped(stamp) => return Ok(stamp),
            Begun::Admitted(admission) => admission,
        };
        let cluster = cluster_name(&admission.stamp.cluster);
        // (What has gone wrong stays said until something else does: a disk may be full for hours.)
        if !was_cut_off {
            node.formation.wait_for(format!("the database of cluster {cluster}, which has let this node in"));
        }
        match node.catch_up.fetch_first(admission).await {
            Ok(()) => std::future::pending::<()>().await,
            Err(why) => {
                node.formation.wait_for(format!("the database of cluster {cluster}, which was cut off: {why}"));
                was_cut_off = true;
                node.env().sleep(limits::FETCH_AGAIN).await;
            }
        }
    }
}

/// Shakes hands with every member that can be reached within a lease, before this node votes: any of them may know that
/// this folder is an old copy.
async fn greet(node: &Inner, stamp: &Stamp) {
    let others = node.members().into_iter().filter(|member| member.id != node.config.node).map(Target::from);
    let greetings = others.map(|member| async move {
        while let Err(fault) = node.caller.reach(&member, Some(stamp.cluster), Purpose::Calls).await
            && fault.kind() != io::ErrorKind::PermissionDenied
        {
            tracing::debug!("node {} at {} was not greeted: {fault}", member.node, member.address);
            node.env().sleep(node.config.heartbeat).await;
        }
    });
    let _ = node.env().timeout(node.config.election_timeout, join_all(greetings)).await;
}

/// Excludes this node once it has learnt that its data is older than what it once had.
async fn exclude_when_told(node: Arc<Inner>) {
    let mut excluded = node.caller.memory.excluded().watching();
    let mut stopping = node.stopping.watching();
    tokio::select! {
        biased;
        _ = stopping.until(|stopping| *stopping) => {}
        told = excluded.until(Option::is_some) => if told.is_ok() {
            let _ = exclude(&node).await;
        }
    }
}

/// Takes this node out: nothing votes or acknowledges here any more; the node stays to say why.
async fn exclude(node: &Inner) -> anyhow::Result<()> {
    let Some(why) = node.excluded() else { return Ok(()) };
    tracing::error!("this node takes no part: {why}");
    node.publish(Role::Excluded(why));
    node.checkpoints.sweep(true);
    let stop = async {
        if let Some(running) = node.running.get()
            && let Err(fault) = running.raft.shutdown().await
        {
            tracing::warn!("consensus did not stop cleanly: {fault}");
        }
    };
    let (noted, ()) = tokio::join!(node.caller.memory.keep_excluded(), stop);
    if let Err(fault) = noted {
        tracing::warn!("that this node takes no part can't be noted in its folder: {fault}");
    }
    Ok(())
}

/// The founder's last step, until it has succeeded once.
async fn initialize(node: &Inner, raft: &Raft, stamp: &Stamp) -> anyhow::Result<()> {
    if stamp.founder() != Some(node.config.node) || raft.is_initialized().await? {
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
        // (`shorten` alone says what is purged.)
        max_in_snapshot_log_to_keep: u64::MAX,
        ..RaftConfig::default()
    };
    Ok(Arc::new(settings.validate()?))
}

/// Warns if `--peers` differs from the members in the stamp: the option matters only until the cluster has formed.
pub fn warn_of_changed_peers(node: &Inner) {
    if node.formation.stamp.look().is_none() {
        return;
    }
    let known = node.addresses();
    let listed = &node.config.peers;
    if *listed == known || (listed.is_empty() && known.len() == 1) {
        return;
    }
    let list = peers_list(&known);
    if listed.is_empty() {
        tracing::warn!(
            "--peers is missing: this data folder is that of node {} in a cluster of {}, which rules: --peers {list}",
            node.config.node,
            known.len()
        );
    } else if known.len() == 1 {
        tracing::warn!(
            "this node is a cluster of its own and does not join the others in --peers, as its data folder was first \
             started without --peers: give it an empty one (zrsctl export saves what the folder has)"
        );
    } else {
        tracing::warn!(
            "--peers differs from the cluster's own list, which rules (a member that is not there is looked for where \
             --peers has it): --peers {list}"
        );
    }
}
