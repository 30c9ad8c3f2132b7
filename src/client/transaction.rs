//! A transaction: a snapshot to read from, and the writes to be committed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use futures_util::future::try_join_all;

use super::commit::CommitPlan;
use super::errors::{CallError, CommitError};
use super::handle::Client;
use crate::config::limits;
use crate::zodb::{Oid, Refusal, Tid};

/// Serials that are looked up at a time, of objects that were written without having been read.
const AT_A_TIME: usize = 128;

/// A transaction. Its reads show what was current at one tid, whatever happens meanwhile, and its own writes; no other
/// client sees these before they are committed. Dropping the transaction forgets them. Clones are the same transaction.
#[derive(Clone)]
pub struct Transaction {
    client: Client,
    snapshot: Tid,
    footprint: Arc<Mutex<Footprint>>,
}

/// The objects that a transaction has touched.
#[derive(Default)]
struct Footprint {
    /// The serials of the objects that were read; zero: no such object.
    serials: BTreeMap<Oid, Tid>,
    writes: BTreeMap<Oid, Bytes>,
    checks: BTreeSet<Oid>,
    ended: bool,
}

impl std::fmt::Debug for Transaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Transaction(at {}, {} writes)", self.snapshot, self.footprint().writes.len())
    }
}

impl Client {
    /// Begins a transaction at the view, once there is a connection.
    pub async fn begin(&self) -> Result<Transaction, CallError> {
        self.within(async {
            self.connected().await;
            Ok(Transaction::new(self.clone(), self.view()))
        })
        .await
    }

    /// Runs `work` in a transaction and commits it; after a conflict, runs it again in a new transaction,
    /// [`Options::attempts`](super::Options::attempts) times in all. Then the conflict is the error.
    ///
    /// After an error of `work` itself nothing is committed. [`CommitError::Unknown`] is never tried again, as that
    /// could do the same thing twice.
    pub async fn transact<T, E, F, Fut>(&self, work: F) -> Result<T, E>
    where
        F: Fn(Transaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<CommitError>,
    {
        let mut tries = 0;
        loop {
            let transaction = self.begin().await.map_err(CommitError::from)?;
            let done = work(transaction.clone()).await?;
            tries += 1;
            match transaction.commit("", "").await {
                Ok(_) => return Ok(done),
                Err(CommitError::Conflict(conflicts)) if tries < self.shared.options.attempts => {
                    let newest = conflicts.iter().map(|conflict| conflict.committed).max().unwrap_or_default();
                    let mut news = self.news();
                    // The invalidation that caused the conflict comes before it or soon after.
                    let _ = self.shared.env.timeout(self.shared.options.wait, news.until(|view| *view >= newest)).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Transaction {
    pub(super) fn new(client: Client, snapshot: Tid) -> Transaction {
        Transaction { client, snapshot, footprint: Arc::default() }
    }

    /// The tid as of which the transaction reads.
    pub fn snapshot(&self) -> Tid {
        self.snapshot
    }

    /// The object's record: as written by this transaction, else as of the snapshot. A refusal
    /// [`Refusal::NoObject`] if there was no such object then.
    pub async fn read(&self, oid: Oid) -> Result<Bytes, CallError> {
        if let Some(written) = self.footprint().writes.get(&oid) {
            return Ok(written.clone());
        }
        match self.client.load_before(oid, self.snapshot.next()).await? {
            Some(found) => {
                self.footprint().serials.insert(oid, found.tid);
                Ok(found.data)
            }
            None => Err(CallError::Refused(Refusal::NoObject(oid))),
        }
    }

    /// Gives the object a new record. If the object has changed since the snapshot, the commit is a conflict, whether
    /// the transaction has read it or not.
    pub fn write(&self, oid: Oid, data: impl Into<Bytes>) {
        self.footprint().writes.insert(oid, data.into());
    }

    /// An id for a new object.
    pub async fn new_oid(&self) -> Result<Oid, CallError> {
        let oid = self.client.new_oid().await?;
        self.footprint().serials.insert(oid, Tid::ZERO);
        Ok(oid)
    }

    /// Makes the commit a conflict if this object, read and not written, has changed by then.
    pub fn check_current(&self, oid: Oid) {
        self.footprint().checks.insert(oid);
    }

    /// Commits, and gives the tid of the new revisions. Without writes and checks nothing is sent, and the tid is the
    /// snapshot's.
    ///
    /// A transaction is committed once: a second call, after an error too, is a refusal.
    pub async fn commit(&self, user: impl Into<Bytes>, description: impl Into<Bytes>) -> Result<Tid, CommitError> {
        let (writes, mut checks) = {
            let mut footprint = self.footprint();
            if std::mem::replace(&mut footprint.ended, true) {
                return Err(CommitError::Refused(Refusal::WrongTransaction("this transaction is over".to_owned())));
            }
            (std::mem::take(&mut footprint.writes), std::mem::take(&mut footprint.checks))
        };
        if writes.is_empty() && checks.is_empty() {
            return Ok(self.snapshot);
        }
        if let Some((oid, data)) = writes.iter().find(|(_, data)| data.len() > limits::OBJECT) {
            let why = format!("object {oid} has {} bytes; an object may have {}", data.len(), limits::OBJECT);
            return Err(CommitError::Refused(Refusal::TooLarge(why)));
        }
        checks.retain(|oid| !writes.contains_key(oid));
        let oids: Vec<Oid> = writes.keys().chain(&checks).copied().collect();
        let mut serials = Vec::with_capacity(oids.len());
        for some in oids.chunks(AT_A_TIME) {
            serials.extend(try_join_all(some.iter().map(|oid| self.serial(*oid))).await?);
        }
        let checked = serials.split_off(writes.len());
        if let Some((oid, _)) = checks.iter().zip(&checked).find(|(_, serial)| **serial == Tid::ZERO) {
            return Err(CommitError::Refused(Refusal::NoObject(*oid)));
        }
        let plan = CommitPlan {
            user: user.into(),
            description: description.into(),
            writes: writes.into_iter().zip(serials).map(|((oid, data), serial)| (oid, serial, data)).collect(),
            checks: checks.into_iter().zip(checked).collect(),
        };
        self.client.commit(plan).await
    }

    /// The object's serial at the snapshot; zero: no such object.
    async fn serial(&self, oid: Oid) -> Result<Tid, CallError> {
        if let Some(serial) = self.footprint().serials.get(&oid) {
            return Ok(*serial);
        }
        match self.client.load_before(oid, self.snapshot.next()).await {
            Ok(found) => Ok(found.map_or(Tid::ZERO, |found| found.tid)),
            Err(CallError::Refused(Refusal::NoObject(_))) => Ok(Tid::ZERO),
            Err(error) => Err(error),
        }
    }

    fn footprint(&self) -> MutexGuard<'_, Footprint> {
        self.footprint.lock().expect("no caller panics while holding the footprint")
    }
}
