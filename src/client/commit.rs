//! A commit on its way through the connection, step by step.
//!
//! ```text
//!   tpc_begin, storea …, checkCurrent …   Feeding     as fast as the server takes them
//!   vote                                  Voting      locks, or waits
//!     conflicts: tpc_abort                (ended)     not committed
//!   tpc_finish                            Finishing   cut off from here on: unknown
//! ```
//!
//! A server has one open transaction for each connection, so the commits of a client's tasks go one after another;
//! whoever waits for its turn holds nothing. The task of the connection does all steps, so a caller that is dropped half-way
//! leaves nothing behind: what it began is committed, or not, as if it had waited.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use super::Shared;
use crate::zeo::Call;
use crate::zodb::{Conflict, Oid, Refusal, Tid};

/// What a transaction wants to be committed.
#[derive(Debug)]
pub struct Plan {
    pub user: Bytes,
    pub description: Bytes,
    /// The objects, the serial that each has now (zero: none), and what it becomes.
    pub writes: Vec<(Oid, Tid, Bytes)>,
    /// Objects that must not have changed, and their serials.
    pub checks: Vec<(Oid, Tid)>,
}

/// How a commit ended, if not well.
pub enum Ended {
    Conflict(Vec<Conflict>),
    Refused(Refusal),
    /// The connection was lost before the finish was sent: it has not committed, and may be tried by another one.
    Cut,
    /// It was lost afterwards.
    Unknown,
    /// It took too long, and has not committed.
    TooLong,
}

/// A plan whose turn it is.
pub struct Commit {
    pub plan: Arc<Plan>,
    pub answer: oneshot::Sender<Result<Tid, Ended>>,
    pub turn: OwnedSemaphorePermit,
}

impl Commit {
    pub fn end(self, how: Result<Tid, Ended>) {
        // The next one's turn begins before this one's caller runs.
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

/// A commit that has begun.
pub struct Running {
    commit: Commit,
    txn: u64,
    stage: Stage,
    /// How many calls were sent.
    fed: usize,
    /// When this stage has taken too long.
    pub deadline: Instant,
}

/// What to send next.
pub enum Step {
    /// Without an answer.
    Tell(Call),
    Vote(Call),
}

impl Running {
    pub fn new(shared: &Shared, commit: Commit, txn: u64) -> Running {
        Running { commit, txn, stage: Stage::Feeding, fed: 0, deadline: shared.env.now() + shared.options.wait }
    }

    /// The next call, while there is one to be made unasked.
    pub fn next(&mut self, shared: &Shared) -> Option<Step> {
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
            return Some(Step::Tell(call));
        }
        if let Some((oid, serial, data)) = plan.writes.get(nth - 1) {
            return Some(Step::Tell(Call::StoreA { oid: *oid, serial: Some(*serial), data: data.clone(), txn }));
        }
        if let Some((oid, serial)) = plan.checks.get(nth - 1 - plan.writes.len()) {
            return Some(Step::Tell(Call::CheckCurrentSerial { oid: *oid, serial: *serial, txn }));
        }
        self.stage = Stage::Voting;
        Some(Step::Vote(Call::Vote(txn)))
    }

    /// The vote went well: what to send now.
    pub fn voted(&mut self, shared: &Shared) -> Call {
        self.stage = Stage::Finishing;
        self.deadline = shared.env.now() + shared.options.wait;
        Call::TpcFinish(self.txn)
    }

    /// It did not: what to send now.
    pub fn abort(&self) -> Call {
        Call::TpcAbort(self.txn)
    }

    /// What it writes.
    pub fn oids(&self) -> Vec<Oid> {
        self.written().map(|(oid, _)| oid).collect()
    }

    /// What it writes, and what that becomes.
    pub fn written(&self) -> impl Iterator<Item = (Oid, &Bytes)> {
        self.commit.plan.writes.iter().map(|(oid, _, data)| (*oid, data))
    }

    /// The connection is gone.
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
