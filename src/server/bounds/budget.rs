//! The memory of all transactions of a node, and the part that each transaction has reserved of it.
//!
//! A reservation is given back when it is dropped, however its transaction ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::config::limits;

/// The memory that all transactions of a node share; clones are the same budget.
#[derive(Clone, Debug, Default)]
pub struct Budget(Arc<AtomicUsize>);

impl Budget {
    /// Bytes that are taken.
    #[cfg(test)]
    pub fn taken(&self) -> usize {
        self.0.load(Relaxed)
    }

    /// Takes `bytes`, unless that would be more than [`limits::TRANSACTIONS_BYTES`] in all.
    fn take(&self, bytes: usize) -> bool {
        let before = self.0.fetch_add(bytes, Relaxed);
        if before + bytes > limits::TRANSACTIONS_BYTES {
            self.0.fetch_sub(bytes, Relaxed);
            return false;
        }
        true
    }

    fn give_back(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Relaxed);
    }
}

/// The part of the budget that one transaction has reserved; given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    bytes: usize,
    budget: Budget,
}

impl Reservation {
    /// Reserves nothing yet.
    pub fn none(budget: Budget) -> Reservation {
        Reservation { bytes: 0, budget }
    }

    /// Bytes reserved.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes `bytes` more, unless the budget has no more.
    pub fn take(&mut self, bytes: usize) -> bool {
        let taken = self.budget.take(bytes);
        self.bytes += if taken { bytes } else { 0 };
        taken
    }

    /// Gives `bytes` of the reservation back.
    pub fn give_back(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.budget.give_back(bytes);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}
