//! A granted vote shows a pack the references of its records before the vote is answered: these objects must not go.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use super::open::OpenTransaction;
use crate::command::{Base, Content, Write};
use crate::server::primary::pack_watch::{PackWatch, Told};
use crate::server::session::desk::{Desk, Done};
use crate::storage::Store;
use crate::zeo::MessageId;
use crate::zodb::{Oid, Refusal, StorageId, Tid};

/// Shows the pack all records of a granted vote, on a thread that may block.
pub fn show(desk: &mut Desk, open: &OpenTransaction, id: &MessageId, bases: Vec<(Oid, Base)>, watch: Arc<PackWatch>) {
    let (id, txn, writes) = (id.clone(), open.claim.txn, open.buffer.voted_writes(&bases));
    let (env, store, storage) = (desk.env().clone(), desk.store().clone(), desk.storage());
    desk.wait(async move {
        let beside = watch.clone();
        let told = match env.offload(move || show_all(&store, storage, &writes, &beside)).await {
            Ok(Told::Fine) => Ok(()),
            Ok(Told::Doubt(oids)) => watch.pardon(&env, oids).await,
            Ok(Told::Gone(oid)) => Err(Refusal::NoObject(oid)),
            Ok(Told::Unclear(oid, why)) => {
                Err(Refusal::BadValue(format!("while a pack is going on, object {oid}: {why}")))
            }
            Err(fault) => Err(Refusal::BadValue(format!("the records of the transaction can't be read: {fault}"))),
        };
        Done::Shown(id, txn, bases, told)
    });
}

fn show_all(store: &Store, storage: StorageId, writes: &[Write], watch: &PackWatch) -> io::Result<Told> {
    let own: BTreeSet<Oid> =
        writes.iter().filter(|write| write.content != Content::Absent).map(|write| write.oid).collect();
    let mut doubts = Vec::new();
    for write in writes {
        let record = match &write.content {
            Content::Data(data) => data.clone(),
            Content::Staged(staged) => store.read_staged(storage, staged)?,
            Content::SameAs(tid) => match store.load_serial(storage, write.oid, *tid, Tid::MAX)? {
                Ok(data) => data,
                Err(_) => continue,
            },
            Content::Absent => continue,
        };
        match watch.show(write.oid, &record, |oid| own.contains(&oid)) {
            Told::Fine => {}
            Told::Doubt(oids) => doubts.extend(oids),
            refused @ (Told::Gone(_) | Told::Unclear(..)) => return Ok(refused),
        }
    }
    doubts.sort_unstable();
    doubts.dedup();
    Ok(if doubts.is_empty() { Told::Fine } else { Told::Doubt(doubts) })
}
