//! Python's client gives each load the pair of its arguments as its id, so that two threads that load the same share
//! one answer.

use bytes::Bytes;
use zrs::zeo::{Call, Encoding, MessageId, encode_call};
use zrs::zodb::{Oid, Tid};

/// The frame of a `loadBefore` with such an id, and the id.
pub fn with_pair_id(encoding: Encoding, oid: Oid, tid: Tid, call: &Call) -> (MessageId, Bytes) {
    let plain = encode_call(encoding, 0, false, call);
    // The four parts' beginning, with the id 0; and the heads of 8 bytes, and of a pair, around the new id.
    let [begin, zero, bytes, before, after]: [&[u8]; 5] = match encoding {
        Encoding::Msgpack => [b"\x94", b"\x00", b"\xc4\x08", b"\x92", b""],
        Encoding::Pickle => [b"\x80\x03(", b"K\x00", b"C\x08", b"", b"\x86"],
    };
    let rest = plain.strip_prefix(begin).and_then(|rest| rest.strip_prefix(zero));
    let rest = rest.expect("a message begins with its id");
    let frame = [begin, before, bytes, &oid.to_bytes(), bytes, &tid.to_bytes(), after, rest].concat();
    (MessageId::Pair(oid, tid), frame.into())
}
