//! The words of the machine: what goes in (inputs) and what comes out (actions).

use crate::command::Base;
use crate::zodb::{Conflict, Oid, Refusal, StorageId, Tid};

/// The server's number for a transaction: from its `tpc_begin` to its end, and never given to another in a reign.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxnId(pub u64);

/// An input of the machine.
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
    /// The transaction's storage; a transaction writes in one storage only.
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
    /// The revision that is current once the locks are held (undo, a step of a pack); that one becomes the write's
    /// base.
    Current,
}

/// The newest revision of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CurrentSerial {
    /// The revision's serial.
    pub tid: Tid,
    /// Whether the revision says that the object does not exist any more.
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

/// The size of a [`Machine`](super::Machine), for the metrics.
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
