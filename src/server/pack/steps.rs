//! The steps of a pack: some objects are locked, looked at once more, and their old revisions removed.
//!
//! A step locks its objects so that no transaction is about to build on the revisions that go. A step of several
//! objects does not wait long for its locks: one slow transaction would make the step hold up all others. Such a step
//! is tried again, then in parts. A step of a single object holds up only transactions on that object, and may wait.

use std::time::Duration;

use super::job::{Failure, Job, LOOK, Removed};
use crate::command::{Base, PackStep, Removal};
use crate::config::limits;
use crate::server::primary::Verdict;
use crate::server::primary::pack_watch::Marks;
use crate::storage::pack::Planned;
use crate::tpc::{Read, Vote};
use crate::zodb::Oid;

/// How long a step waits for the locks of several objects.
const PATIENCE: Duration = Duration::from_millis(200);
/// How often a step is tried as a whole.
const TRIES: u32 = 3;

/// Steps still to be taken: the next one is at the end.
type Steps = Vec<Vec<Planned>>;

impl Job<'_> {
    /// Removes what a page has planned, in steps.
    pub async fn remove(&mut self, planned: Vec<Planned>) -> Result<(), Failure> {
        let mut steps = Vec::new();
        let mut step: Vec<Planned> = Vec::new();
        let (mut revisions, mut bytes) = (0, 0);
        for object in planned {
            let again = step.last().is_some_and(|last| last.removal.oid == object.removal.oid);
            let full = revisions + object.removal.tids.len() > self.primary.packs().most
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

    /// Removes some objects' revisions; gives the steps that are left of it.
    async fn step(&mut self, mut step: Vec<Planned>) -> Result<Steps, Failure> {
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
                // (An object has only one part in a step, so halves keep the parts of an object in order.)
                return Ok(vec![rest, step]);
            }
            self.primary.env().sleep(LOOK).await;
        }
    }

    /// Takes a step if it gets its locks in time; gives the steps that come after it.
    async fn locked(
        &mut self,
        oids: &[Oid],
        patience: Option<Duration>,
        step: &mut Vec<Planned>,
    ) -> Result<Option<Steps>, Failure> {
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
        let removed = Removed {
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
                self.removed.revisions += removed.revisions;
                self.removed.garbage += removed.garbage;
                let counters = &primary.packs().counters;
                counters.revisions.inc_by(removed.revisions);
                counters.garbage.inc_by(removed.garbage);
                Ok(Some(later))
            }
            // The step took too long, and lost its locks: its objects come next, in parts, before the later steps.
            None => {
                primary.abort(txn);
                env.sleep(LOOK).await;
                Ok(Some(again(objects, later)))
            }
        }
    }

    /// The last look at objects that are locked: those that go now, and later steps.
    async fn decide(&mut self, step: Vec<Planned>, bases: &[(Oid, Base)]) -> Result<(Vec<Planned>, Steps), Failure> {
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
            // The object has changed since, or was pardoned.
            let mut parts = self.read(move |plan| plan.object(oid, keeps)).await?.into_iter();
            now.extend(parts.next());
            later.extend(parts.map(|part| vec![part]));
        }
        later.reverse();
        if let Marks::Sweeping { gone, .. } = &mut *watch.marks() {
            for object in now.iter().filter(|object| object.garbage) {
                gone.insert(object.removal.oid);
            }
        }
        Ok((now, later))
    }
}

/// The steps to take if the step of `objects` is to be tried again: its two halves, and then those that come `later`.
fn again(mut objects: Vec<Planned>, mut later: Steps) -> Steps {
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
    use crate::zodb::Tid;

    #[test]
    fn a_step_that_is_tried_again_comes_before_what_was_to_come_after_it() {
        let part = |oid| Planned {
            removal: Removal { oid: Oid(oid), current: Tid(9), tids: vec![Tid(1)], heirs: vec![] },
            garbage: false,
            moved: 0,
            read: 0,
        };
        let order = |objects: &[u64], later: &[u64]| -> Vec<Vec<u64>> {
            let later = later.iter().rev().map(|oid| vec![part(*oid)]).collect();
            let steps = again(objects.iter().map(|oid| part(*oid)).collect(), later);
            steps.iter().rev().map(|step| step.iter().map(|object| object.removal.oid.0).collect()).collect()
        };
        assert_eq!(order(&[1], &[]), [[1]]);
        assert_eq!(order(&[1], &[7, 8]), [[1], [7], [8]]);
        assert_eq!(order(&[1, 2, 3, 4], &[7]), [&[1, 2][..], &[3, 4], &[7]]);
    }
}
