//! Shared by the tests of this module: a store on a simulated disk, and short ways to make commands.

use std::sync::Arc;

use bytes::Bytes;

use super::{Position, Store, TABLES};
use crate::command::{Base, Change, Command, Commit, Content, Outcome, Reign, Write};
use crate::engine::{Engine, SimDisk};
use crate::zodb::{Oid, StorageId, Tid, TransactionMeta};

pub(super) const S: StorageId = StorageId(1);

pub(super) fn engine() -> Arc<dyn Engine> {
    Arc::new(SimDisk::new().open(TABLES).unwrap())
}

/// An empty store.
pub(super) fn empty() -> Store {
    Store::open(engine()).unwrap()
}

/// A store with the storage [`S`].
pub(super) fn store() -> Store {
    let store = empty();
    assert_eq!(apply(&store, create("1")), Outcome::Storage(S));
    store
}

/// The position of the next entry.
pub(super) fn next(store: &Store) -> Position {
    Position { index: store.applied().index + 1, ..store.applied() }
}

/// Applies a change of the open reign.
pub(super) fn apply(store: &Store, change: Change) -> Outcome {
    apply_in(store, store.reign(), change)
}

pub(super) fn apply_in(store: &Store, reign: Reign, change: Change) -> Outcome {
    store.apply(next(store), &Command { reign, change }).unwrap()
}

pub(super) fn create(name: &str) -> Change {
    Change::CreateStorage { name: name.into() }
}

pub(super) fn drop_storage(name: &str) -> Change {
    Change::DropStorage { name: name.into() }
}

pub(super) fn commit(tid: u64, writes: Vec<Write>) -> Change {
    let meta = TransactionMeta { status: b' ', user: format!("user {tid}").into_bytes(), ..TransactionMeta::default() };
    Change::Commit(Commit { storage: S, tid: Tid(tid), meta, writes })
}

pub(super) fn data(text: &str) -> Content {
    Content::Data(Bytes::copy_from_slice(text.as_bytes()))
}

/// A write over the revision `base` (0: none).
pub(super) fn over(base: u64, oid: u64, content: Content) -> Write {
    Write { oid: Oid(oid), base: Base::Serial(Tid(base)), content, blob: None }
}

/// A write that asks for no revision.
pub(super) fn restore(oid: u64, content: Content) -> Write {
    Write { oid: Oid(oid), base: Base::Any, content, blob: None }
}
