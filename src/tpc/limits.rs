//! What two-phase commit may hold at a time. Each limit is far above what clients do, and keeps memory bounded if they
//! do it all the same: a vote beyond one is refused and its transaction ends.

/// Votes that wait for locks.
pub const WAITING_VOTES: usize = 10_000;

/// Locks that all transactions together hold or wait for; about 100 bytes each.
pub const LOCKS: usize = 8_000_000;

/// Locks of one transaction.
pub const TRANSACTION_LOCKS: usize = 4_000_000;

const _: () = assert!(TRANSACTION_LOCKS <= LOCKS / 2, "one transaction leaves room for another");
const _: () = assert!(WAITING_VOTES < LOCKS, "every waiting vote has a lock at least");
