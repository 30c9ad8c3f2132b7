//! What one client may see: a tid, and the news that move it.
//!
//! A client was told of everything up to its view and of nothing after it. The view moves in one way only: by handing
//! out the invalidations that lie between, each once, oldest first, to be queued for the client before anything newer is
//! told. Reads never look past it.
//!
//! **The own finish.** A client does not get its own transaction as news: the answer to its finish stands in their place.
//! From the moment its tid is given until the outcome is known the view stays below it.
//!
//! ```text
//!   view 5, own finish queued as 8      news: 6, 7       view 7
//!   9 applied                           no news          view 7
//!   8 committed                         answer: 8        view 8
//!                                       news: 9          view 9
//! ```
//!
//! **Far behind.** Where the storage's ring does not reach back to the view, the same is read from the table of
//! transactions, as one invalidation at the newest tid.

use std::io;
use std::sync::Arc;

use crate::env::Watching;
use crate::storage::{Applied, Feed, Store};
use crate::zodb::{Oid, StorageId, Tid};

/// The view of one session.
pub struct View {
    tid: Tid,
    storage: StorageId,
    feed: Arc<Feed>,
    watching: Watching<Tid>,
    /// The tid of this session's own finish, while its outcome is open.
    own: Option<Tid>,
}

/// An invalidation to be queued.
pub enum News {
    Applied(Arc<Applied>),
    /// Everything that changed up to `tid` since the last news.
    Gap {
        tid: Tid,
        oids: Vec<Oid>,
    },
}

impl News {
    pub fn tid(&self) -> Tid {
        match self {
            News::Applied(applied) => applied.tid,
            News::Gap { tid, .. } => *tid,
        }
    }

    pub fn oids(&self) -> &[Oid] {
        match self {
            News::Applied(applied) => &applied.oids,
            News::Gap { oids, .. } => oids,
        }
    }
}

impl View {
    /// Subscribes and takes the present state as seen, in one step.
    pub fn open(store: &Store, storage: StorageId) -> View {
        let feed = store.feed(storage);
        let mut watching = feed.watching();
        let tid = *watching.look_now();
        View { tid, storage, feed, watching, own: None }
    }

    /// Up to where the client was told.
    pub fn tid(&self) -> Tid {
        self.tid
    }

    /// Moves the view as far as it may go, and gives what has to be queued for that.
    pub fn news(&mut self, store: &Store) -> io::Result<Vec<News>> {
        let most = self.own.map_or(Tid::MAX, Tid::previous);
        let news = match self.feed.after(self.tid) {
            Some(applied) => {
                let all = applied.into_iter().take_while(|applied| applied.tid <= most);
                all.map(News::Applied).collect::<Vec<_>>()
            }
            None => {
                let tid = self.feed.latest().min(most);
                if tid <= self.tid {
                    return Ok(Vec::new());
                }
                let oids = store.changed_since(self.storage, self.tid, tid)?;
                vec![News::Gap { tid, oids }]
            }
        };
        if let Some(last) = news.last() {
            assert!(last.tid() > self.tid, "a view only moves on");
            self.tid = last.tid();
        }
        Ok(news)
    }

    /// Returns when there may be news.
    pub async fn changed(&mut self) {
        if self.watching.changed().await.is_err() {
            // The storage is gone, and with it the server: somebody else closes this session.
            std::future::pending().await
        }
    }

    /// Returns (from anywhere) once news up to `tid` are there.
    pub fn reaches(&self, tid: Tid) -> impl Future<Output = ()> + Send + use<> {
        let mut watching = self.watching.clone();
        async move {
            let _ = watching.until(|latest| *latest >= tid).await;
        }
    }

    /// The session's own finish was given `tid`: the view stays below it.
    pub fn begin_own(&mut self, tid: Tid) {
        assert!(tid > self.tid && self.own.is_none(), "a finish gets a tid that nobody has seen");
        self.own = Some(tid);
    }

    /// It has committed, all news before it were given, and its answer is being queued.
    pub fn own_committed(&mut self) {
        let tid = self.own.take().expect("it was begun");
        self.tid = tid;
    }

    /// It has not committed and never will.
    pub fn own_refused(&mut self) {
        self.own = None;
    }
}
