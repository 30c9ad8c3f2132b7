//! Looks every second whether this node is fit to lead, and how the others are.

use std::sync::Arc;

use futures_util::future::join_all;

use super::inner::{Inner, Running};
use crate::config::limits;
use crate::raft::link::Target;
use crate::raft::wire::{Answer, Ask};

/// Looks until the node stops; lets the node stand for election as long as it is fit, or nobody else is.
pub async fn look(node: Arc<Inner>) {
    let Some(running) = node.running.get() else { return };
    while !node.stopping() {
        measure_disk(&node).await;
        ask_others(&node, running).await;
        node.choose_format();
        let fitness = &node.fitness;
        fitness.judge_clock(node.members().len());
        running.raft.runtime_config().elect(fitness.unfit().is_none() || !fitness.is_fit_elsewhere());
        node.env().sleep(limits::CHECKUP).await;
    }
}

async fn measure_disk(node: &Inner) {
    let files = node.files.clone();
    match node.env().offload(move || files.free()).await {
        Ok(Some(free)) => node.fitness.judge_disk(free, node.config.disk_reserve, &node.files.place()),
        Ok(None) => {}
        Err(fault) => tracing::debug!("how much of the disk is free can't be told: {fault}"),
    }
}

async fn ask_others(node: &Inner, running: &Running) {
    let others = node.members().into_iter().filter(|member| member.id != node.config.node);
    let asking = others.map(|member| async move {
        let id = member.id;
        let asked = node.env().now();
        let link = running.peers.links(Target::from(member)).control;
        if let Ok(Answer::Checkup(answer)) = link.call(Ask::Checkup, limits::CHECKUP).await {
            node.fitness.saw(id, asked, answer);
        }
    });
    join_all(asking).await;
}
