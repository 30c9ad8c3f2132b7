//! The primary: two-phase commits, tids, ranges of object ids, and packs, for the life of one reign.
//!
//! A [`Primary`] is made when this node becomes primary and ended with that reign, and every lock, verdict and range
//! ends with the [`Primary`]. A [`Primary`] drives the machine of [`crate::tpc`]: sessions and packs call in, and what
//! the machine wants done (serials read, a proposal made, a connection closed) is done here.
//!
//! ```text
//!   vote ──► machine ──► serials read ──► machine ──► verdict
//!   finish ► machine ──► tid ──► queue ──► log ──► outcome ──► machine (locks freed) ──► answer
//! ```
//!
//! **Order.** A tid is assigned, told to the machine and put into the [queue] to the log in one step under one
//! lock, and one task takes the queue to the log. So log order is tid order; and a session knows the tid of its finish
//! from the moment the finish is queued, which it needs to keep its view below that tid.
//!
//! **Unknown.** When the log can't tell the outcome of a proposal, its locks stay until the reign is over.
//!
//! **Locks of Rust.** The state's mutex, then the queue's; never held over an await or a read of the storage. Serials
//! are read by whichever task freed or took the locks, between two steps of the machine.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::command::{Base, Change, Commit, Outcome, PackStep, Reign, Write};
use crate::config::limits;
use crate::env::{Env, Watch, Watching};
use crate::raft::{Node, Unknown};
use crate::server::bounds::LongReads;
use crate::storage::Store;
use crate::tpc::{Action, Counts, CurrentSerial, Input, Machine, Settlement, TxnId, Vote};
use crate::zodb::{Conflict, Oid, Refusal, StorageId, Tid, TransactionMeta};

pub mod ahead;
mod oids;
pub mod pack_watch;
mod packs;
mod queue;

pub use packs::{PackGuard, Packs};
pub use queue::Pending;

use ahead::Shipping;
use oids::Ranges;
use queue::{NoPlace, Queue};

/// The answer to a vote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The transaction may be finished; the base of each write, in the order of the writes.
    Voted(Vec<(Oid, Base)>),
    /// The conflicts that the client resolves before it votes again.
    Conflicts(Vec<Conflict>),
    /// The transaction is over.
    Failed(Refusal),
}

/// One reign of this node.
pub struct Primary {
    reign: Reign,
    env: Env,
    store: Store,
    began: Instant,
    state: Mutex<State>,
    queue: Arc<Queue>,
    deadline: Notify,
    ended: Watch<bool>,
    ranges: Ranges,
    packs: Packs,
    shipping: Arc<Shipping>,
    /// For the serials that large votes ask for.
    long_reads: LongReads,
}

struct State {
    machine: Machine,
    /// Emptied by every step; kept for its memory.
    actions: VecDeque<Action>,
    next: u64,
    voters: BTreeMap<TxnId, Voter>,
    /// How many hand-overs go on (one that an operator asked for, and that of a stop): no new votes are answered.
    seals: usize,
    /// The votes that came since then.
    held: Vec<Vote>,
    ended: bool,
}

/// The session or pack that waits for a transaction, between its vote and its finish.
struct Voter {
    verdict: Option<oneshot::Sender<Verdict>>,
    expired: Option<oneshot::Sender<()>>,
}

/// A question of the machine: which serials a transaction wants to know.
type Question = (TxnId, StorageId, Vec<Oid>);

impl Primary {
    /// Begins a reign: `timeout` is how long a transaction may hold its locks.
    pub fn begin(reign: Reign, timeout: Duration, env: &Env, node: &Node, store: &Store, packs: Packs) -> Arc<Primary> {
        let timeout = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let queue = Arc::<Queue>::default();
        let primary = Arc::new(Primary {
            reign,
            env: env.clone(),
            store: store.clone(),
            began: env.now(),
            state: Mutex::new(State {
                machine: Machine::new(timeout),
                actions: VecDeque::new(),
                next: 0,
                voters: BTreeMap::new(),
                seals: 0,
                held: Vec::new(),
                ended: false,
            }),
            queue: queue.clone(),
            deadline: Notify::new(),
            ended: Watch::new(false),
            ranges: Ranges::default(),
            packs,
            shipping: Arc::new(Shipping::new(queue.clone(), env.clone())),
            long_reads: LongReads::new(env, limits::LONG_READS),
        });
        env.spawn(primary.shipping.clone().run(env.clone(), primary.ended()));
        env.spawn(queue.run(reign, node.clone(), env.clone(), primary.ended()));
        env.spawn(tick(primary.clone()));
        primary
    }

    /// The packs of this reign.
    pub fn packs(&self) -> &Packs {
        &self.packs
    }

    /// The source of the reign's time and threads.
    pub fn env(&self) -> &Env {
        &self.env
    }

    /// The database that the reign decides over.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The name of the reign.
    pub fn reign(&self) -> Reign {
        self.reign
    }

    /// Ends the reign: waiting votes, and proposals that are still in the queue, get no answer any more.
    pub fn end(&self) {
        let (voters, proposals) = {
            let mut state = self.state();
            state.ended = true;
            state.held.clear();
            (std::mem::take(&mut state.voters), self.queue.close())
        };
        // The sessions learn that the reign is over by losing the senders.
        drop((voters, proposals));
        self.ended.send(true);
    }

    /// Becomes true when the reign is over.
    pub fn ended(&self) -> Watching<bool> {
        self.ended.watching()
    }

    /// How many transactions wait, hold locks, and are unknown.
    pub fn counts(&self) -> Counts {
        self.state().machine.counts()
    }

    /// Answers no more new votes until [`Primary::unseal`], as the role is about to be handed over. A client that has
    /// voted may finish. A client whose vote is held loses its connection at the hand-over, and knows that nothing was
    /// committed.
    pub fn seal(&self) {
        self.state().seals += 1;
    }

    /// How many transactions hold locks, or are being finished.
    pub fn unfinished(&self) -> usize {
        let state = self.state();
        if state.ended {
            // The machine is told no more outcomes: its counts would never go down.
            return 0;
        }
        let counts = state.machine.counts();
        counts.holding - counts.unknown
    }

    /// Goes on with the votes that were held, if no other hand-over goes on: the role was not handed over after all.
    pub fn unseal(self: &Arc<Self>) {
        let mut questions = Vec::new();
        {
            let mut state = self.state();
            state.seals -= 1;
            if state.seals > 0 {
                return;
            }
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
    /// is told when the transaction has held its locks for too long: then the connection is to be closed.
    pub fn vote(self: &Arc<Self>, vote: Vote) -> (oneshot::Receiver<Verdict>, oneshot::Receiver<()>) {
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
            // A transaction that has voted before holds locks, and the hand-over waits for it.
            if state.seals > 0 && first {
                state.held.push(vote);
                return (judged, expiry);
            }
            self.step(&mut state, Input::Vote(vote))
        };
        self.answer(questions);
        (judged, expiry)
    }

    /// Gives a voted transaction its tid and puts it into the queue to the log. From here on nothing can take it back.
    /// `settle` is called with its outcome once its locks are freed, before the answer.
    /// [`Refusal::NotPrimary`]: the reign is over; nothing has happened.
    pub fn finish(
        self: &Arc<Self>,
        txn: TxnId,
        storage: StorageId,
        own_tid: Option<Tid>,
        meta: TransactionMeta,
        writes: Vec<Write>,
        settle: impl FnOnce(&Result<Outcome, Unknown>) + Send + 'static,
    ) -> Result<(Tid, Pending), Refusal> {
        let mut state = self.state();
        let place = self.queue.place().map_err(|none| match none {
            NoPlace::Closed => Refusal::NotPrimary(None),
            NoPlace::Full => Refusal::TooLarge("too many transactions wait for the log".into()),
        })?;
        self.take_voted(&mut state, txn)?;
        let last = state.machine.last_proposed(storage).unwrap_or_default().max(self.store.last_tid(storage));
        let tid = own_tid.unwrap_or_else(|| Tid::after(last, self.env.wall()));
        let questions = self.step(&mut state, Input::Proposed { txn, tid });
        assert!(questions.is_empty(), "a proposal frees no locks");
        let primary = self.clone();
        let pending = place.fill(Change::Commit(Commit { storage, tid, meta, writes }), move |outcome| {
            primary.settle(txn, outcome);
            settle(outcome);
        });
        Ok((tid, pending))
    }

    /// Puts a step of a pack into the queue to the log; transaction `txn` holds the locks of its objects. `None`: it
    /// does not (any more), or there is no place; nothing has happened.
    pub fn finish_step(self: &Arc<Self>, txn: TxnId, step: PackStep) -> Option<Pending> {
        let mut state = self.state();
        let place = self.queue.place().ok()?;
        self.take_voted(&mut state, txn).ok()?;
        let primary = self.clone();
        Some(place.fill(Change::PackStep(step), move |outcome| primary.settle(txn, outcome)))
    }

    /// Tells the machine that `txn` finishes, if it has voted and holds its locks.
    fn take_voted(&self, state: &mut State, txn: TxnId) -> Result<(), Refusal> {
        let questions = self.step(state, Input::Finish { txn });
        assert!(questions.is_empty(), "a finish frees no locks");
        match state.actions.pop_front() {
            Some(Action::Propose { .. }) => {}
            Some(Action::Refuse { refusal, .. }) => return Err(refusal),
            other => unreachable!("a finish is proposed or refused, not {other:?}"),
        }
        state.voters.remove(&txn);
        Ok(())
    }

    /// The transactions of a storage that hold locks and may commit as they are.
    pub fn voted(&self, storage: StorageId) -> BTreeSet<TxnId> {
        self.state().machine.voted(storage)
    }

    /// Ends a transaction whose client gave up, or is gone. Without effect from the finish on.
    pub fn abort(self: &Arc<Self>, txn: TxnId) {
        let questions = {
            let mut state = self.state();
            state.voters.remove(&txn);
            self.step(&mut state, Input::Abort { txn })
        };
        self.answer(questions);
    }

    /// `count` object ids that no other client gets, or fewer; `None` if the reign ended before.
    pub async fn new_oids(&self, storage: StorageId, count: usize) -> Option<Result<Vec<Oid>, Refusal>> {
        let reserve = |from| self.change(Change::ReserveOids { storage, count: limits::OID_RANGE, from });
        self.ranges.take(storage, count, reserve).await
    }

    /// Proposes a change that is no transaction; `None` if the change is not known to have applied.
    pub async fn change(&self, change: Change) -> Option<Outcome> {
        self.queue.change(change).await
    }

    /// The way ahead of their commits that all transactions of the reign share.
    pub fn shipping(&self) -> Arc<Shipping> {
        self.shipping.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.env.now().saturating_duration_since(self.began).as_millis()).unwrap_or(u64::MAX)
    }

    /// One step of the machine. Tells the verdicts to the voters, and gives the questions that the machine asks of the
    /// storage. The action that answers a finish stays in `state.actions`.
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

    /// Reads the serials that the machine asked for, and tells the machine, until it asks for no more; many serials are
    /// read on a thread that may block.
    fn answer(self: &Arc<Self>, questions: Vec<Question>) {
        if questions.is_empty() {
            return;
        }
        // The transactions asked about were granted their locks just now: the first deadline may be a new one.
        self.deadline.notify_one();
        let serials = questions.iter().map(|(_, _, oids)| oids.len()).sum::<usize>();
        if serials <= limits::WRITES_INLINE {
            return self.answer_now(questions);
        }
        let primary = self.clone();
        self.env.spawn(self.long_reads.begin(move |_| primary.answer_now(questions)));
    }

    fn answer_now(&self, mut questions: Vec<Question>) {
        while let Some((txn, storage, oids)) = questions.pop() {
            let last_tid = self.store.last_tid(storage);
            let mut current = Vec::with_capacity(oids.len());
            for (n, oid) in oids.into_iter().enumerate() {
                if n % limits::WRITES_INLINE == 0 && !self.state().voters.contains_key(&txn) {
                    // The transaction was aborted meanwhile.
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

    /// This disk failed a transaction: its connection is closed, as if its client had gone. Gives the questions of the
    /// transactions that waited for its locks; a disk that fails one may fail them all.
    fn fault(&self, txn: TxnId) -> Vec<Question> {
        let mut state = self.state();
        state.voters.remove(&txn);
        self.step(&mut state, Input::Disconnect { txn })
    }

    /// The outcome of a proposal is known: frees its locks, unless that outcome is `Unknown`.
    fn settle(self: &Arc<Self>, txn: TxnId, outcome: &Result<Outcome, Unknown>) {
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

/// Ends the transactions that hold their locks for too long.
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
        // A deadline is in whole milliseconds: one more, so as not to wake just before it.
        Some(wait) => env.sleep(wait + Duration::from_millis(1)).await,
        None => std::future::pending().await,
    }
}
