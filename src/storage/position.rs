//! A place in the log, as the store counts it.

/// A place in the log. The default stands before the first entry: nothing was applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The entry's number, one more than that of the entry before; the first is 1.
    pub index: u64,
    /// The term in which the entry was made.
    pub term: u64,
}
