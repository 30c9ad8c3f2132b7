//! Compares this node's database with those of the others, all the time.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;

use super::inner::{Inner, Running};
use crate::command::ROSTER_FORMAT;
use crate::config::limits;
use crate::raft::comparison::{Comparison, compare};
use crate::raft::link::Target;
use crate::raft::wire::{Answer, Ask};
use crate::storage::{MARK_SCHEME, Mark};

/// Compares until the node stops. A node that finds itself to be the odd one takes no part any more.
pub async fn keep(node: Arc<Inner>) {
    let Some(running) = node.running.get() else { return };
    while !node.stopping() {
        node.env().sleep(limits::COMPARE_LOOK).await;
        let told = ask_others(&node, running).await;
        let voters = node.members().into_iter().filter(|member| member.votes).map(|member| member.id).collect();
        let found = compare(node.config.node, &node.store.marks(), &told, &voters);
        if let Some(entries) = found.own_is_odd {
            node.caller.memory.exclude(format!(
                "after {entries} entries of the log its database is not the same as that of a majority, so it can't be \
                 right; keep it for whoever looks into that (zrsctl dump), and start the node with an empty folder"
            ));
            return;
        }
        node.alarms.send(words(&found));
    }
}

async fn ask_others(node: &Inner, running: &Running) -> BTreeMap<u64, Vec<Mark>> {
    // (Older versions don't know the question.)
    let knows = |member| node.caller.memory.format_of(member).is_some_and(|format| format >= ROSTER_FORMAT);
    let own = node.caller.incarnation;
    let others = node.members().into_iter().filter(|member| member.incarnation != own && knows(member.incarnation));
    let asking = others.map(|member| async move {
        let id = member.id;
        let link = running.peers.links(Target::from(member)).control;
        match link.call(Ask::Marks, limits::CHECKUP).await {
            Ok(Answer::Marks { scheme: MARK_SCHEME, marks }) => Some((id, marks)),
            Ok(_) | Err(_) => None,
        }
    });
    join_all(asking).await.into_iter().flatten().collect()
}

fn words(found: &Comparison) -> Vec<String> {
    let each = found.odd.iter().map(|(node, entries)| match found.is_sure {
        true => format!(
            "node {node}'s database is not the same as this one's and a majority's after {entries} entries of the log: \
             start it with an empty folder"
        ),
        false => format!(
            "node {node}'s database is not the same as this one's after {entries} entries of the log, and no majority \
             says which of the two is right: bring the other nodes back"
        ),
    });
    each.collect()
}
