//! Odd files: whatever FileStorage opens comes in, with a word about it, and answers as FileStorage does.
//!
//! `tests/python/workers/odd_files.py` makes the files, has FileStorage open them, and compares the answers of
//! FileStorage with those of a server that imported them: of every object as of every moment.

use serde_json::Value;
use zrs::filestorage::Warning;
use zrs::zodb::{Oid, Tid};

use super::support::cluster::Cluster;
use super::support::python;
use super::{Place, done, import, import_or_salvage, refused};

/// Kinds of answers that are lists of transactions.
const LISTS: &[&str] = &["iterator", "undo"];

/// A file, what its import says, and the kinds of answers that may be others than FileStorage's, with the reason.
type Case = (&'static str, &'static [&'static str], &'static [&'static str]);

const OPENED: &[Case] = &[
    // Transactions by their ids; at the end, the greatest one counts.
    ("reduction_apart", &["time-stamp reduction: 2 trans", "are sorted"], LISTS),
    (
        "reduction_of_one",
        &["time-stamp reduction: 2 trans", "are sorted", "2 revisions are left out"],
        &["end", "history", "iterator", "undo"],
    ),
    (
        "reduction_to_a_pointer",
        &["time-stamp reduction: 2 trans", "2 revisions are left out"],
        &["end", "history", "iterator", "undo"],
    ),
    ("reduction_at_the_end", &["time-stamp reduction: 1 trans"], &["iterator", "last", "undo"]),
    ("one_id_twice", &["time-stamp reduction: 2 trans", "2 revisions are left out"], &["history", "iterator", "undo"]),
    ("recovered", &["2 transactions have other ids in their records", "an empty transaction"], LISTS),
    // A record of another transaction's id gets that of its own.
    (
        "strangers",
        &["1 records have another transaction id"],
        &["before", "end", "history", "iterator", "load", "serial"],
    ),
    ("year_1900", &[], &[]),
    // Id zero means "never stored" to clients.
    (
        "id_zero",
        &["a transaction of id 0 is imported with id 1"],
        &["before", "end", "history", "iterator", "load", "undo"],
    ),
    ("year_5000", &["seconds in the future"], &[]),
    ("largest_oids", &[], &[]),
    ("zeros", &["the 5000 bytes from byte 266 on are no transaction"], &[]),
    ("few_zeros", &["truncated at byte 266"], &[]),
    ("rubbish", &["truncated at byte 266"], &[]),
    ("cut", &["truncated at byte 266"], &[]),
    ("voted", &["begins at byte 266 was never finished"], &[]),
    ("voted_in_the_middle", &["begins at byte 135 was never finished", "Whole transactions lie among these"], &[]),
    ("too_long", &["truncated at byte 135", "Whole transactions lie among these"], &[]),
    ("status", &["1 transactions have an invalid status"], &[]),
    // (FileStorage's iterator fails at a transaction of status u. A copy has a size, where a pointer has none.)
    ("undone", &["1 transactions of status u"], &["history", "iterator", "undo"]),
    ("undone_at_the_end", &["1 transactions of status u", "an empty transaction"], LISTS),
    // Revisions behind a wrong previous pointer are there again.
    ("previous", &["2 records have an incorrect previous pointer"], &["before", "end", "history", "serial"]),
    ("foreign_pointer", &["1 records show the data of a record of another object"], &["history", "iterator", "undo"]),
    ("pointer_to_a_later_record", &[], &["history", "iterator", "undo"]),
    ("twice_in_one", &["1 records are left out, as the same transaction"], &["history", "iterator", "undo"]),
    ("nothing", &["the file is empty"], &[]),
    ("only_the_magic", &[], &[]),
    ("texts", &[], &[]),
    // (FileStorage's history fails, and the iterator's extension.)
    ("no_pickles", &[], &["history", "iterator"]),
    ("objects", &[], &["history", "iterator", "undo"]),
    // (FileStorage's iterator fails.)
    ("indexed_astray", &["1 records name a wrong place"], &["iterator"]),
];

/// Files that FileStorage refuses, and that are right where it counts.
const REFUSED_BY_FILESTORAGE: &[(&str, &str)] = &[
    ("astray", "1 records name a wrong place of their transaction"),
    ("version_length", "1 records say that they have a version, and have none"),
];

/// Damaged files that FileStorage opens by an index: the refusal, what is said of the loss, and what may be answered
/// otherwise.
const SALVAGED: &[(&str, &str, &str, &[&str])] = &[
    (
        "indexed_length_at_the_end",
        "byte 389: transaction",
        "2 records are kept, all that were there",
        &["iterator", "undo"],
    ),
    (
        "indexed_too_long",
        "FileStorage goes on by the index beside it",
        "2 records are kept, all that were there",
        &["iterator", "undo"],
    ),
    (
        "indexed_header",
        "byte 282: a transaction has status",
        "2 records are kept, what else",
        &["history", "iterator", "undo"],
    ),
    (
        "indexed_record",
        "of object eeee",
        "131 bytes are lost",
        &["before", "end", "history", "iterator", "serial", "undo"],
    ),
    (
        "indexed_pointer",
        "object 0000000000000007 points to byte 11",
        "The revision of transaction",
        &["before", "end", "history", "iterator", "load", "undo"],
    ),
];

#[test]
fn odd_files_answer_as_filestorage_answers() {
    let place = Place::new();
    let folder = place.text("odd");
    let opened = python::run("odd_files.py", &["make", &folder]);
    println!("{opened:#}");
    let mut cluster = Cluster::new(1);
    let data = cluster.nodes[0].data.display().to_string();
    let line = |name: &str, more: &[&str]| -> Vec<String> {
        let file = format!("{folder}/{name}.fs");
        [&["import", &file, "--data", &data, "--storage", name], more]
            .concat()
            .iter()
            .map(|s| (*s).to_owned())
            .collect()
    };
    let run = |arguments: Vec<String>, of: fn(&[&str]) -> String| {
        let said = of(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        println!("{said}");
        said
    };
    for (name, words, _) in OPENED {
        assert_eq!(opened[*name]["opens"], true, "{name}");
        let said = run(line(name, &[]), done);
        for word in *words {
            assert!(said.contains(word), "{name}: no {word:?} in {said}");
        }
        assert!(!words.is_empty() || !said.contains("warning"), "{name}: {said}");
    }
    for (name, word) in REFUSED_BY_FILESTORAGE {
        assert_eq!(opened[*name]["opens"], false, "{name}");
        let said = run(line(name, &[]), done);
        assert!(said.contains(word), "{name}: no {word:?} in {said}");
    }
    for (name, refusal, loss, _) in SALVAGED {
        assert_eq!(opened[*name]["opens"], true, "{name}");
        let said = run(line(name, &[]), refused);
        assert!(said.contains(refusal) && said.contains("--salvage"), "{name}: no {refusal:?} in {said}");
        let said = run(line(name, &["--salvage"]), done);
        assert!(said.contains(loss), "{name}: no {loss:?} in {said}");
    }
    let names = OPENED.iter().map(|case| case.0).chain(SALVAGED.iter().map(|case| case.0)).collect::<Vec<_>>();
    for name in &names {
        cluster.nodes[0].options.extend(["--storage".to_owned(), (*name).to_owned()]);
    }
    cluster.start_all();
    cluster.wait_primary();
    let found = python::run("odd_files.py", &["compare", &folder, &cluster.addresses()[0]]);
    println!("{found:#}");
    let mut wrong = Vec::new();
    let allowed = OPENED.iter().map(|case| (case.0, case.2)).chain(SALVAGED.iter().map(|case| (case.0, case.3)));
    for (name, allowed) in allowed {
        let kinds: Vec<&str> = found[name].as_object().unwrap().keys().map(String::as_str).collect();
        let mut allowed = allowed.to_vec();
        allowed.sort_unstable();
        if kinds != allowed {
            wrong.push(format!("{name}: other answers in {kinds:?}, not {allowed:?}: {:#}", found[name]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Reasons to refuse a file that FileStorage opens: data that it could not load either.
const REFUSALS: &[&str] = &["points to byte", "is too great for a transaction", "and no client could load it"];

#[test]
fn files_with_changed_headers_answer_as_filestorage_answers_or_are_refused_as_by_it() {
    let place = Place::new();
    let folder = place.path("changed");
    let count = if std::env::var_os("ZRS_HEAVY").is_some() { 10_000 } else { 600 };
    let seed = std::env::var("ZRS_SEED").unwrap_or("1".into());
    let found = python::run("odd_files.py", &["change", &place.text("changed"), &count.to_string(), &seed]);
    let number = |hex: &Value| u64::from_str_radix(hex.as_str().unwrap(), 16).unwrap();
    let (mut opened, mut compared, mut wrong) = (0, 0, Vec::new());
    for (n, truth) in found.as_array().unwrap().iter().enumerate() {
        let file = folder.join(format!("{n}.fs"));
        let imported = import(&file);
        let salvaged = import_or_salvage(&file, true).unwrap().0;
        if truth["opens"] == false {
            // (Wrong fields that nothing needs are passed over, so not every such file is refused.)
            if let Err(why) = imported {
                assert!(why.to_string().contains("--salvage"), "{n}: {why}");
                assert!(salvaged.lost_count > 0, "{n}: {why}");
            }
            continue;
        }
        opened += 1;
        let (imported, store) = match imported {
            Ok(imported) => imported,
            Err(why) => {
                if !REFUSALS.iter().any(|reason| why.to_string().contains(reason)) {
                    wrong.push(format!("{n}: FileStorage opens it: {why}"));
                }
                continue;
            }
        };
        let has = |wanted: fn(&Warning) -> bool| imported.warnings.iter().any(wanted);
        let other_ids = has(|warning| matches!(warning, Warning::Strangers(_) | Warning::Zero));
        let more_history = has(|warning| matches!(warning, Warning::Previous(_)));
        let storage = store.storage("1").unwrap();
        for answer in truth["before"].as_array().unwrap() {
            let (oid, before) = (Oid(number(&answer[0])), Tid(number(&answer[1])));
            if other_ids || (more_history && before != Tid::MAX) {
                continue;
            }
            let got = match store.load_before(storage, oid, before, Tid::MAX).unwrap() {
                Ok(Some(loaded)) => (loaded.tid.to_string(), String::from_utf8_lossy(&loaded.data).into_owned()),
                Ok(None) => ("none".into(), String::new()),
                Err(_) => ("error".into(), String::new()),
            };
            let expected = (answer[2].as_str().unwrap().to_owned(), answer[3].as_str().unwrap().to_owned());
            compared += 1;
            if got != expected {
                let warnings = &imported.warnings;
                wrong.push(format!("{n}: {oid} before {before}: {got:?}, expected {expected:?}; {warnings:?}"));
            }
        }
    }
    println!("{opened} of {count} were opened by FileStorage, {compared} answers compared");
    assert!(opened > count / 4 && compared > 20 * opened, "{opened} opened, {compared} compared");
    assert!(wrong.is_empty(), "{} differences, seed {seed}:\n{}", wrong.len(), wrong[..wrong.len().min(20)].join("\n"));
}
