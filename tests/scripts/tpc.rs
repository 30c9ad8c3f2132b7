//! The language of the scripts for two-phase commit.
//!
//! ```text
//! > vote 1 writes=5:10,7:new,8:any checks=6:3 tid=99 storage=2      oid:serial; all but the number may be left out;
//!                                                                   9:current for an undo, 10:4! for a deletion
//! > serials 1 5:10 6:absent:3 7:none last=20                        the answer to `read 1`
//! > finish 1
//! > proposed 1 tid=21
//! > settled 1 committed                                             or refused, or unknown
//! > abort 1
//! > disconnect 1
//! > tick 60000                                                      it is so many milliseconds after the start
//! > counts                                                          how much the machine holds
//! ```
//!
//! Time stands still between ticks. The timeout is 60 s. An input that leads to nothing prints `-`.

use std::collections::VecDeque;

use zrs::command::Base;
use zrs::tpc::{Action, CurrentSerial, Input, Machine, Read, Settlement, TxnId, Vote};
use zrs::zodb::{Conflict, Oid, Refusal, StorageId, Tid};

/// A machine and the time.
pub struct Stage {
    machine: Machine,
    now: u64,
}

impl Default for Stage {
    fn default() -> Stage {
        Stage { machine: Machine::new(60_000), now: 0 }
    }
}

impl Stage {
    /// Plays one line and tells the answers.
    pub fn play(&mut self, line: &str) -> Vec<String> {
        let mut words = line.split_whitespace();
        let input = match words.next().expect("a line has a word") {
            "vote" => Input::Vote(vote(words)),
            "serials" => serials(words),
            "finish" => Input::Finish { txn: txn(&mut words) },
            "proposed" => Input::Proposed {
                txn: txn(&mut words),
                tid: Tid(number(words.next().unwrap().strip_prefix("tid=").unwrap())),
            },
            "settled" => Input::Settled { txn: txn(&mut words), outcome: settlement(words.next().unwrap()) },
            "abort" => Input::Abort { txn: txn(&mut words) },
            "disconnect" => Input::Disconnect { txn: txn(&mut words) },
            "tick" => {
                self.now = number(words.next().unwrap());
                Input::Tick
            }
            "counts" => {
                let counts = self.machine.counts();
                let (waiting, holding, unknown) = (counts.waiting, counts.holding, counts.unknown);
                return vec![format!(
                    "waiting {waiting}, holding {holding}, unknown {unknown}, locks {}",
                    counts.locks
                )];
            }
            other => panic!("no such input: {other}"),
        };
        let mut actions = VecDeque::new();
        self.machine.step(self.now, input, &mut actions);
        if actions.is_empty() { vec!["-".to_owned()] } else { actions.iter().map(told).collect() }
    }
}

fn vote<'a>(mut words: impl Iterator<Item = &'a str>) -> Vote {
    let mut vote =
        Vote { txn: txn(&mut words), storage: StorageId(1), writes: Vec::new(), checks: Vec::new(), brings_tid: None };
    for word in words {
        match word.split_once('=').expect("key=value") {
            ("writes", list) => {
                vote.writes = pairs(list).map(|(oid, serial)| (Oid(number(oid)), read(serial))).collect()
            }
            ("checks", list) => {
                vote.checks = pairs(list).map(|(oid, serial)| (Oid(number(oid)), Tid(number(serial)))).collect();
            }
            ("tid", tid) => vote.brings_tid = Some(Tid(number(tid))),
            ("storage", id) => vote.storage = StorageId(id.parse().unwrap()),
            (other, _) => panic!("no such key: {other}"),
        }
    }
    vote
}

fn serials<'a>(mut words: impl Iterator<Item = &'a str>) -> Input {
    let txn = txn(&mut words);
    let mut current = Vec::new();
    let mut last_tid = Tid::ZERO;
    for word in words {
        if let Some(tid) = word.strip_prefix("last=") {
            last_tid = Tid(number(tid));
            continue;
        }
        let (oid, serial) = word.split_once(':').expect("oid:serial");
        let newest = match serial.strip_prefix("absent:") {
            Some(tid) => Some(CurrentSerial { tid: Tid(number(tid)), absent: true }),
            None if serial == "none" => None,
            None => Some(CurrentSerial { tid: Tid(number(serial)), absent: false }),
        };
        current.push((Oid(number(oid)), newest));
    }
    Input::Serials { txn, current, last_tid }
}

fn pairs(list: &str) -> impl Iterator<Item = (&str, &str)> {
    list.split(',').map(|pair| pair.split_once(':').expect("oid:serial"))
}

fn txn<'a>(words: &mut impl Iterator<Item = &'a str>) -> TxnId {
    TxnId(number(words.next().expect("the number of a transaction")))
}

fn number(word: &str) -> u64 {
    word.parse().unwrap_or_else(|_| panic!("no number: {word}"))
}

fn read(word: &str) -> Read {
    match word {
        "any" => Read::Any,
        "new" => Read::Serial(Tid::ZERO),
        "current" => Read::Current,
        _ if word.ends_with('!') => Read::Existing(Tid(number(word.trim_end_matches('!')))),
        serial => Read::Serial(Tid(number(serial))),
    }
}

fn settlement(word: &str) -> Settlement {
    match word {
        "committed" => Settlement::Committed,
        "refused" => Settlement::Refused,
        "unknown" => Settlement::Unknown,
        other => panic!("no such outcome: {other}"),
    }
}

fn told(action: &Action) -> String {
    match action {
        Action::Read { txn, storage, oids } => {
            let oids: String = oids.iter().map(|oid| format!(" {}", oid.0)).collect();
            let storage = if storage.0 == 1 { String::new() } else { format!(" of storage {}", storage.0) };
            format!("read {}:{}{storage}", txn.0, if oids.is_empty() { " nothing".to_owned() } else { oids })
        }
        Action::Voted { txn, bases } => {
            let bases: Vec<String> = bases
                .iter()
                .map(|(oid, base)| match base {
                    Base::Serial(Tid::ZERO) => format!("{} is new", oid.0),
                    Base::Serial(tid) => format!("{} follows {}", oid.0, tid.0),
                    Base::Any => format!("{} as it comes", oid.0),
                })
                .collect();
            format!("voted {}: {}", txn.0, if bases.is_empty() { "no writes".to_owned() } else { bases.join(", ") })
        }
        Action::Conflicts { txn, conflicts } => {
            let conflicts: Vec<String> = conflicts.iter().map(told_conflict).collect();
            format!("conflicts {}: {}", txn.0, conflicts.join(", "))
        }
        Action::Failed { txn, refusal } => format!("failed {}: {}", txn.0, told_refusal(refusal)),
        Action::Refuse { txn, refusal } => format!("refuse {}: {}", txn.0, told_refusal(refusal)),
        Action::Propose { txn } => format!("propose {}", txn.0),
        Action::Expired { txn } => format!("expired {}", txn.0),
    }
}

fn told_refusal(refusal: &Refusal) -> String {
    match refusal {
        Refusal::NoObject(oid) => format!("no object {}", oid.0),
        Refusal::ReadConflict(conflict) => format!("read conflict, {}", told_conflict(conflict)),
        Refusal::WrongTransaction(why) => format!("out of turn, {why}"),
        other => other.to_string(),
    }
}

fn told_conflict(conflict: &Conflict) -> String {
    format!("{} is {} and was read as {}", conflict.oid.0, conflict.committed.0, conflict.read.0)
}
