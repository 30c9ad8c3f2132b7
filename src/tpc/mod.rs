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
//! are voted and finished side by side and share one fsync. This needs a fair order in which no votes wait in a circle
//! (the lock table, `locks.rs`) and a clear end for every lock (the phases, `machine.rs`).
//!
//! # What it promises
//!
//! - Stores exclude, checks share; an object that is both stored and checked is excluded. A transaction that brings its
//!   own tid has its whole storage for itself.
//! - All locks are granted in one step or the vote waits. A vote is granted as soon as it conflicts with no holder and
//!   no earlier waiter: no vote overtakes one that it would delay, and a vote that delays no other does not wait.
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
//! ever. 5 delays no other vote and goes on.
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
//!   The objects' new content is worked out after [`Action::Voted`], when no other transaction can change the objects.
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
mod words;

pub use machine::Machine;
pub use words::{Action, Counts, CurrentSerial, Input, Read, Settlement, TxnId, Vote};
