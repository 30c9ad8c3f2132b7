//! Two-phase commit on the primary: which votes are granted, which wait, which are in conflict, and when locks are
//! freed.
//!
//! # What it is
//!
//! A machine. [`Machine::step`] takes one [`Input`] (a client's vote, the serials that were asked for, news of a
//! proposal, a tick) and gives [`Action`]s for the server to do. The machine has no sockets, no storage, no clock and
//! no threads, so that a test of this hard part of a commit just tells it what happens. One machine serves all
//! storages for one reign. When the reign is over the machine is dropped, and all locks with it.
//!
//! # Why it exists
//!
//! A ZEO server has one commit lock per storage. Here locks are per object, so that transactions on different objects
//! are voted and finished side by side and share one fsync. This needs a fair order in which nobody waits in a circle
//! (the lock table, `locks.rs`) and a clear end for every lock (the phases, `machine.rs`).
//!
//! # What it promises
//!
//! - Stores exclude, checks share; an object that is both stored and checked is excluded. A transaction that brings its
//!   own tid has its whole storage for itself.
//! - All locks are granted in one step or the vote waits. A vote is granted as soon as it conflicts with no holder and
//!   no earlier waiter: no vote overtakes one that it would delay, and a vote that delays nobody does not wait.
//! - Serials are read after the grant, so that the serials by which a vote is judged stay true until the transaction
//!   ends.
//! - All conflicts of a vote come in one answer, and the client keeps its locks while it resolves them. If its next
//!   vote needs no more locks, that vote is judged at once; if it needs more, all locks are released and it queues
//!   again.
//! - Every vote gets one answer ([`Action::Voted`], [`Action::Conflicts`], [`Action::Failed`] or [`Action::Refuse`])
//!   unless its transaction ends before: by its client, or by [`Action::Expired`].
//! - Until it is finished, a transaction holds its locks for the timeout at most, counted from the grant. From
//!   [`Action::Propose`] on the locks belong to the proposal, and nothing but its outcome frees them. *Unknown* is no
//!   outcome: the proposal may commit yet, and a vote that read the old serials now would lose an update.
//! - A waiting vote has no deadline of its own. Every holder before it has one, or is a proposal, which ends with the
//!   reign at the latest.
//! - A step costs as much as it changes (times a logarithm): neither a transaction of 100,000 objects nor a line of
//!   1,000 waiters costs a square. The number of locks and waiters is bounded ([`limits`](crate::config::limits)).
//!
//! # How it goes
//!
//! Each of these stories is a script in `tests/scripts/tpc/`, which the tests play.
//!
//! **Two writers at different objects** go side by side.
//!
//! ```text
//!   Vote 1 {5}      -> Read 1        Vote 2 {6}      -> Read 2
//!   Serials 1       -> Voted 1       Serials 2       -> Voted 2
//!   Finish 1        -> Propose 1     Finish 2        -> Propose 2      both wait for the same fsync
//!   Settled 1, 2
//! ```
//!
//! **Conflict and resolution.** Transaction 2 has read object 5 before 1 changed it. 2 gets the lock after 1 and is
//! told of the conflict; its client resolves it and votes again. 3 can't get between.
//!
//! ```text
//!   Vote 1 {5 as of 10}   -> Read 1
//!   Vote 2 {5 as of 10}                  waits for 1
//!   Vote 3 {5 as of 10}                  waits for 1 and 2
//!   … 1 commits as 11     -> Read 2
//!   Serials 2 {5: 11}     -> Conflicts 2 {5: committed 11, read 10}
//!   Vote 2 {5 as of 11}   -> Read 2      it has the lock
//!   Serials 2 {5: 11}     -> Voted 2
//! ```
//!
//! **Check against store.** 1 and 2 check object 6 side by side; 3 wants to write it and waits for both.
//!
//! ```text
//!   Vote 1 {5, check 6}   -> Read 1
//!   Vote 2 {7, check 6}   -> Read 2
//!   Vote 3 {6}                           waits for 1 and 2
//!   Settled 1
//!   Settled 2             -> Read 3
//! ```
//!
//! **The line.** 4 must not overtake 3, although 4 conflicts with no holder: else checkers could keep a writer out for
//! ever. 5 delays nobody and goes on.
//!
//! ```text
//!   Vote 1 {5, check 6}   -> Read 1
//!   Vote 3 {6}                           waits for 1
//!   Vote 4 {8, check 6}                  waits for 3
//!   Vote 5 {9}            -> Read 5
//!   Abort 3               -> Read 4      beside 1
//! ```
//!
//! **Timeout.** 1 votes and then says nothing. After 60 s its connection is closed and 2 goes on.
//!
//! ```text
//!        0 s   Vote 1 {5}  -> Read 1, Voted 1
//!        1 s   Vote 2 {5}                waits for 1
//!       60 s   Tick        -> Expired 1, Read 2
//! ```
//!
//! **Unknown outcome.** The proposal of 1 was not answered in time. The client of 1 may go and the clock may tick: 2
//! waits until the entry has applied after all, or until the reign is over, when the server drops the machine and
//! closes the connection of 2.
//!
//! ```text
//!   Finish 1             -> Propose 1
//!   Vote 2 {5}                           waits for 1
//!   Settled 1 Unknown, Disconnect 1, Tick
//!   Settled 1 Committed  -> Read 2       or never
//! ```
//!
//! # What is left out
//!
//! - **Undo** comes as stores of the objects that it touches, over whatever revision is current ([`Read::Current`]).
//!   The objects' new content is worked out after [`Action::Voted`], when nobody can change them any more.
//! - **Pack steps** take the locks of their objects like an undo ([`Read::Current`]); the last look at what they remove
//!   comes between [`Action::Voted`] and [`Input::Finish`].
//! - **Staged data** is not known here: a transaction is its oids and serials, wherever its data lies.
//! - **Deleting** an object is a store to this machine, of an object that must be there ([`Read::Existing`]).
//! - **Data, tids and the log**: the server keeps the data and answers the client; one task of the server assigns each
//!   tid and proposes. The machine only checks that tids grow.

mod judge;
mod locks;
mod machine;
#[cfg(test)]
mod random;

pub use machine::Machine;

use crate::command::Base;
use crate::zodb::{Conflict, Oid, Refusal, StorageId, Tid};

/// The server's number for a transaction: from its `tpc_begin` to its end, and never given to another in a reign.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxnId(pub u64);

/// What happens to the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "`txn` is the transaction that the input is about, `tid` is its tid")]
pub enum Input {
    /// A client votes, for the first time or after conflicts.
    Vote(Vote),
    /// The answer to [`Action::Read`]; the serials were read after that action was given.
    Serials {
        txn: TxnId,
        /// The newest revision of each oid asked for, in that order; `None`: never stored.
        current: Vec<(Oid, Option<CurrentSerial>)>,
        /// The last tid of the storage.
        last_tid: Tid,
    },
    /// `tpc_finish`.
    Finish { txn: TxnId },
    /// The proposal stands in the log's queue. Comes in the order of tids, and before its [`Input::Settled`].
    Proposed { txn: TxnId, tid: Tid },
    /// The outcome of a proposal. After [`Settlement::Unknown`] another may follow.
    Settled { txn: TxnId, outcome: Settlement },
    /// `tpc_abort`. (Its answer is always the same, so there is no action for it.)
    Abort { txn: TxnId },
    /// The client's connection is closed.
    Disconnect { txn: TxnId },
    /// Time has passed.
    Tick,
}

/// The part of a transaction that matters for locks and conflicts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vote {
    /// The transaction.
    pub txn: TxnId,
    /// Its storage; a transaction writes in one storage only.
    pub storage: StorageId,
    /// Stores and restores; each object once, with the last store that the client sent.
    pub writes: Vec<(Oid, Read)>,
    /// `checkCurrentSerialInTransaction`: the object must be there, with this serial.
    pub checks: Vec<(Oid, Tid)>,
    /// The tid from `tpc_begin`, where a transaction is copied (`restore`).
    pub brings_tid: Option<Tid>,
}

/// The revision that a writer has read of the object before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// The revision of this serial (`Tid::ZERO`: none). Where the object was never stored, any serial will do.
    Serial(Tid),
    /// The revision of this serial, which must be current (`deleteObject`). If it is not, there is nothing to resolve:
    /// the transaction fails.
    Existing(Tid),
    /// Any revision or none (`restore`).
    Any,
    /// Whatever revision is current once the locks are held (undo, a step of a pack); that one becomes the write's
    /// base.
    Current,
}

/// The newest revision of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CurrentSerial {
    /// Its serial.
    pub tid: Tid,
    /// Whether it says that the object does not exist any more.
    pub absent: bool,
}

/// The outcome of a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// The proposal is committed and has applied here.
    Committed,
    /// The proposal has not changed the database, and never will: apply refused it, or it never got into the log.
    Refused,
    /// Not known (yet).
    Unknown,
}

/// An instruction of the machine to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "`txn` is the transaction that the action is about; the variants tell the rest")]
pub enum Action {
    /// All locks are granted: read the newest revisions of `oids` (in order, each once, perhaps none), and answer with
    /// [`Input::Serials`].
    Read { txn: TxnId, storage: StorageId, oids: Vec<Oid> },
    /// The answer to the vote: the transaction may be finished. `bases` has the base of each write, in the order of the
    /// writes.
    Voted { txn: TxnId, bases: Vec<(Oid, Base)> },
    /// The answer to the vote: the client resolves these conflicts and votes again, or aborts.
    Conflicts { txn: TxnId, conflicts: Vec<Conflict> },
    /// The answer to the vote: an error that ends the transaction. Its locks are free.
    Failed { txn: TxnId, refusal: Refusal },
    /// The answer to a call out of turn; the transaction is as before.
    Refuse { txn: TxnId, refusal: Refusal },
    /// Give the transaction a tid, put it into the log's queue ([`Input::Proposed`]), and tell the outcome
    /// ([`Input::Settled`]).
    Propose { txn: TxnId },
    /// The transaction was not finished in time: close its client's connection. It is gone, and its locks are free.
    Expired { txn: TxnId },
}

/// The size of a [`Machine`], for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Transactions that wait for locks.
    pub waiting: usize,
    /// Transactions that hold locks, proposals among them.
    pub holding: usize,
    /// Proposals among those whose outcome is unknown.
    pub unknown: usize,
    /// Locks held or waited for; one for the storage, and one for each object.
    pub locks: usize,
}
