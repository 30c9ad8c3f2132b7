//! A model of the store that is too simple to be wrong, and random histories for both.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;

use super::testing::{S, create, drop_storage, next};
use super::{Loaded, OwnWrite, Position, Store};
use crate::command::{Base, Change, Command, Commit, Content, Outcome, Reign, Write};
use crate::zodb::{Oid, Refusal, StorageId, Tid, TransactionMeta};

/// Objects 0 to 4 are written, 5 never is.
pub const OIDS: u64 = 5;

#[derive(Clone, Debug)]
pub enum Step {
    Commit {
        gap: u64,
        writes: Vec<(u64, Seen, Left)>,
        /// Whether the transaction has the status of one that was copied from a packed database.
        packed: bool,
    },
    /// Undoes transactions, counted back from the newest, which is number 0. `store`: after so many of the undos the
    /// transaction stores an object itself.
    Undo {
        undos: Vec<usize>,
        store: Option<(usize, u64, u8)>,
    },
    /// A commit whose tid is the last one's, or less by this much.
    LateCommit {
        by: u64,
    },
    Reserve(u32),
    Barrier {
        term: u64,
        number: u64,
    },
    /// A storage beside the one that all is about, by the number in its name.
    Create(u8),
    Drop(u8),
    /// Drops the storage that all is about, unless that would succeed.
    DropMain,
    /// A command of a reign that is not open.
    Stale,
    Pass,
    Membership(u8),
}

/// The serial that the writer has read of the object.
#[derive(Clone, Debug)]
pub enum Seen {
    Newest,
    Wrong(u64),
    Any,
}

#[derive(Clone, Debug)]
pub enum Left {
    Data(u8),
    Absent,
    /// `SameAs` the object's nth revision, counted round and round; a high number may stand for one that never was.
    SameAs(usize),
}

pub fn steps() -> impl Strategy<Value = Vec<Step>> {
    let seen = prop_oneof![12 => Just(Seen::Newest), 1 => (0..9u64).prop_map(Seen::Wrong), 2 => Just(Seen::Any)];
    let left = prop_oneof![
        3 => any::<u8>().prop_map(Left::Data),
        3 => (0..4u8).prop_map(Left::Data),
        1 => Just(Left::Absent),
        3 => (0..60usize).prop_map(Left::SameAs)
    ];
    let write = (seen, left);
    // Now and then an object comes twice, which is refused.
    let oids = prop_oneof![
        9 => prop::sample::subsequence((0..OIDS).collect::<Vec<_>>(), 0..4).prop_shuffle(),
        1 => prop::collection::vec(0..OIDS, 0..4)
    ];
    let writes = (oids, prop::collection::vec(write, 4))
        .prop_map(|(oids, writes)| oids.into_iter().zip(writes).map(|(oid, (seen, left))| (oid, seen, left)).collect());
    let step = prop_oneof![
        20 => (1..4u64, writes, prop::bool::weighted(0.03))
            .prop_map(|(gap, writes, packed)| Step::Commit { gap, writes, packed }),
        10 => (prop::collection::vec(0..6usize, 1..4), prop::option::weighted(0.2, (0..4usize, 0..OIDS, 0..4u8)))
            .prop_map(|(undos, store)| Step::Undo { undos, store }),
        1 => (0..3u64).prop_map(|by| Step::LateCommit { by }),
        1 => (0..100u32).prop_map(Step::Reserve),
        1 => (0..3u64, 0..3u64).prop_map(|(term, number)| Step::Barrier { term, number }),
        2 => (0..3u8).prop_map(Step::Create),
        2 => (0..3u8).prop_map(Step::Drop),
        1 => Just(Step::DropMain),
        1 => Just(Step::Stale),
        1 => Just(Step::Pass),
        1 => any::<u8>().prop_map(Step::Membership),
    ];
    prop::collection::vec(step, 0..24)
}

/// An object as a transaction left it.
#[derive(Clone, Debug, PartialEq)]
pub struct Shown {
    pub data: Option<Bytes>,
    pub data_tid: Option<Tid>,
}

#[derive(Default)]
pub struct Model {
    pub reign: Reign,
    pub transactions: BTreeMap<Tid, (TransactionMeta, Vec<(Oid, Shown)>)>,
    pub next_oid: u64,
    /// The names of all storages that were ever created, by their numbers from 1 on, without those that were dropped.
    pub storages: Vec<Option<String>>,
}

impl Model {
    pub fn last(&self) -> Tid {
        self.transactions.keys().next_back().copied().unwrap_or(Tid::ZERO)
    }

    /// Oldest first.
    pub fn revisions(&self, oid: Oid, view: Tid) -> Vec<(Tid, Shown)> {
        let upto = self.transactions.range(..=view);
        upto.filter_map(|(tid, (_, writes))| Some((*tid, writes.iter().find(|w| w.0 == oid)?.1.clone()))).collect()
    }

    pub fn newest(&self, oid: Oid) -> Tid {
        self.revisions(oid, Tid::MAX).last().map_or(Tid::ZERO, |revision| revision.0)
    }

    pub fn load_before(&self, oid: Oid, before: Tid, view: Tid) -> Result<Option<Loaded>, Refusal> {
        let revisions = self.revisions(oid, view);
        if revisions.is_empty() {
            return Err(Refusal::NoObject(oid));
        }
        let Some((tid, shown)) = revisions.iter().rfind(|(tid, _)| *tid < before) else { return Ok(None) };
        let data = shown.data.clone().ok_or(Refusal::NoObject(oid))?;
        let end = revisions.iter().map(|(tid, _)| *tid).find(|end| end > tid);
        Ok(Some(Loaded { data, tid: *tid, end }))
    }

    pub fn present(&self, view: Tid) -> Vec<(Oid, Tid, Bytes)> {
        let newest = |oid| self.revisions(Oid(oid), view).pop().map(|(tid, shown)| (Oid(oid), tid, shown.data));
        (0..OIDS).filter_map(newest).filter_map(|(oid, tid, data)| Some((oid, tid, data?))).collect()
    }

    /// The change that a step stands for, and the outcome that it must have.
    pub fn take(&mut self, step: &Step) -> (Reign, Change, Outcome) {
        let bad = |tid: Tid, last: Tid| format!("transaction {tid} is not later than the last one, {last}");
        match step {
            Step::Commit { gap, writes, packed } => self.commit(Tid(self.last().0 + gap), writes, *packed),
            Step::LateCommit { by } => {
                let tid = Tid(self.last().0.saturating_sub(*by));
                let commit = Commit { storage: S, tid, meta: TransactionMeta::default(), writes: vec![] };
                let refusal = Refusal::BadValue(bad(tid, self.last()));
                (self.reign, Change::Commit(commit), Outcome::Refused(refusal))
            }
            Step::Reserve(count) => {
                let first = Oid(self.next_oid);
                self.next_oid += u64::from(*count);
                let change = Change::ReserveOids { storage: S, count: *count, from: Oid(0) };
                (self.reign, change, Outcome::Oids { first, count: *count })
            }
            Step::Barrier { term, number } => {
                let reign = Reign { term: *term, number: *number };
                let opens = reign > self.reign;
                self.reign = self.reign.max(reign);
                (reign, Change::Barrier, if opens { Outcome::Done } else { Outcome::Stale })
            }
            Step::Create(n) => {
                let name = format!("beside {n}");
                let known = self.storages.iter().position(|known| known.as_deref() == Some(name.as_str()));
                let index = known.unwrap_or_else(|| {
                    self.storages.push(Some(name.clone()));
                    self.storages.len() - 1
                });
                (self.reign, create(&name), Outcome::Storage(StorageId(index as u32 + 1)))
            }
            Step::Drop(n) => {
                let name = format!("beside {n}");
                let outcome = match self.storages.iter_mut().find(|known| known.as_deref() == Some(name.as_str())) {
                    Some(known) => {
                        *known = None;
                        Outcome::Done
                    }
                    None => Outcome::Refused(Refusal::NoStorage { name: name.clone(), known: Vec::new() }),
                };
                (self.reign, drop_storage(&name), outcome)
            }
            Step::DropMain if self.transactions.is_empty() => self.take(&Step::Reserve(0)),
            Step::DropMain => {
                let what = if self.transactions.len() == 1 { "transaction" } else { "transactions" };
                let why = format!("storage \"1\" is not empty: it has {} {what}", self.transactions.len());
                (self.reign, drop_storage("1"), Outcome::Refused(Refusal::BadValue(why)))
            }
            Step::Stale => {
                let reign = Reign { term: self.reign.term, number: self.reign.number.wrapping_sub(1) };
                (reign, Change::ReserveOids { storage: S, count: 1, from: Oid(0) }, Outcome::Stale)
            }
            Step::Pass | Step::Membership(_) | Step::Undo { .. } => unreachable!("these are no commands"),
        }
    }

    pub fn commit(&mut self, tid: Tid, wanted: &[(u64, Seen, Left)], packed: bool) -> (Reign, Change, Outcome) {
        let mut writes = Vec::new();
        let mut left_behind = Vec::new();
        let (mut conflict, mut pointless, mut twice) = (None, None, None);
        let mut seen_oids = BTreeSet::new();
        for (oid, seen, left) in wanted {
            let oid = Oid(*oid);
            let newest = self.newest(oid);
            let base = match seen {
                Seen::Newest => Base::Serial(newest),
                Seen::Wrong(tid) => Base::Serial(Tid(*tid)),
                Seen::Any => Base::Any,
            };
            if !seen_oids.insert(oid) {
                twice = twice.or(Some(oid));
            }
            if let Base::Serial(read) = base
                && read != newest
            {
                conflict = conflict.or(Some(Outcome::conflict(oid, newest, read)));
            }
            let revisions = self.revisions(oid, Tid::MAX);
            let (content, shown) = match left {
                Left::Data(byte) => {
                    let data = Bytes::from(vec![*byte; usize::from(*byte) % 7]);
                    (Content::Data(data.clone()), Shown { data: Some(data), data_tid: None })
                }
                Left::Absent => (Content::Absent, Shown { data: None, data_tid: None }),
                Left::SameAs(nth) => match revisions.get(*nth % (revisions.len() + usize::from(*nth > 55)).max(1)) {
                    Some((tid, shown)) => {
                        (Content::SameAs(*tid), Shown { data: shown.data.clone(), data_tid: Some(*tid) })
                    }
                    None => {
                        pointless = pointless.or(Some(oid));
                        (Content::SameAs(Tid(999_999)), Shown { data: None, data_tid: None })
                    }
                },
            };
            writes.push(Write { oid, base, content, blob: None });
            left_behind.push((oid, shown));
        }
        let meta = meta(tid, if packed { b'p' } else { b' ' });
        let outcome = if let Some(oid) = twice {
            Outcome::Refused(Refusal::BadValue(format!("object {oid} is written twice in transaction {tid}")))
        } else if let Some(conflict) = conflict {
            conflict
        } else if let Some(oid) = pointless {
            let why = format!("object {oid} has no such revision that it could show again");
            Outcome::Refused(Refusal::BadValue(why))
        } else {
            for (oid, _) in &left_behind {
                self.next_oid = self.next_oid.max(oid.0 + 1);
            }
            self.transactions.insert(tid, (meta.clone(), left_behind));
            Outcome::Committed(tid)
        };
        (self.reign, Change::Commit(Commit { storage: S, tid, meta, writes }), outcome)
    }

    /// The tid up to which nothing can be undone.
    pub fn packed(&self) -> Tid {
        let packed = self.transactions.iter().rev().find(|(_, (meta, _))| meta.status == b'p');
        packed.map_or(Tid::ZERO, |(tid, _)| *tid)
    }

    /// The objects as `FileStorage` would undo them; or those that stand in the way (none: the transaction is packed).
    pub fn undo(&self, undos: &[Tid], store: Option<(usize, Oid, Bytes)>) -> Result<BTreeMap<Oid, Shown>, Vec<Oid>> {
        let mut now: BTreeMap<Oid, Shown> = BTreeMap::new();
        for n in 0..=undos.len() {
            if let Some((_, oid, data)) = store.as_ref().filter(|(before, ..)| *before == n) {
                now.insert(*oid, Shown { data: Some(data.clone()), data_tid: None });
            }
            let Some(undone) = undos.get(n) else { continue };
            if *undone <= self.packed() {
                return Err(vec![]);
            }
            let mut failures = vec![];
            for (oid, shown) in &self.transactions[undone].1 {
                let revisions = self.revisions(*oid, Tid::MAX);
                let (newest, current) = revisions.last().expect("the object has been written");
                let is_current = !now.contains_key(oid) && newest == undone;
                let current = now.get(oid).unwrap_or(current);
                let same = current.data_tid == Some(*undone) || (current.data == shown.data && shown.data.is_some());
                if is_current || same {
                    let before = revisions.iter().rfind(|(tid, _)| tid < undone);
                    let data = before.and_then(|(_, shown)| shown.data.clone());
                    now.insert(*oid, Shown { data, data_tid: before.map(|(tid, _)| *tid) });
                } else {
                    failures.push(*oid);
                }
            }
            if !failures.is_empty() {
                return Err(failures);
            }
        }
        Ok(now)
    }
}

pub fn meta(tid: Tid, status: u8) -> TransactionMeta {
    TransactionMeta { status, description: tid.to_string().into_bytes(), ..TransactionMeta::default() }
}

/// Undoes, if store and model agree that it can be done, and how.
pub fn undo(store: &Store, model: &mut Model, undos: &[usize], stored: Option<(usize, u64, u8)>) -> Entry {
    let undos: Vec<Tid> = undos.iter().filter_map(|n| model.transactions.keys().rev().nth(*n).copied()).collect();
    let stored =
        stored.map(|(n, oid, byte)| (n.min(undos.len()), Oid(oid), Bytes::from(vec![byte; usize::from(byte) % 7])));
    let own = stored.iter().map(|(n, oid, data)| (*oid, OwnWrite { undos: *n, content: Content::Data(data.clone()) }));
    let own: BTreeMap<Oid, OwnWrite> = own.collect();
    let found = store.undo(S, &undos, &own, &super::Stop::default()).unwrap();
    let wanted = match model.undo(&undos, stored) {
        Ok(wanted) => wanted,
        Err(failures) => {
            match found {
                Err(Refusal::NotUndoable(_)) => assert_eq!(failures, []),
                Err(Refusal::UndoFailed(found)) => {
                    assert_eq!(found.into_iter().map(|f| f.0).collect::<Vec<_>>(), failures)
                }
                other => panic!("{other:?}"),
            }
            return Entry::Pass;
        }
    };
    let found = found.unwrap();
    let mut writes = Vec::new();
    for (oid, shown) in &wanted {
        let content = match (found.get(oid), shown.data_tid) {
            (Some(undone), Some(tid)) => {
                assert_eq!(undone.content, Content::SameAs(tid));
                Content::SameAs(tid)
            }
            (Some(undone), None) => {
                assert_eq!((&undone.content, &shown.data), (&Content::Absent, &None));
                Content::Absent
            }
            (None, _) => own[oid].content.clone(),
        };
        writes.push(Write { oid: *oid, base: Base::Serial(model.newest(*oid)), content, blob: None });
        model.next_oid = model.next_oid.max(oid.0 + 1);
    }
    let tid = model.last().next();
    model.transactions.insert(tid, (meta(tid, b' '), wanted.into_iter().collect()));
    let commit = Commit { storage: S, tid, meta: meta(tid, b' '), writes };
    Entry::Command(Command { reign: model.reign, change: Change::Commit(commit) })
}

/// An entry of the log, as it is applied.
pub enum Entry {
    Command(Command),
    Pass,
    Membership(Vec<u8>),
}

pub fn apply(store: &Store, at: Position, entry: &Entry) -> Option<Outcome> {
    match entry {
        Entry::Command(command) => Some(store.apply(at, command).unwrap()),
        Entry::Pass => {
            store.pass(at).unwrap();
            None
        }
        Entry::Membership(bytes) => {
            store.set_membership(at, bytes).unwrap();
            assert_eq!(store.membership(), Some((at, bytes.clone())));
            None
        }
    }
}

/// Applies the steps; gives the model, and the log that came of them.
pub fn run(store: &Store, steps: &[Step]) -> (Model, Vec<Entry>) {
    let mut model = Model { next_oid: 1, storages: vec![Some("1".to_owned())], ..Model::default() };
    let mut log = vec![Entry::Command(Command { reign: Reign::default(), change: create("1") })];
    assert_eq!(apply(store, next(store), &log[0]), Some(Outcome::Storage(S)));
    for step in steps {
        let (entry, wanted) = match step {
            Step::Pass => (Entry::Pass, None),
            Step::Membership(byte) => (Entry::Membership(vec![*byte]), None),
            Step::Undo { undos, store: stored } => match undo(store, &mut model, undos, *stored) {
                Entry::Command(command) => (Entry::Command(command), Some(Outcome::Committed(model.last()))),
                entry => (entry, None),
            },
            _ => {
                let (reign, change, outcome) = model.take(step);
                (Entry::Command(Command { reign, change }), Some(outcome))
            }
        };
        assert_eq!(apply(store, next(store), &entry), wanted, "{step:?}");
        load_all(store, &model);
        log.push(entry);
    }
    (model, log)
}

/// Loads what is there now, so that it is in the cache of a store that has one.
pub fn load_all(store: &Store, model: &Model) {
    let view = model.last();
    for oid in (0..=OIDS).map(Oid) {
        let found = store.load_before(S, oid, Tid::MAX, view).unwrap();
        assert_eq!(found, model.load_before(oid, Tid::MAX, view), "load_before({oid}), view {view}");
    }
}
