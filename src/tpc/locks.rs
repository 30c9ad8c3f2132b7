//! The locks of transactions: each place has one line of the tickets that hold it or wait for it.
//!
//! **What.** A place is an object, or a storage as a whole. Writers exclude, checkers share. A transaction claims all
//! its places in one step and gets one *ticket*, higher than all before. The line of a place is in the order of
//! tickets. A ticket is *blocked* at a place while a ticket before it there conflicts with it; the claim is granted
//! once its ticket is blocked nowhere.
//!
//! **Why so.** The rule to keep is: a claim is granted if it conflicts with no holder and with no earlier waiter.
//! Looking through all waiters at each release would be quadratic. But in a line by tickets each ticket before another
//! is either a holder or an earlier waiter, so that "blocked nowhere" is that very rule, and each ticket needs only a
//! count: in how many lines it is blocked. A release touches the lines of its own places and the tickets that it
//! unblocks, no others.
//!
//! **Promises.** No tickets wait in a circle (all lines are in ticket order, and the lowest ticket is never blocked).
//! No ticket starves (later ones stand behind). Grants of one release come in ticket order.
//!
//! **Whole storages.** Every claim stands in the line of its storage too: a claim of objects shares that line; a claim
//! of the whole storage excludes, and stands in no other line.
//!
//! ```text
//!   ticket   claims              line of s1     line of object 5    line of object 6    blocked at
//!   1        writes 5            1r             1w                                      0: granted
//!   2        writes 5, checks 6  1r 2r          1w 2w               2r                  1 (object 5)
//!   3        checks 6            1r 2r 3r       1w 2w               2r 3r               0: granted, beside 2
//!   4        writes 6            1r 2r 3r 4r    1w 2w               2r 3r 4w            1 (object 6)
//!   1 goes                       2r 3r 4r       2w                  2r 3r 4w            2: granted
//! ```

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use super::words::{Read, TxnId};
use crate::zodb::{Oid, StorageId, Tid};

/// The way in which a place is claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mode {
    /// By a check: beside other checks.
    Shared,
    /// By a store: alone.
    Exclusive,
}

/// The number of a claim: its place in every line it stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

/// All places that one transaction locks.
#[derive(Debug)]
pub(super) struct Wants {
    storage: StorageId,
    /// The whole storage, excluding all others; `objects` is empty then.
    whole: bool,
    /// In order, each object once.
    objects: Vec<(Oid, Mode)>,
}

impl Wants {
    /// An object that is both written and checked is locked as written.
    pub(super) fn objects(storage: StorageId, writes: &[(Oid, Read)], checks: &[(Oid, Tid)]) -> Wants {
        let mut objects = Vec::with_capacity(writes.len() + checks.len());
        objects.extend(writes.iter().map(|&(oid, _)| (oid, Mode::Exclusive)));
        objects.extend(checks.iter().map(|&(oid, _)| (oid, Mode::Shared)));
        objects.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
        objects.dedup_by_key(|&mut (oid, _)| oid); // keeps the first of each, which is the exclusive one
        Wants { storage, whole: false, objects }
    }

    pub(super) fn whole(storage: StorageId) -> Wants {
        Wants { storage, whole: true, objects: Vec::new() }
    }

    /// The number of locks.
    pub(super) fn len(&self) -> usize {
        1 + self.objects.len()
    }

    /// Whether a transaction that holds `self` holds all of `other` too.
    fn covers(&self, other: &Wants) -> bool {
        if self.storage != other.storage || (other.whole && !self.whole) {
            return false;
        }
        let covered = |&(oid, mode): &(Oid, Mode)| match self.objects.binary_search_by_key(&oid, |&(o, _)| o) {
            Ok(at) => self.objects[at].1 >= mode,
            Err(_) => false,
        };
        self.whole || other.objects.iter().all(covered)
    }

    fn places(&self) -> impl Iterator<Item = (Place, Mode)> {
        let mode = if self.whole { Mode::Exclusive } else { Mode::Shared };
        let whole = std::iter::once((Place::Storage(self.storage), mode));
        whole.chain(self.objects.iter().map(|&(oid, mode)| (Place::Object(self.storage, oid), mode)))
    }
}

/// An object or a storage, to be locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Storage(StorageId),
    Object(StorageId, Oid),
}

#[derive(Debug)]
struct Claim {
    txn: TxnId,
    wants: Wants,
    /// In how many lines a conflicting ticket stands before this one; granted at 0.
    blocked: usize,
}

/// The lock table.
#[derive(Debug, Default)]
pub(super) struct Locks {
    lines: BTreeMap<Place, Line>,
    claims: BTreeMap<Ticket, Claim>,
    last_ticket: u64,
    waiting: usize,
    len: usize,
    /// Empty between calls; kept for its allocation.
    unblocked: Vec<Ticket>,
}

impl Locks {
    /// Joins the lines of all places that `wants` names. `true`: granted at once.
    pub(super) fn claim(&mut self, txn: TxnId, wants: Wants) -> (Ticket, bool) {
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        let mut blocked = 0;
        for (place, mode) in wants.places() {
            match self.lines.entry(place) {
                Entry::Vacant(line) => {
                    line.insert(Line::One(ticket, mode));
                }
                Entry::Occupied(mut line) => blocked += usize::from(line.get_mut().join(ticket, mode)),
            }
        }
        self.len += wants.len();
        self.waiting += usize::from(blocked > 0);
        self.claims.insert(ticket, Claim { txn, wants, blocked });
        (ticket, blocked == 0)
    }

    /// Leaves all lines, as a holder or as a waiter; adds to `granted` the tickets that have all their locks now, in
    /// order.
    pub(super) fn release(&mut self, ticket: Ticket, granted: &mut Vec<(Ticket, TxnId)>) {
        let claim = self.claims.remove(&ticket).expect("a ticket is released once");
        self.len -= claim.wants.len();
        self.waiting -= usize::from(claim.blocked > 0);
        let from = granted.len();
        for (place, mode) in claim.wants.places() {
            let Entry::Occupied(mut line) = self.lines.entry(place) else {
                panic!("a claim stands in the lines of all its places, but not in that of {place:?}");
            };
            if line.get_mut().leave(ticket, mode, &mut self.unblocked) {
                line.remove();
            }
            for ticket in self.unblocked.drain(..) {
                let next = self.claims.get_mut(&ticket).expect("every ticket in a line has a claim");
                next.blocked -= 1;
                if next.blocked == 0 {
                    self.waiting -= 1;
                    granted.push((ticket, next.txn));
                }
            }
        }
        granted[from..].sort_unstable();
    }

    /// Whether the locks under `ticket` are enough for `wants`.
    pub(super) fn covers(&self, ticket: Ticket, wants: &Wants) -> bool {
        self.claims.get(&ticket).expect("the ticket is not released").wants.covers(wants)
    }

    /// Locks held or waited for.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Tickets that are not granted yet.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.claims.is_empty()
    }
}

/// The tickets that hold a place or wait for it. Nearly always there is one, which needs no allocation.
#[derive(Debug)]
enum Line {
    One(Ticket, Mode),
    Many(Box<Queue>),
}

/// A line of several tickets. Readers behind the first writer are blocked; so is every writer that is not first in
/// line.
#[derive(Debug, Default)]
struct Queue {
    readers: BTreeSet<Ticket>,
    writers: BTreeSet<Ticket>,
}

impl Line {
    /// Takes the end of the line. Returns whether the new ticket is blocked here.
    fn join(&mut self, ticket: Ticket, mode: Mode) -> bool {
        match self {
            Line::One(first, first_mode) => {
                let mut queue = Box::<Queue>::default();
                queue.join(*first, *first_mode);
                let blocked = queue.join(ticket, mode);
                *self = Line::Many(queue);
                blocked
            }
            Line::Many(queue) => queue.join(ticket, mode),
        }
    }

    /// Adds to `unblocked` the tickets that are not blocked here any more. Returns whether the line is empty now.
    fn leave(&mut self, ticket: Ticket, mode: Mode, unblocked: &mut Vec<Ticket>) -> bool {
        match self {
            Line::One(only, _) => {
                assert_eq!(*only, ticket, "a ticket leaves only lines that it stands in");
                true
            }
            Line::Many(queue) => queue.leave(ticket, mode, unblocked),
        }
    }
}

impl Queue {
    fn join(&mut self, ticket: Ticket, mode: Mode) -> bool {
        match mode {
            Mode::Shared => {
                self.readers.insert(ticket);
                !self.writers.is_empty()
            }
            Mode::Exclusive => {
                let blocked = !self.readers.is_empty() || !self.writers.is_empty();
                self.writers.insert(ticket);
                blocked
            }
        }
    }

    fn leave(&mut self, ticket: Ticket, mode: Mode, unblocked: &mut Vec<Ticket>) -> bool {
        let first_writer = self.writers.first().copied();
        match mode {
            Mode::Shared => {
                assert!(self.readers.remove(&ticket), "a ticket leaves only lines that it stands in");
                if let Some(writer) = first_writer
                    && ticket < writer
                    && self.no_reader_before(writer)
                {
                    unblocked.push(writer);
                }
            }
            Mode::Exclusive => {
                assert!(self.writers.remove(&ticket), "a ticket leaves only lines that it stands in");
                if first_writer == Some(ticket) {
                    match self.writers.first().copied() {
                        Some(writer) => {
                            unblocked.extend(self.readers.range(ticket..writer));
                            if self.no_reader_before(writer) {
                                unblocked.push(writer);
                            }
                        }
                        None => unblocked.extend(self.readers.range(ticket..)),
                    }
                }
            }
        }
        self.readers.is_empty() && self.writers.is_empty()
    }

    fn no_reader_before(&self, writer: Ticket) -> bool {
        self.readers.first().is_none_or(|&reader| reader > writer)
    }
}
