//! A finish: the writes go to the log, and the client is answered once they are committed.

use futures_util::FutureExt;

use super::buffer::Buffer;
use super::open::OpenTransaction;
use super::wish::{Record, Wish};
use crate::command::{Base, Content, Write};
use crate::server::session::desk::{Desk, Done, End};
use crate::zeo::{MessageId, Reply};
use crate::zodb::{Oid, Refusal, Tid};

/// A finish on its way.
pub struct Finishing {
    id: MessageId,
    tid: Tid,
    stores: u64,
    resolved: bool,
}

/// All writes of a voted transaction, in order. `bases`: the revisions that the vote based the writes on.
pub fn writes(desk: &Desk, buffer: &Buffer, bases: &[(Oid, Base)]) -> Result<Vec<Write>, End> {
    let (store, storage, view) = (desk.store(), desk.storage(), desk.view.tid());
    let mut writes = buffer.voted_writes(bases);
    for write in &mut writes {
        let Some(Wish::Restore { data, like: Some(like) }) = buffer.wished(write.oid) else { continue };
        // The client's hint at an older revision is worth a look: equal data is stored once.
        let is_known = match data {
            None => store.is_like(storage, write.oid, *like, view, None)?,
            Some(Record::Here(data)) => store.is_like(storage, write.oid, *like, view, Some(data))?,
            Some(Record::Ahead(item)) => {
                let hash = buffer.staged(*item).hash;
                *like <= view && store.content_of(storage, write.oid, *like)? == Some(hash)
            }
        };
        if is_known {
            write.content = Content::SameAs(*like);
        }
    }
    Ok(buffer.with_repeats(writes))
}

/// Puts a voted transaction into the queue to the log. [`Refusal::NotPrimary`]: the reign is over.
pub fn propose(
    desk: &mut Desk,
    open: OpenTransaction,
    id: &MessageId,
    writes: Vec<Write>,
) -> Result<Finishing, Refusal> {
    let OpenTransaction { mut buffer, mut claim, mut ahead, resolved, .. } = open;
    if let Some(ahead) = &mut ahead {
        ahead.note_named(&writes);
    }
    let (own_tid, meta, stores) = (buffer.tid, std::mem::take(&mut buffer.meta), writes.len() as u64);
    // Until the outcome is known the writes take their memory, and the pieces ahead may be needed.
    let reserved = buffer.into_reservation();
    let settle = move |outcome: &_| {
        drop(reserved);
        if let Some(ahead) = ahead {
            ahead.settle(outcome);
        }
    };
    let (tid, pending) = claim.primary.finish(claim.txn, desk.storage(), own_tid, meta, writes, settle)?;
    // From here on the locks belong to the proposal.
    claim.holds = false;
    desk.view.begin_own(tid);
    desk.wait(pending.map(|outcome| Done::Finished(outcome.ok())));
    Ok(Finishing { id: id.clone(), tid, stores, resolved })
}

/// The transaction has committed: its answer stands at its own tid in the client's stream.
pub fn committed(desk: &mut Desk, finishing: &Finishing, tid: Tid) -> Result<(), End> {
    assert_eq!(tid, finishing.tid, "a transaction commits with the tid that it was given");
    desk.tell_news()?;
    desk.view.own_committed();
    desk.tell_size();
    desk.reply(&finishing.id, Reply::Tid(tid));
    desk.shared.metrics.stores.inc_by(finishing.stores);
    if finishing.resolved {
        desk.shared.metrics.conflicts_resolved.inc();
        desk.tally.resolved.count();
    }
    desk.answer_held_ping()
}

/// The log refused the transaction, which its vote should have done, unless its storage was dropped since.
pub fn refused(desk: &mut Desk, finishing: &Finishing, refusal: &Refusal) -> Result<(), End> {
    let (client, tid) = (&desk.name, finishing.tid);
    match refusal {
        Refusal::NoStorage { .. } => tracing::info!(%client, %tid, "a transaction came after the end of its storage"),
        _ => tracing::error!(%client, %tid, %refusal, "a voted transaction was refused"),
    }
    desk.view.own_refused();
    desk.tell_news()?;
    desk.refuse(&finishing.id, refusal);
    desk.answer_held_ping()
}
