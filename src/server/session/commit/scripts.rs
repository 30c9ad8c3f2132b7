//! Golden scripts for the buffer of a transaction and for the data that goes ahead (`tests/scripts/buffer`, `staging`).

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::buffer::Buffer;
use super::staging::{Item, Staging};
use super::undos::Touched;
use super::wish::{Record, Wish};
use crate::command::{Base, Content, Span};
use crate::config::Sizes;
use crate::server::bounds::Budget;
use crate::server::testing::numbers;
use crate::server::testing::runner::play_all;
use crate::tpc::Read;
use crate::zodb::{Oid, Tid, TransactionMeta};

fn spans(spans: &[Span]) -> String {
    let shown: Vec<String> = spans
        .iter()
        .map(|span| match span.count {
            1 => span.first.to_string(),
            count => format!("{}-{}", span.first, span.first + u64::from(count) - 1),
        })
        .collect();
    if shown.is_empty() { "none".into() } else { shown.join(" ") }
}

/// `blob NAME`, `record NAME BYTES`, `extend NAME BYTES`, `end NAME`, `forget NAME`, `forget all`, `ship`, `landed
/// FIRST`, `item NAME`, `gone`, `state`.
#[derive(Default)]
struct StagingStage {
    staging: Staging,
    items: BTreeMap<String, Item>,
}

impl StagingStage {
    fn play(&mut self, input: &str) -> Vec<String> {
        let mut words = input.split(' ');
        let (verb, name) = (words.next().unwrap(), words.next().unwrap_or_default());
        let bytes = words.next().map_or(0, |bytes| bytes.parse().unwrap());
        let staging = &mut self.staging;
        let item = self.items.get(name).copied();
        let answer = match verb {
            "blob" => {
                self.items.insert(name.into(), staging.begin_blob());
                return vec![];
            }
            "record" => {
                self.items.insert(name.into(), staging.record(&Bytes::from(vec![1; bytes])));
                return vec![];
            }
            "extend" => {
                staging.extend(item.unwrap(), &vec![1; bytes]);
                return vec![];
            }
            "end" => {
                staging.end(item.unwrap());
                return vec![];
            }
            "forget" if name == "all" => {
                staging.forget_all();
                return vec![];
            }
            "forget" => {
                staging.forget(item.unwrap());
                return vec![];
            }
            "landed" => {
                staging.landed(name.parse().unwrap());
                return vec![];
            }
            "ship" => match staging.next_shipment() {
                Some(pieces) => {
                    let sizes: Vec<String> = pieces.iter().map(|piece| piece.len().to_string()).collect();
                    format!("pieces of {}", sizes.join(", "))
                }
                None => "nothing".into(),
            },
            "item" => {
                let staged = staging.staged(item.unwrap());
                format!("{} bytes in pieces {}", staged.length, spans(&staged.pieces))
            }
            "gone" => spans(&staging.take_gone()),
            "state" => {
                let state = if staging.is_idle() { "idle" } else { "busy" };
                format!("{state}, {} bytes held", staging.held())
            }
            _ => panic!("no such input"),
        };
        vec![answer]
    }
}

/// `begin [TID]`, `store OID BASE DATA`, `delete OID SERIAL`, `restore OID DATA`, `check OID SERIAL`, `undo TID`,
/// `touch OID… | OID…` (the objects of each undo), `reads`, `writes`, `checks`, `memory`.
#[derive(Default)]
struct BufferStage {
    budget: Budget,
    buffer: Option<Buffer>,
}

impl BufferStage {
    fn play(&mut self, input: &str) -> Vec<String> {
        let (verb, rest) = input.split_once(' ').unwrap_or((input, ""));
        if verb == "begin" {
            let tid = numbers(rest).first().copied().map(Tid);
            let (meta, wall) = (TransactionMeta::default(), Duration::from_secs(1_789_209_000));
            self.buffer = Some(Buffer::new(1, meta, tid, wall, self.budget.clone(), Sizes::default()));
            return self.fault();
        }
        let buffer = self.buffer.as_mut().expect("a script begins with `begin`");
        let words: Vec<&str> = rest.split(' ').collect();
        let number = |n: usize| words[n].parse::<u64>().unwrap();
        let data = |n: usize| Record::Here(Bytes::copy_from_slice(words[n].as_bytes()));
        match verb {
            "store" => buffer.wish(Oid(number(0)), Wish::Store { base: Tid(number(1)), data: data(2) }),
            "delete" => buffer.wish(Oid(number(0)), Wish::Delete { base: Tid(number(1)) }),
            "restore" => buffer.wish(Oid(number(0)), Wish::Restore { data: Some(data(1)), like: None }),
            "check" => buffer.check(Oid(number(0)), Tid(number(1))),
            "undo" => buffer.undo(Tid(number(0))),
            "touch" => {
                let mut touched = Touched::default();
                for undo in rest.split('|') {
                    touched.oids.extend(numbers(undo).into_iter().map(Oid));
                    touched.ends.push(touched.oids.len());
                }
                buffer.touch(touched);
            }
            "reads" => {
                return buffer.reads().iter().map(|(oid, read)| format!("{}: {}", oid.0, shown(*read))).collect();
            }
            "writes" => return written(buffer),
            "checks" => return buffer.checks().map(|(oid, serial)| format!("{} is at {}", oid.0, serial.0)).collect(),
            "memory" => return vec![format!("{} bytes held, {} reserved", buffer.held(), self.budget.taken())],
            _ => panic!("no such input"),
        }
        self.fault()
    }

    fn fault(&self) -> Vec<String> {
        let fault = self.buffer.as_ref().and_then(Buffer::fault);
        fault.map(|refusal| format!("the vote will be refused: {refusal}")).into_iter().collect()
    }
}

fn shown(read: Read) -> String {
    match read {
        Read::Serial(tid) => format!("read at {}", tid.0),
        Read::Existing(tid) => format!("exists, read at {}", tid.0),
        Read::Current => "whatever is current".into(),
        Read::Any => "whatever is there".into(),
    }
}

fn written(buffer: &Buffer) -> Vec<String> {
    let writes = buffer.wishes().filter_map(|(oid, _)| buffer.write(oid, Base::Any)).collect();
    let shown = |content: &Content| match content {
        Content::Data(data) => format!("{:?}", String::from_utf8_lossy(data)),
        Content::Absent => "deleted".into(),
        Content::SameAs(tid) => format!("as in {}", tid.0),
        Content::Staged(staged) => format!("{} bytes that went ahead", staged.length),
    };
    buffer.with_repeats(writes).iter().map(|write| format!("{}: {}", write.oid.0, shown(&write.content))).collect()
}

#[test]
fn staging() {
    play_all("staging", || {
        let mut stage = StagingStage::default();
        move |input: &str| stage.play(input)
    });
}

#[test]
fn buffer() {
    play_all("buffer", || {
        let mut stage = BufferStage::default();
        move |input: &str| stage.play(input)
    });
}
