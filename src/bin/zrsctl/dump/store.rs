//! `zrsctl dump store`: an object's revisions, a transaction, or the newest transactions.

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Value, json};

use zrs::engine::Folder;
use zrs::storage::{Holding, InspectedHead, InspectedRevision, InspectedTransaction, Store};
use zrs::zodb::{Oid, StorageId, Tid};

use super::change::spans;
use super::parts::{open_store, parse_oid, parse_tid};
use super::sheet::{Sheet, hex, plain, quoted, tid, time};

/// Transactions that are printed where nothing is asked for.
const NEWEST: u64 = 20;

#[derive(Args)]
pub struct StoreFlags {
    /// Which storage
    #[arg(long, value_name = "NAME", default_value = "1")]
    storage: String,
    /// Print the revisions of this object, newest first
    #[arg(long, value_name = "OID", value_parser = parse_oid, group = "what")]
    oid: Option<Oid>,
    /// Print this transaction, and what it left of each object that it wrote
    #[arg(long, value_name = "TID", value_parser = parse_tid, group = "what")]
    tid: Option<Tid>,
    /// Print all transactions, newest first. (This is what is printed by default, with --last 20)
    #[arg(long, group = "what")]
    transactions: bool,
    /// Print only so many of the transactions
    #[arg(long, value_name = "N", conflicts_with_all = ["oid", "tid"])]
    last: Option<u64>,
}

pub fn print(folder: &Folder, flags: &StoreFlags, sheet: &mut Sheet<'_>) -> anyhow::Result<()> {
    let store = open_store(folder)?.context("the store is empty: nothing was flushed yet, all is in the log")?;
    let Some(storage) = store.storage(&flags.storage) else {
        let names: Vec<String> = store.storages().into_iter().map(|(_, name)| format!("{name:?}")).collect();
        bail!("there is no storage {:?}, but {}", flags.storage, names.join(", "));
    };
    let dump = StoreDump { store, storage };
    match (flags.oid, flags.tid) {
        (Some(oid), _) => dump.object(oid, sheet),
        (None, Some(tid)) => dump.transaction(tid, sheet),
        (None, None) => {
            let all = if flags.transactions { u64::MAX } else { NEWEST };
            dump.transactions(flags.last.unwrap_or(all), sheet)
        }
    }
}

struct StoreDump {
    store: Store,
    storage: StorageId,
}

impl StoreDump {
    fn object(&self, oid: Oid, sheet: &mut Sheet<'_>) -> anyhow::Result<()> {
        let mut found = false;
        for revision in self.store.inspect_revisions(self.storage, oid) {
            let revision = revision.context("reading the store")?;
            found = true;
            let head = self.head(revision.tid)?;
            note_damage(&revision, sheet);
            let by = match &head {
                Some(Ok(head)) => head_words(head),
                Some(Err(fault)) => format!("DAMAGED: {fault}"),
                None => "its transaction is not there".to_owned(),
            };
            sheet.line(
                || format!("{}  {}  {by}", tid(revision.tid), revision_words(&revision)),
                || {
                    let mut document = revision_document(&revision);
                    document["tid"] = revision.tid.to_string().into();
                    document["time"] = time(revision.tid).into();
                    if let Some(Ok(head)) = &head {
                        document["transaction"] = head_document(head);
                    }
                    document
                },
            )?;
        }
        if !found {
            bail!("object {oid} has no revision");
        }
        Ok(())
    }

    fn head(&self, tid: Tid) -> anyhow::Result<Option<std::io::Result<InspectedHead>>> {
        let newest =
            self.store.inspect_transactions(self.storage, tid).next().transpose().context("reading the store")?;
        Ok(newest.filter(|newest| newest.tid == tid).map(|found| found.head))
    }

    fn transaction(&self, tid: Tid, sheet: &mut Sheet<'_>) -> anyhow::Result<()> {
        let newest =
            self.store.inspect_transactions(self.storage, tid).next().transpose().context("reading the store")?;
        let Some(found) = newest.filter(|newest| newest.tid == tid) else { bail!("there is no transaction {tid}") };
        transaction_line(&found, sheet)?;
        if found.head.is_err() {
            return Ok(());
        }
        let listing = self.store.listing(self.storage, tid).context("reading the store")?;
        for oid in listing.filter(|listing| listing.tid == tid).into_iter().flat_map(|listing| listing.oids) {
            let revision = self.store.inspect_revision(self.storage, oid, tid).context("reading the store")?;
            let Some(revision) = revision else {
                sheet.line(|| format!("  {oid}  packed away"), || json!({"oid": oid.to_string(), "kind": "packed"}))?;
                continue;
            };
            note_damage(&revision, sheet);
            sheet.line(
                || format!("  {oid}  {}", revision_words(&revision)),
                || {
                    let mut document = revision_document(&revision);
                    document["oid"] = oid.to_string().into();
                    document
                },
            )?;
        }
        Ok(())
    }

    fn transactions(&self, most: u64, sheet: &mut Sheet<'_>) -> anyhow::Result<()> {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        for transaction in self.store.inspect_transactions(self.storage, Tid::MAX).take(most) {
            transaction_line(&transaction.context("reading the store")?, sheet)?;
        }
        Ok(())
    }
}

fn note_damage(revision: &InspectedRevision, sheet: &mut Sheet<'_>) {
    if revision.holding.is_err() || revision.blob.is_err() {
        sheet.note_damage();
    }
}

fn transaction_line(transaction: &InspectedTransaction, sheet: &mut Sheet<'_>) -> anyhow::Result<()> {
    let InspectedTransaction { tid, checksum, head } = transaction;
    if head.is_err() {
        sheet.note_damage();
    }
    sheet.line(
        || match head {
            Ok(head) => format!(
                "{}  crc {checksum:08x}  {} bytes in a Data.fs  {} objects, {} revisions left  {}",
                super::sheet::tid(*tid),
                head.length,
                head.count,
                head.left,
                head_words(head)
            ),
            Err(fault) => format!("{}  DAMAGED: {fault}", super::sheet::tid(*tid)),
        },
        || {
            let mut document = match head {
                Ok(head) => head_document(head),
                Err(fault) => json!({"fault": fault.to_string()}),
            };
            document["tid"] = tid.to_string().into();
            document["time"] = time(*tid).into();
            document["crc"] = format!("{checksum:08x}").into();
            document
        },
    )?;
    Ok(())
}

fn head_words(head: &InspectedHead) -> String {
    let meta = &head.meta;
    let status = if meta.status == b' ' { String::new() } else { format!("status {}  ", quoted(&[meta.status])) };
    format!("{status}user {}  description {}", quoted(&meta.user), quoted(&meta.description))
}

fn head_document(head: &InspectedHead) -> Value {
    json!({
        "status": plain(&[head.meta.status]),
        "user": plain(&head.meta.user),
        "description": plain(&head.meta.description),
        "extension_bytes": head.meta.extension.len(),
        "length": head.length,
        "objects": head.count,
        "revisions": head.left,
    })
}

fn revision_words(revision: &InspectedRevision) -> String {
    let holding = match &revision.holding {
        Ok(Holding::Data(data)) => format!("data, {} bytes", data.len()),
        Ok(Holding::Pieces(staged)) => format!("data, {} bytes in pieces {}", staged.length, spans(&staged.pieces)),
        Ok(Holding::Absent) => "absent".to_owned(),
        Ok(Holding::SameAs(tid)) => format!("data of {tid}"),
        Err(fault) => format!("DAMAGED: {fault}"),
    };
    let link = match (revision.link, &revision.holding) {
        (Some(link), Ok(Holding::SameAs(tid))) if link == *tid => String::new(),
        (Some(link), _) => format!(", shows {link} again"),
        (None, _) => String::new(),
    };
    let blob = match &revision.blob {
        Ok(None) => String::new(),
        Ok(Some((at, staged))) if *at == revision.tid => format!(", blob of {} bytes", staged.length),
        Ok(Some((at, staged))) => format!(", blob of {} bytes as of {at}", staged.length),
        Err(fault) => format!(", blob DAMAGED: {fault}"),
    };
    format!("kind {:02x}  crc {:08x}  {holding}{link}{blob}", revision.kind, revision.checksum)
}

fn revision_document(revision: &InspectedRevision) -> Value {
    let mut document = match &revision.holding {
        Ok(Holding::Data(data)) => json!({"data": data.len()}),
        Ok(Holding::Pieces(staged)) => {
            let pieces: Vec<Value> =
                staged.pieces.iter().map(|span| json!({"first": span.first, "count": span.count})).collect();
            json!({"data": staged.length, "pieces": pieces, "hash": hex(&staged.hash)})
        }
        Ok(Holding::Absent) => json!({"absent": true}),
        Ok(Holding::SameAs(tid)) => json!({"same_as": tid.to_string()}),
        Err(fault) => json!({"fault": fault.to_string()}),
    };
    document["kind"] = format!("{:02x}", revision.kind).into();
    document["crc"] = format!("{:08x}", revision.checksum).into();
    if let Some(link) = revision.link {
        document["link"] = link.to_string().into();
    }
    match &revision.blob {
        Ok(None) => {}
        Ok(Some((at, staged))) => document["blob"] = json!({"tid": at.to_string(), "bytes": staged.length}),
        Err(fault) => document["blob"] = json!({"fault": fault.to_string()}),
    }
    document
}
