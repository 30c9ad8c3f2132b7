//! What a client sends ahead of its vote: blobs, and the parts of large transactions on their way into the log.
//!
//! The buffer of the transaction says what is to go ([`Staging`](super::staging::Staging)); here it is sent, one load at a time.
//! The client's calls go on meanwhile, until [`limits::STAGING_HIGH_WATER`] bytes wait: then they are left to TCP. A
//! vote waits until all is in the log.
//!
//! A client that has data in the log and says nothing of its transaction for [`limits::STAGE_EXPIRY`] loses its connection:
//! nothing else would ever end what it left there.

use futures_util::FutureExt;
use tokio::time::Instant;

use super::ahead::Ahead;
use super::commit::Stage;
use super::session::{Done, End, Session};
use crate::config::limits;
use crate::tpc::TxnId;
use crate::zeo::Call;
use crate::zodb::{Refusal, Tid};

impl Session {
    /// A part of a blob.
    pub fn blob_call(&mut self, call: Call) -> Result<(), Refusal> {
        match call {
            // These do not say which transaction they belong to, and the application may have aborted it since. What the
            // client sends yet is for nobody then.
            Call::StoreBlobStart => self.partial(|buffer| buffer.begin_blob()),
            Call::StoreBlobChunk(chunk) => self.partial(|buffer| buffer.blob_chunk(&chunk)),
            Call::StoreBlobEnd { oid, serial, data, txn } => {
                self.buffering(txn)?.end_blob(oid, serial.unwrap_or(Tid::ZERO), data)?;
                self.tally.stores.count();
            }
            Call::StoreBlobShared { txn, .. } => {
                let why = "this server shares no blob directory with its clients: it keeps and replicates blobs itself. \
                           Give the client a blob cache directory of its own (shared-blob-dir off)";
                self.buffering(txn)?.fail(Refusal::NotServed(why.into()));
            }
            _ => unreachable!("{} is no part of a blob", call.name()),
        }
        Ok(())
    }

    fn partial(&mut self, change: impl FnOnce(&mut super::transaction::Transaction)) {
        if let Some(open) = &mut self.transaction
            && matches!(open.stage, Stage::Begun | Stage::Resolving)
        {
            change(&mut open.buffer);
        }
    }

    /// Sends what is to go next, unless something is on its way, and gives back what is not needed any more.
    pub fn send_ahead(&mut self) {
        let storage = self.seat.storage;
        let Some(open) = &mut self.transaction else { return };
        if let Some(load) = open.buffer.load() {
            let ahead = open.ahead.get_or_insert_with(|| Ahead::new(open.claim.primary.clone(), storage));
            let (txn, sent) = (open.claim.txn, ahead.send(load));
            // If it is over before its turn, nothing of the load is kept: who begins and aborts must not pile them up.
            let sent = open.unless_over(sent.map(move |first| Done::SentAhead(txn, first)));
            self.pending.push(sent);
        }
        let gone = open.buffer.take_gone();
        if let Some(ahead) = &open.ahead {
            ahead.discard(gone);
        }
    }

    /// A load of `txn` is in the log; `None`: the reign ended before.
    pub fn sent_ahead(&mut self, txn: TxnId, first: Option<u64>) -> Result<(), End> {
        let Some(first) = first else { return Err(End("reign_over")) };
        // It may have been aborted since, and another begun. Then the pieces are being discarded.
        let Some(open) = self.transaction.as_mut().filter(|open| open.claim.txn == txn) else { return Ok(()) };
        open.buffer.landed(first);
        self.send_ahead();
        let Some(open) = &mut self.transaction else { return Ok(()) };
        if open.buffer.is_staged()
            && let Stage::Sending(id) = &open.stage
        {
            let id = id.clone();
            self.begin_vote(&id);
        }
        Ok(())
    }

    /// Whether its transaction has room for more.
    pub fn has_room(&self) -> bool {
        self.transaction.as_ref().is_none_or(|open| open.buffer.held() <= limits::STAGING_HIGH_WATER)
    }

    /// When a transaction with data in the log expires whose client says nothing.
    pub fn expiry(&self) -> Option<Instant> {
        let silent = |stage: &Stage| matches!(stage, Stage::Begun | Stage::Resolving);
        let open = self.transaction.as_ref().filter(|open| open.ahead.is_some() && silent(&open.stage));
        open.map(|_| self.last_write + limits::STAGE_EXPIRY)
    }
}
