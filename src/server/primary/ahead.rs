//! The pieces that transactions have put into the log ahead of their commits: shipped in turn, and discarded when no
//! commit will claim them.
//!
//! An [`Ahead`] belongs to one transaction and knows every piece that was numbered for it. When it is dropped (the
//! client has aborted or is gone, the vote failed, the finish was refused), the pieces that it knows are discarded,
//! and a shipment that is still on its way is discarded when it lands. From the finish on the `Ahead` belongs to the
//! proposal: a commit that applies has claimed the pieces that count. Pieces that are left when the reign ends go with
//! the next barrier.
//!
//! **Bounds.** All transactions together have [`limits::STAGES`] shipments in the queue to the log, in turn, so that a
//! small commit never stands behind more. Discards go in commands of at most [`limits::DISCARD`] pieces.
//!
//! **Pace.** While others commit, the log is theirs for as long as each shipment took (at most [`limits::STAGE_REST`]):
//! the disks, which are what a large transaction fills, are free half of the time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::queue::Queue;
use crate::command::{Change, Outcome, Span, Staged, Write};
use crate::config::limits;
use crate::env::{Env, Watching};
use crate::raft::Unknown;
use crate::zodb::StorageId;

/// How long to wait when the queue to the log is full.
const PAUSE: Duration = Duration::from_millis(10);

/// The way into the log that the transactions of a reign share for pieces ahead of their commits.
pub struct Shipping {
    queue: Arc<Queue>,
    turns: Arc<Semaphore>,
    env: Env,
    /// When the next shipment may go.
    next: Mutex<Option<Instant>>,
    discards: Mutex<VecDeque<(StorageId, Span)>>,
    discarded: Notify,
}

/// The pieces of one transaction.
pub struct Ahead {
    shipping: Arc<Shipping>,
    storage: StorageId,
    landed: Arc<Landed>,
    /// Pieces that the commit names.
    named: u64,
}

/// The pieces of one transaction that have landed; its shipment on the way shares them.
#[derive(Default)]
struct Landed(Mutex<Pieces>);

#[derive(Default)]
struct Pieces {
    spans: Vec<Span>,
    /// The transaction is over: it takes no more.
    over: bool,
}

/// Pieces of one transaction on their way into the log.
struct Shipment {
    landed: Arc<Landed>,
    storage: StorageId,
    count: u32,
    _turn: OwnedSemaphorePermit,
}

impl Ahead {
    pub fn new(shipping: Arc<Shipping>, storage: StorageId) -> Ahead {
        Ahead { shipping, storage, landed: Arc::default(), named: 0 }
    }

    /// Puts pieces into the log, in turn with other transactions; gives the number of the first. `None`: the reign is
    /// over.
    pub fn send(&self, pieces: Vec<Bytes>) -> impl Future<Output = Option<u64>> + Send + use<> {
        let (shipping, storage, landed) = (self.shipping.clone(), self.storage, self.landed.clone());
        async move {
            let turn = shipping.turns.clone().acquire_owned().await.ok()?;
            shipping.rest().await;
            let count = u32::try_from(pieces.len()).expect("a shipment has at most a piece for each of its bytes");
            let shipment = Shipment { landed, storage, count, _turn: turn };
            let pending = {
                let place = shipping.queue.place().ok()?;
                let shipping = shipping.clone();
                let (sent, others) = (shipping.env.now(), place.others());
                place.fill(Change::Stage { storage, pieces }, move |outcome| {
                    shipping.note_pace(sent, others);
                    shipping.settle(shipment, outcome);
                })
            };
            match pending.await {
                Ok(Ok(Outcome::Staged(first))) => Some(first),
                Ok(Ok(late)) if late.is_too_late() => {
                    tracing::info!(%storage, "data ahead of a transaction came after the end of its storage, or of the reign");
                    None
                }
                Ok(Ok(other)) => {
                    tracing::error!(?other, "staging was refused");
                    None
                }
                Ok(Err(_)) | Err(_) => None,
            }
        }
    }

    /// Discards pieces that the transaction does not need any more.
    pub fn discard(&self, spans: Vec<Span>) {
        self.shipping.discard(self.storage, spans);
    }

    /// Counts the pieces that the commit names, which is about to be proposed with these writes.
    pub fn note_named(&mut self, writes: &[Write]) {
        let count = |staged: &Staged| staged.pieces.iter().map(|span| u64::from(span.count)).sum::<u64>();
        let of_write = |write: &Write| write.staged().map(count).sum::<u64>();
        self.named = writes.iter().map(of_write).sum();
    }

    /// The outcome of the commit is known: discards what no commit will claim.
    pub fn settle(self, outcome: &Result<Outcome, Unknown>) {
        match outcome {
            // The commit has claimed the pieces that it named. If it named all, there is nothing to discard.
            Ok(Outcome::Committed(_)) if self.landed.count() == self.named => self.leave_to_barrier(),
            // The commit may apply yet.
            Err(Unknown) => self.leave_to_barrier(),
            Ok(_) => drop(self),
        }
    }

    /// Discards nothing: the next barrier removes the pieces that no commit has claimed.
    fn leave_to_barrier(self) {
        self.landed.close();
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.shipping.discard(self.storage, self.landed.close());
    }
}

impl Landed {
    fn pieces(&self) -> MutexGuard<'_, Pieces> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self) -> u64 {
        self.pieces().spans.iter().map(|span| u64::from(span.count)).sum()
    }

    /// Takes no more pieces from now on; gives those that there were.
    fn close(&self) -> Vec<Span> {
        let mut pieces = self.pieces();
        pieces.over = true;
        std::mem::take(&mut pieces.spans)
    }
}

impl Shipment {
    /// The log has numbered the pieces from `first` on: gives the pieces to the transaction, or back if the
    /// transaction is over.
    fn land(self, first: u64) -> Option<Span> {
        let span = Span { first, count: self.count };
        let mut pieces = self.landed.pieces();
        if pieces.over {
            return Some(span);
        }
        match pieces.spans.last_mut() {
            Some(last) if last.first + u64::from(last.count) == first => last.count += span.count,
            _ => pieces.spans.push(span),
        }
        None
    }
}

impl Shipping {
    /// Nothing is on its way; shipments and discards will go through `queue`.
    pub fn new(queue: Arc<Queue>, env: Env) -> Shipping {
        let turns = Arc::new(Semaphore::new(limits::STAGES));
        Shipping { queue, turns, env, next: Mutex::default(), discards: Mutex::default(), discarded: Notify::new() }
    }

    /// Waits until the next shipment may go.
    async fn rest(&self) {
        let next = *self.next();
        if let Some(next) = next {
            self.env.sleep_until(next).await;
        }
    }

    /// The outcome is known of a shipment that was sent at that time, after so many changes of others.
    fn note_pace(&self, sent: Instant, others: u64) {
        let now = self.env.now();
        let rest = (now - sent).min(limits::STAGE_REST);
        *self.next() = (self.queue.others() > others).then(|| now + rest);
    }

    fn next(&self) -> MutexGuard<'_, Option<Instant>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settle(&self, shipment: Shipment, outcome: &Result<Outcome, Unknown>) {
        let storage = shipment.storage;
        if let Ok(Outcome::Staged(first)) = outcome
            && let Some(span) = shipment.land(*first)
        {
            self.discard(storage, vec![span]);
        }
    }

    /// Removes pieces that no transaction will name, soon. When the reign is over, the next barrier does it.
    fn discard(&self, storage: StorageId, spans: Vec<Span>) {
        if spans.is_empty() {
            return;
        }
        self.discards().extend(spans.into_iter().map(|span| (storage, span)));
        self.discarded.notify_one();
    }

    fn discards(&self) -> MutexGuard<'_, VecDeque<(StorageId, Span)>> {
        self.discards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next command's worth of discards.
    fn next_discard(&self) -> Option<Change> {
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

    /// Discards pieces that are not needed any more, until the reign has `ended`.
    pub async fn run(self: Arc<Shipping>, env: Env, mut ended: Watching<bool>) {
        loop {
            let Some(change) = self.next_discard() else {
                tokio::select! { biased;
                    _ = ended.until(|ended| *ended) => return,
                    () = self.discarded.notified() => continue,
                }
            };
            while self.queue.change(change.clone()).await.is_none() {
                if *ended.look_now() {
                    return;
                }
                env.sleep(PAUSE).await;
            }
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

    fn shipment(landed: &Arc<Landed>, count: u32) -> Shipment {
        let turn = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        Shipment { landed: landed.clone(), storage: S, count, _turn: turn }
    }

    #[test]
    fn pieces_that_land_after_the_end_are_given_back() {
        let landed = Arc::<Landed>::default();
        assert_eq!(shipment(&landed, 3).land(1), None);
        assert_eq!(shipment(&landed, 2).land(4), None);
        let late = shipment(&landed, 1);
        assert_eq!(landed.close(), [span(1, 5)]);
        assert_eq!(late.land(9), Some(span(9, 1)));
        assert_eq!(landed.close(), []);
    }

    #[test]
    fn a_discard_has_so_many_pieces_and_one_storage() {
        let shipping = Shipping::new(Arc::default(), Env::system());
        let most = limits::DISCARD;
        shipping.discard(S, vec![span(1, 2), span(10, most)]);
        shipping.discard(StorageId(2), vec![span(1, 1)]);
        let pieces = |change| match change {
            Some(Change::Discard { storage, pieces }) => (storage.0, pieces),
            other => panic!("{other:?}"),
        };
        assert_eq!(pieces(shipping.next_discard()), (1, vec![span(1, 2), span(10, most - 2)]));
        assert_eq!(pieces(shipping.next_discard()), (1, vec![span(8 + u64::from(most), 2)]));
        assert_eq!(pieces(shipping.next_discard()), (2, vec![span(1, 1)]));
        assert_eq!(shipping.next_discard(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_shipment_waits_as_long_as_the_last_took_while_others_commit() {
        let queue = Arc::<Queue>::default();
        let shipping = Shipping::new(queue.clone(), Env::system());
        let took = Duration::from_millis(40);
        let waits = async |others: bool, took| {
            let (sent, before) = (shipping.env.now(), queue.others());
            let change =
                if others { Change::PackEnd { storage: S } } else { Change::Stage { storage: S, pieces: vec![] } };
            drop(queue.place().unwrap().fill(change, |_| {}));
            shipping.env.sleep(took).await;
            shipping.note_pace(sent, before);
            let landed = shipping.env.now();
            shipping.rest().await;
            shipping.env.now() - landed
        };
        assert_eq!(waits(true, took).await, took);
        assert_eq!(waits(false, took).await, Duration::ZERO);
        assert_eq!(waits(true, 2 * limits::STAGE_REST).await, limits::STAGE_REST);
    }
}
