//! The index that FileStorage saves beside a `Data.fs`: only how far it reaches.
//!
//! FileStorage opens a file that has an index from where the index ends, and does not look at what lies before. So a
//! damaged place before that end goes unnoticed until it is asked for; without the index, opening the file would cut it
//! off there.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// The position up to which `FILE.index` knows the file; `None`: there is no such index, or none that can be read.
pub fn reach(file: &Path) -> Option<u64> {
    let mut name = file.as_os_str().to_owned();
    name.push(".index");
    let mut head = Vec::new();
    File::open(name).ok()?.take(64).read_to_end(&mut head).ok()?;
    position(&head)
}

/// The index begins with a pickle of its own, which is an integer (`ZODB.fsIndex.save`).
fn position(pickle: &[u8]) -> Option<u64> {
    let pickle = match pickle {
        [0x80, _protocol, rest @ ..] => rest,
        _ => pickle,
    };
    let little_endian = |bytes: &[u8]| {
        let mut number = [0; 8];
        number.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(u64::from_le_bytes(number))
    };
    match pickle {
        [b'K', byte, b'.', ..] => Some((*byte).into()),
        [b'M', a, b, b'.', ..] => little_endian(&[*a, *b]),
        [b'J', a, b, c, d, b'.', ..] => little_endian(&[*a, *b, *c, *d]),
        [0x8a, length, rest @ ..] => {
            let (number, rest) = rest.split_at_checked((*length).into())?;
            // (A ninth byte of zero only says that the number is not negative.)
            let number = number.strip_suffix(&[0]).unwrap_or(number);
            rest.starts_with(b".").then(|| little_endian(number))?
        }
        [b'I' | b'L', rest @ ..] => {
            let end = rest.iter().position(|byte| *byte == b'\n')?;
            let digits = std::str::from_utf8(&rest[..end]).ok()?;
            digits.strip_suffix('L').unwrap_or(digits).parse().ok()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_pickle_of_an_index_is_read() {
        for (pickle, expected) in [
            (&b"\x80\x03K\x04.rest"[..], Some(4)),
            (b"\x80\x03M\x10\x27.", Some(10_000)),
            (b"\x80\x03J\x00\x00\x01\x00.", Some(65_536)),
            (b"\x80\x02\x8a\x05\x00\x00\x00\x80\x00.", Some(1 << 31)),
            (b"I17\n.", Some(17)),
            (b"L5000000000L\n.", Some(5_000_000_000)),
            (b"\x80\x02}q\x01", None),
            (b"\x8a\xff", None),
            (b"", None),
        ] {
            assert_eq!(position(pickle), expected, "{}", pickle.escape_ascii());
        }
    }
}
