//! Packing: one at a time for each storage, on the primary, while commits go on.
//!
//! ```text
//!   watch       from now on every vote shows what its records refer to, before it is answered
//!   PackBegin   the pack time is in the log: undo stops there
//!   wait        until the transactions that were voted before the watch have come to an end
//!   reach       what the root leads to as of the pack time, and what younger records refer to; and what votes have shown
//!   step, …     lock some objects, as a vote does; look again; PackStep; free them
//!   PackEnd
//! ```
//!
//! **Garbage that is referred to again.** Until its step an object that nothing refers to is there, and a transaction may bring
//! it back. Its vote shows the reference. The object, and all that it leads to, is *pardoned* before the vote is
//! answered, so that no step takes it; or some of that has gone already, and the vote is refused, as the object can't be had
//! any more. Verdicts of both kinds (a pardon; a step's last look) are given one at a time.
//!
//! **Locks.** A step locks its objects so that no transaction is about to build on what it removes. It does not wait long: one
//! transaction that is slow to finish would have it hold up all others. A step that does not get its locks is tried again, then
//! in parts; who locks a single object holds up nobody but those who want that one, and may wait.
//!
//! **Its end.** A pack lives in one reign. When that is over the next primary finds in the storage's summary that it was going
//! on, and starts it again ([`resume`]).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use super::metrics::Present;
use super::pack_watch::{Seen, Shown, Watch};
use super::primary::{Primary, Verdict};
use crate::command::{Base, Change, Outcome, PackStep, Removal};
use crate::config::limits;
use crate::storage::pack::{Fault, Oids, Plan, Planned};
use crate::tpc::{Read, Vote};
use crate::zodb::{Oid, Refusal, StorageId, Tid};

/// How often to look whether something has come to an end.
const LOOK: Duration = Duration::from_millis(10);
/// How long a step waits for the locks of several objects.
const PATIENCE: Duration = Duration::from_millis(200);
/// How often a step is tried as a whole.
const TRIES: u32 = 3;
/// How often a pack that takes long says how far it is.
const PROGRESS: Duration = Duration::from_secs(10);

/// The packs of a reign.
pub struct Packs {
    /// Whether garbage is collected.
    gc: bool,
    counters: Counters,
    running: Mutex<BTreeMap<StorageId, Arc<Watch>>>,
}

/// What is counted of packs.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Packs that are going on here.
    pub running: Gauge,
    /// Packs that have ended, complete or not.
    pub ended: Counter,
    /// Revisions that were removed.
    pub revisions: Counter,
    /// Objects that were removed as nothing refers to them.
    pub garbage: Counter,
}

/// How a pack ended that removed nothing, or not all.
enum Failure {
    /// The reign is over: the next primary goes on.
    ReignOver,
    Refused(Refusal),
}

/// What has been removed so far.
#[derive(Clone, Copy, Default)]
struct Count {
    revisions: u64,
    garbage: u64,
}

impl Packs {
    /// None is going on; `gc`: they collect garbage.
    pub fn new(gc: bool, counters: Counters) -> Packs {
        Packs { gc, counters, running: Mutex::default() }
    }

    /// The pack of this storage, if one is going on.
    pub fn watch(&self, storage: StorageId) -> Option<Arc<Watch>> {
        self.running().get(&storage).cloned()
    }

    fn begin(&self, storage: StorageId) -> Option<Arc<Watch>> {
        let mut running = self.running();
        if running.contains_key(&storage) {
            return None;
        }
        let watch = Arc::new(Watch::default());
        running.insert(storage, watch.clone());
        Some(watch)
    }

    fn end(&self, storage: StorageId) {
        self.running().remove(&storage);
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<StorageId, Arc<Watch>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a watch, and what is still being read for it.
struct Watching<'a> {
    packs: &'a Packs,
    storage: StorageId,
    plan: Option<Plan>,
}

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        self.packs.end(self.storage);
        if let Some(plan) = &self.plan {
            plan.stop();
        }
    }
}

/// Packs a storage up to `upto`, to the end. `None`: the reign was over before.
pub async fn pack(primary: &Arc<Primary>, storage: StorageId, upto: Tid) -> Option<Result<(), Refusal>> {
    let Some(watch) = primary.packs().begin(storage) else {
        return Some(Err(Refusal::BadValue("already packing".into())));
    };
    told(run(primary, storage, &watch, Some(upto)).await, storage)
}

/// Goes on with the packs that an earlier reign has begun.
pub fn resume(primary: &Arc<Primary>) {
    for (storage, _) in primary.store().storages() {
        if primary.store().summary(storage).packing == Tid::ZERO {
            continue;
        }
        let Some(watch) = primary.packs().begin(storage) else { continue };
        let going_on = primary.clone();
        primary.env().spawn(async move {
            told(run(&going_on, storage, &watch, None).await, storage);
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

/// One pack; `upto`: none if it goes on with one that has begun.
async fn run(primary: &Arc<Primary>, storage: StorageId, watch: &Arc<Watch>, upto: Option<Tid>) -> Result<(), Failure> {
    let resumed = upto.is_none();
    let mut watching = Watching { packs: primary.packs(), storage, plan: None };
    let gc = primary.packs().gc;
    if let Some(upto) = upto {
        let plan = Plan::new(primary.store(), storage, upto.min(primary.store().last_tid(storage)), gc);
        if read(primary, &plan, |plan| Ok(plan.is_idle()?)).await? {
            tracing::info!(%storage, %upto, "nothing to pack");
            return Ok(());
        }
    }
    let _running = Present::new(&primary.packs().counters.running);
    if gc {
        // It only tells what there is.
        let plan = Plan::new(primary.store(), storage, Tid::ZERO, gc);
        *watch.seen() = Seen::Shown(Shown::new(plan));
    }
    if let Some(upto) = upto {
        match change(primary, Change::PackBegin { storage, upto }).await? {
            Outcome::Done => {}
            Outcome::Refused(refusal) => return Err(Failure::Refused(refusal)),
            other => unreachable!("no outcome of a pack's begin: {other:?}"),
        }
    }
    let upto = primary.store().summary(storage).packing;
    let began = primary.env().now();
    tracing::info!(%storage, %upto, gc, resumed, "packing");
    let plan = Plan::new(primary.store(), storage, upto, gc);
    watching.plan = Some(plan.clone());
    let mut pack = Pack { primary, storage, watch, plan, count: Count::default(), said: began };
    let done = pack.go().await;
    let count = pack.count;
    if let Err(Failure::ReignOver) = done {
        return done;
    }
    change(primary, Change::PackEnd { storage }).await?;
    primary.packs().counters.ended.inc();
    let took = primary.env().now().saturating_duration_since(began);
    let (revisions, garbage) = (count.revisions, count.garbage);
    tracing::info!(%storage, %upto, revisions, garbage, ?took, complete = done.is_ok(), "packed");
    done
}

struct Pack<'a> {
    primary: &'a Arc<Primary>,
    storage: StorageId,
    watch: &'a Arc<Watch>,
    plan: Plan,
    count: Count,
    said: tokio::time::Instant,
}

impl Pack<'_> {
    async fn go(&mut self) -> Result<(), Failure> {
        self.settled().await?;
        if self.primary.packs().gc {
            self.judge().await?;
        }
        let mut from = Some(Oid::ROOT);
        while let Some(at) = from {
            let watch = self.watch.clone();
            let page = self.read(move |plan| plan.page(at, |oid| watch.keeps(oid))).await?;
            from = page.next;
            self.remove(page.planned).await?;
            self.tell(at);
        }
        let mut from = Some(Tid::ZERO);
        while let Some(at) = from {
            let (transactions, next) = self.read(move |plan| plan.transactions(at)).await?;
            from = next;
            if !transactions.is_empty() {
                let step = PackStep { storage: self.storage, objects: Vec::new(), transactions };
                let outcome = change(self.primary, Change::PackStep(step)).await?;
                self.outcome(Some(outcome)).await?;
            }
        }
        Ok(())
    }

    /// Returns when the transactions are over that were voted before the watch began.
    async fn settled(&self) -> Result<(), Failure> {
        let mut before = self.primary.voted(self.storage);
        while !before.is_empty() {
            self.primary.env().sleep(LOOK).await;
            if *self.primary.ended().look() {
                return Err(Failure::ReignOver);
            }
            let still = self.primary.voted(self.storage);
            before.retain(|txn| still.contains(txn));
        }
        Ok(())
    }

    /// Finds out what is garbage.
    async fn judge(&mut self) -> Result<(), Failure> {
        let mut kept = self
            .read(|plan| {
                let mut kept = Oids::default();
                plan.reach(&mut kept)?;
                plan.beyond(&mut kept)?;
                Ok(kept)
            })
            .await?;
        loop {
            let shown = match &mut *self.watch.seen() {
                seen @ Seen::Shown(_) => {
                    let Seen::Shown(shown) = seen else { unreachable!("looked at right before") };
                    let Shown { oids, unclear, .. } = shown.take();
                    if let Some((oid, why)) = unclear {
                        let why = format!("object {oid} of a transaction that is going on: {why}");
                        return Err(Failure::Refused(Refusal::BadValue(why)));
                    }
                    let fresh: Vec<Oid> = oids.iter().filter(|oid| !kept.contains(*oid)).collect();
                    if fresh.is_empty() {
                        // Nobody shows anything between this look and the judgement.
                        *seen = Seen::Judged { plan: self.plan.clone(), kept, gone: Oids::default() };
                        return Ok(());
                    }
                    fresh
                }
                _ => unreachable!("a pack is judged once"),
            };
            kept = self
                .read(move |plan| {
                    plan.pardon(shown, &mut kept)?;
                    Ok(kept)
                })
                .await?;
        }
    }

    /// Removes what a page has planned, in steps.
    async fn remove(&mut self, planned: Vec<Planned>) -> Result<(), Failure> {
        let mut steps = Vec::new();
        let mut step: Vec<Planned> = Vec::new();
        let (mut revisions, mut bytes) = (0, 0);
        for object in planned {
            let again = step.last().is_some_and(|last| last.removal.oid == object.removal.oid);
            let full = revisions + object.removal.tids.len() > limits::PACK_REVISIONS
                || bytes + object.bytes() > limits::PACK_BYTES;
            if again || (full && !step.is_empty()) {
                steps.push(std::mem::take(&mut step));
                (revisions, bytes) = (0, 0);
            }
            revisions += object.removal.tids.len();
            bytes += object.bytes();
            step.push(object);
        }
        steps.push(step);
        // The next one is at the end.
        steps.reverse();
        while let Some(step) = steps.pop() {
            if step.is_empty() {
                continue;
            }
            for part in self.step(step).await? {
                steps.push(part);
            }
        }
        Ok(())
    }

    /// Removes some objects' revisions; gives what is still to be done.
    async fn step(&mut self, mut step: Vec<Planned>) -> Result<Vec<Vec<Planned>>, Failure> {
        let mut tries = 0;
        loop {
            let oids: Vec<Oid> = step.iter().map(|object| object.removal.oid).collect();
            let patience = (oids.len() > 1).then_some(PATIENCE);
            if let Some(done) = self.locked(&oids, patience, &mut step).await? {
                return Ok(done);
            }
            if *self.primary.ended().look() {
                return Err(Failure::ReignOver);
            }
            tries += 1;
            if tries >= TRIES && step.len() > 1 {
                let rest = step.split_off(step.len() / 2);
                // The second is taken first, so that an object's parts stay in order: it has only one in a step.
                return Ok(vec![rest, step]);
            }
            self.primary.env().sleep(LOOK).await;
        }
    }

    /// Does a step if it gets its locks in time; gives what is to be done after it.
    async fn locked(
        &mut self,
        oids: &[Oid],
        patience: Option<Duration>,
        step: &mut Vec<Planned>,
    ) -> Result<Option<Vec<Vec<Planned>>>, Failure> {
        let (primary, env) = (self.primary, self.primary.env());
        let txn = primary.number();
        let writes = oids.iter().map(|oid| (*oid, Read::Current)).collect();
        let vote = Vote { txn, storage: self.storage, writes, checks: Vec::new(), brings_tid: None };
        let (judged, _) = primary.vote(vote);
        let verdict = match patience {
            Some(patience) => env.timeout(patience, judged).await.ok().and_then(Result::ok),
            None => judged.await.ok(),
        };
        let Some(Verdict::Voted(bases)) = verdict else {
            primary.abort(txn);
            return Ok(None);
        };
        let outcome = self.decide(std::mem::take(step), &bases).await;
        let (objects, later) = match outcome {
            Ok(decided) => decided,
            Err(failure) => {
                primary.abort(txn);
                return Err(failure);
            }
        };
        if objects.is_empty() {
            primary.abort(txn);
            return Ok(Some(later));
        }
        let count = Count {
            revisions: objects.iter().map(|object| object.removal.tids.len() as u64).sum(),
            garbage: objects.iter().filter(|object| object.garbage && is_whole(&object.removal)).count() as u64,
        };
        let change = PackStep {
            storage: self.storage,
            objects: objects.iter().map(|object| object.removal.clone()).collect(),
            transactions: Vec::new(),
        };
        match primary.finish_step(txn, change) {
            Some(answer) => {
                self.outcome(answer.await.ok().and_then(Result::ok)).await?;
                self.count.revisions += count.revisions;
                self.count.garbage += count.garbage;
                let counters = &primary.packs().counters;
                counters.revisions.inc_by(count.revisions);
                counters.garbage.inc_by(count.garbage);
                Ok(Some(later))
            }
            // It took too long, and lost its locks: these come next, in parts, before what was to come after them.
            None => {
                primary.abort(txn);
                env.sleep(LOOK).await;
                Ok(Some(again(objects, later)))
            }
        }
    }

    /// The last look at objects that are locked: what goes now, and what goes later.
    async fn decide(
        &mut self,
        step: Vec<Planned>,
        bases: &[(Oid, Base)],
    ) -> Result<(Vec<Planned>, Vec<Vec<Planned>>), Failure> {
        let watch = self.watch.clone();
        let _verdict = watch.verdict.lock().await;
        let (mut now, mut later) = (Vec::with_capacity(step.len()), Vec::new());
        for (object, (oid, base)) in step.into_iter().zip(bases) {
            let oid = *oid;
            debug_assert_eq!(object.removal.oid, oid, "bases come in the order of the writes");
            let keeps = watch.keeps(oid);
            if *base == Base::Serial(object.removal.current) && !(object.garbage && keeps) {
                now.push(object);
                continue;
            }
            // It has changed since, or was pardoned.
            let mut parts = self.read(move |plan| plan.object(oid, keeps)).await?.into_iter();
            now.extend(parts.next());
            later.extend(parts.map(|part| vec![part]));
        }
        // The next one is at the end.
        later.reverse();
        if let Seen::Judged { gone, .. } = &mut *watch.seen() {
            for object in now.iter().filter(|object| object.garbage) {
                gone.insert(object.removal.oid);
            }
        }
        Ok((now, later))
    }

    /// `None`: nobody knows, and the locks are not freed before the reign is over.
    async fn outcome(&self, outcome: Option<Outcome>) -> Result<(), Failure> {
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

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Plan) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Failure> {
        read(self.primary, &self.plan, work).await
    }

    /// Says now and then how far it is.
    fn tell(&mut self, at: Oid) {
        let now = self.primary.env().now();
        if now.saturating_duration_since(self.said) >= PROGRESS {
            self.said = now;
            let (revisions, garbage) = (self.count.revisions, self.count.garbage);
            tracing::info!(storage = %self.storage, %at, revisions, garbage, "packing goes on");
        }
    }
}

/// Reads for a plan on a thread that may take its time, unless the reign is over before.
async fn read<T: Send + 'static>(
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
            tracing::error!(%oid, "an object is referred to and not there: it could not be packed");
            Failure::Refused(Refusal::NoKey(format!("{fault}")))
        }
        Fault::Stopped => Failure::ReignOver,
        Fault::Unreadable(..) | Fault::Io(_) => Failure::Refused(Refusal::BadValue(fault.to_string())),
    })
}

/// Proposes until it is known to have happened, or the reign is over.
async fn change(primary: &Primary, change: Change) -> Result<Outcome, Failure> {
    loop {
        match primary.change(change.clone()).await {
            Some(Outcome::Stale) => return Err(Failure::ReignOver),
            Some(outcome) => return Ok(outcome),
            None if *primary.ended().look() => return Err(Failure::ReignOver),
            None => primary.env().sleep(LOOK).await,
        }
    }
}

/// What is still to be done if a step of `objects` is to be tried again, the next one at the end: in two, as an object has only
/// one part in a step; and then what comes `later`.
fn again(mut objects: Vec<Planned>, mut later: Vec<Vec<Planned>>) -> Vec<Vec<Planned>> {
    if objects.len() > 1 {
        later.push(objects.split_off(objects.len() / 2));
    }
    later.push(objects);
    later
}

/// Whether the object goes altogether.
fn is_whole(removal: &Removal) -> bool {
    removal.tids.last() == Some(&removal.current)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_is_tried_again_comes_before_what_was_to_come_after_it() {
        let part = |oid| Planned {
            removal: Removal { oid: Oid(oid), current: Tid(9), tids: vec![Tid(1)], heirs: vec![] },
            garbage: false,
            moved: 0,
            read: 0,
        };
        let order = |objects: &[u64], later: &[u64]| -> Vec<Vec<u64>> {
            // The next one is at the end.
            let later = later.iter().rev().map(|oid| vec![part(*oid)]).collect();
            let steps = again(objects.iter().map(|oid| part(*oid)).collect(), later);
            steps.iter().rev().map(|step| step.iter().map(|object| object.removal.oid.0).collect()).collect()
        };
        assert_eq!(order(&[1], &[]), [[1]]);
        assert_eq!(order(&[1], &[7, 8]), [[1], [7], [8]]);
        assert_eq!(order(&[1, 2, 3, 4], &[7]), [&[1, 2][..], &[3, 4], &[7]]);
    }
}
