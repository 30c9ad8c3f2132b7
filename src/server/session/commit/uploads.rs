//! Uploads ahead of the vote: blobs, and the parts of large transactions on their way into the log.
//!
//! The buffer says which pieces are to go ([`Staging`](super::staging::Staging)); here they are sent, one shipment at a
//! time. The
//! client's calls go on meanwhile, until [`limits::STAGING_HIGH_WATER`](crate::config::limits::STAGING_HIGH_WATER)
//! bytes wait: then they are left to TCP. A vote waits until all is in the log.
//!
//! A client that has data in the log and says nothing of its transaction for
//! [`limits::STAGE_EXPIRY`](crate::config::limits::STAGE_EXPIRY) loses its connection: nothing else would ever remove
//! that data.

use futures_util::FutureExt;

use super::open::OpenTransaction;
use crate::server::primary::ahead::Ahead;
use crate::server::session::desk::{Desk, Done};
use crate::zodb::Refusal;

/// Sends the next shipment, unless one is on its way, and discards pieces that are not needed any more.
pub fn send_ahead(desk: &mut Desk, open: &mut OpenTransaction) {
    if let Some(pieces) = open.buffer.next_shipment() {
        let (shipping, storage) = (open.claim.primary.shipping(), desk.storage());
        let ahead = open.ahead.get_or_insert_with(|| Ahead::new(shipping, storage));
        let (txn, sent) = (open.claim.txn, ahead.send(pieces));
        // A shipment whose transaction is over before its turn is dropped: a client that begins and aborts must not
        // pile them up.
        let sent = open.unless_over(sent.map(move |first| Done::SentAhead(txn, first)));
        desk.wait(sent);
    }
    let gone = open.buffer.take_gone();
    if let Some(ahead) = &open.ahead {
        ahead.discard(gone);
    }
}

/// The refusal of a blob that the client wants to hand over in a shared directory.
pub fn not_shared() -> Refusal {
    let why = "this server shares no blob directory with its clients: it keeps and replicates blobs itself. \
               Give the client a blob cache directory of its own (shared-blob-dir off)";
    Refusal::NotServed(why.into())
}
