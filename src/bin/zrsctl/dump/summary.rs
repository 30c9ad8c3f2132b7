//! `zrsctl dump`: a folder at a glance.

use std::io;

use anyhow::Context as _;
use serde_json::{Value, json};

use zrs::command::{self, Reign};
use zrs::engine::{FOLDER_FORMAT, Folder};
use zrs::raft::offline::{self, LogSummary, MemberList};
use zrs::storage::{self, Position, Store, Summary};
use zrs::zodb::{StorageId, Tid};

use super::parts::{members, open_log, open_store};
use super::sheet::{Sheet, counted, hex, tid, time};

/// Pieces that belong to no transaction are counted up to here.
const MOST_STAGED: usize = 1_000_000;

pub fn print(folder: &Folder, sheet: &mut Sheet<'_>) -> anyhow::Result<()> {
    let log = open_log(folder)?.map(|log| offline::summary(&log)).transpose().context("reading the log")?;
    let store = open_store(folder)?;
    let store = store.as_ref().map(StorePart::of).transpose().context("reading the store")?.unwrap_or_default();
    let page = Page { folder, log, store };
    sheet.page(|| page.text(), || page.document())?;
    Ok(())
}

struct Page<'f> {
    folder: &'f Folder,
    log: Option<LogSummary>,
    store: StorePart,
}

/// The store's part of the page; the default is that of an empty one.
#[derive(Default)]
struct StorePart {
    applied: Position,
    reign: Reign,
    /// The membership as the store has applied it, and its entry.
    membership: Option<(Position, MemberList)>,
    storages: Vec<StorageRow>,
}

impl StorePart {
    fn of(store: &Store) -> io::Result<StorePart> {
        let membership = store.membership().map(|(at, bytes)| offline::membership(&bytes).map(|members| (at, members)));
        let storages = store.storages().into_iter().map(|(id, name)| StorageRow::of(store, id, name));
        Ok(StorePart {
            applied: store.applied(),
            reign: store.reign(),
            membership: membership.transpose()?,
            storages: storages.collect::<io::Result<_>>()?,
        })
    }
}

/// A storage, and the counts of its tables.
struct StorageRow {
    id: StorageId,
    name: String,
    summary: Summary,
    revisions: u64,
    /// Transactions whose values are damaged; their revisions are not counted.
    damaged: u64,
    staged: u64,
}

impl StorageRow {
    fn of(store: &Store, id: StorageId, name: String) -> io::Result<StorageRow> {
        let (mut revisions, mut damaged) = (0, 0);
        for transaction in store.inspect_transactions(id, Tid::MAX) {
            match transaction?.head {
                Ok(head) => revisions += u64::from(head.left),
                Err(_) => damaged += 1,
            }
        }
        let staged = store.count_unclaimed(id, MOST_STAGED)?;
        Ok(StorageRow { id, name, summary: store.summary(id), revisions, damaged, staged })
    }

    fn text(&self) -> String {
        let Summary { next_oid, next_piece, packing, history, present, .. } = &self.summary;
        let mut rows = vec![
            ("last transaction", tid(self.summary.last_tid)),
            ("transactions", self.summary.transactions.to_string()),
            ("objects", self.summary.objects.to_string()),
            ("revisions", self.revisions.to_string()),
            ("bytes of records", self.summary.bytes.to_string()),
            ("packed until", tid(self.summary.packed)),
        ];
        if *packing != Tid::ZERO {
            rows.push(("pack going on", format!("until {}", tid(*packing))));
        }
        rows.push(("staged pieces", format!("{} of no transaction yet; the next is {next_piece}", self.staged)));
        rows.push(("next oid", next_oid.to_string()));
        rows.push(("history digest", hex(history)));
        rows.push(("present digest", hex(present)));
        if self.damaged > 0 {
            let what = counted(self.damaged, "transaction", "transactions");
            rows.push(("DAMAGED", format!("{what}, see dump store --transactions")));
        }
        format!("\nstorage {:?} ({})\n{}", self.name, self.id, table(&rows))
    }

    fn document(&self) -> Value {
        let summary = &self.summary;
        json!({
            "name": self.name,
            "number": self.id.0,
            "last_tid": summary.last_tid.to_string(),
            "last_time": time(summary.last_tid),
            "transactions": summary.transactions,
            "objects": summary.objects,
            "revisions": self.revisions,
            "bytes": summary.bytes,
            "packed": summary.packed.to_string(),
            "packing": summary.packing.to_string(),
            "staged": self.staged,
            "next_piece": summary.next_piece,
            "next_oid": summary.next_oid.to_string(),
            "history": hex(&summary.history),
            "present": hex(&summary.present),
            "damaged_transactions": self.damaged,
        })
    }
}

impl Page<'_> {
    fn text(&self) -> String {
        let formats = format!("folder {FOLDER_FORMAT}, store {}, commands up to {}", storage::FORMAT, command::FORMAT);
        let mut rows = vec![("folder", self.folder.path().display().to_string()), ("formats", formats)];
        match &self.log {
            Some(log) => rows.extend(log_rows(log)),
            None => rows.push(("log", "none: no node has started on this folder".to_owned())),
        }
        rows.push(("applied", self.applied()));
        rows.push(("reign", self.store.reign.to_string()));
        if let Some((at, membership)) = &self.store.membership {
            rows.push(("members", format!("{} (entry {})", members(membership), at.index)));
        }
        table(&rows) + &self.store.storages.iter().map(StorageRow::text).collect::<String>()
    }

    fn applied(&self) -> String {
        let applied = self.store.applied;
        let here = match applied.index {
            0 => "nothing of a log".to_owned(),
            index => format!("entry {index} (term {})", applied.term),
        };
        let last = self.log.as_ref().and_then(|log| log.last).map_or(0, |last| last.index);
        match last.checked_sub(applied.index) {
            Some(0) => here,
            Some(behind) => format!("{here}; {} of the log not applied", counted(behind, "entry", "entries")),
            None => format!("{here}, which the log does not have"),
        }
    }

    fn document(&self) -> Value {
        let applied = self.store.applied;
        json!({
            "folder": self.folder.path(),
            "formats": {"folder": FOLDER_FORMAT, "store": storage::FORMAT, "command": command::FORMAT},
            "log": self.log.as_ref().map(|log| json!({
                "node": log.node,
                "stamp": log.membership,
                "vote": log.vote,
                "starts": log.starts,
                "excluded": log.excluded,
                "purged": log.purged.map(position),
                "first": log.first.map(position),
                "last": log.last.map(position),
                "damage": log.damage,
            })),
            "applied": position(applied),
            "reign": self.store.reign.to_string(),
            "membership": self.store.membership.as_ref().map(|(_, membership)| membership),
            "storages": self.store.storages.iter().map(StorageRow::document).collect::<Vec<_>>(),
        })
    }
}

fn log_rows(log: &LogSummary) -> Vec<(&'static str, String)> {
    let mut rows = Vec::new();
    match &log.membership {
        Some(stamp) => {
            let node = log.node.map_or_else(|| "not a member".to_owned(), |node| node.to_string());
            let members: Vec<String> =
                stamp.members.iter().map(|(node, address)| format!("{node}={address}")).collect();
            rows.push(("node", node));
            rows.push(("cluster", stamp.cluster.clone()));
            rows.push(("began as", members.join(" ")));
            rows.push(("base", stamp.base.clone()));
        }
        None => rows.push(("cluster", "none yet".to_owned())),
    }
    let vote = log.vote.map_or_else(
        || "none".to_owned(),
        |vote| {
            let candidate = vote.node.map_or("a node that joined later".into(), |node| format!("node {node}"));
            format!("for {candidate} in term {}{}", vote.term, if vote.won { ", which it won" } else { "" })
        },
    );
    rows.push(("vote", vote));
    rows.push(("starts", log.starts.to_string()));
    if let Some(why) = &log.excluded {
        rows.push(("EXCLUDED", why.clone()));
    }
    let reach = match (log.first, log.last) {
        (Some(first), Some(last)) => {
            format!("entries {} (term {}) to {} (term {})", first.index, first.term, last.index, last.term)
        }
        _ => "empty".to_owned(),
    };
    let purged = log.purged.map(|upto| format!(", removed up to {}", upto.index)).unwrap_or_default();
    rows.push(("log", reach + &purged));
    if let Some(damage) = &log.damage {
        rows.push(("DAMAGED", damage.clone()));
    }
    rows
}

fn position(position: Position) -> Value {
    json!({"index": position.index, "term": position.term})
}

fn table(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter().map(|(name, value)| format!("  {name:<width$}  {value}\n")).collect()
}
