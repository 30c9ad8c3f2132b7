//! The state that all connections of a server share, and the waits that several connections have in common.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::bounds::{Budget, Complaints, LongReads, Reserve};
use super::counts::{Metrics, Tallies, Why};
use super::standing::Standing;
use crate::config::{Config, limits};
use crate::env::{Env, Watch, Watching};
use crate::net::{Pool, Tls};
use crate::raft::Node;
use crate::storage::Store;

/// How long to wait before the next attempt, unless the standing changes earlier.
const PAUSE: Duration = Duration::from_millis(100);

/// The state that the connections of a server share.
pub struct Shared {
    pub config: Arc<Config>,
    pub env: Env,
    /// TLS, spoken from the first byte of each connection, if configured.
    pub tls: Option<Tls>,
    pub node: Node,
    pub store: Store,
    pub metrics: Metrics,
    pub complaints: Complaints,
    pub tallies: Tallies,
    pub budget: Budget,
    pub reserve: Reserve,
    /// For the frames that come in.
    pub input: Pool,
    /// For what waits to be sent.
    pub output: Pool,
    /// For reads of unknown length: undo, undo logs, large conflicts.
    pub long_reads: LongReads,
    /// For the pieces of blobs.
    pub piece_reads: LongReads,
    pub standing: Watch<Standing>,
    /// Counts elections: goes up whenever a primary becomes known, or another one.
    pub elections: Watch<u64>,
    pub phase: Watch<Phase>,
}

/// The life of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Open,
    /// No new clients come in; transactions that have voted may finish.
    Draining,
    /// Connections are closed.
    Closing,
}

impl Shared {
    /// Whether this node is near enough to the primary for clients of the port for readers.
    pub fn is_fresh(&self) -> bool {
        self.node.lag().is_some_and(|lag| lag <= self.config.max_lag)
    }

    /// The names of the storages, for whoever asked for one that is not there.
    pub fn storage_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.store.storages().into_iter().map(|(_, name)| name).collect();
        if names.len() > limits::NAMES_TOLD {
            names.truncate(limits::NAMES_TOLD);
            names.push("...".into());
        }
        names
    }

    /// Returns once node `primary` is primary no more for this node, which passes something on to it, or once this
    /// node ends.
    pub async fn leaves(&self, primary: u64) {
        let mut standing = self.standing.watching();
        let mut phase = self.phase.watching();
        tokio::select! { biased;
            _ = standing.until(|now| !matches!(now, Standing::Following { primary: now, .. } if now.id == primary)) => {}
            _ = phase.until(|phase| *phase == Phase::Closing) => {}
        }
    }

    /// Returns once this node has every commit that any node answered before the call.
    pub async fn catch_up(&self, patience: Patience) -> Result<(), Why> {
        let mut standing = self.standing.watching();
        loop {
            let left = patience.left(self)?;
            standing.look_now();
            match self.node.catch_up(left).await {
                Ok(()) => return Ok(()),
                Err(why) => tracing::debug!(why = why.0, "could not catch up"),
            }
            patience.pause(self, &mut standing).await?;
        }
    }
}

/// How long a register, or another call that needs a primary, may still wait.
pub struct Patience {
    deadline: Instant,
    /// Until when to wait all the same while an election goes on that can succeed.
    election: Instant,
}

impl Patience {
    pub fn new(shared: &Shared) -> Patience {
        let deadline = shared.env.now() + limits::REGISTER_ANSWER;
        Patience { deadline, election: deadline }
    }

    /// The patience of a register: to close the client would cost it more than to wait for the end of an election.
    pub fn of_register(shared: &Shared) -> Patience {
        Patience { election: shared.env.now() + limits::ELECTION_ANSWER, ..Patience::new(shared) }
    }

    pub fn left(&self, shared: &Shared) -> Result<Duration, Why> {
        let now = shared.env.now();
        let left = self.deadline.saturating_duration_since(now);
        if !left.is_zero() {
            return Ok(left);
        }
        // (A node follows a primary that has died until it knows; and perhaps it has just been elected itself.)
        let is_formed = || !matches!(*shared.standing.look(), Standing::Forming);
        let electing = || is_formed() && shared.node.reaches_majority();
        let left = self.election.saturating_duration_since(now);
        if !left.is_zero() && electing() { Ok(left.min(limits::REGISTER_ANSWER)) } else { Err(Why::NoPrimary) }
    }

    /// Waits a little, or for another standing.
    pub async fn pause(&self, shared: &Shared, standing: &mut Watching<Standing>) -> Result<(), Why> {
        let left = self.left(shared)?;
        let _ = shared.env.timeout(left.min(PAUSE), standing.changed()).await;
        self.left(shared).map(drop)
    }
}
