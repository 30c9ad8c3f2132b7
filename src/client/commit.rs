//! A commit on its way through the connection, step by step.
//!
//! ```text
//!   tpc_begin, storea …, checkCurrent …   Feeding     as fast as the server takes them
//!   vote                                  Voting      locks, or waits
//!     conflicts: tpc_abort                (ended)     not committed
//!   tpc_finish                            Finishing   cut off from here on: unknown
//! ```
//!
//! A server has one open transaction for each connection, so the commits of a client's tasks go one after another; a
//! commit that waits for its turn holds no locks. The task of the connection does all steps, so a caller that is
//! dropped half-way leaves nothing behind: its transaction is committed, or not, as if the caller had waited.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use super::shared::Shared;
use crate::zeo::Call;
use crate::zodb::{Conflict, Oid, Refusal, Tid};

/// The writes and checks of a transaction.
#[derive(Debug)]
pub struct CommitPlan {
    pub user: Bytes,
    pub description: Bytes,
    /// The objects, the serial that each has now (zero: none), and its new record.
    pub writes: Vec<(Oid, Tid, Bytes)>,
    /// Objects that must not have changed, and their serials.
    pub checks: Vec<(Oid, Tid)>,
}

/// How a commit ended that has not succeeded.
pub enum Ended {
    Conflict(Vec<Conflict>),
    Refused(Refusal),
    /// The connection was lost before the finish was sent: not committed, and to be tried on the next connection.
    Cut,
    /// The connection was lost after the finish was sent.
    Unknown,
    /// A step took too long; not committed.
    TooLong,
}

/// A plan whose turn has come.
pub struct QueuedCommit {
    pub plan: Arc<CommitPlan>,
    pub answer: oneshot::Sender<Result<Tid, Ended>>,
    pub turn: OwnedSemaphorePermit,
}

impl QueuedCommit {
    pub fn end(self, how: Result<Tid, Ended>) {
        // The next commit's turn begins before this one's caller runs.
        drop(self.turn);
        let _ = self.answer.send(how);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Feeding,
    Voting,
    Finishing,
}

/// A commit that the connection's task is carrying out.
pub struct RunningCommit {
    commit: QueuedCommit,
    txn: u64,
    stage: Stage,
    /// How many calls were sent.
    fed: usize,
    /// When the present stage has taken too long.
    pub deadline: Instant,
}

/// The call to send next.
pub enum NextCall {
    /// One that the server does not answer.
    Tell(Call),
    Vote(Call),
}

impl RunningCommit {
    pub fn new(shared: &Shared, commit: QueuedCommit, txn: u64) -> RunningCommit {
        RunningCommit { commit, txn, stage: Stage::Feeding, fed: 0, deadline: shared.env.now() + shared.options.wait }
    }

    /// The next call that need not wait for an answer to an earlier one.
    pub fn next(&mut self, shared: &Shared) -> Option<NextCall> {
        if self.stage != Stage::Feeding {
            return None;
        }
        let (plan, txn) = (&self.commit.plan, self.txn);
        let nth = self.fed;
        self.fed += 1;
        self.deadline = shared.env.now() + shared.options.wait;
        if nth == 0 {
            let (user, description) = (plan.user.clone(), plan.description.clone());
            let call = Call::TpcBegin { txn, user, description, extension: Bytes::new(), tid: None, status: b' ' };
            return Some(NextCall::Tell(call));
        }
        if let Some((oid, serial, data)) = plan.writes.get(nth - 1) {
            return Some(NextCall::Tell(Call::StoreA { oid: *oid, serial: Some(*serial), data: data.clone(), txn }));
        }
        if let Some((oid, serial)) = plan.checks.get(nth - 1 - plan.writes.len()) {
            return Some(NextCall::Tell(Call::CheckCurrentSerial { oid: *oid, serial: *serial, txn }));
        }
        self.stage = Stage::Voting;
        Some(NextCall::Vote(Call::Vote(txn)))
    }

    /// The call after a vote without conflicts.
    pub fn voted(&mut self, shared: &Shared) -> Call {
        self.stage = Stage::Finishing;
        self.deadline = shared.env.now() + shared.options.wait;
        Call::TpcFinish(self.txn)
    }

    /// The call after a vote with conflicts.
    pub fn abort(&self) -> Call {
        Call::TpcAbort(self.txn)
    }

    /// The objects that the commit writes.
    pub fn oids(&self) -> Vec<Oid> {
        self.written().map(|(oid, _)| oid).collect()
    }

    /// The objects that the commit writes, and their new records.
    pub fn written(&self) -> impl Iterator<Item = (Oid, &Bytes)> {
        self.commit.plan.writes.iter().map(|(oid, _, data)| (*oid, data))
    }

    /// Ends the commit, as its connection ends; `too_long`: because a step of this commit took too long.
    pub fn cut_off(self, too_long: bool) {
        let how = match (self.stage, too_long) {
            (Stage::Finishing, _) => Ended::Unknown,
            (_, true) => Ended::TooLong,
            (_, false) => Ended::Cut,
        };
        self.commit.end(Err(how));
    }

    pub fn end(self, how: Result<Tid, Ended>) {
        self.commit.end(how);
    }
}
