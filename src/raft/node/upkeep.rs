//! What a running node sees to by itself, whatever its role: that the store is flushed, and that somebody is told when
//! consensus has stopped.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Inner;
use crate::config::limits;
use crate::raft::peers::Raft;

/// The flush rule: the store is flushed whenever the log has grown by so much, so that a restart never replays more,
/// and so that a later purge (which may only go up to where a flush began) finds something to purge.
pub async fn flush_as_the_log_grows(node: Arc<Inner>) {
    let mut flushed_at = 0;
    while !node.stopping() {
        node.env().sleep(limits::FLUSH_CHECK).await;
        let appended = node.log.appended_bytes();
        if appended - flushed_at >= limits::FLUSH_AFTER_BYTES {
            let store = node.store.clone();
            match node.env().offload(move || store.flush()).await {
                Ok(position) => tracing::debug!("store flushed up to entry {}", position.index),
                Err(fault) => {
                    node.fault.send(Some(format!("the store can't be flushed: {fault}")));
                    return;
                }
            }
            flushed_at = appended;
        }
    }
}

/// Tells of a consensus that has stopped by itself.
pub async fn watch_for_faults(node: Arc<Inner>, raft: Raft) {
    let mut metrics = raft.metrics();
    let stopped = metrics.until(|metrics| metrics.running_state.is_err()).await;
    if !node.stopping() {
        let why = match (stopped, &metrics.look().running_state) {
            (Ok(()), Err(fatal)) => format!("consensus has stopped: {fatal}"),
            _ => "consensus has stopped".into(),
        };
        tracing::error!("{why}");
        node.fault.send(Some(why));
    }
}

impl Inner {
    /// `--peers` matters when a cluster forms; afterwards the log has the members.
    pub(super) fn warn_of_changed_peers(&self) {
        let Some(stamp) = self.formation.stamp.look().clone() else { return };
        let known: BTreeMap<u64, String> = stamp.members.iter().map(|(id, s)| (*id, s.address.clone())).collect();
        if !self.config.peers.is_empty() && self.config.peers != known {
            tracing::warn!("--peers differs from the cluster's own list, which rules: {known:?}");
        }
    }
}
