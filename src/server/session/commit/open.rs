//! The open transaction of a session, and its stage.

use std::sync::Arc;

use futures_util::FutureExt;

use super::buffer::Buffer;
use super::life::Life;
use crate::command::Base;
use crate::server::primary::Primary;
use crate::server::primary::ahead::Ahead;
use crate::server::session::desk::Done;
use crate::tpc::TxnId;
use crate::zeo::MessageId;
use crate::zodb::Oid;

/// The transaction of a session, until its finish.
pub struct OpenTransaction {
    pub buffer: Buffer,
    pub claim: Claim,
    pub stage: Stage,
    /// The parts that are in the log already, if any are.
    pub ahead: Option<Ahead>,
    /// The transaction has met a conflict.
    pub resolved: bool,
    /// Ends the waits on behalf of this transaction alone.
    life: Life,
}

/// How far a transaction is.
pub enum Stage {
    /// The client is sending the transaction.
    Begun,
    /// The transaction votes as soon as all that goes ahead of the vote is in the log.
    Sending(MessageId),
    /// The transaction waits for its locks and the verdict.
    Voting,
    /// The client resolves conflicts, and will vote again.
    Resolving,
    /// The locks are held, and the objects are being undone (`storage::undo`). The base of each write.
    Undoing(Vec<(Oid, Base)>),
    /// The vote is answered. The base of each write.
    Voted(Vec<(Oid, Base)>),
}

/// A transaction's number at the primary. Dropping the claim lets its locks go, unless the transaction is being
/// finished.
pub struct Claim {
    pub primary: Arc<Primary>,
    pub txn: TxnId,
    /// Whether the transaction may have locks to let go of.
    pub holds: bool,
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.holds {
            self.primary.abort(self.txn);
        }
    }
}

impl OpenTransaction {
    pub fn new(buffer: Buffer, primary: Arc<Primary>) -> OpenTransaction {
        let claim = Claim { txn: primary.number(), primary, holds: false };
        OpenTransaction { buffer, claim, stage: Stage::Begun, ahead: None, resolved: false, life: Life::default() }
    }

    /// Whether its client may still store, and vote.
    pub fn may_vote(&self) -> bool {
        matches!(self.stage, Stage::Begun | Stage::Resolving)
    }

    /// `wait`, which is dropped as soon as the transaction is aborted or otherwise over.
    pub fn unless_over(
        &self,
        wait: impl Future<Output = Done> + Send + 'static,
    ) -> impl Future<Output = Done> + Send + 'static {
        self.life.unless_over(wait).map(|done| done.unwrap_or(Done::Forgotten))
    }
}
