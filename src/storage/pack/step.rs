//! What the commands of a pack mean.

use crate::command::{Outcome, PackStep};
use crate::engine::Batch;
use crate::storage::Store;
use crate::storage::apply::{Decision, Next, no_storage, put_summary};
use crate::zodb::{Refusal, StorageId, Tid};

impl Store {
    pub(in crate::storage) fn pack_begin(&self, storage: StorageId, upto: Tid) -> Decision {
        let Some(mut summary) = self.summary_of(storage) else { return Decision::refuse(no_storage(storage)) };
        if summary.packing != Tid::ZERO {
            return Decision::refuse(Refusal::BadValue("a pack is going on already".into()));
        }
        summary.packing = upto;
        let mut batch = Batch::new();
        put_summary(&mut batch, storage, &summary);
        Decision { outcome: Outcome::Done, batch, next: Next::Summed(storage, summary) }
    }

    pub(in crate::storage) fn pack_step(&self, step: &PackStep) -> std::io::Result<Decision> {
        Ok(Decision::refuse(no_storage(step.storage)))
    }

    pub(in crate::storage) fn pack_end(&self, storage: StorageId) -> Decision {
        let Some(mut summary) = self.summary_of(storage) else { return Decision::refuse(no_storage(storage)) };
        summary.packing = Tid::ZERO;
        let mut batch = Batch::new();
        put_summary(&mut batch, storage, &summary);
        Decision { outcome: Outcome::Done, batch, next: Next::Summed(storage, summary) }
    }
}
