//! Random inputs against a model that is too simple to be wrong.
//!
//! The model keeps transactions in the order in which they queued and finds grants by looking at every pair:
//! quadratic, and plainly the rule. For every step the model predicts the actions and their order; so an answer given
//! twice, a lost wake-up, an overtaken waiter or a lock freed too early all show as a difference. Beneath the model
//! lies a database that commits what was proposed, and in which no update may be lost.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::command::Base;
use crate::config::limits;
use crate::zodb::{Oid, Refusal, StorageId, Tid};

const TIMEOUT: u64 = 100;
const SLOTS: usize = 7;

/// One step, in numbers that [`World::play`] gives a meaning to.
type Throw = (u8, u8, u8, u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ModelPhase {
    Waiting,
    Reading,
    Resolving,
    Voted,
    Proposed,
    Unknown,
}

#[derive(Debug)]
struct ModelTransaction {
    vote: Vote,
    /// The locks held or waited for; may be more than the latest vote needs.
    locks: Locked,
    phase: ModelPhase,
    deadline: u64,
    tid: Tid,
    bases: Vec<(Oid, Base)>,
}

#[derive(Clone, Debug)]
struct Locked {
    storage: StorageId,
    whole: bool,
    writes: BTreeSet<Oid>,
    checks: BTreeSet<Oid>,
}

impl Locked {
    fn of(vote: &Vote) -> Locked {
        let whole = vote.brings_tid.is_some();
        let writes = vote.writes.iter().map(|w| w.0).collect();
        Locked { storage: vote.storage, whole, writes, checks: vote.checks.iter().map(|c| c.0).collect() }
    }

    fn conflicts(&self, other: &Locked) -> bool {
        let meets = |a: &Locked, b: &Locked| a.writes.iter().any(|o| b.writes.contains(o) || b.checks.contains(o));
        self.storage == other.storage && (self.whole || other.whole || meets(self, other) || meets(other, self))
    }

    fn covers(&self, other: &Locked) -> bool {
        self.storage == other.storage
            && (self.whole
                || !other.whole
                    && other.writes.is_subset(&self.writes)
                    && other.checks.iter().all(|o| self.checks.contains(o) || self.writes.contains(o)))
    }
}

/// The kind of an action, without its details.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Read,
    Voted,
    Conflicts,
    Failed,
    Refuse,
    Propose,
    Expired,
}

struct World {
    machine: Machine,
    now: u64,
    /// In the order in which they queued.
    line: Vec<ModelTransaction>,
    database: BTreeMap<(StorageId, Oid), CurrentSerial>,
    last: BTreeMap<StorageId, Tid>,
    last_proposed: Tid,
    /// The transaction that each client speaks of.
    slots: [TxnId; SLOTS],
    last_txn: u64,
    expected: Vec<(Kind, TxnId)>,
}

impl World {
    fn new() -> World {
        World {
            machine: Machine::new(TIMEOUT),
            now: 0,
            line: Vec::new(),
            // Three objects that are there in each storage, one that is not any more, and two that never were.
            database: [0, 1]
                .into_iter()
                .flat_map(|storage| (0..4).map(move |oid| (StorageId(storage), Oid(oid))))
                .map(|place| (place, CurrentSerial { tid: Tid(5), absent: place.1 == Oid(3) }))
                .collect(),
            last: BTreeMap::new(),
            last_proposed: Tid(10),
            slots: std::array::from_fn(|slot| TxnId(slot as u64)),
            last_txn: SLOTS as u64,
            expected: Vec::new(),
        }
    }

    fn play(&mut self, (what, slot, detail, dice): Throw) {
        let slot = usize::from(slot) % SLOTS;
        let txn = self.slots[slot];
        let phase = self.at(txn).map(|at| self.line[at].phase);
        match what % 16 {
            0 => self.vote(slot, detail, dice),
            // The input that is next in turn for the transaction.
            1..=8 => match phase {
                Some(ModelPhase::Reading) => self.serials(txn),
                Some(ModelPhase::Voted) => self.finish(txn),
                Some(ModelPhase::Proposed | ModelPhase::Unknown) => self.settle(txn, Settlement::Committed),
                Some(ModelPhase::Resolving) | None => self.vote(slot, detail, dice),
                Some(ModelPhase::Waiting) => self.tick(1),
            },
            9 => self.finish(txn),
            10 => match phase {
                Some(ModelPhase::Proposed | ModelPhase::Unknown) => self.settle(txn, Settlement::Refused),
                _ => self.leave(Input::Abort { txn }, txn),
            },
            11 => match phase {
                Some(ModelPhase::Proposed | ModelPhase::Unknown) => self.settle(txn, Settlement::Unknown),
                _ => self.leave(Input::Disconnect { txn }, txn),
            },
            12 => self.leave(Input::Abort { txn }, txn),
            13 => self.leave(Input::Disconnect { txn }, txn),
            14 => match self.line.iter().find(|t| owned(t.phase)) {
                Some(oldest) => self.settle(oldest.vote.txn, [Settlement::Committed, Settlement::Refused][slot % 2]),
                None => self.finish(txn),
            },
            _ => self.tick(u64::from(dice % 120)),
        }
    }

    fn at(&self, txn: TxnId) -> Option<usize> {
        self.line.iter().position(|t| t.vote.txn == txn)
    }

    /// Gives the machine an input, and compares its actions with the expected ones.
    fn tell(&mut self, input: Input) -> VecDeque<Action> {
        let mut actions = VecDeque::new();
        self.machine.step(self.now, input.clone(), &mut actions);
        let told: Vec<(Kind, TxnId)> = actions.iter().map(kind).collect();
        assert_eq!(told, self.expected, "after {input:?}");
        self.expected.clear();
        self.check_invariants();
        actions
    }

    fn check_invariants(&self) {
        for (at, holder) in self.line.iter().enumerate().filter(|(_, t)| t.phase != ModelPhase::Waiting) {
            for other in self.line[at + 1..].iter().filter(|t| t.phase != ModelPhase::Waiting) {
                assert!(!holder.locks.conflicts(&other.locks), "two hold what excludes: {holder:?} {other:?}");
            }
        }
        let waiting = self.line.iter().filter(|t| t.phase == ModelPhase::Waiting).count();
        let unknown = self.line.iter().filter(|t| t.phase == ModelPhase::Unknown).count();
        let counts = self.machine.counts();
        assert_eq!((counts.waiting, counts.holding), (waiting, self.line.len() - waiting));
        assert_eq!(counts.unknown, unknown);
        assert_eq!(self.machine.is_empty(), self.line.is_empty());
        let deadlines = self.line.iter().filter(|t| counts_time(t.phase)).map(|t| t.deadline);
        assert_eq!(self.machine.next_deadline(), deadlines.min());
    }

    /// The rule: a transaction is granted if it conflicts with none that came before it and none that holds locks.
    fn expect_grants(&mut self) {
        for at in 0..self.line.len() {
            let this = &self.line[at];
            let blocks = |(other_at, other): (usize, &ModelTransaction)| {
                other_at != at
                    && (other_at < at || other.phase != ModelPhase::Waiting)
                    && other.locks.conflicts(&this.locks)
            };
            if this.phase == ModelPhase::Waiting && !self.line.iter().enumerate().any(blocks) {
                self.expected.push((Kind::Read, this.vote.txn));
                let deadline = self.now + TIMEOUT;
                let this = &mut self.line[at];
                this.phase = ModelPhase::Reading;
                this.deadline = deadline;
            }
        }
    }

    fn vote(&mut self, slot: usize, detail: u8, dice: u32) {
        let mut txn = self.slots[slot];
        let left_to_the_log = |at: usize| owned(self.line[at].phase) && detail % 4 == 3;
        if self.at(txn).is_none_or(left_to_the_log) {
            // The slot's last transaction is over, or its client has gone and left it to the log: begin a new one.
            self.last_txn += 1;
            txn = TxnId(self.last_txn);
            self.slots[slot] = txn;
        }
        let vote = match self.at(txn).map(|at| &self.line[at]) {
            Some(earlier) if earlier.phase == ModelPhase::Resolving && !detail.is_multiple_of(4) => {
                self.resolved(&earlier.vote, dice)
            }
            _ => self.any_vote(txn, detail, dice),
        };
        match self.at(txn) {
            None => self.queue(vote.clone()),
            Some(at) if self.line[at].phase != ModelPhase::Resolving => self.expected.push((Kind::Refuse, txn)),
            Some(at) if self.line[at].locks.covers(&Locked::of(&vote)) => {
                self.line[at].phase = ModelPhase::Reading;
                self.line[at].vote = vote.clone();
                self.expected.push((Kind::Read, txn));
            }
            Some(at) => {
                self.line.remove(at);
                self.expect_grants();
                self.queue(vote.clone());
            }
        }
        self.tell(Input::Vote(vote));
    }

    fn any_vote(&self, txn: TxnId, detail: u8, dice: u32) -> Vote {
        let storage = StorageId(u32::from(detail.is_multiple_of(8)));
        let mut vote = Vote { txn, storage, writes: Vec::new(), checks: Vec::new(), brings_tid: None };
        for oid in (0..6).map(Oid) {
            let dice = dice >> (oid.0 * 5) & 31;
            let read = if dice & 24 == 24 { Tid(3) } else { self.newest(storage, oid) };
            match dice & 7 {
                0 | 1 => vote.writes.push((oid, Read::Serial(read))),
                2 | 4 if oid < Oid(3) || dice & 24 == 8 => vote.checks.push((oid, read)),
                3 if dice & 8 != 0 => {
                    vote.writes.push((oid, Read::Serial(read)));
                    vote.checks.push((oid, read));
                }
                3 => vote.writes.push((oid, Read::Any)),
                5 if detail & 2 == 0 => vote.writes.push((oid, Read::Current)),
                5 => vote.writes.push((oid, Read::Existing(read))),
                _ => {}
            }
        }
        if detail % 16 == 9 {
            vote.brings_tid = Some(Tid(self.last_proposed.0 + 2 - u64::from(detail / 16 % 3)));
        }
        vote
    }

    /// The earlier vote again with current serials, as a client repeats it after resolving; sometimes with one write or
    /// check more or less, or with another tid or storage.
    fn resolved(&self, earlier: &Vote, dice: u32) -> Vote {
        let mut vote = earlier.clone();
        for (oid, read) in &mut vote.writes {
            if matches!(read, Read::Serial(_)) {
                *read = Read::Serial(self.newest(vote.storage, *oid));
            }
        }
        let oid = Oid(u64::from(dice >> 8) % 6);
        let newest = self.newest(vote.storage, oid);
        match dice % 8 {
            0 | 1 => {
                vote.writes.retain(|w| w.0 != oid);
                vote.writes.push((oid, Read::Serial(newest)));
            }
            2 => vote.checks.push((oid, newest)),
            3 => vote.writes.retain(|w| w.0 != oid),
            4 => vote.checks.clear(),
            5 if dice & 8 != 0 => vote.brings_tid = Some(self.last_proposed.next()),
            5 => vote.storage.0 ^= 1,
            _ => {}
        }
        vote
    }

    fn newest(&self, storage: StorageId, oid: Oid) -> Tid {
        self.database.get(&(storage, oid)).map_or(Tid::ZERO, |c| c.tid)
    }

    fn queue(&mut self, vote: Vote) {
        let locks = Locked::of(&vote);
        let locks =
            if locks.whole { Locked { writes: BTreeSet::new(), checks: BTreeSet::new(), ..locks } } else { locks };
        let (phase, deadline, tid, bases) = (ModelPhase::Waiting, 0, Tid::ZERO, Vec::new());
        self.line.push(ModelTransaction { vote, locks, phase, deadline, tid, bases });
        self.expect_grants();
    }

    fn serials(&mut self, txn: TxnId) {
        let at = self.at(txn).unwrap();
        let vote = self.line[at].vote.clone();
        let asked: BTreeSet<Oid> = vote
            .writes
            .iter()
            .filter_map(|&(oid, read)| (read != Read::Any).then_some(oid))
            .chain(vote.checks.iter().map(|c| c.0))
            .collect();
        let newest = |oid| self.database.get(&(vote.storage, oid)).copied();
        let current: Vec<_> = asked.iter().map(|&oid| (oid, newest(oid))).collect();
        let last_tid = self.last.get(&vote.storage).copied().unwrap_or_default();
        let last = self.machine.last_proposed(vote.storage).unwrap_or_default().max(last_tid);
        let there = |oid| newest(oid).filter(|c: &CurrentSerial| !c.absent).map(|c| c.tid);
        let conflicts = |&(oid, read): &(Oid, Read)| match read {
            Read::Serial(tid) => newest(oid).is_some_and(|current| current.tid != tid),
            Read::Any | Read::Current | Read::Existing(_) => false,
        };
        let missed = |&(oid, read): &(Oid, Read)| match read {
            Read::Existing(tid) => newest(oid).is_none_or(|current| current.tid != tid),
            Read::Any | Read::Current | Read::Serial(_) => false,
        };
        let failed = vote.checks.iter().any(|&(o, t)| there(o) != Some(t)) || vote.writes.iter().any(missed);
        if failed || vote.brings_tid.is_some_and(|tid| tid <= last) {
            self.line.remove(at);
            self.expected.push((Kind::Failed, txn));
            self.expect_grants();
        } else if vote.writes.iter().any(conflicts) {
            self.line[at].phase = ModelPhase::Resolving;
            self.expected.push((Kind::Conflicts, txn));
        } else {
            self.line[at].phase = ModelPhase::Voted;
            self.expected.push((Kind::Voted, txn));
        }
        let actions = self.tell(Input::Serials { txn, current, last_tid });
        if let Some(Action::Voted { bases, .. }) = actions.front() {
            assert_eq!(bases.len(), vote.writes.len());
            self.line[at].bases = bases.clone();
        }
    }

    fn finish(&mut self, txn: TxnId) {
        match self.at(txn) {
            Some(at) if self.line[at].phase == ModelPhase::Voted => {
                self.expected.push((Kind::Propose, txn));
                self.line[at].phase = ModelPhase::Proposed;
                let tid = self.line[at].vote.brings_tid.unwrap_or(self.last_proposed.next());
                // One counter for all storages: a tid that is brought may be less than what another storage has.
                self.last_proposed = self.last_proposed.max(tid);
                self.line[at].tid = tid;
                self.tell(Input::Finish { txn });
                self.tell(Input::Proposed { txn, tid });
            }
            _ => {
                self.expected.push((Kind::Refuse, txn));
                self.tell(Input::Finish { txn });
            }
        }
    }

    fn settle(&mut self, txn: TxnId, outcome: Settlement) {
        let at = self.at(txn).unwrap();
        if outcome == Settlement::Unknown {
            self.line[at].phase = ModelPhase::Unknown;
        } else {
            let transaction = self.line.remove(at);
            if outcome == Settlement::Committed {
                self.commit(&transaction);
            }
            self.expect_grants();
        }
        self.tell(Input::Settled { txn, outcome });
    }

    /// Commits like `storage::apply`: the base must be the current revision. This is where a lost update would show.
    fn commit(&mut self, transaction: &ModelTransaction) {
        let storage = transaction.vote.storage;
        for &(oid, base) in &transaction.bases {
            let newest = self.newest(storage, oid);
            assert!(base == Base::Any || base == Base::Serial(newest), "lost update: {base:?} is not {newest}");
            let absent = transaction.tid.0.is_multiple_of(7);
            self.database.insert((storage, oid), CurrentSerial { tid: transaction.tid, absent });
        }
        let last = self.last.entry(storage).or_default();
        *last = transaction.tid.max(*last);
    }

    fn leave(&mut self, input: Input, txn: TxnId) {
        if let Some(at) = self.at(txn)
            && !owned(self.line[at].phase)
        {
            self.line.remove(at);
            self.expect_grants();
        }
        self.tell(input);
    }

    fn tick(&mut self, by: u64) {
        self.now += by;
        let now = self.now;
        let mut late: Vec<(u64, TxnId)> =
            self.line.iter().filter(|t| counts_time(t.phase)).map(|t| (t.deadline, t.vote.txn)).collect();
        late.retain(|&(deadline, _)| deadline <= now);
        late.sort();
        for (_, txn) in late {
            self.expected.push((Kind::Expired, txn));
            let at = self.at(txn).unwrap();
            self.line.remove(at);
            self.expect_grants();
        }
        self.tell(Input::Tick);
    }

    /// All clients leave and all proposals settle; nothing may be left.
    fn empty(&mut self) {
        while let Some(last) = self.line.last() {
            let (txn, phase) = (last.vote.txn, last.phase);
            if owned(phase) {
                self.settle(txn, Settlement::Committed);
            } else {
                self.leave(Input::Disconnect { txn }, txn);
            }
        }
        assert!(self.machine.is_empty());
        assert_eq!(self.machine.counts(), Counts::default());
    }
}

/// Whether the locks belong to the proposal.
fn owned(phase: ModelPhase) -> bool {
    matches!(phase, ModelPhase::Proposed | ModelPhase::Unknown)
}

fn counts_time(phase: ModelPhase) -> bool {
    matches!(phase, ModelPhase::Reading | ModelPhase::Resolving | ModelPhase::Voted)
}

fn kind(action: &Action) -> (Kind, TxnId) {
    match *action {
        Action::Read { txn, .. } => (Kind::Read, txn),
        Action::Voted { txn, .. } => (Kind::Voted, txn),
        Action::Conflicts { txn, .. } => (Kind::Conflicts, txn),
        Action::Failed { txn, .. } => (Kind::Failed, txn),
        Action::Refuse { txn, .. } => (Kind::Refuse, txn),
        Action::Propose { txn } => (Kind::Propose, txn),
        Action::Expired { txn } => (Kind::Expired, txn),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_machine_does_what_the_model_says(throws in prop::collection::vec(any::<Throw>(), 1..250)) {
        let mut world = World::new();
        for throw in throws {
            world.play(throw);
        }
        world.empty();
    }
}

/// Votes of many objects, and long lines. There is no assertion on time: if the cost were a square, this test would
/// take hours.
#[test]
fn large_transactions_and_long_lines_are_no_square() {
    let mut machine = Machine::new(TIMEOUT);
    let mut actions = VecDeque::new();
    let vote = |txn: u64, oids: std::ops::Range<u64>| {
        let writes = oids.clone().map(|oid| (Oid(oid), Read::Any)).collect();
        let checks = oids.map(|oid| (Oid(oid + 1_000_000), Tid(1))).collect();
        Input::Vote(Vote { txn: TxnId(txn), storage: StorageId(0), writes, checks, brings_tid: None })
    };
    // Two large ones, one after the other, and a line behind each of many of their objects.
    machine.step(0, vote(1, 0..100_000), &mut actions);
    machine.step(0, vote(2, 0..100_000), &mut actions);
    for txn in 3..1_003 {
        machine.step(0, vote(txn, txn * 50..txn * 50 + 50), &mut actions);
    }
    // And a line of a thousand at one object.
    for txn in 2_000..3_000 {
        machine.step(0, vote(txn, 7..8), &mut actions);
    }
    assert_eq!(machine.counts().waiting, 2_001);
    assert_eq!(actions.len(), 1);
    for txn in (1..1_003).chain(2_000..3_000) {
        let txn = TxnId(txn);
        assert!(
            actions.iter().any(|a| matches!(a, Action::Read { txn: t, .. } if *t == txn)),
            "{txn:?} is granted in turn"
        );
        machine.step(0, Input::Abort { txn }, &mut actions);
    }
    assert!(machine.is_empty());
}

/// The limits hold: a vote too many fails, and leaves nothing behind.
#[test]
fn a_line_has_an_end() {
    let mut machine = Machine::new(TIMEOUT);
    let mut actions = VecDeque::new();
    let vote = |txn: u64| {
        let writes = vec![(Oid(1), Read::Any)];
        Input::Vote(Vote { txn: TxnId(txn), storage: StorageId(0), writes, checks: Vec::new(), brings_tid: None })
    };
    for txn in 0..=limits::WAITING_VOTES as u64 {
        machine.step(0, vote(txn), &mut actions);
    }
    assert_eq!(actions.len(), 1, "one holds, the others wait");
    let counts = machine.counts();
    machine.step(0, vote(1_000_000), &mut actions);
    assert!(matches!(actions.back(), Some(Action::Failed { refusal: Refusal::TooLarge(_), .. })));
    assert_eq!(machine.counts(), counts);
    machine.step(0, Input::Abort { txn: TxnId(0) }, &mut actions);
    assert!(matches!(actions.back(), Some(Action::Read { txn: TxnId(1), .. })));
}
