//! The decision of `apply` about a command: the outcome, the batch to write, and the change of the catalog in memory.

use super::feed::Applied;
use super::summary::Summary;
use crate::command::{Outcome, Reign};
use crate::engine::Batch;
use crate::roster::Roster;
use crate::zodb::{Refusal, StorageId};

/// The change of the catalog once the batch is written.
pub(super) enum Next {
    Same,
    Reign(Reign),
    Membership(Vec<u8>),
    /// Set by the entry at hand.
    Roster(Roster),
    Created(StorageId, String),
    Dropped(StorageId),
    Summed(StorageId, Summary),
    /// Revisions are gone: a read that spans this batch starts again.
    Removed(StorageId, Summary),
    /// A pack has ended.
    Packed(StorageId, Summary),
    Committed(Applied, Summary),
}

/// An outcome, and the writes that go with it.
pub(super) struct Decision {
    pub outcome: Outcome,
    pub batch: Batch,
    pub next: Next,
}

impl Decision {
    pub fn nothing(outcome: Outcome) -> Decision {
        Decision { outcome, batch: Batch::new(), next: Next::Same }
    }

    pub fn refuse(refusal: Refusal) -> Decision {
        Decision::nothing(Outcome::Refused(refusal))
    }
}

pub(super) fn no_storage(storage: StorageId) -> Refusal {
    Refusal::NoStorage { name: storage.to_string(), known: Vec::new() }
}
