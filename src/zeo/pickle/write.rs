//! The opcodes as a pickler of protocol 3 without a memo writes them (`Pickler(f, 3)`, `fast = 1`).

/// The first bytes of every pickle.
pub(in crate::zeo) const PROTO: &[u8] = b"\x80\x03";
/// Lists and dictionaries are written in batches of so many items.
pub(in crate::zeo) const BATCH: usize = 1000;

pub(in crate::zeo) fn int(out: &mut Vec<u8>, value: i64) {
    if let Ok(byte) = u8::try_from(value) {
        out.extend_from_slice(&[b'K', byte]);
    } else if let Ok(short) = u16::try_from(value) {
        out.push(b'M');
        out.extend_from_slice(&short.to_le_bytes());
    } else if let Ok(word) = i32::try_from(value) {
        out.push(b'J');
        out.extend_from_slice(&word.to_le_bytes());
    } else {
        let le = value.to_le_bytes();
        long(out, &le[..shortest(&le)]);
    }
}

/// An integer in two's complement, little-endian, which is already as short as possible.
pub(in crate::zeo) fn long(out: &mut Vec<u8>, le: &[u8]) {
    match u8::try_from(le.len()) {
        Ok(len) => out.extend_from_slice(&[0x8a, len]),
        Err(_) => {
            out.push(0x8b);
            length4(out, le.len());
        }
    }
    out.extend_from_slice(le);
}

/// The opcode and length before the content of a `bytes`.
pub(in crate::zeo) fn bytes_head(out: &mut Vec<u8>, len: usize) {
    match u8::try_from(len) {
        Ok(len) => out.extend_from_slice(&[b'C', len]),
        Err(_) => {
            out.push(b'B');
            length4(out, len);
        }
    }
}

pub(in crate::zeo) fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'X');
    length4(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

pub(in crate::zeo) fn global(out: &mut Vec<u8>, module: &str, name: &str) {
    out.push(b'c');
    for part in [module, name] {
        out.extend_from_slice(part.as_bytes());
        out.push(b'\n');
    }
}

fn length4(out: &mut Vec<u8>, len: usize) {
    let len = u32::try_from(len).expect("frames are much smaller than 4 GiB");
    out.extend_from_slice(&len.to_le_bytes());
}

fn shortest(le: &[u8; 8]) -> usize {
    let mut len = 8;
    while len > 1 && matches!((le[len - 1], le[len - 2] & 0x80), (0, 0) | (0xff, 0x80)) {
        len -= 1;
    }
    len
}
