use openraft::storage::IOFlushed;

use super::super::types::{Incarnation, Record, RecordContent};
use super::*;
use crate::journal::SimFiles;

/// A log with the entries of these terms, from index 0 on, and a vote.
async fn log_of(files: &SimFiles, terms: &[u64], vote: u64) -> LogStore {
    let mut log = reopened(files).await;
    let ballot = Ballot { term: vote, candidate: Incarnation(1), committed: true };
    log.save_vote(&ballot.into()).await.unwrap();
    append(&mut log, 0, terms).await;
    log
}

async fn append(log: &mut LogStore, from: u64, terms: &[u64]) {
    let entry =
        |(index, term): (u64, &u64)| Record { place: Place { term: *term, index }, content: RecordContent::Blank };
    let entries: Vec<Entry> = (from..).zip(terms).map(|pair| entry(pair).into_entry().unwrap()).collect();
    RaftLogStorage::append(log, entries, IOFlushed::noop()).await.unwrap();
    let last = from + terms.len() as u64;
    log.durable().until(|durable| *durable == Ok(last)).await.unwrap();
}

async fn reopened(files: &SimFiles) -> LogStore {
    LogStore::open(files.open(), Sizes::default(), Env::system()).await.unwrap()
}

/// What is there: the last that was purged, the first and the terms of those that follow, and the vote's term.
async fn content(log: &LogStore) -> (Option<Place>, Vec<(u64, u64)>, u64) {
    let from = log.purged().map_or(0, |purged| purged.index + 1);
    let entries = log.clone().try_get_log_entries(from..).await.unwrap();
    let entries = entries.iter().map(|entry| (entry.log_id.index, entry.log_id.leader_id.term)).collect();
    (log.purged(), entries, log.term())
}

/// The log of `terms` begins behind `place`: what is there then, now and after a crash, and what a second time changes.
async fn begun_after(terms: &[u64], place: Place) -> (Option<Place>, Vec<(u64, u64)>, u64) {
    let files = SimFiles::new();
    // (A database is taken once its term is known.)
    let vote = terms.iter().copied().fold(place.term, u64::max);
    let log = log_of(&files, terms, vote).await;
    log.begin_after(place).await.unwrap();
    let now = content(&log).await;
    drop(log);
    files.crash(0);
    let mut log = reopened(&files).await;
    assert_eq!(content(&log).await, now, "after a crash");
    log.begin_after(place).await.unwrap();
    assert_eq!(content(&log).await, now, "a second time");
    // It goes on where it ends.
    let next = now.1.last().map_or(place.index + 1, |(index, _)| index + 1);
    append(&mut log, next, &[vote]).await;
    assert_eq!(content(&log).await.1.last(), Some(&(next, vote)));
    now
}

#[tokio::test]
async fn a_log_that_ends_before_a_fetched_database_begins_anew_behind_it() {
    let place = Place { term: 3, index: 9 };
    assert_eq!(begun_after(&[], place).await, (Some(place), vec![], 3));
    assert_eq!(begun_after(&[1, 2, 3], place).await, (Some(place), vec![], 3));
    // Entries of a newer term that nobody committed, and the newer vote.
    assert_eq!(begun_after(&[1, 2, 4], place).await, (Some(place), vec![], 4));
}

#[tokio::test]
async fn entries_behind_a_fetched_database_stay_as_they_were_acknowledged() {
    let place = Place { term: 3, index: 3 };
    let left = vec![(4, 3), (5, 4)];
    assert_eq!(begun_after(&[1, 2, 3, 3, 3, 4], place).await, (Some(place), left, 4));
    assert_eq!(begun_after(&[1, 2, 3, 3], place).await, (Some(place), vec![], 3));
    let first = Place { term: 1, index: 0 };
    assert_eq!(begun_after(&[1, 1], first).await, (Some(first), vec![(1, 1)], 1));
}

#[tokio::test]
async fn entries_that_contradict_a_fetched_database_go() {
    let place = Place { term: 3, index: 3 };
    assert_eq!(begun_after(&[1, 2, 2, 2, 2, 2], place).await, (Some(place), vec![], 3));
    assert_eq!(begun_after(&[1, 2, 4, 4, 5], place).await, (Some(place), vec![], 5));
    let first = Place { term: 3, index: 0 };
    assert_eq!(begun_after(&[1, 1], first).await, (Some(first), vec![], 3));
}

#[tokio::test]
async fn a_log_that_was_purged_further_stays() {
    let files = SimFiles::new();
    let mut log = log_of(&files, &[1, 2, 3, 3, 3, 3], 3).await;
    RaftLogStorage::purge(&mut log, Place { term: 3, index: 4 }.into()).await.unwrap();
    let before = content(&log).await;
    log.begin_after(Place { term: 3, index: 2 }).await.unwrap();
    assert_eq!(content(&log).await, before);
    assert_eq!(before.0, Some(Place { term: 3, index: 4 }));
}

#[tokio::test]
async fn whole_files_go_as_many_as_are_too_much() {
    let files = SimFiles::new();
    let sizes = Sizes { smallest: 16 << 10, largest: 64 << 10 };
    let mut log = LogStore::open(files.open(), sizes, Env::system()).await.unwrap();
    let ballot = Ballot { term: 1, candidate: Incarnation(1), committed: true };
    log.save_vote(&ballot.into()).await.unwrap();
    let entries = 80;
    for index in 0..entries {
        let content = RecordContent::Command(vec![7; 4096].into());
        let entry = Record { place: Place { term: 1, index }, content }.into_entry().unwrap();
        RaftLogStorage::append(&mut log, [entry], IOFlushed::noop()).await.unwrap();
    }
    log.durable().until(|durable| *durable == Ok(entries)).await.unwrap();
    assert_eq!((log.beyond(u64::MAX), log.whole_files(0)), (0, 0));
    assert!(log.size() > 4096 * entries);
    let gone = log.beyond(128 << 10);
    assert!((1..entries).contains(&gone), "{gone}");
    assert_eq!(log.whole_files(gone), gone);
    assert_eq!(log.whole_files(gone + 1), gone, "a file is not cut");
    // As many as there may be: the last file stays.
    assert!((gone..entries).contains(&log.beyond(0)));

    assert_eq!(log.going(), None);
    log.let_go(gone).await.unwrap();
    let last = Place { term: 1, index: gone - 1 };
    assert_eq!((log.going(), log.purged()), (Some(last), None), "it is told before it is done");
    RaftLogStorage::purge(&mut log, last.into()).await.unwrap();
    assert_eq!((log.going(), log.purged()), (Some(last), Some(last)));
    // (Edits of the log are done in their order.)
    log.save_vote(&ballot.into()).await.unwrap();
    assert!(log.size() <= 128 << 10);
    assert_eq!(log.read(gone, gone + 1, 1).await.unwrap()[0].log_id.index, gone);
    drop(log);
    files.crash(0);
    let log = reopened(&files).await;
    assert_eq!((log.going(), log.purged()), (Some(last), Some(last)));
}
