//! Undo in a transaction: the objects that the undone transactions touched, and the states that these objects get.
//!
//! ```text
//!   undoa …      the transactions are noted, in order
//!   vote         which objects do they touch?        read on a thread that may block
//!                the locks of those and of the stores; the undo goes by their current revisions
//!                what do they become?                read under the locks (`storage::undo`)
//!                the vote is answered with the objects, or the transaction is over
//! ```
//!
//! A commit between the two readings does no harm: the objects of a transaction never change, and all else is read
//! under the locks. The session goes on with other calls meanwhile; a timeout, an abort or the client's end free the
//! locks, and a reading that is still under way stops.
//!
//! **Left out**: merging. An undo that would need the application's classes fails; the client is told which objects
//! stand in the way.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::FutureExt;

use super::buffer::{Buffer, ENTRY_COST};
use super::open::OpenTransaction;
use super::undos::Touched;
use crate::command::Base;
use crate::config::limits;
use crate::server::session::desk::{Desk, Done};
use crate::storage::{Answered, OwnWrite, Stop, Store};
use crate::zeo::MessageId;
use crate::zodb::{Oid, Refusal, StorageId, Tid};

/// Objects that one transaction may undo: each costs the transaction an entry.
const UNDONE: usize = limits::TRANSACTION_BYTES / ENTRY_COST;

/// Looks up which objects the undos touch, before the vote is cast.
pub fn look_up(desk: &mut Desk, open: &OpenTransaction, id: &MessageId) {
    let (txn, tids) = (open.claim.txn, open.buffer.undos.tids().to_vec());
    let (id, store, storage) = (id.clone(), desk.store().clone(), desk.storage());
    let found = desk.shared.long_reads.begin(move |stop| touched(&store, storage, &tids, stop));
    desk.wait(open.unless_over(found.map(move |found| Done::UndosLookedUp(id, txn, found))));
}

/// Works out what the undos make of their objects, under the locks.
pub fn work_out(desk: &mut Desk, open: &OpenTransaction, id: &MessageId) {
    let (txn, tids, own) = (open.claim.txn, open.buffer.undos.tids().to_vec(), own(&open.buffer));
    let (id, store, storage) = (id.clone(), desk.store().clone(), desk.storage());
    let undone = desk.shared.long_reads.begin(move |stop| store.undo(storage, &tids, &own, stop));
    desk.wait(open.unless_over(undone.map(move |undone| Done::Undone(id, txn, undone))));
}

/// The transaction's own writes to the objects that its undos touch.
fn own(buffer: &Buffer) -> BTreeMap<Oid, OwnWrite> {
    let own = |oid: &Oid| {
        let content = buffer.write(*oid, Base::Any)?.content;
        Some((*oid, OwnWrite { undos: buffer.undos.before_store_of(*oid), content }))
    };
    buffer.undos.touched().iter().filter_map(own).collect()
}

/// The objects that undoing `tids` touches.
fn touched(store: &Store, storage: StorageId, tids: &[Tid], stop: &Stop) -> Answered<Touched> {
    let (mut touched, mut seen, mut records) = (Touched::default(), BTreeSet::new(), 0);
    for &tid in tids {
        stop.look()?;
        // More objects than these would not fit into the undoing transaction, so no more are read.
        let more = match store.undoable(storage, tid, UNDONE, stop)? {
            Ok(more) => more,
            Err(refusal) => return Ok(Err(refusal)),
        };
        records += more.len();
        touched.oids.extend(more.into_iter().filter(|oid| seen.insert(*oid)));
        if records > limits::TRANSACTION_LOCKS || touched.oids.len() > UNDONE {
            let why = format!("a transaction may undo {} records of {UNDONE} objects", limits::TRANSACTION_LOCKS);
            return Ok(Err(Refusal::TooLarge(why)));
        }
        touched.ends.push(touched.oids.len());
    }
    Ok(Ok(touched))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::wish::Wish;
    use super::*;
    use crate::config::Sizes;
    use crate::server::bounds::Budget;
    use crate::tpc::Read;
    use crate::zodb::TransactionMeta;

    #[test]
    fn objects_of_an_undo_are_written_where_the_undo_came() {
        let wall = Duration::from_secs(1_789_209_000);
        let mut buffer = Buffer::new(1, TransactionMeta::default(), None, wall, Budget::default(), Sizes::default());
        let delete = |buffer: &mut Buffer, oid| buffer.wish(Oid(oid), Wish::Delete { base: Tid(1) });
        buffer.undo(Tid(7));
        delete(&mut buffer, 20);
        buffer.undo(Tid(8));
        buffer.undo(Tid(9));
        delete(&mut buffer, 21);
        delete(&mut buffer, 3);
        let oids = [1, 2, 3, 4].map(Oid).to_vec();
        buffer.touch(Touched { oids, ends: vec![2, 2, 4] });
        let writes = buffer.reads();
        assert_eq!(writes.iter().map(|(oid, _)| oid.0).collect::<Vec<_>>(), [1, 2, 20, 4, 21, 3]);
        assert_eq!((writes[0].1, writes[5].1), (Read::Current, Read::Existing(Tid(1))));
        assert_eq!(own(&buffer).into_iter().map(|(oid, own)| (oid.0, own.undos)).collect::<Vec<_>>(), [(3, 3)]);
    }
}
