//! The state that all handles of a client share with the task of its connection.

use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Semaphore;

use super::cache::Cache;
use super::options::Options;
use super::search::Search;
use crate::env::{Env, Watch};
use crate::net::Network;
use crate::zodb::{Oid, Tid};

/// The connection that there is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Up {
    /// The server's `host:port`.
    pub address: String,
    /// How many connections there were, this one included.
    pub generation: u64,
}

/// The state that the handles and the task of the connection share.
pub struct Shared {
    pub env: Env,
    pub network: Arc<dyn Network>,
    pub options: Options,
    pub cache: Mutex<Cache>,
    /// Why there is no connection yet.
    pub search: Mutex<Search>,
    /// The connection; `None` while there is none.
    pub up: Watch<Option<Up>>,
    /// The view.
    pub news: Watch<Tid>,
    /// One permit: commits take turns.
    pub turns: Arc<Semaphore>,
    /// Object ids that the server gave and that are not used yet.
    pub oids: tokio::sync::Mutex<Vec<Oid>>,
}

impl Shared {
    pub fn new(options: Options, env: Env, network: Arc<dyn Network>) -> Shared {
        Shared {
            cache: Mutex::new(Cache::new(options.cache_bytes)),
            search: Mutex::new(Search::default()),
            up: Watch::new(None),
            news: Watch::new(Tid::ZERO),
            turns: Arc::new(Semaphore::new(1)),
            oids: tokio::sync::Mutex::new(Vec::new()),
            env,
            network,
            options,
        }
    }

    pub fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().expect("no caller panics while holding the cache")
    }

    pub fn search(&self) -> MutexGuard<'_, Search> {
        self.search.lock().expect("no caller panics while holding the search")
    }
}
