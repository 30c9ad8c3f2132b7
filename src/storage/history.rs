//! Reads along the time: an object's revisions, and the transactions.

use std::io;

use super::keys::{self, OIDS_PER_PART};
use super::load::missing;
use super::value::{self, Stored, TransactionHead};
use super::Store;
use crate::engine::Order;
use crate::zodb::{Oid, Refusal, Revision, State, StorageId, Tid, TransactionMeta};

/// A revision of an object, without its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryEntry {
    /// The transaction that wrote it.
    pub tid: Tid,
    /// What that transaction says of itself.
    pub meta: TransactionMeta,
    /// The length of the record that lies with this revision: 0 if the object is absent, or shows older data again.
    pub size: u64,
}

impl Store {
    /// The newest `size` revisions as of `view`, newest first (`IStorage.history`); `NoObject` if there is none.
    pub fn history(
        &self,
        storage: StorageId,
        oid: Oid,
        size: usize,
        view: Tid,
    ) -> io::Result<Result<Vec<HistoryEntry>, Refusal>> {
        let from = keys::revision(storage, oid, view);
        let until = keys::revision(storage, oid, Tid::ZERO);
        let mut entries = Vec::new();
        let mut exists = false;
        for pair in self.engine().range(keys::REVISIONS, &from, &until, Order::Ascending) {
            let (key, value) = pair?;
            exists = true;
            if entries.len() == size {
                break;
            }
            let (_, _, tid) =
                keys::decode_revision(&key).ok_or_else(|| value::damaged("a revision's key is not 20 bytes"))?;
            let size = match Stored::decode(&key, value)? {
                Stored::Data(data) => data.len() as u64,
                Stored::Absent | Stored::SameAs(_) => 0,
            };
            let head = self.transaction(storage, tid)?.ok_or_else(|| {
                value::damaged(format_args!("storage {storage}: transaction {tid} is not there, but object {oid} tells of it"))
            })?;
            entries.push(HistoryEntry { tid, meta: head.meta, size });
        }
        Ok(if exists { Ok(entries) } else { Err(Refusal::NoObject(oid)) })
    }

    /// The objects that the transactions after `after`, up to and with `upto`, have written; in order of their ids, each once.
    pub fn changed_since(&self, storage: StorageId, after: Tid, upto: Tid) -> io::Result<Vec<Oid>> {
        let mut oids = Vec::new();
        if after < upto {
            let (from, until) = (keys::transaction(storage, after.next()), keys::transaction(storage, upto.next()));
            for pair in self.engine().range(keys::TRANSACTIONS, &from, &until, Order::Ascending) {
                let (key, value) = pair?;
                match decode_key(&key)? {
                    (_, 0) => oids.extend(TransactionHead::decode(&key, &value)?.oids),
                    _ => oids.extend(value::decode_oids(&key, &value)?),
                }
            }
        }
        oids.sort_unstable();
        oids.dedup();
        Ok(oids)
    }

    /// The first transaction from `at_least` to `at_most`, both included.
    pub fn transaction_at(
        &self,
        storage: StorageId,
        at_least: Tid,
        at_most: Tid,
    ) -> io::Result<Option<(Tid, TransactionMeta)>> {
        if at_least > at_most {
            return Ok(None);
        }
        let (from, until) = (keys::transaction(storage, at_least), keys::transaction(storage, at_most.next()));
        let Some((key, value)) = self.engine().first(keys::TRANSACTIONS, &from, &until)? else { return Ok(None) };
        // A transaction's own key comes before those of its parts, so this is one.
        let (tid, _) = decode_key(&key)?;
        Ok(Some((tid, TransactionHead::decode(&key, &value)?.meta)))
    }

    /// The `n`th object (from 0) of a transaction as it left it; in the order in which they were stored. `None`: it has fewer, or there is no such transaction.
    ///
    /// Where the object shows older data again, that data is in `state`, and `data_tid` says whose it is.
    pub fn record_at(&self, storage: StorageId, tid: Tid, n: usize) -> io::Result<Option<Revision>> {
        let oid = if n < OIDS_PER_PART {
            self.transaction(storage, tid)?.and_then(|head| head.oids.get(n).copied())
        } else {
            let Ok(part) = u32::try_from(n / OIDS_PER_PART) else { return Ok(None) };
            let key = keys::transaction_part(storage, tid, part);
            match self.engine().get(keys::TRANSACTIONS, &key)? {
                Some(value) => value::decode_oids(&key, &value)?.get(n % OIDS_PER_PART).copied(),
                None => None,
            }
        };
        let Some(oid) = oid else { return Ok(None) };
        let stored = self.stored(storage, oid, tid)?.ok_or_else(|| missing(storage, oid, tid))?;
        let (state, data_tid) = match self.follow(storage, oid, tid, stored)? {
            Some((data, data_tid)) => (State::Data(data), data_tid),
            None => (State::Absent, None),
        };
        Ok(Some(Revision { oid, tid, state, data_tid }))
    }

    fn transaction(&self, storage: StorageId, tid: Tid) -> io::Result<Option<TransactionHead>> {
        let key = keys::transaction(storage, tid);
        let value = self.engine().get(keys::TRANSACTIONS, &key)?;
        value.map(|value| TransactionHead::decode(&key, &value)).transpose()
    }
}

/// A transaction and the part of it that a key stands for.
fn decode_key(key: &[u8]) -> io::Result<(Tid, u32)> {
    let decoded = keys::decode_transaction(key).map(|(_, tid, part)| (tid, part));
    decoded.ok_or_else(|| value::damaged("a transaction's key is neither 12 nor 16 bytes"))
}
