//! The call that comes most, in the very bytes in which stock clients write it.
//!
//! Nine calls of ten are a `loadBefore`, and every client writes it in the same way, as the pickler of ZEO has no
//! choice in it. So a frame is compared with that, opcode by opcode, which costs a small part of running it
//! (`pickle::read`).
//! What is written in another way is read the long way.
//!
//! **Promises.** What is read here is what the long way reads; the tests compare both.

use super::greeting::Encoding;
use super::message::MessageId;
use crate::zodb::{Oid, Tid};

const NAME: &[u8] = b"loadBefore";

/// The id, object and time of a `loadBefore` that its client waits for.
pub(super) fn load(encoding: Encoding, frame: &[u8]) -> Option<(MessageId, Oid, Tid)> {
    match encoding {
        Encoding::Pickle => pickled(frame),
        Encoding::Msgpack => packed(frame),
    }
}

/// `PROTO 3`, `MARK`, the id, `NEWFALSE`, the name, the arguments, `TUPLE`, `STOP`.
fn pickled(frame: &[u8]) -> Option<(MessageId, Oid, Tid)> {
    let rest = frame.strip_prefix(b"\x80\x03(")?;
    let (id, rest) = match rest {
        [b'C', ..] => pickled_pair(rest)?,
        [b'K', id, rest @ ..] => number(u32::from(*id), rest),
        [b'M', a, b, rest @ ..] => number(u32::from(u16::from_le_bytes([*a, *b])), rest),
        // (Negative numbers mean something else.)
        [b'J', a, b, c, d @ 0..=0x7f, rest @ ..] => number(u32::from_le_bytes([*a, *b, *c, *d]), rest),
        _ => return None,
    };
    let arguments = rest.strip_prefix(b"\x89X\x0a\0\0\0")?.strip_prefix(NAME)?;
    match pickled_pair(arguments)? {
        (MessageId::Pair(oid, tid), b"t.") => Some((id, oid, tid)),
        _ => None,
    }
}

/// An oid and a tid, each `SHORT_BINBYTES`, and `TUPLE2`.
fn pickled_pair(bytes: &[u8]) -> Option<(MessageId, &[u8])> {
    let (oid, rest) = bytes.strip_prefix(b"C\x08")?.split_first_chunk()?;
    let (tid, rest) = rest.strip_prefix(b"C\x08")?.split_first_chunk()?;
    Some((pair(oid, tid), rest.strip_prefix(b"\x86")?))
}

/// An array of four: the id, false, the name, the arguments.
fn packed(frame: &[u8]) -> Option<(MessageId, Oid, Tid)> {
    let rest = frame.strip_prefix(b"\x94")?;
    let (id, rest) = match rest {
        [0x92, ..] => packed_pair(rest)?,
        [id @ 0..=0x7f, rest @ ..] | [0xcc, id, rest @ ..] => number(u32::from(*id), rest),
        [0xcd, a, b, rest @ ..] => number(u32::from(u16::from_be_bytes([*a, *b])), rest),
        [0xce, a, b, c, d, rest @ ..] => number(u32::from_be_bytes([*a, *b, *c, *d]), rest),
        _ => return None,
    };
    let arguments = rest.strip_prefix(b"\xc2\xaa")?.strip_prefix(NAME)?;
    match packed_pair(arguments)? {
        (MessageId::Pair(oid, tid), b"") => Some((id, oid, tid)),
        _ => None,
    }
}

/// An array of two: an oid and a tid, each `bin 8`.
fn packed_pair(bytes: &[u8]) -> Option<(MessageId, &[u8])> {
    let (oid, rest) = bytes.strip_prefix(b"\x92\xc4\x08")?.split_first_chunk()?;
    let (tid, rest) = rest.strip_prefix(b"\xc4\x08")?.split_first_chunk()?;
    Some((pair(oid, tid), rest))
}

fn pair(oid: &[u8; 8], tid: &[u8; 8]) -> MessageId {
    MessageId::Pair(Oid(u64::from_be_bytes(*oid)), Tid(u64::from_be_bytes(*tid)))
}

fn number(id: u32, rest: &[u8]) -> (MessageId, &[u8]) {
    (MessageId::Int(i64::from(id)), rest)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::super::calls::{Call, Request, decode_any};
    use super::super::writer::{Flag, message};
    use super::*;

    const BOTH: [Encoding; 2] = [Encoding::Pickle, Encoding::Msgpack];

    fn frame(encoding: Encoding, id: &MessageId, oid: Oid, tid: Tid) -> Bytes {
        message(encoding, id, Flag::Call, "loadBefore", |w| {
            w.tuple(2, |w| {
                w.oid(oid);
                w.tid(tid);
            });
        })
    }

    fn ids() -> impl Strategy<Value = MessageId> {
        prop_oneof![
            (any::<u64>(), any::<u64>()).prop_map(|(oid, tid)| MessageId::Pair(Oid(oid), Tid(tid))),
            (0..300i64).prop_map(MessageId::Int),
            any::<i32>().prop_map(|id| MessageId::Int(i64::from(id))),
            any::<i64>().prop_map(MessageId::Int),
        ]
    }

    #[test]
    fn loads_of_stock_clients_are_read_here() {
        let dialogues =
            [include_str!("../../tests/zeo_dialogues/Z5.txt"), include_str!("../../tests/zeo_dialogues/M5.txt")];
        let name: String = NAME.iter().map(|byte| format!("{byte:02x}")).collect();
        for (encoding, dialogue) in BOTH.into_iter().zip(dialogues) {
            let calls = dialogue.lines().filter_map(|line| line.strip_prefix("> ")).filter(|call| call.contains(&name));
            let mut seen = 0;
            for call in calls {
                let hex = |at| u8::from_str_radix(&call[at..at + 2], 16).unwrap();
                let frame: Bytes = (0..call.len()).step_by(2).map(hex).collect();
                let (id, oid, tid) = load(encoding, &frame).unwrap();
                let call = Call::LoadBefore { oid, tid };
                assert_eq!(decode_any(encoding, &frame), Ok(Request { id, asynchronous: false, call }));
                seen += 1;
            }
            assert!(seen > 5, "{encoding:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_here_is_what_the_long_way_reads(
            id in ids(), oid: u64, tid: u64, at: prop::sample::Index, byte: u8, cut: prop::sample::Index,
        ) {
            for encoding in BOTH {
                let whole = frame(encoding, &id, Oid(oid), Tid(tid));
                let long = decode_any(encoding, &whole);
                let (oid, tid) = (Oid(oid), Tid(tid));
                match load(encoding, &whole) {
                    Some(found) => {
                        prop_assert_eq!(&found, &(id.clone(), oid, tid));
                        let call = Call::LoadBefore { oid, tid };
                        prop_assert_eq!(long, Ok(Request { id: id.clone(), asynchronous: false, call }));
                    }
                    None => prop_assert!(matches!(id, MessageId::Int(n) if n < 0 || n > i64::from(i32::MAX))),
                }
                let mut odd = whole.to_vec();
                odd[at.index(whole.len())] = byte;
                for odd in [Bytes::from(odd), whole.slice(..cut.index(whole.len())), [&whole[..], &[byte]].concat().into()] {
                    let Some((id, oid, tid)) = load(encoding, &odd) else { continue };
                    let call = Call::LoadBefore { oid, tid };
                    prop_assert_eq!(decode_any(encoding, &odd), Ok(Request { id, asynchronous: false, call }));
                }
            }
        }
    }
}
