//! Hands the primary's role over: when an operator asks for it, and while this node is not fit to lead.

use std::sync::Arc;

use super::primary::Primary;
use super::shared::{Phase, Shared};
use super::standing::Standing;
use crate::config::limits;
use crate::raft::Role;

/// A primary that answers no new votes, until this is dropped: a hand-over ended, or its caller went away.
struct Sealed(Arc<Primary>);

impl Sealed {
    fn new(primary: Arc<Primary>) -> Sealed {
        primary.seal();
        Sealed(primary)
    }
}

impl Drop for Sealed {
    fn drop(&mut self) {
        self.0.unseal();
    }
}

/// Hands the primary's role to node `to`, or to the most advanced one, once the voted transactions are finished: gives
/// the new primary. An error says why nothing has changed.
pub async fn hand_over(shared: &Shared, to: Option<u64>) -> anyhow::Result<u64> {
    if !matches!(&*shared.standing.look(), Standing::Leading(_)) {
        anyhow::bail!("this node is not the primary");
    }
    shared.node.await_successor(to).await?;
    finish_and_hand_over(shared, to).await
}

/// The same without a look at who could take over: the voted transactions are finished in any case.
pub async fn finish_and_hand_over(shared: &Shared, to: Option<u64>) -> anyhow::Result<u64> {
    let Shared { env, standing, node, .. } = shared;
    let leading = match &*standing.look() {
        Standing::Leading(primary) => primary.clone(),
        _ => anyhow::bail!("this node is not the primary"),
    };
    let sealed = Sealed::new(leading);
    let leading = &sealed.0;
    let drained = async {
        while leading.unfinished() > 0 {
            env.sleep(limits::DRAIN_LOOK).await;
        }
    };
    if env.timeout(limits::DRAIN, drained).await.is_err() {
        tracing::warn!("some transactions were not finished in time; their clients lose their connections");
    }
    let handed = node.transfer(to).await;
    if *node.role().look_now() != Role::Primary(leading.reign()) {
        // The node knows of the new primary before its sessions do. Held votes end with the reign: none may be
        // answered in its last moment.
        let mut ended = leading.ended();
        let _ = env.timeout(limits::DRAIN, ended.until(|ended| *ended)).await;
    }
    handed
}

/// Hands the role over whenever this node has it and is not fit to lead, if another node is; until the server closes.
pub async fn while_unfit(shared: Arc<Shared>) {
    let mut phase = shared.phase.watching();
    loop {
        let closing = phase.until(|phase| *phase != Phase::Open);
        if shared.env.timeout(limits::CHECKUP, closing).await.is_ok() {
            return;
        }
        let is_leading = matches!(&*shared.standing.look(), Standing::Leading(_));
        let Some(why) = shared.node.unfit().filter(|_| is_leading) else { continue };
        let Some(successor) = shared.node.fit_successor() else { continue };
        match hand_over(&shared, Some(successor)).await {
            Ok(to) => tracing::warn!("handed the primary's role to node {to}, as this node is not fit to lead: {why}"),
            Err(no) => tracing::debug!("this node is not fit to lead, and leads: {no}"),
        }
    }
}
