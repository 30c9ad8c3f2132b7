//! The Rust client of a zrs cluster (or of one node).
//!
//! **What it is.** A [`Client`] finds the server that serves it and stays with it: the primary, for one that writes; any
//! node that has caught up, for one that only reads. It loads objects through a cache that is told of every change,
//! and commits [`Transaction`]s, which read one state of the database and conflict with whoever changed it meanwhile.
//!
//! ```no_run
//! use std::sync::Arc;
//! use zrs::client::{Client, CommitError, Options};
//! use zrs::env::Env;
//! use zrs::net::Tcp;
//! use zrs::zodb::Oid;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let addresses = ["a:8100", "b:8100", "c:8100"].map(str::to_owned).to_vec();
//! let client = Client::connect(Options { addresses, ..Options::default() }, Env::system(), Arc::new(Tcp)).await?;
//!
//! // Once more from the beginning whenever somebody else has changed object 1 meanwhile.
//! let count = client
//!     .transact(async |transaction| {
//!         let count: u64 = String::from_utf8_lossy(&transaction.read(Oid(1)).await?).parse().unwrap_or(0);
//!         transaction.write(Oid(1), (count + 1).to_string());
//!         Ok::<_, CommitError>(count + 1)
//!     })
//!     .await?;
//! println!("{count}");
//! # Ok(())
//! # }
//! ```
//!
//! **Why it is.** The tools of this project speak to a cluster as its users do, and its tests can say what a client may rely
//! on. It runs on [`Env`] and [`Network`] alone, so it is the same client in the simulation.
//!
//! **What it promises.**
//! - It is always on its way to the primary: an address that refuses, is silent or says where the primary is holds it up no longer
//!   than it takes to ask the next. Every wait is bounded by [`Options::wait`], after which the answer is an error.
//! - What it reads as current was current at its [`Client::view`], and the view only grows, over connections and failovers.
//!   Other clients' commits come to the view when they are told; [`Client::sync`] waits for all that were answered before.
//! - A transaction reads its snapshot, through a failover too. Its commit either takes its place after everything it
//!   depends on, or is an error. Loads are repeated after a lost connection, and so is a commit that was not yet to be finished;
//!   a finish that was sent and not answered is [`CommitError::Unknown`], and never repeated.
//! - The cache takes no more memory than [`Options::cache_bytes`]; queues are bounded.
//!
//! **How a failover looks.** The primary is n1, the client's view 10; object 1 is cached as [7, …), object 2 as [8, …):
//!
//! ```text
//!   n1 killed                             connection lost; view 10 and cache stay; a transaction at 10 reads from them
//!   asks n1, n2, n3 at once               n1: refused   n2: not primary, knows of none   n3: the same
//!   (pause)  n2: not primary, n3 is       asks n3 at once
//!   n3 registers it: last is 12           somebody else has committed 11 and 12 meanwhile
//!   getInvalidations(10) = 12, [2]        object 2 is dropped; view 12; object 1 is still cached, and current at 12
//!   loads, commits go on                  new transactions read at 12, that from before still at 10
//!   invalidateTransaction(13, [1])        object 1 was [7, 13); view 13
//! ```
//!
//! **What was left out.** Resolving conflicts (a conflict is for whoever knows what the objects mean: begin again), blobs,
//! undo and pack, commits side by side (a server takes one at a time from a connection; connect more clients for that),
//! and a cache on disk.

mod cache;
mod commit;
mod errors;
mod find;
mod link;
#[cfg(test)]
mod tests;
mod transaction;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot};

use self::cache::Cache;
use self::commit::{Commit, Ended, Plan};
use self::find::Tried;
use self::link::{Answer, Ask, Link};
use crate::env::{Env, Watch, Watching};
use crate::net::{Network, TlsClient};
use crate::zeo::{Call, Reply};
use crate::zodb::{Oid, Refusal, Tid};

pub use cache::Loaded;
pub use errors::{CallError, CommitError, ConnectError};
pub use transaction::Transaction;

/// Calls that wait to be sent; one more waits at its caller.
const QUEUE: usize = 256;
/// Object ids that are fetched at a time.
const OIDS: i64 = 100;

/// How to connect. `Options { addresses, ..Options::default() }`
#[derive(Clone, Debug)]
pub struct Options {
    /// `host:port` of some nodes of the cluster, at best all.
    pub addresses: Vec<String>,
    /// The name of the storage; `1` by default.
    pub storage: String,
    /// Never writes, and is content with any node that has caught up.
    pub read_only: bool,
    /// What the cache may take; 64 MiB by default.
    pub cache_bytes: usize,
    /// How long anything may take: to find a server, to be answered, to vote, to finish. 30 s by default.
    pub wait: Duration,
    /// When a connection by which nothing is heard is given up; 4 s by default.
    pub silence: Duration,
    /// How often [`Client::transact`] tries; 3 by default.
    pub attempts: u32,
    /// What the server's log calls this client besides its address.
    pub label: String,
    /// How to speak TLS; `None`: it is not spoken.
    pub tls: Option<TlsClient>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            addresses: Vec::new(),
            storage: "1".to_owned(),
            read_only: false,
            cache_bytes: 64 << 20,
            wait: Duration::from_secs(30),
            silence: Duration::from_secs(4),
            attempts: 3,
            label: String::new(),
            tls: None,
        }
    }
}

/// The connection of the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Up {
    /// The server's `host:port`.
    pub address: String,
    /// How many there were, with this one.
    pub generation: u64,
}

/// What the clients and the task of the connection share.
struct Shared {
    env: Env,
    network: Arc<dyn Network>,
    options: Options,
    cache: Mutex<Cache>,
    /// Why there is no connection yet.
    tried: Mutex<Tried>,
    up: Watch<Option<Up>>,
    /// The view.
    news: Watch<Tid>,
    /// Whose turn it is to commit.
    turns: Arc<Semaphore>,
    /// Object ids that nobody uses yet.
    oids: tokio::sync::Mutex<Vec<Oid>>,
}

impl Shared {
    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().expect("nobody panics while holding it")
    }

    fn tried(&self) -> MutexGuard<'_, Tried> {
        self.tried.lock().expect("nobody panics while holding it")
    }
}

/// A client of one storage. Clones share the connection and the cache; the last one that is dropped closes them.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    asks: mpsc::Sender<Ask>,
    commits: mpsc::Sender<Commit>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({}, {:?})", self.shared.options.storage, *self.shared.up.look())
    }
}

impl Client {
    /// Connects, and goes on looking for [`Options::wait`] if there is nobody to serve yet.
    pub async fn connect(options: Options, env: Env, network: Arc<dyn Network>) -> Result<Client, ConnectError> {
        if options.addresses.is_empty() {
            return Err(ConnectError::Unreachable(Vec::new()));
        }
        let wait = options.wait;
        let shared = Arc::new(Shared {
            cache: Mutex::new(Cache::new(options.cache_bytes)),
            tried: Mutex::new(Tried::default()),
            up: Watch::new(None),
            news: Watch::new(Tid::ZERO),
            turns: Arc::new(Semaphore::new(1)),
            oids: tokio::sync::Mutex::new(Vec::new()),
            env: env.clone(),
            network,
            options,
        });
        let (asks, asked) = mpsc::channel(QUEUE);
        let (commits, committed) = mpsc::channel(1);
        drop(env.spawn(Link { shared: shared.clone(), asks: asked, commits: committed }.run()));
        let client = Client { shared: shared.clone(), asks, commits };
        let refused = async {
            loop {
                env.sleep(Duration::from_millis(50)).await;
                if let Some(refusal) = shared.tried().refusal() {
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
                let tried = shared.tried();
                Err(tried.refusal().map_or_else(|| ConnectError::Unreachable(tried.whys()), ConnectError::Refused))
            }
        }
    }

    /// The tid up to which this client knows what has changed: what it reads as current was current there.
    pub fn view(&self) -> Tid {
        self.shared.cache().view()
    }

    /// The view, to be watched: it moves with every transaction of the storage.
    pub fn news(&self) -> Watching<Tid> {
        self.shared.news.watching()
    }

    /// The connection, to be watched; `None` while there is none.
    pub fn up(&self) -> Watching<Option<Up>> {
        self.shared.up.watching()
    }

    /// Bytes that the cache takes now.
    pub fn cached_bytes(&self) -> usize {
        self.shared.cache().bytes()
    }

    /// Returns once the view has everything that was answered to anybody before the call.
    pub async fn sync(&self) -> Result<Tid, CallError> {
        self.other(Call::Ping).await?;
        Ok(self.view())
    }

    /// The current state of an object. A refusal [`Refusal::NoObject`] if there is none.
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
                None => self.ask(|answer| Ask::Load { oid, before: Tid::MAX, answer }).await,
            }
        })
        .await?
        .ok_or(CallError::Refused(Refusal::NoObject(oid)))
    }

    /// The newest state of an object older than `before` (and not newer than the view); `None` if all are younger.
    pub async fn load_before(&self, oid: Oid, before: Tid) -> Result<Option<Loaded>, CallError> {
        if before == Tid::ZERO {
            return Ok(None);
        }
        // What is younger than the view may be there and not told yet: then the server is asked.
        if let Some(found) = self.shared.cache().at(oid, before.previous()) {
            return Ok(Some(found));
        }
        self.within(self.ask(|answer| Ask::Load { oid, before, answer })).await
    }

    /// An object id that nobody has.
    pub async fn new_oid(&self) -> Result<Oid, CallError> {
        self.within(async {
            let mut oids = self.shared.oids.lock().await;
            if oids.is_empty() {
                match self.ask(|answer| Ask::Other { call: Call::NewOids(OIDS), answer }).await? {
                    Reply::Oids(fresh) => *oids = fresh,
                    other => tracing::error!(?other, "an odd answer to new_oids"),
                }
                // Handed out from the end.
                oids.reverse();
            }
            oids.pop().ok_or_else(|| CallError::Refused(Refusal::BadValue("the server gave no object ids".to_owned())))
        })
        .await
    }

    /// Begins a transaction at the view, once there is a connection.
    pub async fn begin(&self) -> Result<Transaction, CallError> {
        self.within(async {
            self.connected().await;
            Ok(Transaction::new(self.clone(), self.view()))
        })
        .await
    }

    /// Runs `work` in a transaction and commits it; after a conflict once more from the beginning, with what is current then,
    /// [`Options::attempts`] times in all. Then the conflict is the error.
    ///
    /// An error of `work` itself ends it, and nothing is committed. [`CommitError::Unknown`] is never tried again, as that
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
                    // It is told before or soon after the conflict.
                    let _ = self.shared.env.timeout(self.shared.options.wait, news.until(|view| *view >= newest)).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn commit(&self, plan: Plan) -> Result<Tid, CommitError> {
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
                self.commits.send(Commit { plan: plan.clone(), answer, turn }).await.ok()?;
                Some(answered)
            };
            let left = deadline.saturating_duration_since(env.now());
            let Ok(Some(answered)) = env.timeout(left, begin).await else { return Err(CommitError::Disconnected) };
            // Each of its steps has a deadline of its own.
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

    async fn connected(&self) {
        let _ = self.shared.up.watching().until(Option::is_some).await;
    }

    async fn within<T>(&self, doing: impl Future<Output = Result<T, CallError>>) -> Result<T, CallError> {
        let wait = self.shared.options.wait;
        self.shared.env.timeout(wait, doing).await.unwrap_or(Err(CallError::Disconnected))
    }

    async fn other(&self, call: Call) -> Result<Reply, CallError> {
        self.within(self.ask(|answer| Ask::Other { call: call.clone(), answer })).await
    }

    /// Makes a call, and makes it again after a connection was lost: it changes nothing.
    async fn ask<T>(&self, call: impl Fn(Answer<T>) -> Ask) -> Result<T, CallError> {
        loop {
            self.connected().await;
            let (answer, answered) = oneshot::channel();
            if self.asks.send(call(answer)).await.is_err() {
                return Err(CallError::Disconnected);
            }
            if let Ok(answered) = answered.await {
                return answered.map_err(CallError::Refused);
            }
        }
    }
}
