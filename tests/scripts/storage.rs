//! The language of the scripts for the storage.
//!
//! ```text
//! > commit 11 5:10=hello 6:new=page>5,7 8:10=- 9:any=same:4    object:serial that was read=new content: a record,
//!                                                              one that refers to 5 and 7, nothing any more
//!                                                              (deleted), or revision 4 again. `new`: it was never
//!                                                              stored; `any`: a copy from another database
//! > commit 12 5:11=pieces:1-2 6:11=hello+blob:3                a record, and a blob, that came ahead in pieces
//! > commit 12 reign=1.1                                        `reign=` may stand behind every command of the log
//! > load 5 before=12 view=12                                   both may be left out: the newest that there is
//! > serial 5 11                                                the record that transaction 11 wrote
//! > current 5                                                  which revision is the newest, without its data
//! > objects view=12                                            every object that is there, with its record
//! > history 5 view=12
//! > transactions                                               all of them, with the records that they wrote
//! > news after=10                                              what the sessions tell their clients
//! > undolog view=12
//! > undo 12,11                                                 what undoing these, in this order, makes of each object
//! > undo 12,11 as 13                                           ... and the transaction that does it
//! > stage ab cd                                                two pieces, ahead of their transaction
//! > discard 1-2
//! > unclaimed                                                  how many pieces belong to no revision
//! > blob 5 11
//! > pack begin 12                                              and reach, plan, step, rest, end: see `packing.rs`
//! > oids 3                                                     takes three unused object ids
//! > barrier 2.1                                                opens a reign
//! > summary
//! > flush
//! > crash                                                      the store as it was flushed, opened again
//! > replay                                                     the log's entries that the store has lost
//! > damage 5 11                                                flips a bit of a revision
//! ```
//!
//! The database is on a simulated disk, in the storage `1`. Tids and oids are small numbers here. After every line the
//! tables are counted and compared with the summary ([`Store::recount`]), unless something was damaged.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use zrs::command::{Base, Blob, Change, Command, Commit, Content, Outcome, Reign, Span, Staged, Write};
use zrs::engine::SimDisk;
use zrs::storage::pack::references;
use zrs::storage::{Hashing, Position, Stop, Store, TABLES, Undone, keys};
use zrs::zodb::{Oid, Refusal, State, StorageId, Tid, TransactionMeta};

use crate::packing::Packing;

/// The storage of every script.
pub const S: StorageId = StorageId(1);

/// A store, the log that it applies, and the pack that is going on.
pub struct Stage {
    disk: SimDisk,
    store: Option<Store>,
    log: Vec<Command>,
    packing: Packing,
    damaged: bool,
}

impl Default for Stage {
    fn default() -> Stage {
        let disk = SimDisk::new();
        let store = Some(open(&disk));
        let mut stage = Stage { disk, store, log: Vec::new(), packing: Packing::default(), damaged: false };
        assert_eq!(stage.apply(Reign::default(), Change::CreateStorage { name: "1".into() }), Outcome::Storage(S));
        stage
    }
}

fn open(disk: &SimDisk) -> Store {
    Store::open(Arc::new(disk.open(TABLES).unwrap())).unwrap()
}

impl Stage {
    /// Plays one line and tells the answers.
    pub fn play(&mut self, line: &str) -> Vec<String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (input, words) = words.split_first().expect("a line has a word");
        let answers = match *input {
            "commit" | "stage" | "discard" | "oids" | "barrier" => vec![self.command(input, words)],
            "load" | "serial" | "current" | "objects" | "history" | "blob" => self.read(input, words),
            "transactions" | "news" | "undolog" | "unclaimed" | "summary" => self.survey(input, words),
            "undo" => self.undo(words),
            "pack" => {
                let mut packing = std::mem::take(&mut self.packing);
                let answers = packing.play(self, words);
                self.packing = packing;
                answers
            }
            "flush" | "crash" | "replay" | "damage" => self.disk(input, words),
            other => panic!("no such input: {other}"),
        };
        if !self.damaged {
            let (summary, recount) = self.store().recount(S).unwrap();
            assert!(recount.agrees(&summary), "{summary:?} {recount:?}");
        }
        if answers.is_empty() { vec!["-".to_owned()] } else { answers }
    }

    pub fn store(&self) -> &Store {
        self.store.as_ref().expect("the store is open but for a crash")
    }

    /// Appends to the log, and applies.
    pub fn apply(&mut self, reign: Reign, change: Change) -> Outcome {
        let command = Command { reign, change };
        let at = Position { index: self.log.len() as u64 + 1, term: 0 };
        let outcome = self.store().apply(at, &command).unwrap();
        self.log.push(command);
        outcome
    }

    fn command(&mut self, input: &str, words: &[&str]) -> String {
        let (words, reign) = match words.split_last() {
            Some((last, before)) if last.starts_with("reign=") => (before, reign(&last["reign=".len()..])),
            _ => (words, self.store().reign()),
        };
        if input == "barrier" {
            let opened = self::reign(words[0]);
            return told_outcome(&self.apply(opened, Change::Barrier));
        }
        let change = match input {
            "commit" => {
                let writes = words[1..].iter().map(|word| self.write(word)).collect();
                commit(Tid(number(words[0])), writes)
            }
            "stage" => {
                let pieces = words.iter().map(|word| Bytes::copy_from_slice(word.as_bytes())).collect();
                Change::Stage { storage: S, pieces }
            }
            "discard" => Change::Discard { storage: S, pieces: vec![span(words[0])] },
            _ => Change::ReserveOids { storage: S, count: words[0].parse().unwrap(), from: Oid(0) },
        };
        told_outcome(&self.apply(reign, change))
    }

    /// `oid:base=content`, `oid:base=content+blob:pieces`.
    fn write(&self, word: &str) -> Write {
        let (object, content) = word.split_once('=').expect("oid:base=content");
        let (oid, base) = object.split_once(':').expect("oid:base");
        let base = match base {
            "new" => Base::Serial(Tid::ZERO),
            "any" => Base::Any,
            serial => Base::Serial(Tid(number(serial))),
        };
        let (content, blob) = match content.split_once("+blob:") {
            Some((content, pieces)) => (content, Some(Blob::Staged(self.staged(Hashing::blob(), pieces)))),
            None => (content, None),
        };
        let content = match content.split_once(':') {
            _ if content == "-" => Content::Absent,
            Some(("same", tid)) => Content::SameAs(Tid(number(tid))),
            Some(("pieces", pieces)) => Content::Staged(self.staged(Hashing::record(), pieces)),
            _ => Content::Data(record(content)),
        };
        Write { oid: Oid(number(oid)), base, content, blob }
    }

    /// Pieces with the length and hash of what they make up; of a piece that is not there, nothing.
    fn staged(&self, mut hashing: Hashing, pieces: &str) -> Staged {
        let span = span(pieces);
        let mut length = 0;
        for piece in (span.first..).take(span.count as usize).filter_map(|n| self.store().piece(S, n).ok()) {
            hashing.update(&piece);
            length += piece.len() as u64;
        }
        Staged { pieces: vec![span], length, hash: hashing.finish() }
    }

    /// Reads of one object, or of each.
    fn read(&self, input: &str, words: &[&str]) -> Vec<String> {
        let store = self.store();
        let view = option(words, "view").unwrap_or(Tid::MAX);
        let oid = || Oid(number(words[0]));
        match input {
            "load" => {
                let before = option(words, "before").unwrap_or(Tid::MAX);
                match store.load_before(S, oid(), before, view) {
                    Ok(Ok(Some(found))) => {
                        let end = found.end.map_or(String::new(), |end| format!(", until {end}", end = end.0));
                        vec![format!("{} as of {}{end}: {}", words[0], found.tid.0, told_record(&found.data))]
                    }
                    Ok(Ok(None)) => vec![format!("{} is not that old", words[0])],
                    Ok(Err(refusal)) => vec![told_refusal(&refusal)],
                    Err(fault) => vec![format!("fault: {}", plain(&fault.to_string()))],
                }
            }
            "serial" => {
                let found = store.load_serial(S, oid(), Tid(number(words[1])), view).unwrap();
                vec![found.map_or_else(|refusal| told_refusal(&refusal), |data| told_record(&data))]
            }
            "current" => vec![match store.current(S, oid()).unwrap() {
                None => format!("{} was never stored", words[0]),
                Some(current) if current.absent => format!("{} is absent since {}", words[0], current.tid.0),
                Some(current) => format!("{} is as of {}", words[0], current.tid.0),
            }],
            "objects" => {
                let (mut told, mut from) = (Vec::new(), Some(Oid::ROOT));
                while let Some((oid, tid, data, next)) = from.and_then(|at| store.next_object(S, at, view).unwrap()) {
                    told.push(format!("{} as of {}: {}", oid.0, tid.0, told_record(&data)));
                    from = next;
                }
                told
            }
            "history" => match store.history(S, oid(), 100, view).unwrap() {
                Ok(entries) => entries.iter().map(|entry| format!("{}, {} bytes", entry.tid.0, entry.size)).collect(),
                Err(refusal) => vec![told_refusal(&refusal)],
            },
            _ => vec![match store.blob(S, oid(), Tid(number(words[1]))).unwrap() {
                None => "no blob".to_owned(),
                Some((tid, staged)) => {
                    let data = store.read_staged(S, &staged).unwrap();
                    format!("the blob of {}: {:?}", tid.0, String::from_utf8_lossy(&data))
                }
            }],
        }
    }

    /// Reads of the whole storage.
    fn survey(&self, input: &str, words: &[&str]) -> Vec<String> {
        let store = self.store();
        match input {
            "transactions" => {
                let (mut told, mut from) = (Vec::new(), Tid::ZERO);
                while let Some((tid, meta)) = store.transaction_at(S, from, Tid::MAX.previous()).unwrap() {
                    told.push(self.told_transaction(tid, &meta));
                    from = tid.next();
                }
                told
            }
            "news" => {
                let after = option(words, "after").expect("after=tid");
                let Some(all) = store.feed(S).after(after) else { return vec!["further back than the feed".into()] };
                all.iter().map(|applied| format!("{} changed{}", applied.tid.0, oids(&applied.oids))).collect()
            }
            "undolog" => {
                let view = option(words, "view").unwrap_or(Tid::MAX.previous());
                let log = store.undo_log(S, view, 0, 100, &Stop::default(), |_| true).unwrap();
                log.iter().map(|entry| entry.tid.0.to_string()).collect()
            }
            "unclaimed" => vec![store.count_unclaimed(S, 100).unwrap().to_string()],
            _ => {
                let summary = store.summary(S);
                let (last, objects, transactions) = (summary.last_tid.0, summary.objects, summary.transactions);
                let packs = format!("packing {}, packed {}", summary.packing.0, summary.packed.0);
                vec![format!("last {last}, {transactions} transactions, {objects} objects, {packs}")]
            }
        }
    }

    fn told_transaction(&self, tid: Tid, meta: &TransactionMeta) -> String {
        let (mut records, mut n) = (Vec::new(), 0);
        while let Some((at, revision)) = self.store().record_at(S, tid, n).unwrap() {
            let shown = match &revision.state {
                State::Data(data) => told_record(data),
                State::Absent => "absent".to_owned(),
            };
            let again = revision.data_tid.map_or(String::new(), |tid| format!(" (as of {} again)", tid.0));
            records.push(format!("{} is {shown}{again}", revision.oid.0));
            n = at + 1;
        }
        let packed = if meta.status == b'p' { ", packed" } else { "" };
        format!("{}{packed}: {}", tid.0, if records.is_empty() { "no records".into() } else { records.join(", ") })
    }

    fn undo(&mut self, words: &[&str]) -> Vec<String> {
        let undos: Vec<Tid> = words[0].split(',').map(|tid| Tid(number(tid))).collect();
        let undone = match self.store().undo(S, &undos, &BTreeMap::new(), &Stop::default()).unwrap() {
            Ok(undone) => undone,
            Err(Refusal::UndoFailed(failures)) => {
                return failures.iter().map(|(oid, why)| format!("failed at {}: {why}", oid.0)).collect();
            }
            Err(refusal) => return vec![told_refusal(&refusal)],
        };
        let told = |(oid, undone): (&Oid, &Undone)| match undone.content {
            Content::SameAs(tid) => format!("{} becomes as of {} again", oid.0, tid.0),
            _ => format!("{} becomes absent", oid.0),
        };
        let mut answers: Vec<String> = undone.iter().map(told).collect();
        if let ["as", tid] = words[1..] {
            // As the primary does it: over the revision that is current while the transaction holds the object's lock.
            let base = |oid: Oid| self.store().current(S, oid).unwrap().map_or(Tid::ZERO, |current| current.tid);
            let write = |(oid, Undone { content, blob })| Write { oid, base: Base::Serial(base(oid)), content, blob };
            let change = commit(Tid(number(tid)), undone.into_iter().map(write).collect());
            answers.push(told_outcome(&self.apply(self.store().reign(), change)));
        }
        answers
    }

    fn disk(&mut self, input: &str, words: &[&str]) -> Vec<String> {
        match input {
            "flush" => {
                let flushed = self.store().flush().unwrap();
                vec![format!("flushed up to entry {}", flushed.index)]
            }
            "crash" => {
                self.store = None;
                // (0: nothing that was not flushed is left.)
                self.disk.crash(0);
                self.store = Some(open(&self.disk));
                vec![format!("applied up to entry {} of {}", self.store().applied().index, self.log.len())]
            }
            "replay" => {
                let lost = self.store().applied().index as usize;
                let again = |(n, command)| self.store().apply(Position { index: n, term: 0 }, command).unwrap();
                (lost as u64 + 1..).zip(&self.log[lost..]).map(again).map(|outcome| told_outcome(&outcome)).collect()
            }
            _ => {
                let key = keys::revision(S, Oid(number(words[0])), Tid(number(words[1])));
                assert!(self.disk.damage(keys::REVISIONS, &key, 60), "there is such a revision");
                self.damaged = true;
                vec!["a bit is flipped".to_owned()]
            }
        }
    }
}

fn commit(tid: Tid, writes: Vec<Write>) -> Change {
    let meta = TransactionMeta { status: b' ', ..TransactionMeta::default() };
    Change::Commit(Commit { storage: S, tid, meta, writes })
}

/// `text`, or `text>5,6`: a record, as `persistent` pickles one, that says `text` and refers to objects 5 and 6.
fn record(word: &str) -> Bytes {
    let (text, references) = word.split_once('>').unwrap_or((word, ""));
    let mut pickle = RECORD_HEAD.to_vec();
    pickle.push(text.len().try_into().unwrap());
    pickle.extend_from_slice(text.as_bytes());
    for oid in references.split(',').filter(|oid| !oid.is_empty()) {
        pickle.extend_from_slice(b"C\x08");
        pickle.extend_from_slice(&Oid(number(oid)).to_bytes());
        pickle.extend_from_slice(b"\x85Q");
    }
    pickle.extend_from_slice(b"t.");
    pickle.into()
}

/// The class (`None`), and the beginning of the state: a tuple of a text and of references.
const RECORD_HEAD: &[u8] = b"\x80\x03N.\x80\x03(C";

fn told_record(data: &[u8]) -> String {
    let text = match data.strip_prefix(RECORD_HEAD) {
        Some(rest) => &rest[1..1 + usize::from(rest[0])],
        None => return format!("{:?}", String::from_utf8_lossy(data)),
    };
    let references = references(data).unwrap();
    let leads = if references.is_empty() { String::new() } else { format!(" ->{}", oids(&references)) };
    format!("{:?}{leads}", String::from_utf8_lossy(text))
}

fn told_outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done => "done".to_owned(),
        Outcome::Storage(storage) => format!("storage {}", storage.0),
        Outcome::Oids { first, count } => format!("{count} object ids from {} on", first.0),
        Outcome::Committed(tid) => format!("committed {}", tid.0),
        Outcome::Staged(first) => format!("staged from piece {first} on"),
        Outcome::Refused(refusal) => format!("refused: {}", told_refusal(refusal)),
        Outcome::Stale => "stale".to_owned(),
    }
}

pub fn told_refusal(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Conflict(conflict) => {
            format!("{} is {} and was read as {}", conflict.oid.0, conflict.committed.0, conflict.read.0)
        }
        other => plain(&other.to_string()),
    }
}

/// A text in which ids, of 16 hexadecimal digits, are small numbers.
pub fn plain(text: &str) -> String {
    let words = text.split_inclusive(|c: char| !c.is_ascii_hexdigit());
    let word = |word: &str| {
        let digits = word.trim_end_matches(|c: char| !c.is_ascii_hexdigit());
        match u64::from_str_radix(digits, 16) {
            Ok(id) if digits.len() == 16 => format!("{id}{}", &word[16..]),
            _ => word.to_owned(),
        }
    };
    words.map(word).collect()
}

pub fn oids(oids: &[Oid]) -> String {
    oids.iter().map(|oid| format!(" {}", oid.0)).collect()
}

/// `1-2`, or `3`.
fn span(word: &str) -> Span {
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    Span { first: number(first), count: (number(last) - number(first) + 1).try_into().unwrap() }
}

/// `term.number`.
fn reign(word: &str) -> Reign {
    let (term, nth) = word.split_once('.').expect("term.number");
    Reign { term: number(term), number: number(nth) }
}

fn option(words: &[&str], key: &str) -> Option<Tid> {
    let value = words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    value.map(|value| Tid(number(value)))
}

pub fn number(word: &str) -> u64 {
    word.parse().unwrap_or_else(|_| panic!("no number: {word}"))
}
