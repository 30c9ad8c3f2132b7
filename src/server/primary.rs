//! What lives for one reign: two-phase commits, tids, and ranges of object ids.
//!
//! A [`Primary`] is made when this node becomes primary and ended when that is over, and every lock, verdict and range
//! ends with it. It drives the machine of [`crate::tpc`]: sessions call in, and what the machine wants done (serials read,
//! a proposal made, a connection closed) is done here.
//!
//! **Order.** A tid is assigned, told to the machine and put into the queue to the log in one step under one lock, and one
//! task takes the queue to the log. So log order is tid order; and a session knows the tid of its finish from the
//! moment it is queued, which it needs to keep its view below it.
//!
//! **Unknown.** When the log can't say what became of a proposal, its locks stay until the reign is over.
//!
//! **Locks of Rust.** One mutex, never held over an await or a read of the storage. Serials are read by whichever task
//! freed or took the locks, between two steps of the machine.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::ahead::{self, Ahead, Aheads, Load};
use super::budget::Reservation;
use super::oids::Ranges;
use super::pack::Packs;
use super::reads::Reads;
use crate::command::{Base, Change, Commit, Outcome, PackStep, Reign, Span, Write};
use crate::config::limits;
use crate::env::{Env, Watch, Watching};
use crate::raft::{Node, Unknown};
use crate::storage::Store;
use crate::tpc::{Action, Counts, CurrentSerial, Input, Machine, Settlement, TxnId, Vote};
use crate::zodb::{Conflict, Oid, Refusal, StorageId, Tid, TransactionMeta};

/// The answer to a vote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may be finished; what each write is based on, in the order of the writes.
    Voted(Vec<(Oid, Base)>),
    /// The client resolves these and votes again.
    Conflicts(Vec<Conflict>),
    /// The transaction is over.
    Failed(Refusal),
}

/// What becomes of a proposal. An error of the receiver: the reign ended before it was proposed or answered.
pub type Answer = oneshot::Receiver<Result<Outcome, Unknown>>;

/// One reign of this node.
pub struct Primary {
    reign: Reign,
    env: Env,
    node: Node,
    store: Store,
    began: Instant,
    state: Mutex<State>,
    queued: Notify,
    deadline: Notify,
    ended: Watch<bool>,
    ranges: Ranges,
    packs: Packs,
    aheads: Aheads,
    /// What large votes ask of the storage.
    reads: Reads,
    /// For work that goes on by itself.
    own: Weak<Primary>,
}

struct State {
    machine: Machine,
    /// Emptied by every step; kept for its memory.
    actions: VecDeque<Action>,
    next: u64,
    voters: BTreeMap<TxnId, Voter>,
    queue: VecDeque<Queued>,
    /// No new votes are answered: this node is about to hand its role over.
    sealed: bool,
    /// The votes that came since.
    held: Vec<Vote>,
    ended: bool,
}

/// Whom to tell of a transaction between its vote and its finish.
struct Voter {
    verdict: Option<oneshot::Sender<Verdict>>,
    expired: Option<oneshot::Sender<()>>,
}

struct Queued {
    change: Change,
    cargo: Cargo,
    answer: oneshot::Sender<Result<Outcome, Unknown>>,
}

/// What belongs to a proposal until its outcome is known.
pub enum Cargo {
    Nothing,
    /// It is this transaction.
    Commit(TxnId, Baggage),
    /// It is a step of a pack, whose objects this transaction has locked.
    Step(TxnId),
    /// It is a part of a transaction to come.
    Load(Load),
}

/// What a transaction has until its outcome is known.
pub struct Baggage {
    /// Memory.
    pub reserved: Reservation,
    /// The pieces that went ahead of it.
    pub ahead: Option<Ahead>,
}

/// A question of the machine: whose, and of what.
type Question = (TxnId, StorageId, Vec<Oid>);

impl Primary {
    /// Begins a reign: `timeout` is how long a transaction may hold its locks.
    pub fn begin(reign: Reign, timeout: Duration, env: &Env, node: &Node, store: &Store, packs: Packs) -> Arc<Primary> {
        let timeout = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let primary = Arc::new_cyclic(|own| Primary {
            reign,
            env: env.clone(),
            node: node.clone(),
            store: store.clone(),
            began: env.now(),
            state: Mutex::new(State {
                machine: Machine::new(timeout),
                actions: VecDeque::new(),
                next: 0,
                voters: BTreeMap::new(),
                queue: VecDeque::new(),
                sealed: false,
                held: Vec::new(),
                ended: false,
            }),
            queued: Notify::new(),
            deadline: Notify::new(),
            ended: Watch::new(false),
            ranges: Ranges::default(),
            packs,
            aheads: Aheads::default(),
            reads: Reads::new(env, limits::LONG_READS),
            own: own.clone(),
        });
        env.spawn(ahead::discard(primary.clone()));
        env.spawn(propose(primary.clone()));
        env.spawn(tick(primary.clone()));
        primary
    }

    /// The packs of this reign.
    pub fn packs(&self) -> &Packs {
        &self.packs
    }

    /// Where its time and its threads come from.
    pub fn env(&self) -> &Env {
        &self.env
    }

    /// What it decides over.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Which reign it is.
    pub fn reign(&self) -> Reign {
        self.reign
    }

    /// Ends it: waiting votes and what was not proposed yet get no answer any more.
    pub fn end(&self) {
        let (voters, queue) = {
            let mut state = self.state();
            state.ended = true;
            state.held.clear();
            (std::mem::take(&mut state.voters), std::mem::take(&mut state.queue))
        };
        // Whoever waits learns of it by losing the sender.
        drop((voters, queue));
        self.ended.send(true);
    }

    /// Becomes true when the reign is over.
    pub fn ended(&self) -> Watching<bool> {
        self.ended.watching()
    }

    /// How much is going on.
    pub fn counts(&self) -> Counts {
        self.state().machine.counts()
    }

    /// Answers no more new votes, and tells how many transactions still hold locks or are being finished: before the role
    /// is handed over. Who has voted may finish; whose vote is held loses its connection at the hand-over, and
    /// knows that nothing was committed.
    pub fn seal(&self) -> usize {
        let mut state = self.state();
        state.sealed = true;
        if state.ended {
            // Outcomes are not told to it any more: who waited for that would wait in vain.
            return 0;
        }
        let counts = state.machine.counts();
        counts.holding - counts.unknown
    }

    /// Goes on with the votes that were held: the role was not handed over after all.
    pub fn unseal(&self) {
        let mut questions = Vec::new();
        {
            let mut state = self.state();
            state.sealed = false;
            for vote in std::mem::take(&mut state.held) {
                if state.voters.contains_key(&vote.txn) {
                    questions.extend(self.step(&mut state, Input::Vote(vote)));
                }
            }
        }
        self.answer(questions);
    }

    /// A number for a transaction of this reign.
    pub fn number(&self) -> TxnId {
        let mut state = self.state();
        state.next += 1;
        TxnId(state.next)
    }

    /// Votes. The first receiver gets the verdict (or nothing, if the transaction or the reign ends before); the second
    /// is told when the transaction has taken too long after it: then the connection is to be closed.
    pub fn vote(&self, vote: Vote) -> (oneshot::Receiver<Verdict>, oneshot::Receiver<()>) {
        let (verdict, judged) = oneshot::channel();
        let (expired, expiry) = oneshot::channel();
        self.ranges.used(vote.storage, vote.writes.iter().map(|(oid, _)| *oid));
        let txn = vote.txn;
        let questions = {
            let mut state = self.state();
            if state.ended {
                return (judged, expiry);
            }
            let first = state.voters.insert(txn, Voter { verdict: Some(verdict), expired: Some(expired) }).is_none();
            // Who has voted before holds locks, and is waited for.
            if state.sealed && first {
                state.held.push(vote);
                return (judged, expiry);
            }
            self.step(&mut state, Input::Vote(vote))
        };
        self.answer(questions);
        (judged, expiry)
    }

    /// Gives a voted transaction its tid and puts it into the queue to the log. From here on nothing can take it back.
    /// [`Refusal::NotPrimary`]: the reign is over; nothing has happened.
    pub fn finish(
        &self,
        txn: TxnId,
        storage: StorageId,
        own_tid: Option<Tid>,
        meta: TransactionMeta,
        writes: Vec<Write>,
        baggage: Baggage,
    ) -> Result<(Tid, Answer), Refusal> {
        let mut state = self.state();
        if state.ended {
            return Err(Refusal::NotPrimary(None));
        }
        if state.queue.len() >= limits::PROPOSALS {
            return Err(Refusal::TooLarge("too many transactions wait for the log".into()));
        }
        let questions = self.step(&mut state, Input::Finish { txn });
        assert!(questions.is_empty(), "a finish frees no locks");
        match state.actions.pop_front() {
            Some(Action::Propose { .. }) => {}
            Some(Action::Refuse { refusal, .. }) => return Err(refusal),
            other => unreachable!("a finish is proposed or refused, not {other:?}"),
        }
        state.voters.remove(&txn);
        let last = state.machine.last_proposed(storage).unwrap_or_default().max(self.store.last_tid(storage));
        let tid = own_tid.unwrap_or_else(|| Tid::after(last, self.env.wall()));
        let questions = self.step(&mut state, Input::Proposed { txn, tid });
        assert!(questions.is_empty(), "a proposal frees no locks");
        let (answer, told) = oneshot::channel();
        let change = Change::Commit(Commit { storage, tid, meta, writes });
        state.queue.push_back(Queued { change, cargo: Cargo::Commit(txn, baggage), answer });
        drop(state);
        self.queued.notify_one();
        Ok((tid, told))
    }

    /// Puts a step of a pack into the queue to the log, which holds the locks of its objects as `txn`. `None`: it does not (any
    /// more), or there is no place; nothing has happened.
    pub fn finish_step(&self, txn: TxnId, step: PackStep) -> Option<Answer> {
        let mut state = self.state();
        if state.ended || state.queue.len() >= limits::PROPOSALS {
            return None;
        }
        let questions = self.step(&mut state, Input::Finish { txn });
        assert!(questions.is_empty(), "a finish frees no locks");
        match state.actions.pop_front() {
            Some(Action::Propose { .. }) => {}
            Some(Action::Refuse { .. }) => return None,
            other => unreachable!("a finish is proposed or refused, not {other:?}"),
        }
        state.voters.remove(&txn);
        let (answer, told) = oneshot::channel();
        state.queue.push_back(Queued { change: Change::PackStep(step), cargo: Cargo::Step(txn), answer });
        drop(state);
        self.queued.notify_one();
        Some(told)
    }

    /// The transactions of a storage that hold locks and may commit as they are.
    pub fn voted(&self, storage: StorageId) -> BTreeSet<TxnId> {
        self.state().machine.voted(storage)
    }

    /// The client gave up, or is gone. Without effect from the finish on.
    pub fn abort(&self, txn: TxnId) {
        let questions = {
            let mut state = self.state();
            state.voters.remove(&txn);
            self.step(&mut state, Input::Abort { txn })
        };
        self.answer(questions);
    }

    /// `count` object ids that nobody else gets; `None` if the reign ended before.
    pub async fn new_oids(&self, storage: StorageId, count: usize) -> Option<Vec<Oid>> {
        self.ranges
            .take(storage, count, || self.change(Change::ReserveOids { storage, count: limits::OID_RANGE }))
            .await
    }

    /// Proposes something that is no transaction; `None` if it is not known to have happened.
    pub async fn change(&self, change: Change) -> Option<Outcome> {
        self.enqueue(change, Cargo::Nothing)?.await.ok()?.ok()
    }

    /// Puts something that is no transaction into the queue to the log; `None`: the reign is over, or the queue full.
    pub fn enqueue(&self, change: Change, cargo: Cargo) -> Option<Answer> {
        let (answer, told) = oneshot::channel();
        {
            let mut state = self.state();
            if state.ended || state.queue.len() >= limits::PROPOSALS {
                return None;
            }
            state.queue.push_back(Queued { change, cargo, answer });
        }
        self.queued.notify_one();
        Some(told)
    }

    /// Removes pieces that no transaction will name, soon. When the reign is over, the next barrier does it.
    pub fn discard(&self, storage: StorageId, pieces: Vec<Span>) {
        self.aheads.discard(storage, pieces);
    }

    pub fn aheads(&self) -> &Aheads {
        &self.aheads
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.env.now().saturating_duration_since(self.began).as_millis()).unwrap_or(u64::MAX)
    }

    /// One step of the machine. Tells whom it concerns, and gives the questions that it asks of the storage. What answers
    /// a finish stays in `state.actions`.
    fn step(&self, state: &mut State, input: Input) -> Vec<Question> {
        let finishing = matches!(input, Input::Finish { .. });
        let State { machine, actions, voters, .. } = state;
        machine.step(self.now(), input, actions);
        let mut questions = Vec::new();
        if finishing {
            return questions;
        }
        let mut verdicts = Vec::new();
        for action in actions.drain(..) {
            match action {
                Action::Read { txn, storage, oids } => questions.push((txn, storage, oids)),
                Action::Voted { txn, bases } => verdicts.push((txn, Verdict::Voted(bases))),
                Action::Conflicts { txn, conflicts } => verdicts.push((txn, Verdict::Conflicts(conflicts))),
                Action::Failed { txn, refusal } => verdicts.push((txn, Verdict::Failed(refusal))),
                Action::Refuse { txn, .. } => unreachable!("{txn:?} votes while its vote is going on"),
                Action::Expired { txn } => {
                    if let Some(tell) = voters.remove(&txn).and_then(|voter| voter.expired) {
                        let _ = tell.send(());
                    }
                }
                Action::Propose { .. } => unreachable!("only a finish proposes"),
            }
        }
        for (txn, verdict) in verdicts {
            let over = matches!(verdict, Verdict::Failed(_));
            if let Some(tell) = voters.get_mut(&txn).and_then(|voter| voter.verdict.take()) {
                let _ = tell.send(verdict);
            }
            if over {
                voters.remove(&txn);
            }
        }
        questions
    }

    /// Reads what the machine asked for, and tells it, until it asks for nothing more; here, or by itself if that is much.
    fn answer(&self, questions: Vec<Question>) {
        if questions.is_empty() {
            return;
        }
        // Who is asked for was granted locks, by whatever freed them: the first deadline may be a new one.
        self.deadline.notify_one();
        let much = questions.iter().map(|(_, _, oids)| oids.len()).sum::<usize>() > limits::WRITES_INLINE;
        match self.own.upgrade() {
            Some(own) if much => {
                let answered = self.reads.begin(move |_| own.answer_now(questions));
                self.env.spawn(answered);
            }
            _ => self.answer_now(questions),
        }
    }

    fn answer_now(&self, mut questions: Vec<Question>) {
        while let Some((txn, storage, oids)) = questions.pop() {
            let last_tid = self.store.last_tid(storage);
            let mut current = Vec::with_capacity(oids.len());
            for (n, oid) in oids.into_iter().enumerate() {
                if n % limits::WRITES_INLINE == 0 && !self.state().voters.contains_key(&txn) {
                    // It was aborted meanwhile, and nobody wants to know.
                    break;
                }
                match self.store.current(storage, oid) {
                    Ok(found) => current.push((oid, found.map(|c| CurrentSerial { tid: c.tid, absent: c.absent }))),
                    Err(fault) => {
                        tracing::error!(%storage, %oid, %fault, "an object's serial could not be read");
                        questions.extend(self.fault(txn));
                        break;
                    }
                }
            }
            let mut state = self.state();
            if !state.voters.contains_key(&txn) {
                continue;
            }
            let more = self.step(&mut state, Input::Serials { txn, current, last_tid });
            drop(state);
            questions.extend(more);
        }
    }

    /// This disk failed a transaction: its connection is closed, as if its client had gone. Gives the questions of those who
    /// have waited for it; a disk that fails one may fail them all.
    fn fault(&self, txn: TxnId) -> Vec<Question> {
        let mut state = self.state();
        state.voters.remove(&txn);
        self.step(&mut state, Input::Disconnect { txn })
    }

    fn unload(&self, cargo: Cargo, outcome: &Result<Outcome, Unknown>) {
        match (cargo, outcome) {
            (Cargo::Commit(txn, Baggage { reserved, ahead }), _) => {
                self.settle(txn, outcome);
                drop(reserved);
                match (ahead, outcome) {
                    (Some(ahead), Ok(Outcome::Committed(_))) => ahead.committed(),
                    (Some(ahead), Err(Unknown)) => ahead.leave(),
                    (ahead, _) => drop(ahead),
                }
            }
            (Cargo::Step(txn), _) => self.settle(txn, outcome),
            (Cargo::Load(load), Ok(Outcome::Staged(first))) => {
                if let Some((storage, span)) = load.lands(*first) {
                    self.discard(storage, vec![span]);
                }
            }
            (Cargo::Load(_) | Cargo::Nothing, _) => {}
        }
    }

    fn settle(&self, txn: TxnId, outcome: &Result<Outcome, Unknown>) {
        let outcome = match outcome {
            Ok(Outcome::Committed(_)) => Settlement::Committed,
            Ok(_) => Settlement::Refused,
            Err(_) => Settlement::Unknown,
        };
        let questions = {
            let mut state = self.state();
            if state.ended {
                return;
            }
            self.step(&mut state, Input::Settled { txn, outcome })
        };
        self.answer(questions);
    }
}

/// Takes the queue to the log, in order; outcomes are awaited beside.
async fn propose(primary: Arc<Primary>) {
    let mut ended = primary.ended();
    loop {
        let next = primary.state().queue.pop_front();
        let Some(Queued { change, cargo, answer }) = next else {
            tokio::select! { biased;
                _ = ended.until(|ended| *ended) => return,
                () = primary.queued.notified() => continue,
            }
        };
        let proposal = primary.node.propose(primary.reign, change).await;
        let primary = primary.clone();
        let env = primary.env.clone();
        env.spawn(async move {
            let outcome = proposal.outcome().await;
            primary.unload(cargo, &outcome);
            let _ = answer.send(outcome);
        });
    }
}

/// Ends the transactions that took too long.
async fn tick(primary: Arc<Primary>) {
    let mut ended = primary.ended();
    loop {
        let next = primary.state().machine.next_deadline();
        let wait = next.map(|at| Duration::from_millis(at.saturating_sub(primary.now())));
        tokio::select! { biased;
            _ = ended.until(|ended| *ended) => return,
            () = primary.deadline.notified() => {}
            () = sleep(&primary.env, wait) => {
                let questions = {
                    let mut state = primary.state();
                    primary.step(&mut state, Input::Tick)
                };
                primary.answer(questions);
            }
        }
    }
}

/// Sleeps that long, or for ever.
async fn sleep(env: &Env, wait: Option<Duration>) {
    match wait {
        // A deadline is in whole milliseconds: not to wake just before it.
        Some(wait) => env.sleep(wait + Duration::from_millis(1)).await,
        None => std::future::pending().await,
    }
}
