//! The view of one client: the tid up to which the client was told of everything, and the news that move the view.
//!
//! A client was told of everything up to its view and of nothing after it. The view moves in one way only: by handing
//! out the invalidations that lie between, each once, oldest first, to be queued for the client before anything newer
//! is told. Reads never look past the view.
//!
//! **The own finish.** A client does not get its own transaction as news: the answer to its finish stands in their
//! place. From the moment the transaction is given its tid until its outcome is known, the view stays below that tid.
//!
//! ```text
//!   view 5, own finish queued as 8      news: 6, 7       view 7
//!   9 applied                           no news          view 7
//!   8 committed                         answer: 8        view 8
//!                                       news: 9          view 9
//! ```
//!
//! **Far behind.** If the storage's ring does not reach back to the view, the transactions are read from their table.
//! They are told one by one all the same: a client that was told of two together would take a revision between them for
//! the one before. Beyond [`limits::INVALIDATIONS`] the session ends: its client comes back and drops its cache, which
//! costs less.

use std::io;
use std::sync::Arc;

use crate::config::limits;
use crate::env::Watching;
use crate::storage::{Applied, Feed, Store};
use crate::zodb::{StorageId, Tid};

/// The view of one session.
pub struct View {
    tid: Tid,
    storage: StorageId,
    feed: Arc<Feed>,
    watching: Watching<Tid>,
    /// The tid of this session's own finish, while its outcome is open.
    own: Option<Tid>,
}

impl View {
    /// Subscribes to the storage's news and takes its present state as seen, in one step.
    pub fn open(store: &Store, storage: StorageId) -> View {
        let feed = store.feed(storage);
        let mut watching = feed.watching();
        let tid = *watching.look_now();
        View { tid, storage, feed, watching, own: None }
    }

    /// The tid up to which the client was told.
    pub fn tid(&self) -> Tid {
        self.tid
    }

    /// Moves the view as far as it may go, and gives the news to be queued for that. `None`: they are too many.
    pub fn news(&mut self, store: &Store) -> io::Result<Option<Vec<Arc<Applied>>>> {
        if !self.lags() {
            return Ok(Some(Vec::new()));
        }
        let most = self.own.map_or(Tid::MAX, Tid::previous);
        let mut news = match self.feed.after(self.tid) {
            Some(news) => news,
            None => {
                let upto = self.feed.latest().min(most);
                match store.transactions_since(self.storage, self.tid, upto, limits::INVALIDATIONS)? {
                    Some(news) => news.into_iter().map(Arc::new).collect(),
                    None => return Ok(None),
                }
            }
        };
        news.truncate(news.partition_point(|applied| applied.tid <= most));
        if let Some(last) = news.last() {
            assert!(last.tid > self.tid, "a view only moves on");
            self.tid = last.tid;
        }
        Ok(Some(news))
    }

    /// Whether there are news.
    pub fn lags(&self) -> bool {
        let below_own = |own| self.feed.first_after(self.tid).is_none_or(|first| first < own);
        self.feed.latest() > self.tid && self.own.is_none_or(below_own)
    }

    /// Returns when there may be news.
    pub async fn changed(&mut self) {
        if self.watching.changed().await.is_err() {
            // The storage is gone, and with it the server, which closes this session.
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

    /// Whether the view stays below the session's own finish.
    pub fn is_held(&self) -> bool {
        self.own.is_some()
    }

    /// The session's own finish was given `tid`: the view stays below it.
    pub fn begin_own(&mut self, tid: Tid) {
        assert!(tid > self.tid && self.own.is_none(), "a finish gets a tid that nobody has seen");
        self.own = Some(tid);
    }

    /// The own finish has committed, all news before its tid were given, and its answer is being queued.
    pub fn own_committed(&mut self) {
        let tid = self.own.take().expect("an own finish commits after it has begun");
        self.tid = tid;
    }

    /// The own finish has not committed and never will.
    pub fn own_refused(&mut self) {
        self.own = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::testing::{self, S, write};

    fn commit(store: &Store, tid: u64, oid: u64) {
        testing::commit(store, tid, vec![write(oid, "data")]);
    }

    fn store() -> Store {
        let store = testing::store();
        commit(&store, 5, 1);
        store
    }

    fn told(view: &mut View, store: &Store) -> Vec<(u64, Vec<u64>)> {
        let news = view.news(store).unwrap().unwrap();
        news.iter().map(|news| (news.tid.0, news.oids.iter().map(|oid| oid.0).collect())).collect()
    }

    #[test]
    fn news_after_the_register_are_told_once_and_in_order() {
        let store = store();
        let mut view = View::open(&store, S);
        assert_eq!(view.tid(), Tid(5));
        assert_eq!(told(&mut view, &store), vec![]);
        commit(&store, 6, 1);
        commit(&store, 9, 2);
        assert_eq!(told(&mut view, &store), vec![(6, vec![1]), (9, vec![2])]);
        assert_eq!((view.tid(), told(&mut view, &store)), (Tid(9), vec![]));
    }

    #[test]
    fn the_view_stays_below_the_own_finish_until_it_is_answered() {
        let store = store();
        let mut view = View::open(&store, S);
        view.begin_own(Tid(8));
        commit(&store, 7, 1);
        commit(&store, 8, 2);
        commit(&store, 9, 3);
        assert_eq!(told(&mut view, &store), vec![(7, vec![1])]);
        assert_eq!((view.tid(), told(&mut view, &store)), (Tid(7), vec![]));
        view.own_committed();
        assert_eq!(view.tid(), Tid(8));
        assert_eq!(told(&mut view, &store), vec![(9, vec![3])]);
    }

    #[test]
    fn an_own_finish_that_was_refused_leaves_no_hole() {
        let store = store();
        let mut view = View::open(&store, S);
        view.begin_own(Tid(8));
        commit(&store, 9, 3);
        assert_eq!(told(&mut view, &store), vec![]);
        view.own_refused();
        assert_eq!(told(&mut view, &store), vec![(9, vec![3])]);
    }

    #[test]
    fn a_client_behind_the_ring_is_told_of_each_transaction_all_the_same() {
        let store = store();
        let mut view = View::open(&store, S);
        let many = crate::storage::RING_TRANSACTIONS as u64 + 10;
        for n in 0..many {
            commit(&store, 6 + n, n % 3);
        }
        view.begin_own(Tid(5 + many));
        let all: Vec<_> = (0..many).map(|n| (6 + n, vec![n % 3])).collect();
        assert_eq!(told(&mut view, &store), all[..all.len() - 1]);
        view.own_refused();
        assert_eq!(told(&mut view, &store), all[all.len() - 1..]);
        commit(&store, 6 + many, 7);
        assert_eq!(told(&mut view, &store), vec![(6 + many, vec![7])]);
    }

    #[tokio::test]
    async fn a_change_wakes_the_session() {
        let store = store();
        let mut view = View::open(&store, S);
        let reaches = view.reaches(Tid(6));
        commit(&store, 6, 1);
        view.changed().await;
        reaches.await;
    }
}
