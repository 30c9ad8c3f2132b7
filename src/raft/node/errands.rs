//! Errands to other nodes.

use std::io;
use std::time::Duration;

use super::inner::Inner;
use crate::raft::errand::{Errand, Report};
use crate::raft::hello::Purpose;
use crate::raft::link::Target;
use crate::raft::wire::{Answer, Ask, Numbered};

/// Sends node `to` an errand. The error says why there is no report: whether the errand is done is not known then.
///
/// The errand has a connection of its own: it may take longer than a link waits for an answer, and must not hold up
/// what keeps a reign alive.
pub async fn send(node: &Inner, to: u64, errand: Errand, within: Duration) -> Result<Report, String> {
    let Some(running) = node.running.get() else { return Err("the cluster has not formed".into()) };
    let Some(member) = node.member(to) else { return Err(node.no_member(to)) };
    let asking = async {
        let cluster = Some(running.peers.cluster());
        let mut connection = node.caller.reach(&Target::from(member), cluster, Purpose::Calls).await?;
        connection.send(&Numbered { number: 1, body: Ask::Errand(errand) }).await?;
        io::Result::Ok(connection.receive::<Numbered<Answer>>().await?.body)
    };
    match node.env().timeout(within, asking).await {
        Ok(Ok(Answer::Report(report))) => Ok(report),
        Ok(Ok(Answer::Failed(why))) => Err(why),
        Ok(Ok(other)) => Err(format!("an answer to another question: {other:?}")),
        Ok(Err(fault)) => Err(fault.to_string()),
        Err(_) => Err(format!("no answer within {within:?}")),
    }
}
