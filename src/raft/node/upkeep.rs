//! Tasks of a node in any role: one flushes the store, one gives the disk space back, one takes to the disk what this
//! node remembers of the others, one sets the node's fault when consensus stops.

use std::sync::Arc;

use super::inner::Inner;
use crate::config::limits;
use crate::env::Watch;
use crate::raft::machine::Raft;

/// Flushes the store whenever the log has grown by [`limits::FLUSH_AFTER_BYTES`], so that a restart never replays more,
/// and so that a later purge (which may only go up to where a flush began) finds something to purge.
pub async fn flush_as_the_log_grows(node: Arc<Inner>) {
    let mut flushed_at = 0;
    while !node.stopping() {
        node.env().sleep(limits::FLUSH_CHECK).await;
        let appended = node.log.appended_bytes();
        // (What is not flushed can't be purged.)
        if appended - flushed_at >= limits::FLUSH_AFTER_BYTES.min(node.config.log_size / 2) {
            let store = node.store.clone();
            match node.env().offload(move || store.flush()).await {
                Ok(position) => {
                    tracing::debug!("store flushed up to entry {}", position.index);
                    node.flushed.send(position);
                }
                Err(fault) => {
                    node.fault.send(Some(format!("the store can't be flushed: {fault}")));
                    return;
                }
            }
            flushed_at = appended;
        }
    }
}

/// Gives the disk the space of what packs and ended transactions have removed, once that is
/// [`limits::RECLAIM_AFTER_BYTES`] and no more is being removed.
pub async fn give_space_back(node: Arc<Inner>) {
    let mut before = 0;
    while !node.stopping() {
        node.env().sleep(limits::RECLAIM_CHECK).await;
        let garbage = node.store.garbage();
        if garbage < limits::RECLAIM_AFTER_BYTES || garbage != std::mem::replace(&mut before, garbage) {
            continue;
        }
        let worker = node.clone();
        match node.env().offload(move || worker.store.reclaim(|| !worker.stopping())).await {
            Ok(()) => tracing::debug!("the disk has the space back of some {garbage} bytes that were removed"),
            Err(fault) => tracing::warn!("the disk does not get the space back of what was removed: {fault}"),
        }
    }
}

/// Takes what this node remembers of the other members to the disk, every few seconds.
pub async fn keep_memory_fresh(node: Arc<Inner>) {
    while !node.stopping() {
        node.env().sleep(limits::KEEP_MEMORY).await;
        keep_memory(&node).await;
    }
}

/// Takes what this node remembers of the other members to the disk.
pub async fn keep_memory(node: &Inner) {
    let members: Vec<_> = node.members().into_iter().map(|member| member.incarnation).collect();
    if let Err(fault) = node.caller.memory.keep(&members).await {
        tracing::debug!("what other members have shown can't be kept: {fault}");
    }
}

/// Sets the node's fault when an entry can't be applied, the log can't be written, or consensus stops though the node
/// was not told to stop.
pub async fn watch_for_faults(node: Arc<Inner>, raft: Raft, unapplied: Watch<Option<String>>) {
    let mut metrics = raft.metrics();
    let mut failed = unapplied.watching();
    let mut durable = node.log.durable();
    let why = tokio::select! {
        biased;
        _ = failed.until(Option::is_some) => failed.look().clone().unwrap_or_default(),
        // (Consensus may write nothing more, and would never notice: nobody talks to a node whose log has failed.)
        _ = durable.until(Result::is_err) => durable.look().clone().err().unwrap_or_default(),
        stopped = metrics.until(|metrics| metrics.running_state.is_err()) => {
            match (stopped, &metrics.look().running_state) {
                (Ok(()), Err(fatal)) => format!("consensus has stopped: {fatal}"),
                _ => "consensus has stopped".into(),
            }
        }
    };
    if !node.stopping() {
        tracing::error!("{why}");
        node.fault.send(Some(why));
    }
}
