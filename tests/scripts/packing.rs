//! The pack in the scripts for the storage: what a primary does, step by step.
//!
//! ```text
//! > pack begin 12          puts the pack time into the log
//! > pack reach             with garbage collection: marks what the root leads to, and what younger records refer to
//! > pack plan              what is to go; without a `reach` before, nothing goes because nothing refers to it
//! > pack step              removes what stands first in the plan
//! > pack again 5           plans object 5 anew, as it is now; the new plan stands first
//! > pack rest              all that is left of the plan, and then the transactions that hold no record
//! > pack end
//! ```

use std::collections::VecDeque;

use zrs::command::{Change, Outcome, PackStep, Removal};
use zrs::storage::pack::{Oids, Plan, Planned};
use zrs::zodb::{Oid, Tid};

use crate::storage::{S, Stage, number, oids, plain, told_refusal};

/// A pack that is going on.
#[derive(Default)]
pub struct Packing {
    upto: Tid,
    /// The objects that are reached; `None`: no garbage is collected.
    kept: Option<Oids>,
    planned: VecDeque<Planned>,
}

impl Packing {
    pub fn play(&mut self, stage: &mut Stage, words: &[&str]) -> Vec<String> {
        match words[0] {
            "begin" => {
                *self = Packing::default();
                let answer = told(stage, Change::PackBegin { storage: S, upto: Tid(number(words[1])) });
                self.upto = stage.store().summary(S).packing;
                vec![answer]
            }
            "reach" => self.reach(stage),
            "plan" => self.plan(stage),
            "step" => match self.planned.pop_front() {
                Some(planned) => vec![step(stage, vec![planned.removal], vec![])],
                // An empty step, to see its outcome.
                None => vec![step(stage, vec![], vec![])],
            },
            "again" => {
                let oid = Oid(number(words[1]));
                let kept = self.kept.as_ref().is_none_or(|kept| kept.contains(oid));
                let anew = self.of(stage).object(oid, kept).unwrap();
                let answers = anew.iter().map(told_plan).collect();
                anew.into_iter().rev().for_each(|planned| self.planned.push_front(planned));
                answers
            }
            "rest" => self.rest(stage),
            "end" => vec![told(stage, Change::PackEnd { storage: S })],
            other => panic!("no such part of a pack: {other}"),
        }
    }

    fn of(&self, stage: &Stage) -> Plan {
        Plan::new(stage.store(), S, self.upto, self.kept.is_some())
    }

    fn reach(&mut self, stage: &Stage) -> Vec<String> {
        let mut kept = Oids::default();
        let plan = Plan::new(stage.store(), S, self.upto, true);
        if let Err(fault) = plan.reach(&mut kept) {
            return vec![format!("fault: {}", plain(&fault.to_string()))];
        }
        let from_root: Vec<Oid> = kept.iter().collect();
        if let Err(fault) = plan.beyond(&mut kept) {
            return vec![format!("fault: {}", plain(&fault.to_string()))];
        }
        let beside: Vec<Oid> = kept.iter().filter(|oid| !from_root.contains(oid)).collect();
        let mut answers = vec![format!("the root leads to{}", oids(&from_root))];
        if !beside.is_empty() {
            answers.push(format!("younger records lead to{}", oids(&beside)));
        }
        self.kept = Some(kept);
        answers
    }

    fn plan(&mut self, stage: &Stage) -> Vec<String> {
        let plan = self.of(stage);
        let mut from = Some(Oid::ROOT);
        while let Some(at) = from {
            let page = plan.page(at, |oid| self.kept.as_ref().is_none_or(|kept| kept.contains(oid))).unwrap();
            self.planned.extend(page.planned);
            from = page.next;
        }
        self.planned.iter().map(told_plan).collect()
    }

    fn rest(&mut self, stage: &mut Stage) -> Vec<String> {
        let mut answers: Vec<String> =
            self.planned.drain(..).map(|planned| step(stage, vec![planned.removal], vec![])).collect();
        let (transactions, _) = self.of(stage).transactions(Tid::ZERO).unwrap();
        if !transactions.is_empty() {
            answers.push(step(stage, vec![], transactions));
        }
        answers
    }
}

fn step(stage: &mut Stage, objects: Vec<Removal>, transactions: Vec<Tid>) -> String {
    let of: Vec<Oid> = objects.iter().map(|removal| removal.oid).collect();
    let looked: String = transactions.iter().map(|tid| format!(" {}", tid.0)).collect();
    let answer = told(stage, Change::PackStep(PackStep { storage: S, objects, transactions }));
    match (of.is_empty(), looked.is_empty()) {
        (false, _) => format!("object{}: {answer}", oids(&of)),
        (true, false) => format!("transactions{looked}: {answer}"),
        (true, true) => answer,
    }
}

fn told(stage: &mut Stage, change: Change) -> String {
    let reign = stage.store().reign();
    match stage.apply(reign, change) {
        Outcome::Done => "done".to_owned(),
        Outcome::Refused(refusal) => format!("refused: {}", told_refusal(&refusal)),
        other => panic!("a pack has no such outcome: {other:?}"),
    }
}

fn told_plan(planned: &Planned) -> String {
    let list = |tids: &[Tid]| tids.iter().map(|tid| format!(" {}", tid.0)).collect::<String>();
    let Removal { oid, tids, heirs, .. } = &planned.removal;
    let why = if planned.garbage { ", as nothing refers to it" } else { "" };
    let heirs = if heirs.is_empty() { String::new() } else { format!("; their data stays with{}", list(heirs)) };
    format!("{} loses{}{why}{heirs}", oid.0, list(tids))
}
