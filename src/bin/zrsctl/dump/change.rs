//! The change that a command in the log makes: in a few words, and as JSON.

use serde_json::{Map, Value, json};

use zrs::command::{Base, Blob, Change, Commit, Content, PackStep, Span, Write};
use zrs::roster::{Part, Roster};
use zrs::zodb::{Oid, Tid};

use super::sheet::{counted, hex, plain, quoted, tid, time};

/// Objects that are named in the words for one commit; JSON has all.
const NAMED: usize = 8;

/// The change on one line, for people.
pub fn words(change: &Change) -> String {
    match change {
        Change::Barrier => "barrier: opens this reign".to_owned(),
        Change::CreateStorage { name } => format!("create storage {name:?}"),
        Change::ReserveOids { storage, count, from } => {
            let from = if *from == Oid::ROOT { String::new() } else { format!(" from {from} on") };
            format!("{storage} reserve {}{from}", counted((*count).into(), "oid", "oids"))
        }
        Change::Commit(commit) => commit_words(commit),
        Change::Stage { storage, pieces } => {
            let bytes: usize = pieces.iter().map(|piece| piece.len()).sum();
            format!("{storage} stage {}, {bytes} bytes", counted(pieces.len() as u64, "piece", "pieces"))
        }
        Change::Discard { storage, pieces } => format!("{storage} discard pieces {}", spans(pieces)),
        Change::PackBegin { storage, upto } => format!("{storage} begin a pack up to {}", tid(*upto)),
        Change::PackStep(step) => {
            let (objects, transactions) = (step.objects.len() as u64, step.transactions.len() as u64);
            format!(
                "{} pack step: {} removed of {}, {} looked at",
                step.storage,
                counted(removed(step), "revision", "revisions"),
                counted(objects, "object", "objects"),
                counted(transactions, "transaction", "transactions")
            )
        }
        Change::PackEnd { storage } => format!("{storage} end the pack"),
        Change::DropStorage { name } => format!("drop storage {name:?}"),
        Change::Roster { roster, .. } => format!("wanted: {}", wanted(roster)),
    }
}

/// The nodes that are wanted: `1=host1:8100, 4=host4:8100 (observer)`.
fn wanted(roster: &Roster) -> String {
    let each = roster.nodes.iter().map(|(node, wish)| match wish.part {
        Part::Voter => format!("{node}={}", wish.address),
        Part::Observer => format!("{node}={} (observer)", wish.address),
    });
    each.collect::<Vec<_>>().join(", ")
}

fn commit_words(commit: &Commit) -> String {
    let Commit { storage, meta, writes, .. } = commit;
    let named: Vec<String> = writes.iter().take(NAMED).map(write_words).collect();
    let more = writes.len().saturating_sub(NAMED);
    format!(
        "{storage} commit {} user {} description {}: {}, {} bytes{}{}{}",
        tid(commit.tid),
        quoted(&meta.user),
        quoted(&meta.description),
        counted(writes.len() as u64, "object", "objects"),
        writes.iter().map(length).sum::<u64>(),
        if named.is_empty() { "" } else { ": " },
        named.join(", "),
        if more > 0 { format!(", and {more} more") } else { String::new() }
    )
}

fn write_words(write: &Write) -> String {
    let content = match &write.content {
        Content::Data(data) => format!("{} bytes", data.len()),
        Content::Staged(staged) => format!("{} bytes in pieces {}", staged.length, spans(&staged.pieces)),
        Content::Absent => "absent".to_owned(),
        Content::SameAs(tid) => format!("as of {tid}"),
    };
    let blob = match &write.blob {
        Some(Blob::Staged(staged)) => format!(" with a blob of {} bytes", staged.length),
        Some(Blob::SameAs(tid)) => format!(" with the blob of {tid}"),
        None => String::new(),
    };
    format!("{} {content}{blob}", write.oid)
}

/// Bytes of the record.
fn length(write: &Write) -> u64 {
    match &write.content {
        Content::Data(data) => data.len() as u64,
        Content::Staged(staged) => staged.length,
        Content::Absent | Content::SameAs(_) => 0,
    }
}

fn removed(step: &PackStep) -> u64 {
    step.objects.iter().map(|removal| removal.tids.len() as u64).sum()
}

/// Pieces by their numbers: `3 to 9, 12`.
pub fn spans(spans: &[Span]) -> String {
    let span = |span: &Span| match span.count {
        1 => span.first.to_string(),
        count => format!("{} to {}", span.first, (span.first + u64::from(count)).saturating_sub(1)),
    };
    if spans.is_empty() { "none".to_owned() } else { spans.iter().map(span).collect::<Vec<_>>().join(", ") }
}

/// The change as JSON; its `kind` says which it is.
pub fn document(change: &Change) -> Value {
    match change {
        Change::Barrier => json!({"kind": "barrier"}),
        Change::CreateStorage { name } => json!({"kind": "create_storage", "name": name}),
        Change::ReserveOids { storage, count, from } => {
            json!({"kind": "reserve_oids", "storage": storage.0, "count": count, "from": from.to_string()})
        }
        Change::Commit(commit) => json!({
            "kind": "commit",
            "storage": commit.storage.0,
            "tid": commit.tid.to_string(),
            "time": time(commit.tid),
            "status": plain(&[commit.meta.status]),
            "user": plain(&commit.meta.user),
            "description": plain(&commit.meta.description),
            "extension_bytes": commit.meta.extension.len(),
            "objects": commit.writes.iter().map(write_document).collect::<Vec<_>>(),
        }),
        Change::Stage { storage, pieces } => {
            let lengths: Vec<usize> = pieces.iter().map(|piece| piece.len()).collect();
            json!({"kind": "stage", "storage": storage.0, "pieces": lengths})
        }
        Change::Discard { storage, pieces } => {
            json!({"kind": "discard", "storage": storage.0, "pieces": span_documents(pieces)})
        }
        Change::PackBegin { storage, upto } => {
            json!({"kind": "pack_begin", "storage": storage.0, "upto": upto.to_string(), "time": time(*upto)})
        }
        Change::PackStep(step) => json!({
            "kind": "pack_step",
            "storage": step.storage.0,
            "objects": step.objects.iter().map(|removal| json!({
                "oid": removal.oid.to_string(),
                "current": removal.current.to_string(),
                "removed": strings(&removal.tids),
                "heirs": strings(&removal.heirs),
            })).collect::<Vec<_>>(),
            "transactions": strings(&step.transactions),
        }),
        Change::PackEnd { storage } => json!({"kind": "pack_end", "storage": storage.0}),
        Change::DropStorage { name } => json!({"kind": "drop_storage", "name": name}),
        Change::Roster { after, roster } => json!({"kind": "roster", "after": after, "nodes": roster.nodes}),
    }
}

fn write_document(write: &Write) -> Value {
    let mut document = Map::new();
    let mut put = |key: &str, value: Value| drop(document.insert(key.to_owned(), value));
    put("oid", write.oid.to_string().into());
    put(
        "serial",
        match write.base {
            Base::Serial(serial) => serial.to_string().into(),
            Base::Any => Value::Null,
        },
    );
    match &write.content {
        Content::Data(data) => put("data", data.len().into()),
        Content::Absent => put("absent", true.into()),
        Content::SameAs(tid) => put("same_as", tid.to_string().into()),
        Content::Staged(staged) => {
            put("data", staged.length.into());
            put("pieces", span_documents(&staged.pieces));
            put("hash", hex(&staged.hash).into());
        }
    }
    match &write.blob {
        Some(Blob::Staged(staged)) => put("blob", staged.length.into()),
        Some(Blob::SameAs(tid)) => put("blob_same_as", tid.to_string().into()),
        None => {}
    }
    Value::Object(document)
}

fn span_documents(spans: &[Span]) -> Value {
    spans.iter().map(|span| json!({"first": span.first, "count": span.count})).collect()
}

fn strings(tids: &[Tid]) -> Value {
    tids.iter().map(Tid::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use zrs::command::{Removal, Staged};
    use zrs::roster::Wish;
    use zrs::zodb::{Oid, StorageId, TransactionMeta};

    const S: StorageId = StorageId(1);

    #[test]
    fn every_change_is_told_in_words_and_as_json() {
        let staged = Staged { pieces: vec![Span { first: 3, count: 2 }], length: 1_500_000, hash: [7; 32] };
        let write = |oid, content, blob| Write { oid: Oid(oid), base: Base::Serial(Tid(5)), content, blob };
        let commit = Commit {
            storage: S,
            tid: Tid(0x040d_31ff_84f1_076e),
            meta: TransactionMeta {
                status: b' ',
                user: b"jim".to_vec(),
                description: b"a\nb".to_vec(),
                extension: vec![],
            },
            writes: vec![
                write(1, Content::Data("pickle".into()), None),
                write(2, Content::Absent, None),
                write(3, Content::SameAs(Tid(4)), Some(Blob::SameAs(Tid(4)))),
                write(4, Content::Staged(staged.clone()), Some(Blob::Staged(staged))),
            ],
        };
        let removal = Removal { oid: Oid(1), current: Tid(9), tids: vec![Tid(4), Tid(5)], heirs: vec![] };
        let step = PackStep { storage: S, objects: vec![removal], transactions: vec![Tid(4)] };
        let wish = |address: &str, part| Wish { address: address.into(), part, folder: 7, instead_of: None };
        let roster = Roster { nodes: [(1, wish("a:1", Part::Voter)), (4, wish("d:1", Part::Observer))].into() };
        let cases = [
            (Change::Barrier, "barrier: opens this reign", "barrier"),
            (Change::CreateStorage { name: "main".into() }, "create storage \"main\"", "create_storage"),
            (Change::ReserveOids { storage: S, count: 1, from: Oid(0) }, "s1 reserve 1 oid", "reserve_oids"),
            (
                Change::ReserveOids { storage: S, count: 2, from: Oid(9) },
                "s1 reserve 2 oids from 0000000000000009 on",
                "reserve_oids",
            ),
            (
                Change::Commit(commit),
                "s1 commit 040d31ff84f1076e 2026-11-22T21:51:31.158169Z user \"jim\" description \"a\\nb\": 4 objects, \
                 1500006 bytes: 0000000000000001 6 bytes, 0000000000000002 absent, 0000000000000003 as of \
                 0000000000000004 with the blob of 0000000000000004, 0000000000000004 1500000 bytes in pieces 3 to 4 with \
                 a blob of 1500000 bytes",
                "commit",
            ),
            (
                Change::Stage { storage: S, pieces: vec!["ab".into(), "c".into()] },
                "s1 stage 2 pieces, 3 bytes",
                "stage",
            ),
            (
                Change::Discard { storage: S, pieces: vec![Span { first: 3, count: 2 }, Span { first: 9, count: 1 }] },
                "s1 discard pieces 3 to 4, 9",
                "discard",
            ),
            (
                Change::PackBegin { storage: S, upto: Tid(0x040d_31ff_84f1_076e) },
                "s1 begin a pack up to 040d31ff84f1076e 2026-11-22T21:51:31.158169Z",
                "pack_begin",
            ),
            (
                Change::PackStep(step),
                "s1 pack step: 2 revisions removed of 1 object, 1 transaction looked at",
                "pack_step",
            ),
            (Change::PackEnd { storage: S }, "s1 end the pack", "pack_end"),
            (Change::DropStorage { name: "mian".into() }, "drop storage \"mian\"", "drop_storage"),
            (Change::Roster { after: 0, roster }, "wanted: 1=a:1, 4=d:1 (observer)", "roster"),
        ];
        for (change, expected, kind) in cases {
            assert_eq!(words(&change), expected);
            assert_eq!(document(&change)["kind"], kind);
        }
    }

    #[test]
    fn a_large_commit_names_some_objects_and_as_json_all() {
        let write = |oid| Write { oid: Oid(oid), base: Base::Any, content: Content::Data("x".into()), blob: None };
        let commit =
            Commit { storage: S, tid: Tid(7), meta: TransactionMeta::default(), writes: (0..100).map(write).collect() };
        let change = Change::Commit(commit);
        assert!(words(&change).ends_with("0000000000000007 1 bytes, and 92 more"), "{}", words(&change));
        assert_eq!(document(&change)["objects"].as_array().unwrap().len(), 100);
        assert_eq!(document(&change)["objects"][99], json!({"oid": "0000000000000063", "serial": null, "data": 1}));
    }
}
