//! Pieces: each has one owner or is unclaimed, and none is lost or left over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::testing::*;
use super::{Digest, Hashing, Position, Store, TABLES, digest, keys};
use crate::command::{Blob, Change, Command, Content, Outcome, Reign, Span, Staged, Write};
use crate::config::limits;
use crate::engine::{Order, SimDisk};
use crate::zodb::{Oid, Refusal, StorageId, Tid};

fn stage(pieces: &[&[u8]]) -> Change {
    Change::Stage { storage: S, pieces: pieces.iter().map(|piece| Bytes::copy_from_slice(piece)).collect() }
}

fn discard(pieces: &[(u64, u32)]) -> Change {
    let span = |&(first, count): &(u64, u32)| Span { first, count };
    Change::Discard { storage: S, pieces: pieces.iter().map(span).collect() }
}

fn staged(hash: Digest, data: &[u8], pieces: &[(u64, u32)]) -> Staged {
    let span = |&(first, count): &(u64, u32)| Span { first, count };
    Staged { pieces: pieces.iter().map(span).collect(), length: data.len() as u64, hash }
}

fn record(data: &[u8], pieces: &[(u64, u32)]) -> Content {
    Content::Staged(staged(digest::content(Some(data)), data, pieces))
}

fn blob(data: &[u8], pieces: &[(u64, u32)]) -> Option<Blob> {
    let mut hashing = Hashing::blob();
    hashing.update(data);
    Some(Blob::Staged(staged(hashing.finish(), data, pieces)))
}

fn numbers(store: &Store, table: crate::engine::Table) -> Vec<u64> {
    let (from, until) = (S.0.to_be_bytes(), keys::storage_end(S));
    let pairs = store.engine().range(table, &from, &until, Order::Ascending);
    pairs.map(|pair| keys::decode_piece(&pair.unwrap().0).unwrap().1).collect()
}

/// All pieces, and the unclaimed ones among them.
fn pieces(store: &Store) -> (Vec<u64>, Vec<u64>) {
    (numbers(store, keys::PIECES), numbers(store, keys::UNCLAIMED))
}

fn agrees(store: &Store) {
    let (summary, recount) = store.recount(S).unwrap();
    assert!(recount.agrees(&summary), "{summary:?} {recount:?}");
}

fn is_bad(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Refused(Refusal::BadValue(_)))
}

#[test]
fn a_record_in_pieces_is_read_as_one() {
    let store = store();
    assert_eq!(apply(&store, stage(&[b"one ", b"two "])), Outcome::Staged(1));
    assert_eq!(apply(&store, stage(&[b"a blob"])), Outcome::Staged(3));
    assert_eq!(apply(&store, stage(&[b"three"])), Outcome::Staged(4));
    let write = Write { blob: blob(b"a blob", &[(3, 1)]), ..over(0, 1, record(b"one two three", &[(1, 2), (4, 1)])) };
    let undone = Write { blob: Some(Blob::SameAs(Tid(5))), ..over(6, 1, Content::SameAs(Tid(5))) };
    assert_eq!(apply(&store, commit(5, vec![write])), Outcome::Committed(Tid(5)));
    assert_eq!(apply(&store, commit(6, vec![over(5, 1, data("small"))])), Outcome::Committed(Tid(6)));
    assert_eq!(apply(&store, commit(7, vec![undone])), Outcome::Committed(Tid(7)));
    for tid in [5, 7] {
        let loaded = store.load_serial(S, Oid(1), Tid(tid), Tid(7)).unwrap().unwrap();
        assert_eq!(loaded, "one two three");
        let (with, at) = store.blob(S, Oid(1), Tid(tid)).unwrap().unwrap();
        assert_eq!((with, store.read_staged(S, &at).unwrap()), (Tid(5), Bytes::from_static(b"a blob")));
    }
    assert_eq!(store.blob(S, Oid(1), Tid(6)).unwrap(), None);
    assert_eq!(store.summary(S).bytes, 13 + 5, "records count, blobs do not");
    assert_eq!(pieces(&store), (vec![1, 2, 3, 4], vec![]));
    agrees(&store);
}

#[test]
fn where_the_data_lies_makes_no_difference_to_what_is_digested() {
    let (pieced, whole) = (store(), store());
    apply(&pieced, stage(&[b"da", b"ta"]));
    apply(&pieced, commit(5, vec![over(0, 1, record(b"data", &[(1, 2)]))]));
    apply(&whole, commit(5, vec![over(0, 1, data("data"))]));
    let digests = |store: &Store| (store.summary(S).history, store.summary(S).present, store.summary(S).bytes);
    assert_eq!(digests(&pieced), digests(&whole));
}

#[test]
fn a_piece_belongs_to_one_revision() {
    let store = store();
    apply(&store, stage(&[b"one", b"two"]));
    let twice = vec![over(0, 1, record(b"one", &[(1, 1)])), over(0, 2, record(b"onetwo", &[(1, 2)]))];
    assert!(is_bad(apply(&store, commit(5, twice))));
    let both = Write { blob: blob(b"one", &[(1, 1)]), ..over(0, 1, record(b"one", &[(1, 1)])) };
    assert!(is_bad(apply(&store, commit(5, vec![both]))));
    assert!(is_bad(apply(&store, commit(5, vec![over(0, 1, record(b"", &[(1, 0)]))]))));
    assert!(is_bad(apply(&store, commit(5, vec![over(0, 1, record(b"three", &[(3, 1)]))]))));
    assert!(is_bad(apply(&store, commit(5, vec![over(0, 1, record(b"all", &[(1, u32::MAX)]))]))));
    assert_eq!(pieces(&store), (vec![1, 2], vec![1, 2]), "what was refused has claimed nothing");
    let one = commit(5, vec![over(0, 1, record(b"one", &[(1, 1)]))]);
    assert_eq!(apply(&store, one), Outcome::Committed(Tid(5)));
    assert!(is_bad(apply(&store, commit(6, vec![over(0, 2, record(b"one", &[(1, 1)]))]))));
    agrees(&store);
}

#[test]
fn only_what_belongs_to_nobody_is_discarded() {
    let store = store();
    apply(&store, stage(&[b"1", b"2", b"3", b"4", b"5"]));
    apply(&store, commit(5, vec![over(0, 1, record(b"23", &[(2, 2)]))]));
    assert_eq!(apply(&store, discard(&[(1, 4), (90, 7)])), Outcome::Done);
    assert_eq!(pieces(&store), (vec![2, 3, 5], vec![5]));
    assert_eq!(apply(&store, discard(&[(5, 1)])), Outcome::Done);
    assert_eq!(apply(&store, discard(&[(5, 1)])), Outcome::Done);
    assert_eq!(pieces(&store), (vec![2, 3], vec![]));
    assert_eq!(apply(&store, stage(&[b"6"])), Outcome::Staged(6), "no number is given twice");
    agrees(&store);
}

#[test]
fn a_barrier_discards_what_is_left_in_every_storage() {
    let store = store();
    apply(&store, create("2"));
    apply(&store, stage(&vec![&[7; 1000][..]; 40]));
    apply(&store, Change::Stage { storage: StorageId(2), pieces: vec![Bytes::from_static(b"there too")] });
    apply(&store, commit(5, vec![over(0, 1, record(&[7; 20_000], &[(11, 20)]))]));
    let reign = Reign { term: 1, number: 1 };
    assert_eq!(apply_in(&store, reign, Change::Barrier), Outcome::Done);
    assert_eq!(pieces(&store), ((11..31).collect(), vec![]));
    let mut all = store.engine().range(keys::PIECES, &[], &[0xff; 4], Order::Ascending);
    assert_eq!(all.by_ref().count(), 20);
    let stale = Command { reign: Reign::default(), change: stage(&[b"late"]) };
    assert_eq!(store.apply(next(&store), &stale).unwrap(), Outcome::Stale);
    agrees(&store);
}

#[test]
fn a_piece_has_a_size() {
    let store = store();
    assert!(is_bad(apply(&store, stage(&[b"fits", b""]))));
    assert!(is_bad(apply(&store, stage(&[&vec![0; limits::PIECE + 1]]))));
    assert_eq!(apply(&store, stage(&[&vec![0; limits::PIECE]])), Outcome::Staged(1));
    assert!(is_bad(apply(&store, stage(&vec![&b"x"[..]; limits::STAGE_PIECES + 1]))));
    assert_eq!(apply(&store, stage(&vec![&b"x"[..]; limits::STAGE_PIECES])), Outcome::Staged(2));
    let elsewhere = Change::Stage { storage: StorageId(9), pieces: vec![] };
    assert!(matches!(apply(&store, elsewhere), Outcome::Refused(Refusal::NoStorage { .. })));
}

#[test]
fn a_damaged_piece_is_a_fault_that_names_its_owner() {
    let disk = SimDisk::new();
    let store = Store::open(Arc::new(disk.open(TABLES).unwrap())).unwrap();
    apply(&store, create("1"));
    apply(&store, stage(&[b"a record", b"a blob"]));
    let write = Write { blob: blob(b"a blob", &[(2, 1)]), ..over(0, 1, record(b"a record", &[(1, 1)])) };
    apply(&store, commit(5, vec![write]));
    agrees(&store);
    assert!(disk.damage(keys::PIECES, &keys::piece(S, 2), 60));
    let fault = store.recount(S).unwrap_err().to_string();
    assert!(fault.contains("blob of object 0000000000000001, transaction 0000000000000005"), "{fault}");
    assert!(disk.damage(keys::PIECES, &keys::piece(S, 1), 60));
    let fault = store.recount(S).unwrap_err().to_string();
    assert!(fault.contains("storage s1, object 0000000000000001, transaction 0000000000000005"), "{fault}");
    assert!(store.load_serial(S, Oid(1), Tid(5), Tid(5)).is_err());
    assert!(store.piece(S, 2).is_err());
}

#[test]
fn what_is_missing_or_left_over_is_a_fault() {
    let lie = |staging: &[&[u8]], content| {
        let store = store();
        apply(&store, stage(staging));
        apply(&store, commit(5, vec![over(0, 1, content)]));
        store
    };
    // The hash and length in the commit are not those of the pieces.
    let store = lie(&[b"other"], record(b"wanted", &[(1, 1)]));
    let fault = store.recount(S).unwrap_err().to_string();
    assert!(fault.contains("object 0000000000000001") && fault.contains("do not make up"), "{fault}");

    let store = lie(&[b"one", b"two"], record(b"onetwo", &[(1, 2)]));
    let mut batch = crate::engine::Batch::new();
    batch.delete(keys::PIECES, keys::piece(S, 2));
    store.engine().write(batch).unwrap();
    let fault = store.recount(S).unwrap_err().to_string();
    assert!(fault.contains("transaction 0000000000000005") && fault.contains("piece 2 is not there"), "{fault}");

    let store = lie(&[b"one", b"left over"], record(b"one", &[(1, 1)]));
    let mut batch = crate::engine::Batch::new();
    batch.delete(keys::UNCLAIMED, keys::piece(S, 2));
    store.engine().write(batch).unwrap();
    let fault = store.recount(S).unwrap_err().to_string();
    assert!(fault.contains("there are 2 pieces") && fault.contains("tell of 1"), "{fault}");
}

#[derive(Clone, Debug)]
enum Step {
    Stage(usize),
    Discard(u64, u32),
    /// A transaction that claims the first unclaimed pieces: so many as a record, and then so many as a blob.
    Commit {
        record: usize,
        blob: usize,
        bad: bool,
    },
    Barrier,
    Flush,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1..30usize).prop_map(Step::Stage),
        2 => (0..60u64, 0..40u32).prop_map(|(first, count)| Step::Discard(first, count)),
        6 => (0..25usize, 0..25usize, prop::bool::weighted(0.1))
            .prop_map(|(record, blob, bad)| Step::Commit { record, blob, bad }),
        1 => Just(Step::Barrier),
        1 => Just(Step::Flush),
    ];
    prop::collection::vec(step, 1..30)
}

#[derive(Default)]
struct Model {
    reign: Reign,
    next: u64,
    unclaimed: BTreeMap<u64, Vec<u8>>,
    /// Each transaction's record and blob.
    committed: Vec<(Vec<u8>, Vec<u8>)>,
    claimed: BTreeSet<u64>,
}

impl Model {
    fn new() -> Model {
        Model { next: 1, ..Model::default() }
    }

    fn take(&mut self, count: usize) -> (Vec<u8>, Vec<(u64, u32)>) {
        let numbers: Vec<u64> = self.unclaimed.keys().copied().take(count).collect();
        let mut data = Vec::new();
        for number in &numbers {
            data.extend(self.unclaimed.remove(number).unwrap());
            self.claimed.insert(*number);
        }
        (data, numbers.into_iter().map(|number| (number, 1)).collect())
    }

    /// The command that a step stands for, and the outcome that it must have.
    fn step(&mut self, step: &Step) -> Option<(Command, Outcome)> {
        let (change, outcome) = match step {
            Step::Flush => return None,
            Step::Stage(count) => {
                let first = self.next;
                let new: Vec<Vec<u8>> = (first..).take(*count).map(|n| n.to_be_bytes()[6..].repeat(5)).collect();
                self.next += *count as u64;
                self.unclaimed.extend((first..).zip(new.iter().cloned()));
                (stage(&new.iter().map(Vec::as_slice).collect::<Vec<_>>()), Outcome::Staged(first))
            }
            Step::Discard(first, count) => {
                self.unclaimed.retain(|number, _| !(*first..first + u64::from(*count)).contains(number));
                (discard(&[(*first, *count)]), Outcome::Done)
            }
            Step::Barrier => {
                self.reign.term += 1;
                self.unclaimed.clear();
                (Change::Barrier, Outcome::Done)
            }
            Step::Commit { bad: true, .. } => {
                let tid = self.committed.len() as u64 + 1;
                let content = record(b"", &[(self.next, 1)]);
                let why = "the transaction names staged data that is not there, or not its own";
                let refused = Outcome::Refused(Refusal::BadValue(why.into()));
                (commit(tid, vec![over(0, tid, content)]), refused)
            }
            Step::Commit { record: of_record, blob: of_blob, bad: false } => {
                let tid = self.committed.len() as u64 + 1;
                let (one, pieces_of_one) = self.take(*of_record);
                let (two, pieces_of_two) = self.take(*of_blob);
                let write = Write { blob: blob(&two, &pieces_of_two), ..over(0, tid, record(&one, &pieces_of_one)) };
                self.committed.push((one, two));
                (commit(tid, vec![write]), Outcome::Committed(Tid(tid)))
            }
        };
        Some((Command { reign: self.reign, change }, outcome))
    }

    fn compare(&self, store: &Store) {
        let all = self.claimed.iter().chain(self.unclaimed.keys()).copied().collect::<BTreeSet<_>>();
        assert_eq!(pieces(store), (all.into_iter().collect(), self.unclaimed.keys().copied().collect()));
        for ((one, two), tid) in self.committed.iter().zip(1..) {
            assert_eq!(store.load_serial(S, Oid(tid), Tid(tid), Tid::MAX).unwrap().unwrap(), one);
            let (_, at) = store.blob(S, Oid(tid), Tid(tid)).unwrap().unwrap();
            assert_eq!(store.read_staged(S, &at).unwrap(), two);
        }
        agrees(store);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pieces_are_where_the_model_says_also_after_a_crash_and_a_replay(steps in steps(), chance: u64) {
        let disk = SimDisk::new();
        let store = Store::open(Arc::new(disk.open(TABLES).unwrap())).unwrap();
        let (mut model, mut log) = (Model::new(), vec![Command { reign: Reign::default(), change: create("1") }]);
        store.apply(next(&store), &log[0]).unwrap();
        for step in &steps {
            match model.step(step) {
                Some((command, wanted)) => {
                    prop_assert_eq!(store.apply(next(&store), &command).unwrap(), wanted, "{:?}", step);
                    log.push(command);
                }
                None => drop(store.flush().unwrap()),
            }
        }
        model.compare(&store);
        drop(store);
        disk.crash(chance);
        let store = Store::open(Arc::new(disk.open(TABLES).unwrap())).unwrap();
        let applied: Position = store.applied();
        for command in &log[applied.index as usize..] {
            store.apply(next(&store), command).unwrap();
        }
        model.compare(&store);
    }
}
