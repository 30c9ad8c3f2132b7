//! For the tests of several rooms: a small storage over a simulated disk, without Raft and sessions, and the runner of
//! golden scripts.

use std::sync::Arc;

use bytes::Bytes;

use crate::command::{Base, Change, Command, Commit, Content, Outcome, Write};
use crate::engine::SimDisk;
use crate::storage::{Position, Store, TABLES};
use crate::zodb::{Oid, StorageId, Tid, TransactionMeta};

#[path = "../../tests/scripts/runner.rs"]
pub mod runner;

/// The storage.
pub const S: StorageId = StorageId(1);

/// A database with one empty storage, [`S`].
pub fn store() -> Store {
    store_with_cache(0)
}

/// The same, with so many bytes for the objects that are loaded most.
pub fn store_with_cache(bytes: u64) -> Store {
    let store = Store::open_with_cache(Arc::new(SimDisk::new().open(TABLES).unwrap()), bytes).unwrap();
    assert_eq!(apply(&store, Change::CreateStorage { name: "1".into() }), Outcome::Storage(S));
    store
}

/// Applies a change as the next entry of the log.
pub fn apply(store: &Store, change: Change) -> Outcome {
    let at = Position { index: store.applied().index + 1, ..store.applied() };
    store.apply(at, &Command { reign: store.reign(), change }).unwrap()
}

/// Commits writes, whatever their objects are.
pub fn commit(store: &Store, tid: u64, writes: Vec<Write>) {
    let meta = TransactionMeta { status: b' ', ..TransactionMeta::default() };
    let commit = Commit { storage: S, tid: Tid(tid), meta, writes };
    assert_eq!(apply(store, Change::Commit(commit)), Outcome::Committed(Tid(tid)));
}

/// A write of `data`, whatever revision is current.
pub fn write(oid: u64, data: impl Into<Bytes>) -> Write {
    Write { oid: Oid(oid), base: Base::Any, content: Content::Data(data.into()), blob: None }
}

/// The numbers of an input, in order.
pub fn numbers(text: &str) -> Vec<u64> {
    text.split_whitespace().map(|number| number.parse().unwrap()).collect()
}
