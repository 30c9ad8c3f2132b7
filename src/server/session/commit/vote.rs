//! A vote: the locks and the verdict are asked of the primary, and a granted one is answered.

use futures_util::FutureExt;

use super::open::{OpenTransaction, Stage};
use crate::command::Base;
use crate::server::session::desk::{Desk, Done};
use crate::tpc::Vote;
use crate::zeo::{MessageId, Reply};
use crate::zodb::Oid;

/// Asks the primary for the locks and the verdict.
pub fn cast(desk: &mut Desk, open: &mut OpenTransaction, id: &MessageId) {
    let (buffer, txn) = (&open.buffer, open.claim.txn);
    let vote = Vote {
        txn,
        storage: desk.storage(),
        writes: buffer.reads(),
        checks: buffer.checks().collect(),
        brings_tid: buffer.tid,
    };
    open.claim.holds = true;
    let (judged, expiry) = open.claim.primary.vote(vote);
    let id = id.clone();
    desk.wait(judged.map(move |verdict| Done::Voted(id, txn, verdict.ok())));
    desk.wait(expiry.map(move |expired| Done::Expired(expired.is_ok().then_some(txn))));
}

/// Answers a vote that is granted.
pub fn answer(desk: &mut Desk, open: &mut OpenTransaction, id: &MessageId, bases: Vec<(Oid, Base)>) {
    open.stage = Stage::Voted(bases);
    // The client has the data of its stores; it drops from its cache the objects that the undos touched.
    let touched = open.buffer.undos.touched().to_vec();
    desk.reply(id, Reply::Oids(touched));
}
