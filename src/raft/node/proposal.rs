//! A proposal: a command on its way into the log, and its outcome.

use std::sync::Arc;

use bytes::Bytes;
use openraft::alias::OneshotReceiverOf;
use openraft::errors::ClientWriteError;
use openraft::impls::ProgressResponder;
use openraft::raft::ClientWriteResult;

use super::inner::Inner;
use crate::command::{Outcome, Reign};
use crate::raft::machine::Raft;
use crate::raft::types::{Proposed, Types};

/// A command on its way into the log.
pub struct Proposal {
    /// `None`: openraft did not take the command.
    answer: Option<OneshotReceiverOf<Types, ClientWriteResult<Types>>>,
    /// The reign that is over if another node turns out to lead.
    reign: Option<(Arc<Inner>, Reign)>,
}

/// Whether the command applies, or ever will, can't be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unknown;

impl Proposal {
    /// A proposal that did not reach the log.
    pub(super) fn untaken() -> Proposal {
        Proposal { answer: None, reign: None }
    }

    /// This proposal, tied to `reign`: a refusal of the proposal ends that reign.
    pub(super) fn in_reign(self, node: Arc<Inner>, reign: Reign) -> Proposal {
        Proposal { reign: Some((node, reign)), ..self }
    }

    /// The outcome of the command. Waits without a deadline: there is no time after which a proposal has failed.
    pub async fn outcome(self) -> Result<Outcome, Unknown> {
        let Some(answer) = self.answer else { return Err(Unknown) };
        match answer.await {
            Ok(Ok(response)) => Ok(response.data),
            Ok(Err(why)) => {
                let ClientWriteError::ForwardToLeader(_) = &why else { return Err(Unknown) };
                if let Some((node, reign)) = &self.reign {
                    node.abdicate(*reign);
                }
                Err(Unknown)
            }
            Err(_) => Err(Unknown),
        }
    }
}

/// Puts an encoded command into openraft's queue.
pub(super) async fn submit(raft: &Raft, command: Bytes) -> Proposal {
    let (responder, answer) = ProgressResponder::complete_only();
    match raft.client_write_ff(Proposed(command), Some(responder)).await {
        Ok(()) => Proposal { answer: Some(answer), reign: None },
        Err(fatal) => {
            tracing::debug!("openraft did not take a command: {fatal}");
            Proposal::untaken()
        }
    }
}
