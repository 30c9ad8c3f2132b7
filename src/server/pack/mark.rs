//! The marking phase of a pack: which objects are kept, and which are garbage.

use super::job::{Failure, Job, LOOK};
use crate::server::primary::pack_watch::{Marks, Shown};
use crate::storage::pack::Oids;
use crate::zodb::{Oid, Refusal};

impl Job<'_> {
    /// Returns when the transactions are over that had voted before the watch began.
    pub async fn await_earlier_votes(&self) -> Result<(), Failure> {
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

    /// Finds the garbage.
    pub async fn mark(&mut self) -> Result<(), Failure> {
        let mut kept = self
            .read(|plan| {
                let mut kept = Oids::default();
                plan.reach(&mut kept)?;
                plan.beyond(&mut kept)?;
                Ok(kept)
            })
            .await?;
        loop {
            let shown = match &mut *self.watch.marks() {
                marks @ Marks::Marking(_) => {
                    let Marks::Marking(shown) = marks else { unreachable!("looked at right before") };
                    let Shown { oids, unclear, .. } = shown.take();
                    if let Some((oid, why)) = unclear {
                        let why = format!("object {oid} of a transaction that is going on: {why}");
                        return Err(Failure::Refused(Refusal::BadValue(why)));
                    }
                    let fresh: Vec<Oid> = oids.iter().filter(|oid| !kept.contains(*oid)).collect();
                    if fresh.is_empty() {
                        // No vote shows anything between this look and the begin of the sweep.
                        *marks = Marks::Sweeping { plan: self.plan.clone(), kept, gone: Oids::default() };
                        return Ok(());
                    }
                    fresh
                }
                _ => unreachable!("a pack marks once"),
            };
            kept = self
                .read(move |plan| {
                    plan.pardon(shown, &mut kept)?;
                    Ok(kept)
                })
                .await?;
        }
    }
}
