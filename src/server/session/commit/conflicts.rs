//! The conflicts that a vote met: the client is given the data that it had sent, and resolves them.

use std::io;

use futures_util::FutureExt;

use super::buffer::ENTRY_COST;
use super::open::{OpenTransaction, Stage};
use super::wish::Written;
use crate::config::limits;
use crate::server::primary::Verdict;
use crate::server::session::desk::{Desk, Done};
use crate::storage::{Stop, Store};
use crate::zeo::{MessageId, Reply, StoreConflict};
use crate::zodb::{Conflict, Refusal, StorageId};

/// Pieces of objects in conflict that are read on the client's task; more are read on a thread that may block.
const PIECES: u64 = 2;

/// Conflicts, with the data that the client had sent.
pub enum Conflicts {
    /// The conflicts come later.
    Later,
    Read(io::Result<Vec<StoreConflict>>),
    /// The conflicts don't fit into one answer, nor would a client resolve so many: the client begins again.
    TooMuch(Refusal),
}

/// Reads the data that the client gets with its conflicts.
pub fn read(desk: &mut Desk, open: &mut OpenTransaction, id: &MessageId, conflicts: Vec<Conflict>) -> Conflicts {
    let (id, txn, storage, store) = (id.clone(), open.claim.txn, desk.storage(), desk.store().clone());
    let newest = conflicts.iter().map(|conflict| conflict.committed).max().unwrap_or_default();
    if newest > desk.view.tid() {
        // The store shows a transaction a moment before its news: the conflict has to stand behind them.
        let news = desk.view.reaches(newest);
        desk.wait(news.map(move |()| Done::Voted(id, txn, Some(Verdict::Conflicts(conflicts)))));
        return Conflicts::Later;
    }
    let with_data = |conflict: Conflict| {
        let written = open.buffer.written(conflict.oid);
        (conflict, written)
    };
    let conflicts: Vec<(Conflict, Written)> = conflicts.into_iter().map(with_data).collect();
    let cost = conflicts.iter().map(|(_, written)| ENTRY_COST as u64 + written.length()).sum::<u64>();
    if let Some((first, _)) = conflicts.first()
        && cost > limits::OBJECT as u64
    {
        count(desk, conflicts.len());
        return Conflicts::TooMuch(Refusal::Conflict(first.clone()));
    }
    if conflicts.iter().map(|(_, written)| written.pieces()).sum::<u64>() <= PIECES {
        return Conflicts::Read(read_all(&store, storage, conflicts, &Stop::default()));
    }
    let read = desk.shared.long_reads.begin(move |stop| read_all(&store, storage, conflicts, stop));
    desk.wait(open.unless_over(read.map(move |read| Done::ConflictsRead(id, txn, read))));
    Conflicts::Later
}

/// Answers the vote with its conflicts. The transaction keeps its locks while the client resolves them.
pub fn answer(desk: &mut Desk, open: &mut OpenTransaction, id: &MessageId, conflicts: Vec<StoreConflict>) {
    open.stage = Stage::Resolving;
    open.resolved = true;
    count(desk, conflicts.len());
    desk.reply(id, Reply::Conflicts(conflicts));
}

fn count(desk: &Desk, conflicts: usize) {
    desk.tally.conflicts.add(conflicts as u64);
    desk.shared.metrics.conflicts.inc();
}

fn read_all(
    store: &Store,
    storage: StorageId,
    conflicts: Vec<(Conflict, Written)>,
    stop: &Stop,
) -> io::Result<Vec<StoreConflict>> {
    let read = |(Conflict { oid, committed, read }, written)| {
        stop.look()?;
        let data = match written {
            Written::Here(data) => data,
            Written::Ahead(staged) => store.read_staged(storage, &staged)?,
        };
        Ok(StoreConflict { oid, committed, read, data })
    };
    conflicts.into_iter().map(read).collect()
}
