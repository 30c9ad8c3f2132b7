//! The base: a store that was filled without a log. An import leaves a base, and a cluster begins with one.

use std::io;

use super::position::Position;
use super::store::Store;
use super::{keys, value};
use crate::command::Reign;
use crate::engine::Batch;

impl Store {
    /// Makes the present content the *base* of a new log, whose first entry is to be applied next: position and reign
    /// are as in an empty store, there is neither membership nor roster, and unclaimed pieces are gone.
    ///
    /// An import applies its commands at positions of its own, as no log has them, and ends with this call. All nodes
    /// of a cluster must begin with the same base; `raft::formation` sees to that.
    pub fn rebase(&self) -> io::Result<()> {
        let mut turn = self.writing();
        if turn.failed {
            return Err(io::Error::other("an earlier write to the store failed; it can't become the base of a log"));
        }
        let mut batch = Batch::new();
        self.drop_unclaimed(&[], &[0xff; 4], &mut batch)?;
        batch.delete(keys::META, keys::MEMBERSHIP);
        batch.delete(keys::META, keys::ROSTER);
        let position = Position::default();
        batch.put(keys::META, keys::POSITION, value::seal(&keys::POSITION, value::POSITION, &position.to_bytes()));
        let reign = Reign::default();
        batch.put(keys::META, keys::REIGN, value::seal(&keys::REIGN, value::REIGN, &value::reign_bytes(reign)));
        if let Err(fault) = self.engine().write(batch) {
            turn.failed = true;
            return Err(fault);
        }
        let mut catalog = self.inner.catalog.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        catalog.position = position;
        catalog.reign = reign;
        catalog.membership = None;
        catalog.roster = Default::default();
        self.inner.applied.send(position.index);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::super::TABLES;
    use super::super::testing::*;
    use super::*;
    use crate::command::{Change, Outcome};
    use crate::engine::SimDisk;
    use crate::zodb::Tid;

    #[test]
    fn a_log_can_begin_on_what_was_applied() {
        let disk = SimDisk::new();
        let store = Store::open(Arc::new(disk.open(TABLES).unwrap())).unwrap();
        apply_in(&store, Reign { term: 3, number: 1 }, Change::Barrier);
        apply(&store, create("1"));
        assert_eq!(apply(&store, commit(5, vec![over(0, 1, data("kept"))])), Outcome::Committed(Tid(5)));
        apply(&store, Change::Stage { storage: S, pieces: vec![Bytes::from_static(b"left over")] });
        let before = store.summary(S);
        store.rebase().unwrap();
        assert!(store.piece(S, 1).is_err());
        let check = |store: &Store| {
            assert_eq!((store.applied(), store.reign()), Default::default());
            assert_eq!(store.summary(S), before);
        };
        check(&store);
        drop(store);
        let store = Store::open(Arc::new(disk.open(TABLES).unwrap())).unwrap();
        check(&store);
        store.set_membership(Position { index: 1, term: 0 }, b"members").unwrap();
        assert_eq!(apply_in(&store, Reign { term: 1, number: 1 }, Change::Barrier), Outcome::Done);
        assert_eq!(apply(&store, commit(6, vec![over(5, 1, data("new"))])), Outcome::Committed(Tid(6)));
    }
}
