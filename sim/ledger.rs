//! The ledger: all transactions as a node had them when it was first seen to have applied them.
//!
//! A pack removes revisions and transactions. What a client was answered before, and what became of an attempt without
//! an answer, is compared with the ledger.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use zrs::server::Server;
use zrs::storage::Store;
use zrs::zodb::{Oid, State, StorageId, Tid};

use crate::value::{Found, Value, read};

/// A transaction as a node keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    pub tid: Tid,
    /// The attempt that has committed.
    pub mark: u64,
    /// The states that the transaction wrote; each with the mark of the attempt that wrote its record, or its own.
    pub writes: BTreeMap<Oid, Found>,
    /// Of the objects that show an older revision again, that one's tid.
    pub links: BTreeMap<Oid, Tid>,
}

/// All transactions that any node was seen to have.
#[derive(Default)]
pub struct Ledger {
    pub transactions: BTreeMap<Tid, Kept>,
    /// By node, the newest one that it was seen to have.
    upto: BTreeMap<u64, Tid>,
}

impl Ledger {
    /// Looks at all nodes that run.
    pub fn look(&mut self, servers: &BTreeMap<u64, Arc<Server>>) -> Result<(), String> {
        for (node, server) in servers {
            let store = server.store();
            let Some(storage) = store.storage("1") else { continue };
            let upto = self.upto.entry(*node).or_default();
            if store.last_tid(storage) <= *upto {
                continue;
            }
            // (A disk may fail to read now: the next look comes soon, and other nodes have the same.)
            while let Ok(Some((tid, _))) = store.transaction_at(storage, upto.next(), Tid::MAX) {
                let Ok(kept) = transaction(store, storage, tid) else { break };
                *upto = tid;
                if let Entry::Vacant(place) = self.transactions.entry(tid) {
                    place.insert(kept.ok_or_else(|| unknown(tid))?);
                }
            }
        }
        Ok(())
    }
}

fn unknown(tid: Tid) -> String {
    format!("no_lost_commit: {tid} has records that no client has written, or of several transactions")
}

/// All transactions of a node, by tid.
pub fn kept(store: &Store) -> io::Result<Vec<Kept>> {
    let Some(storage) = store.storage("1") else { return Ok(Vec::new()) };
    let mut all = Vec::new();
    let mut after = Tid::ZERO;
    while let Some((tid, _)) = store.transaction_at(storage, after.next(), Tid::MAX)? {
        all.push(transaction(store, storage, tid)?.ok_or_else(|| io::Error::other(unknown(tid)))?);
        after = tid;
    }
    Ok(all)
}

/// A transaction; `None` if no client has written it.
fn transaction(store: &Store, storage: StorageId, tid: Tid) -> io::Result<Option<Kept>> {
    let (mut writes, mut links, mut marks) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
    let mut n = 0;
    while let Some((at, revision)) = store.record_at(storage, tid, n)? {
        n = at + 1;
        let found = match &revision.state {
            State::Data(data) => {
                let Some((value, mark)) = read(data) else { return Ok(None) };
                if revision.data_tid.is_none() {
                    marks.insert(mark);
                }
                Some((value, mark))
            }
            State::Absent => None,
        };
        writes.insert(revision.oid, found);
        links.extend(revision.data_tid.map(|link| (revision.oid, link)));
    }
    // The Rust client's `transact` describes nothing: it is known by its records, which are its own.
    let described = store.transaction_at(storage, tid, tid)?.and_then(|(_, meta)| {
        let text = String::from_utf8(meta.description).ok()?;
        text.parse().ok()
    });
    let Some(mark) = described.or_else(|| marks.pop_first().filter(|_| marks.is_empty())) else { return Ok(None) };
    let writes = writes.into_iter().map(|(oid, found)| (oid, found.unwrap_or((Value::Gone, mark)))).collect();
    Ok(Some(Kept { tid, mark, writes, links }))
}
