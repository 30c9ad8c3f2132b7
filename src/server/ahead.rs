//! The pieces that transactions have put into the log ahead of their commits, at the primary: sent in turn, and discarded when
//! nobody will claim them.
//!
//! An [`Ahead`] belongs to one transaction and knows every piece that was numbered for it. When it is dropped (the client has
//! aborted or is gone, the vote failed, the finish was refused), what it knows is discarded, and what was still on its way
//! is discarded when it lands. From the finish on it belongs to the proposal: a commit that applies has claimed the pieces that
//! count. What is left when the reign ends goes with the next barrier.
//!
//! **Bounds.** All sessions together have [`limits::STAGES`] loads in the queue to the log, in turn, so that a small commit never
//! stands behind more. Discards go in commands of at most [`limits::DISCARD`] pieces.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::primary::{Cargo, Primary};
use crate::command::{Change, Outcome, Span, Staged, Write};
use crate::config::limits;
use crate::zodb::StorageId;

/// How long to wait when the queue to the log is full.
const PAUSE: Duration = Duration::from_millis(10);

/// The pieces of one transaction.
pub struct Ahead {
    primary: Arc<Primary>,
    storage: StorageId,
    landed: Arc<Landed>,
    /// Pieces that the commit names.
    named: u64,
}

/// What has landed of them; shared with the load that is on its way.
#[derive(Default)]
pub struct Landed(Mutex<State>);

#[derive(Default)]
struct State {
    spans: Vec<Span>,
    /// Nobody waits for more.
    over: bool,
}

/// What a reign has of it all.
pub struct Aheads {
    turns: Arc<Semaphore>,
    discards: Mutex<VecDeque<(StorageId, Span)>>,
    discarded: Notify,
}

/// A load on its way into the log.
pub struct Load {
    landed: Arc<Landed>,
    storage: StorageId,
    count: u32,
    _turn: OwnedSemaphorePermit,
}

impl Default for Aheads {
    fn default() -> Aheads {
        Aheads { turns: Arc::new(Semaphore::new(limits::STAGES)), discards: Mutex::default(), discarded: Notify::new() }
    }
}

impl Ahead {
    pub fn new(primary: Arc<Primary>, storage: StorageId) -> Ahead {
        Ahead { primary, storage, landed: Arc::default(), named: 0 }
    }

    /// Puts pieces into the log, in turn with other transactions; gives the number of the first. `None`: the reign is over.
    pub fn send(&self, pieces: Vec<Bytes>) -> impl Future<Output = Option<u64>> + Send + use<> {
        let (primary, storage, landed) = (self.primary.clone(), self.storage, self.landed.clone());
        async move {
            let turn = primary.aheads().turns.clone().acquire_owned().await.ok()?;
            let count = u32::try_from(pieces.len()).expect("a load has at most a piece for each of its bytes");
            let load = Load { landed, storage, count, _turn: turn };
            match primary.enqueue(Change::Stage { storage, pieces }, Cargo::Load(load))?.await {
                Ok(Ok(Outcome::Staged(first))) => Some(first),
                Ok(Ok(other)) => {
                    tracing::error!(?other, "staging was refused");
                    None
                }
                Ok(Err(_)) | Err(_) => None,
            }
        }
    }

    /// These are not needed any more.
    pub fn discard(&self, spans: Vec<Span>) {
        self.primary.discard(self.storage, spans);
    }

    /// The commit is about to be proposed, with these writes.
    pub fn is_named(&mut self, writes: &[Write]) {
        let count = |staged: &Staged| staged.pieces.iter().map(|span| u64::from(span.count)).sum::<u64>();
        let of_write = |write: &Write| write.staged().map(count).sum::<u64>();
        self.named = writes.iter().map(of_write).sum();
    }

    /// The commit has applied, and claimed what it named. Anything else is not needed any more.
    pub fn committed(self) {
        if self.landed.count() == self.named {
            self.leave();
        }
    }

    /// The commit may apply yet: nobody but a barrier can tell what is needed.
    pub fn leave(self) {
        self.landed.close();
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.primary.discard(self.storage, self.landed.close());
    }
}

impl Landed {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self) -> u64 {
        self.state().spans.iter().map(|span| u64::from(span.count)).sum()
    }

    /// From now on nobody waits for more; gives what was there.
    fn close(&self) -> Vec<Span> {
        let mut state = self.state();
        state.over = true;
        std::mem::take(&mut state.spans)
    }
}

impl Load {
    /// It is in: from now on its transaction has these pieces. If that is over, gives what is to be discarded.
    pub fn lands(self, first: u64) -> Option<(StorageId, Span)> {
        let span = Span { first, count: self.count };
        let mut state = self.landed.state();
        if state.over {
            return Some((self.storage, span));
        }
        match state.spans.last_mut() {
            Some(last) if last.first + u64::from(last.count) == first => last.count += span.count,
            _ => state.spans.push(span),
        }
        None
    }
}

impl Aheads {
    pub fn discard(&self, storage: StorageId, spans: Vec<Span>) {
        if spans.is_empty() {
            return;
        }
        self.discards().extend(spans.into_iter().map(|span| (storage, span)));
        self.discarded.notify_one();
    }

    fn discards(&self) -> MutexGuard<'_, VecDeque<(StorageId, Span)>> {
        self.discards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next command's worth.
    fn next(&self) -> Option<Change> {
        let mut discards = self.discards();
        let storage = discards.front()?.0;
        let (mut pieces, mut room) = (Vec::new(), limits::DISCARD);
        while room > 0
            && let Some((_, span)) = discards.front_mut().filter(|(of, _)| *of == storage)
        {
            let count = span.count.min(room);
            pieces.push(Span { first: span.first, count });
            room -= count;
            span.first += u64::from(count);
            span.count -= count;
            if span.count == 0 {
                discards.pop_front();
            }
        }
        Some(Change::Discard { storage, pieces })
    }
}

/// Discards what is not needed any more, until the reign is over.
pub async fn discard(primary: Arc<Primary>) {
    let mut ended = primary.ended();
    loop {
        let Some(change) = primary.aheads().next() else {
            tokio::select! { biased;
                _ = ended.until(|ended| *ended) => return,
                () = primary.aheads().discarded.notified() => continue,
            }
        };
        while primary.change(change.clone()).await.is_none() {
            if *ended.look_now() {
                return;
            }
            primary.env().sleep(PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: StorageId = StorageId(1);

    fn span(first: u64, count: u32) -> Span {
        Span { first, count }
    }

    fn load(landed: &Arc<Landed>, count: u32) -> Load {
        let turn = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        Load { landed: landed.clone(), storage: S, count, _turn: turn }
    }

    #[test]
    fn what_lands_after_the_end_is_discarded() {
        let landed = Arc::<Landed>::default();
        assert_eq!(load(&landed, 3).lands(1), None);
        assert_eq!(load(&landed, 2).lands(4), None);
        let late = load(&landed, 1);
        assert_eq!(landed.close(), [span(1, 5)]);
        assert_eq!(late.lands(9), Some((S, span(9, 1))));
        assert_eq!(landed.close(), []);
    }

    #[test]
    fn a_discard_has_so_many_pieces_and_one_storage() {
        let aheads = Aheads::default();
        let most = limits::DISCARD;
        aheads.discard(S, vec![span(1, 2), span(10, most)]);
        aheads.discard(StorageId(2), vec![span(1, 1)]);
        let pieces = |change| match change {
            Some(Change::Discard { storage, pieces }) => (storage.0, pieces),
            other => panic!("{other:?}"),
        };
        assert_eq!(pieces(aheads.next()), (1, vec![span(1, 2), span(10, most - 2)]));
        assert_eq!(pieces(aheads.next()), (1, vec![span(8 + u64::from(most), 2)]));
        assert_eq!(pieces(aheads.next()), (2, vec![span(1, 1)]));
        assert_eq!(aheads.next(), None);
    }
}
