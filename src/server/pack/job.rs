//! A pack under way: the state and the helpers that all phases of a pack share.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::command::{Change, Outcome};
use crate::server::primary::Primary;
use crate::server::primary::pack_watch::PackWatch;
use crate::storage::pack::{Fault, Plan};
use crate::zodb::{Oid, Refusal, StorageId};

/// How often to look whether something has come to an end.
pub const LOOK: Duration = Duration::from_millis(10);
/// How often a pack that takes long logs its progress.
const PROGRESS: Duration = Duration::from_secs(10);

/// One pack.
pub struct Job<'a> {
    pub primary: &'a Arc<Primary>,
    pub storage: StorageId,
    pub watch: &'a Arc<PackWatch>,
    pub plan: Plan,
    pub removed: Removed,
    /// When the progress of the pack was last logged.
    pub said: Instant,
}

/// How a pack ended that removed nothing, or not all.
pub enum Failure {
    /// The reign is over: the next primary goes on.
    ReignOver,
    Refused(Refusal),
}

/// The counts of the revisions and objects removed so far.
#[derive(Clone, Copy, Default)]
pub struct Removed {
    pub revisions: u64,
    pub garbage: u64,
}

impl Job<'_> {
    /// Checks the outcome of a step. `None`: the outcome is unknown, and the locks of the step stay until the reign is
    /// over.
    pub async fn outcome(&self, outcome: Option<Outcome>) -> Result<(), Failure> {
        match outcome {
            Some(Outcome::Done) => Ok(()),
            Some(Outcome::Refused(refusal)) => Err(Failure::Refused(refusal)),
            Some(Outcome::Stale) | None => {
                let mut ended = self.primary.ended();
                let _ = ended.until(|ended| *ended).await;
                Err(Failure::ReignOver)
            }
            Some(other) => unreachable!("no outcome of a pack's step: {other:?}"),
        }
    }

    /// Reads for the plan of this pack, by [`read`].
    pub async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Plan) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Failure> {
        read(self.primary, &self.plan, work).await
    }

    /// Logs the progress of the pack now and then.
    pub fn tell(&mut self, at: Oid) {
        let now = self.primary.env().now();
        if now.saturating_duration_since(self.said) >= PROGRESS {
            self.said = now;
            let Removed { revisions, garbage } = self.removed;
            tracing::info!(storage = %self.storage, %at, revisions, garbage, "packing goes on");
        }
    }
}

/// Reads for a plan on a thread that may block, unless the reign is over before.
pub async fn read<T: Send + 'static>(
    primary: &Primary,
    plan: &Plan,
    work: impl FnOnce(&Plan) -> Result<T, Fault> + Send + 'static,
) -> Result<T, Failure> {
    let reader = plan.clone();
    let mut ended = primary.ended();
    let found = tokio::select! { biased;
        _ = ended.until(|ended| *ended) => return Err(Failure::ReignOver),
        found = primary.env().offload(move || work(&reader)) => found,
    };
    found.map_err(|fault| match fault {
        Fault::Missing(oid) => {
            tracing::error!(%oid, "an object that is referred to does not exist: its storage could not be packed");
            Failure::Refused(Refusal::NoKey(format!("{fault}")))
        }
        Fault::Stopped => Failure::ReignOver,
        Fault::Unreadable(..) | Fault::Io(_) => Failure::Refused(Refusal::BadValue(fault.to_string())),
    })
}

/// Proposes a change until the change is known to have applied, or the reign is over.
pub async fn change(primary: &Primary, change: Change) -> Result<Outcome, Failure> {
    loop {
        match primary.change(change.clone()).await {
            Some(Outcome::Stale) => return Err(Failure::ReignOver),
            Some(outcome) => return Ok(outcome),
            None if *primary.ended().look() => return Err(Failure::ReignOver),
            None => primary.env().sleep(LOOK).await,
        }
    }
}
