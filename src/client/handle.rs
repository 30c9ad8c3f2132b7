//! A client's handle: connects, loads, and hands its commits to the task of the connection.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::cache::Loaded;
use super::commit::{CommitPlan, Ended, QueuedCommit};
use super::errors::{CallError, CommitError, ConnectError};
use super::link::{Asker, Link, Query};
use super::options::Options;
use super::shared::{Shared, Up};
use crate::env::{Env, Watching};
use crate::net::Network;
use crate::zeo::{Call, Reply};
use crate::zodb::{Oid, Refusal, Tid};

/// Calls that wait to be sent; one more waits at its caller.
const QUEUE: usize = 256;
/// Object ids that are fetched at a time.
const OIDS: i64 = 100;

/// A client of one storage. Clones share the connection and the cache; dropping the last clone closes the connection.
#[derive(Clone)]
pub struct Client {
    pub(super) shared: Arc<Shared>,
    queries: mpsc::Sender<Query>,
    commits: mpsc::Sender<QueuedCommit>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({}, {:?})", self.shared.options.storage, *self.shared.up.look())
    }
}

impl Client {
    /// Connects; where no server can serve yet, goes on looking for [`Options::wait`].
    pub async fn connect(options: Options, env: Env, network: Arc<dyn Network>) -> Result<Client, ConnectError> {
        if options.addresses.is_empty() {
            return Err(ConnectError::Unreachable(Vec::new()));
        }
        let wait = options.wait;
        let shared = Arc::new(Shared::new(options, env.clone(), network));
        let (queries, queried) = mpsc::channel(QUEUE);
        let (commits, queued) = mpsc::channel(1);
        drop(env.spawn(Link { shared: shared.clone(), queries: queried, commits: queued }.run()));
        let client = Client { shared: shared.clone(), queries, commits };
        let refused = async {
            loop {
                env.sleep(Duration::from_millis(50)).await;
                if let Some(refusal) = shared.search().refusal() {
                    return refusal;
                }
            }
        };
        let connected = env.timeout(wait, async {
            tokio::select! { biased;
                () = client.connected() => Ok(()),
                refusal = refused => Err(ConnectError::Refused(refusal)),
            }
        });
        match connected.await {
            Ok(connected) => connected.map(|()| client),
            Err(_) => {
                let search = shared.search();
                Err(search.refusal().map_or_else(|| ConnectError::Unreachable(search.whys()), ConnectError::Refused))
            }
        }
    }

    /// The tid up to which this client knows all changes: an object read as current was current there.
    pub fn view(&self) -> Tid {
        self.shared.cache().view()
    }

    /// Watches the view, which moves with every transaction of the storage.
    pub fn news(&self) -> Watching<Tid> {
        self.shared.news.watching()
    }

    /// Watches the connection; `None` while there is none.
    pub fn up(&self) -> Watching<Option<Up>> {
        self.shared.up.watching()
    }

    /// Bytes that the cache takes now.
    pub fn cached_bytes(&self) -> usize {
        self.shared.cache().bytes()
    }

    /// Returns once the view has every commit that was answered, to any client, before the call.
    pub async fn sync(&self) -> Result<Tid, CallError> {
        self.other(Call::Ping).await?;
        Ok(self.view())
    }

    /// The current revision of an object. A refusal [`Refusal::NoObject`] if there is none.
    pub async fn load(&self, oid: Oid) -> Result<Loaded, CallError> {
        self.within(async {
            self.connected().await;
            let found = {
                let mut cache = self.shared.cache();
                let view = cache.view();
                cache.at(oid, view)
            };
            match found {
                Some(found) => Ok(Some(found)),
                None => self.ask(|answer| Query::Load { oid, before: Tid::MAX, answer }).await,
            }
        })
        .await?
        .ok_or(CallError::Refused(Refusal::NoObject(oid)))
    }

    /// The newest revision of an object older than `before` (and not newer than the view); `None` if all are younger.
    pub async fn load_before(&self, oid: Oid, before: Tid) -> Result<Option<Loaded>, CallError> {
        if before == Tid::ZERO {
            return Ok(None);
        }
        // A revision younger than the view may exist, and its invalidation be on its way: the server is asked for it.
        if let Some(found) = self.shared.cache().at(oid, before.previous()) {
            return Ok(Some(found));
        }
        self.within(self.ask(|answer| Query::Load { oid, before, answer })).await
    }

    /// An object id that no object has.
    pub async fn new_oid(&self) -> Result<Oid, CallError> {
        self.within(async {
            let mut oids = self.shared.oids.lock().await;
            if oids.is_empty() {
                match self.ask(|answer| Query::Other { call: Call::NewOids(OIDS), answer }).await? {
                    Reply::Oids(fresh) => *oids = fresh,
                    other => tracing::error!(?other, "new_oids was answered with something else than object ids"),
                }
                // (They are handed out from the end.)
                oids.reverse();
            }
            oids.pop().ok_or_else(|| CallError::Refused(Refusal::BadValue("the server gave no object ids".to_owned())))
        })
        .await
    }

    pub(super) async fn commit(&self, plan: CommitPlan) -> Result<Tid, CommitError> {
        if self.shared.options.read_only {
            return Err(CommitError::Refused(Refusal::ReadOnly));
        }
        let (env, plan) = (&self.shared.env, Arc::new(plan));
        let deadline = env.now() + self.shared.options.wait;
        loop {
            let begin = async {
                let turn = self.shared.turns.clone().acquire_owned().await.ok()?;
                self.connected().await;
                let (answer, answered) = oneshot::channel();
                self.commits.send(QueuedCommit { plan: plan.clone(), answer, turn }).await.ok()?;
                Some(answered)
            };
            let left = deadline.saturating_duration_since(env.now());
            let Ok(Some(answered)) = env.timeout(left, begin).await else { return Err(CommitError::Disconnected) };
            // No deadline here: each step of a commit has one of its own.
            return match answered.await {
                Ok(Ok(tid)) => Ok(tid),
                Ok(Err(Ended::Cut)) => continue,
                Ok(Err(Ended::TooLong)) => Err(CommitError::Disconnected),
                Ok(Err(Ended::Conflict(conflicts))) => Err(CommitError::Conflict(conflicts)),
                Ok(Err(Ended::Refused(refusal))) => Err(CommitError::Refused(refusal)),
                Ok(Err(Ended::Unknown)) | Err(_) => Err(CommitError::Unknown),
            };
        }
    }

    pub(super) async fn connected(&self) {
        let _ = self.shared.up.watching().until(Option::is_some).await;
    }

    pub(super) async fn within<T>(&self, doing: impl Future<Output = Result<T, CallError>>) -> Result<T, CallError> {
        let wait = self.shared.options.wait;
        self.shared.env.timeout(wait, doing).await.unwrap_or(Err(CallError::Disconnected))
    }

    async fn other(&self, call: Call) -> Result<Reply, CallError> {
        self.within(self.ask(|answer| Query::Other { call: call.clone(), answer })).await
    }

    /// Makes a call that changes nothing, and makes it again after a lost connection.
    async fn ask<T>(&self, call: impl Fn(Asker<T>) -> Query) -> Result<T, CallError> {
        loop {
            self.connected().await;
            let (answer, answered) = oneshot::channel();
            if self.queries.send(call(answer)).await.is_err() {
                return Err(CallError::Disconnected);
            }
            if let Ok(answered) = answered.await {
                return answered.map_err(CallError::Refused);
            }
        }
    }
}
