//! Packing: one pack at a time for each storage, on the primary, while commits go on.
//!
//! ```text
//!   watch       from now on every vote shows what its records refer to, before it is answered
//!   PackBegin   the pack time is in the log: undo stops there
//!   wait        until the transactions that had voted before the watch are over
//!   mark        keep what the root leads to as of the pack time, what younger records refer to, what votes have shown
//!   step, …     lock some objects, as a vote does; look again; PackStep; free them
//!   PackEnd
//! ```
//!
//! **Garbage that is referred to again.** An object that nothing refers to exists until its step, and a transaction
//! may refer to it again. The vote of that transaction shows the reference. The object, and all that it leads to, is
//! *pardoned* before the vote is answered, so that no step takes it; or some of that has gone already, and the vote is
//! refused. Verdicts of both kinds (a pardon; a step's last look) are given one at a time.
//!
//! **The end.** A pack lives in one reign. When the reign is over, the next primary finds in the storage's summary
//! that a pack was going on, and starts it again ([`resume`]). It does not know which garbage has gone already: so it
//! takes every object that is referred to and not there for one of those.
//!
//! **Here.** `ask` has any node's clients ask the primary, `mark` finds the garbage, `steps` remove it; the phases
//! share `job`. Votes and packs meet in [`pack_watch`](super::primary::pack_watch).

use std::sync::Arc;

use super::counts::Present;
use super::primary::pack_watch::{Marks, Shown};
use super::primary::{PackGuard, Primary};
use crate::command::{Change, Outcome, PackStep};
use crate::storage::pack::Plan;
use crate::zodb::{Oid, Refusal, StorageId, Tid};

pub mod ask;
mod job;
mod mark;
mod steps;

use job::{Failure, Job, Removed, change, read};

/// Packs a storage up to `upto`, to the end. `None`: the reign was over before.
pub async fn pack(primary: &Arc<Primary>, storage: StorageId, upto: Tid) -> Option<Result<(), Refusal>> {
    let Some(guard) = primary.packs().begin(storage, false) else {
        return Some(Err(Refusal::BadValue("already packing".into())));
    };
    told(run(primary, storage, guard, Some(upto)).await, storage)
}

/// Goes on with the packs that an earlier reign has begun.
pub fn resume(primary: &Arc<Primary>) {
    for (storage, _) in primary.store().storages() {
        if primary.store().summary(storage).packing == Tid::ZERO {
            continue;
        }
        let Some(guard) = primary.packs().begin(storage, true) else { continue };
        // (Before the first vote can come.)
        begin_to_watch(primary, storage, &guard);
        let going_on = primary.clone();
        primary.env().spawn(async move {
            told(run(&going_on, storage, guard, None).await, storage);
        });
    }
}

fn told(outcome: Result<(), Failure>, storage: StorageId) -> Option<Result<(), Refusal>> {
    match outcome {
        Ok(()) => Some(Ok(())),
        Err(Failure::Refused(refusal)) => {
            tracing::warn!(%storage, %refusal, "a pack failed");
            Some(Err(refusal))
        }
        Err(Failure::ReignOver) => {
            tracing::info!(%storage, "a pack is left to the next primary");
            None
        }
    }
}

/// One pack. `upto`: the pack time; `None`: that of a pack which an earlier reign has begun.
async fn run(
    primary: &Arc<Primary>,
    storage: StorageId,
    mut guard: PackGuard,
    upto: Option<Tid>,
) -> Result<(), Failure> {
    let resumed = upto.is_none();
    let gc = primary.packs().gc;
    if let Some(upto) = upto {
        let plan = Plan::new(primary.store(), storage, upto.min(primary.store().last_tid(storage)), gc);
        // (What a pack has left that failed is not to be seen in the summary.)
        if !primary.packs().has_failed(storage) && read(primary, &plan, |plan| Ok(plan.is_idle()?)).await? {
            tracing::info!(%storage, %upto, "nothing to pack");
            return Ok(());
        }
    }
    let _running = Present::new(&primary.packs().counters.running);
    if let Some(upto) = upto {
        begin_to_watch(primary, storage, &guard);
        match change(primary, Change::PackBegin { storage, upto }).await? {
            Outcome::Done => {}
            Outcome::Refused(refusal) => return Err(Failure::Refused(refusal)),
            other => unreachable!("no outcome of a pack's begin: {other:?}"),
        }
    }
    let upto = primary.store().summary(storage).packing;
    let began = primary.env().now();
    tracing::info!(%storage, %upto, gc, resumed, "packing");
    let plan = Plan::new(primary.store(), storage, upto, gc).in_steps_of(primary.packs().most);
    guard.plan = Some(plan.clone());
    let mut job = Job { primary, storage, watch: &guard.watch, plan, removed: Removed::default(), said: began };
    let done = mark_and_sweep(&mut job).await;
    let Removed { revisions, garbage } = job.removed;
    if let Err(Failure::ReignOver) = done {
        return done;
    }
    primary.packs().note_end(storage, done.is_ok());
    change(primary, Change::PackEnd { storage }).await?;
    primary.packs().counters.ended.inc();
    let took = primary.env().now().saturating_duration_since(began);
    tracing::info!(%storage, %upto, revisions, garbage, ?took, complete = done.is_ok(), "packed");
    done
}

/// From now on every vote shows what its records refer to.
fn begin_to_watch(primary: &Primary, storage: StorageId, guard: &PackGuard) {
    if primary.packs().gc {
        // This plan only tells which objects exist.
        let plan = Plan::new(primary.store(), storage, Tid::ZERO, true);
        *guard.watch.marks() = Marks::Marking(Shown::new(plan));
    }
}

/// Finds the garbage, and removes it with all old revisions and the transactions that are left empty.
async fn mark_and_sweep(job: &mut Job<'_>) -> Result<(), Failure> {
    job.await_earlier_votes().await?;
    if job.primary.packs().gc {
        job.mark().await?;
    }
    let mut from = Some(Oid::ROOT);
    while let Some(at) = from {
        let watch = job.watch.clone();
        let page = job.read(move |plan| plan.page(at, |oid| watch.keeps(oid))).await?;
        from = page.next;
        job.remove(page.planned).await?;
        job.tell(at);
    }
    let mut from = Some(Tid::ZERO);
    while let Some(at) = from {
        let (transactions, next) = job.read(move |plan| plan.transactions(at)).await?;
        from = next;
        if !transactions.is_empty() {
            let step = PackStep { storage: job.storage, objects: Vec::new(), transactions };
            let outcome = change(job.primary, Change::PackStep(step)).await?;
            job.outcome(Some(outcome)).await?;
        }
    }
    Ok(())
}
