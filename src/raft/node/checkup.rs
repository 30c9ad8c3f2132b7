//! Looks every second whether this node is fit to lead, and how the others are.

use std::sync::Arc;

use futures_util::future::join_all;

use super::inner::{Inner, Role, Running};
use crate::config::limits;
use crate::raft::link::Target;
use crate::raft::wire::{Answer, Ask};

/// After so many looks without a primary, an unfit node stands too: it may have entries that those who are fit lack.
const LEADERLESS: u32 = 5;

/// Looks until the node stops; lets the node stand for election as long as it is fit, or nobody else is, or nobody that
/// is fit seems to be able to win.
pub async fn look(node: Arc<Inner>) {
    let Some(running) = node.running.get() else { return };
    let mut leaderless = 0;
    while !node.stopping() {
        measure_disk(&node).await;
        ask_others(&node, running).await;
        let members: Vec<_> = node.members().into_iter().map(|member| member.incarnation).collect();
        running.peers.keep_only(&members);
        node.choose_format();
        let voters = node.members().into_iter().filter(|member| member.votes).map(|member| member.id).collect();
        let fitness = &node.fitness;
        fitness.judge_clock(&voters);
        fitness.judge_room(&voters);
        leaderless = if node.role() == Role::Candidate { leaderless + 1 } else { 0 };
        let stands = fitness.unfit().is_none() || !fitness.is_fit_elsewhere(&voters) || leaderless > LEADERLESS;
        running.raft.runtime_config().elect(stands);
        fitness.let_stand(stands);
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
