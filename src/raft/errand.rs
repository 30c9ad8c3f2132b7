//! Errands: what the server of one node asks of another's, over the link between them.
//!
//! Raft carries errands and knows nothing of their meaning. The node that gets one answers it itself and never passes
//! it on, so that no errand goes round in circles.

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::oneshot;

use super::members::MembersAsk;
use crate::config::limits;

/// A request of one node to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Errand {
    /// For an operator: the primary is to hand its role over, to that node or to the most advanced one.
    Transfer {
        /// The node to take over.
        to: Option<u64>,
    },
    /// For an operator: the primary is to drop a storage.
    DropStorage {
        /// The storage's name.
        name: String,
    },
    /// For the primary: what does this node have to do with a storage?
    LookAtStorage {
        /// The storage's name.
        name: String,
    },
    /// For an operator: the primary is to change the members.
    Members(MembersAsk),
}

/// The answer to an errand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// Done, in words for the operator.
    Done(String),
    /// Nothing has changed; why, in words for the operator.
    Refused(String),
    /// A node's need of a storage.
    Storage {
        /// Whether its settings name the storage.
        is_configured: bool,
        /// Clients that have the storage open there.
        clients: u64,
    },
}

/// An errand that another node has brought, and where its report goes.
pub struct Brought {
    /// The errand.
    pub errand: Errand,
    /// Where the report goes; without one the other node is told that this one stops.
    pub report: oneshot::Sender<Report>,
}

/// The way of errands from Raft to the server of this node.
pub fn errands() -> (mpsc::Sender<Brought>, mpsc::Receiver<Brought>) {
    mpsc::channel(limits::ERRANDS)
}

/// Takes an errand to this node's server, and waits for its report.
pub async fn bring(server: &mpsc::Sender<Brought>, errand: Errand) -> Report {
    let (report, reported) = oneshot::channel();
    let stops = || Report::Refused("The node that was asked stops.".into());
    match server.try_send(Brought { errand, report }) {
        Ok(()) => reported.await.unwrap_or_else(|_| stops()),
        Err(TrySendError::Full(_)) => Report::Refused("The node that was asked has too much of this to do.".into()),
        Err(TrySendError::Closed(_)) => stops(),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn too_many_errands_and_those_of_a_server_that_is_gone_are_refused() {
        let (server, mut brought) = errands();
        let errand = || Errand::Transfer { to: Some(2) };
        let waiting: Vec<_> = (0..limits::ERRANDS).map(|_| Box::pin(bring(&server, errand()))).collect();
        let mut waiting = futures_util::future::join_all(waiting);
        assert!((&mut waiting).now_or_never().is_none());
        assert!(matches!(bring(&server, errand()).await, Report::Refused(why) if why.contains("too much")));
        let first = brought.recv().await.unwrap();
        first.report.send(Report::Done("done".into())).unwrap();
        drop(brought);
        let reports = waiting.await;
        assert_eq!(reports[0], Report::Done("done".into()));
        assert!(reports[1..].iter().all(|report| matches!(report, Report::Refused(why) if why.contains("stops"))));
        assert!(matches!(bring(&server, errand()).await, Report::Refused(why) if why.contains("stops")));
    }
}
