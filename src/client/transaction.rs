//! A transaction: a snapshot to read from, and what is to be committed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use futures_util::future::try_join_all;

use super::commit::Plan;
use super::{CallError, Client, CommitError};
use crate::config::limits;
use crate::zodb::{Oid, Refusal, Tid};

/// Serials that are looked up at a time, of objects that were written unread.
const AT_A_TIME: usize = 128;

/// A transaction. It reads what was current at one tid, whatever happens meanwhile, and its own writes; nobody sees
/// these before they are committed. Dropping it forgets them. Clones are the same transaction.
#[derive(Clone)]
pub struct Transaction {
    client: Client,
    snapshot: Tid,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// The serials of what was read; zero: it did not exist.
    serials: BTreeMap<Oid, Tid>,
    writes: BTreeMap<Oid, Bytes>,
    checks: BTreeSet<Oid>,
    ended: bool,
}

impl std::fmt::Debug for Transaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Transaction(at {}, {} writes)", self.snapshot, self.state().writes.len())
    }
}

impl Transaction {
    pub(super) fn new(client: Client, snapshot: Tid) -> Transaction {
        Transaction { client, snapshot, state: Arc::default() }
    }

    /// The tid as of which it reads.
    pub fn snapshot(&self) -> Tid {
        self.snapshot
    }

    /// The object's pickles: as written by this transaction, else as of the snapshot. A refusal
    /// [`Refusal::NoObject`] if there was no such object then.
    pub async fn read(&self, oid: Oid) -> Result<Bytes, CallError> {
        if let Some(written) = self.state().writes.get(&oid) {
            return Ok(written.clone());
        }
        match self.client.load_before(oid, self.snapshot.next()).await? {
            Some(found) => {
                self.state().serials.insert(oid, found.tid);
                Ok(found.data)
            }
            None => Err(CallError::Refused(Refusal::NoObject(oid))),
        }
    }

    /// Gives the object a new state. If it has changed since the snapshot, the commit is a conflict, whether it was read
    /// before or not.
    pub fn write(&self, oid: Oid, data: impl Into<Bytes>) {
        self.state().writes.insert(oid, data.into());
    }

    /// An id for a new object.
    pub async fn new_oid(&self) -> Result<Oid, CallError> {
        let oid = self.client.new_oid().await?;
        self.state().serials.insert(oid, Tid::ZERO);
        Ok(oid)
    }

    /// Makes it a conflict if this object, which is read and not written, has changed when the transaction commits.
    pub fn check_current(&self, oid: Oid) {
        self.state().checks.insert(oid);
    }

    /// Commits; the tid is that of the new revisions. Without writes and checks nothing is done, and the tid is the snapshot's.
    ///
    /// A transaction is committed once; afterwards (also after an error) it is over, and this is a refusal.
    pub async fn commit(&self, user: impl Into<Bytes>, description: impl Into<Bytes>) -> Result<Tid, CommitError> {
        let (writes, mut checks) = {
            let mut state = self.state();
            if std::mem::replace(&mut state.ended, true) {
                return Err(CommitError::Refused(Refusal::WrongTransaction("this transaction is over".to_owned())));
            }
            (std::mem::take(&mut state.writes), std::mem::take(&mut state.checks))
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
        let plan = Plan {
            user: user.into(),
            description: description.into(),
            writes: writes.into_iter().zip(serials).map(|((oid, data), serial)| (oid, serial, data)).collect(),
            checks: checks.into_iter().zip(checked).collect(),
        };
        self.client.commit(plan).await
    }

    /// The serial at the snapshot.
    async fn serial(&self, oid: Oid) -> Result<Tid, CallError> {
        if let Some(serial) = self.state().serials.get(&oid) {
            return Ok(*serial);
        }
        match self.client.load_before(oid, self.snapshot.next()).await {
            Ok(found) => Ok(found.map_or(Tid::ZERO, |found| found.tid)),
            Err(CallError::Refused(Refusal::NoObject(_))) => Ok(Tid::ZERO),
            Err(error) => Err(error),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding it")
    }
}
