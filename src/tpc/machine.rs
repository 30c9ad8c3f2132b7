//! The machine: the phases of each transaction. The module's documentation has its rules and stories.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::judge::{Judgement, judge, questions};
use super::locks::{Locks, Ticket, Wants};
use super::words::{Action, Counts, CurrentSerial, Input, Settlement, TxnId, Vote};
use crate::config::limits;
use crate::zodb::{Oid, Refusal, StorageId, Tid};

/// Two-phase commit in one reign, for all storages.
#[derive(Debug)]
pub struct Machine {
    /// Milliseconds from the grant to the finish.
    timeout: u64,
    /// All transactions, each from its first vote to its end.
    transactions: BTreeMap<TxnId, Transaction>,
    locks: Locks,
    /// The deadlines of the transactions that hold locks and are not proposed.
    deadlines: BTreeSet<(u64, TxnId)>,
    /// The last tid that was proposed in this reign.
    last_proposed: BTreeMap<StorageId, Tid>,
    unknown: usize,
    /// Empty between steps; kept for its allocation.
    granted: Vec<(Ticket, TxnId)>,
}

#[derive(Debug)]
struct Transaction {
    /// The latest vote; its lists are emptied once it is judged.
    vote: Vote,
    ticket: Ticket,
    phase: Phase,
    /// The time at which the transaction expires; set at the grant.
    deadline: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The transaction is in line; in all further phases it holds its locks.
    Waiting,
    /// The serials were asked for.
    Reading,
    /// The client has the conflicts and will vote again.
    Resolving,
    Voted,
    /// The server was told to propose. From here on the locks belong to the proposal.
    Proposing,
    /// The proposal stands in the log's queue.
    Proposed,
    /// The outcome is unknown: the proposal may commit yet.
    Unknown,
}

impl Phase {
    fn belongs_to_the_proposal(self) -> bool {
        matches!(self, Phase::Proposing | Phase::Proposed | Phase::Unknown)
    }
}

impl Machine {
    /// `timeout`: how many milliseconds a transaction may hold its locks before it is finished.
    pub fn new(timeout: u64) -> Machine {
        Machine {
            timeout,
            transactions: BTreeMap::new(),
            locks: Locks::default(),
            deadlines: BTreeSet::new(),
            last_proposed: BTreeMap::new(),
            unknown: 0,
            granted: Vec::new(),
        }
    }

    /// Takes one input and adds the actions that follow from it to the end of `actions`, in order.
    ///
    /// `now` is in milliseconds since any moment, and never goes back. An input about a transaction that is not here
    /// (any more) has crossed with its end: it does nothing, but for a finish, which is refused.
    pub fn step(&mut self, now: u64, input: Input, actions: &mut VecDeque<Action>) {
        match input {
            Input::Vote(vote) => self.vote(now, vote, actions),
            Input::Serials { txn, current, last_tid } => self.serials(now, txn, &current, last_tid, actions),
            Input::Finish { txn } => self.finish(txn, actions),
            Input::Proposed { txn, tid } => self.proposed(txn, tid),
            Input::Settled { txn, outcome } => self.settled(now, txn, outcome, actions),
            Input::Abort { txn } | Input::Disconnect { txn } => self.leave(now, txn, actions),
            Input::Tick => self.tick(now, actions),
        }
    }

    /// The time at which the next [`Input::Tick`] has something to do.
    pub fn next_deadline(&self) -> Option<u64> {
        self.deadlines.first().map(|&(deadline, _)| deadline)
    }

    /// The last tid that was proposed in this reign for `storage`.
    pub fn last_proposed(&self, storage: StorageId) -> Option<Tid> {
        self.last_proposed.get(&storage).copied()
    }

    /// The numbers of transactions and locks.
    pub fn counts(&self) -> Counts {
        let waiting = self.locks.waiting();
        Counts { waiting, holding: self.transactions.len() - waiting, unknown: self.unknown, locks: self.locks.len() }
    }

    /// The transactions of `storage` that hold their locks, but for those whose clients are resolving conflicts.
    pub fn voted(&self, storage: StorageId) -> BTreeSet<TxnId> {
        let counts = |transaction: &Transaction| {
            transaction.vote.storage == storage && !matches!(transaction.phase, Phase::Waiting | Phase::Resolving)
        };
        self.transactions.iter().filter(|(_, transaction)| counts(transaction)).map(|(txn, _)| *txn).collect()
    }

    /// Whether no transaction is here.
    pub fn is_empty(&self) -> bool {
        self.transactions.is_empty() && self.locks.is_empty() && self.deadlines.is_empty()
    }

    fn vote(&mut self, now: u64, vote: Vote, actions: &mut VecDeque<Action>) {
        let txn = vote.txn;
        let wants = match vote.brings_tid {
            Some(_) => Wants::whole(vote.storage),
            None => Wants::objects(vote.storage, &vote.writes, &vote.checks),
        };
        if let Some(earlier) = self.transactions.get_mut(&txn) {
            if earlier.phase != Phase::Resolving {
                let why = format!("vote: the transaction {}", earlier.phase.told());
                actions.push_back(Action::Refuse { txn, refusal: Refusal::WrongTransaction(why) });
                return;
            }
            if self.locks.covers(earlier.ticket, &wants) {
                earlier.vote = vote;
                earlier.phase = Phase::Reading;
                actions.push_back(earlier.read());
                return;
            }
            // A vote that waits while it holds locks could wait in a circle: release all, and queue like any other
            // vote.
            self.end(now, txn, actions);
        }
        self.join(now, vote, wants, actions);
    }

    /// Claims the locks of a transaction that has none.
    fn join(&mut self, now: u64, vote: Vote, wants: Wants, actions: &mut VecDeque<Action>) {
        let txn = vote.txn;
        if wants.len() > limits::TRANSACTION_LOCKS || self.locks.len() + wants.len() > limits::LOCKS {
            let why = format!("vote: {} objects are more than can be locked now", wants.len());
            actions.push_back(Action::Failed { txn, refusal: Refusal::TooLarge(why) });
            return;
        }
        let (ticket, granted) = self.locks.claim(txn, wants);
        if !granted && self.locks.waiting() > limits::WAITING_VOTES {
            self.locks.release(ticket, &mut self.granted);
            assert!(self.granted.is_empty(), "no ticket stands behind the last in line");
            let why = format!("vote: {} others wait already", limits::WAITING_VOTES);
            actions.push_back(Action::Failed { txn, refusal: Refusal::TooLarge(why) });
            return;
        }
        self.transactions.insert(txn, Transaction { vote, ticket, phase: Phase::Waiting, deadline: 0 });
        if granted {
            self.grant(now, txn, actions);
        }
    }

    fn grant(&mut self, now: u64, txn: TxnId, actions: &mut VecDeque<Action>) {
        let transaction = self.transactions.get_mut(&txn).expect("every ticket in line belongs to a transaction here");
        assert_eq!(transaction.phase, Phase::Waiting, "locks are granted once");
        transaction.phase = Phase::Reading;
        transaction.deadline = now.saturating_add(self.timeout);
        self.deadlines.insert((transaction.deadline, txn));
        actions.push_back(transaction.read());
    }

    fn serials(
        &mut self,
        now: u64,
        txn: TxnId,
        current: &[(Oid, Option<CurrentSerial>)],
        last_tid: Tid,
        actions: &mut VecDeque<Action>,
    ) {
        let Some(transaction) = self.transactions.get_mut(&txn) else { return };
        assert_eq!(transaction.phase, Phase::Reading, "serials come only after they were asked for");
        // A proposal that was refused leaves no trace in the storage, but its tid must not be proposed again.
        let last = self.last_proposed.get(&transaction.vote.storage).map_or(last_tid, |&tid| tid.max(last_tid));
        let verdict = judge(&transaction.vote, current, last);
        transaction.vote.writes = Vec::new();
        transaction.vote.checks = Vec::new();
        match verdict {
            Judgement::Voted(bases) => {
                transaction.phase = Phase::Voted;
                actions.push_back(Action::Voted { txn, bases });
            }
            Judgement::Conflicts(conflicts) => {
                transaction.phase = Phase::Resolving;
                actions.push_back(Action::Conflicts { txn, conflicts });
            }
            Judgement::Failed(refusal) => {
                actions.push_back(Action::Failed { txn, refusal });
                self.end(now, txn, actions);
            }
        }
    }

    fn finish(&mut self, txn: TxnId, actions: &mut VecDeque<Action>) {
        match self.transactions.get_mut(&txn) {
            Some(transaction) if transaction.phase == Phase::Voted => {
                transaction.phase = Phase::Proposing;
                self.deadlines.remove(&(transaction.deadline, txn));
                actions.push_back(Action::Propose { txn });
            }
            other => {
                let told = other.map_or("is not voted", |transaction| transaction.phase.told());
                let refusal = Refusal::WrongTransaction(format!("tpc_finish: the transaction {told}"));
                actions.push_back(Action::Refuse { txn, refusal });
            }
        }
    }

    fn proposed(&mut self, txn: TxnId, tid: Tid) {
        // The proposal may have settled before the news of its start comes.
        let Some(transaction) = self.transactions.get_mut(&txn) else { return };
        assert!(transaction.phase.belongs_to_the_proposal(), "proposed without a finish: {txn:?}");
        if transaction.phase == Phase::Proposing {
            transaction.phase = Phase::Proposed;
        }
        if let Some(own) = transaction.vote.brings_tid {
            assert_eq!(tid, own, "a transaction keeps the tid that it brings");
        }
        let last = self.last_proposed.entry(transaction.vote.storage).or_default();
        assert!(*last < tid, "tids grow: {tid} was proposed after {last}");
        *last = tid;
    }

    fn settled(&mut self, now: u64, txn: TxnId, outcome: Settlement, actions: &mut VecDeque<Action>) {
        let Some(transaction) = self.transactions.get_mut(&txn) else { return };
        assert!(transaction.phase.belongs_to_the_proposal(), "settled without a proposal: {txn:?}");
        match outcome {
            Settlement::Committed | Settlement::Refused => self.end(now, txn, actions),
            Settlement::Unknown if transaction.phase == Phase::Unknown => {}
            Settlement::Unknown => {
                transaction.phase = Phase::Unknown;
                self.unknown += 1;
            }
        }
    }

    /// The client gives up or is gone.
    fn leave(&mut self, now: u64, txn: TxnId, actions: &mut VecDeque<Action>) {
        match self.transactions.get(&txn) {
            Some(transaction) if !transaction.phase.belongs_to_the_proposal() => self.end(now, txn, actions),
            _ => {}
        }
    }

    fn tick(&mut self, now: u64, actions: &mut VecDeque<Action>) {
        while let Some(&(deadline, txn)) = self.deadlines.first()
            && deadline <= now
        {
            actions.push_back(Action::Expired { txn });
            self.end(now, txn, actions);
        }
    }

    /// Forgets a transaction, releases its locks, and grants the votes that waited for nothing else.
    fn end(&mut self, now: u64, txn: TxnId, actions: &mut VecDeque<Action>) {
        let transaction = self.transactions.remove(&txn).expect("a transaction ends once");
        self.deadlines.remove(&(transaction.deadline, txn));
        self.unknown -= usize::from(transaction.phase == Phase::Unknown);
        let mut granted = std::mem::take(&mut self.granted);
        self.locks.release(transaction.ticket, &mut granted);
        for (_, txn) in granted.drain(..) {
            self.grant(now, txn, actions);
        }
        self.granted = granted;
    }
}

impl Transaction {
    fn read(&self) -> Action {
        Action::Read { txn: self.vote.txn, storage: self.vote.storage, oids: questions(&self.vote) }
    }
}

impl Phase {
    /// The end of a sentence to the client, "the transaction …".
    fn told(self) -> &'static str {
        match self {
            Phase::Waiting => "waits for its locks",
            Phase::Reading => "is being voted",
            Phase::Resolving => "has conflicts",
            Phase::Voted => "is voted",
            Phase::Proposing | Phase::Proposed | Phase::Unknown => "is being finished",
        }
    }
}
