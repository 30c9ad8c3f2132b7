//! msgpack, as far as plain data goes: the encoding of an `M5` or `R5` connection.
//!
//! The writer writes the bytes of `msgpack.packb(…, use_bin_type=True)`: everything in its shortest form. The reader
//! takes any form, but no extension types. Arrays are read as tuples, as by ZEO's own decoder.

use std::borrow::Cow;

use super::value::{Undecodable, Value, undecodable};
use crate::config::limits::NESTING;

/// Reads `bytes`, one value of at most `values` values in all. No bytes may follow the value.
pub fn read(bytes: &[u8], values: usize) -> Result<Value<'_>, Undecodable> {
    let mut reader = Reader::new(bytes, values)?;
    let value = reader.value(NESTING)?;
    if reader.rest.is_empty() { Ok(value) } else { Err(undecodable("bytes after the message")) }
}

struct Reader<'a> {
    rest: &'a [u8],
    /// How many more values the message may have.
    budget: usize,
    /// Values that containers have announced and that were not begun yet. Each takes a byte or more.
    announced: usize,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8], values: usize) -> Result<Reader<'a>, Undecodable> {
        let mut reader = Reader { rest: bytes, budget: values, announced: 0 };
        reader.announce(1)?;
        Ok(reader)
    }

    fn value(&mut self, depth: usize) -> Result<Value<'a>, Undecodable> {
        let depth = depth.checked_sub(1).ok_or_else(|| undecodable("nested too deep"))?;
        self.announced -= 1;
        let [marker] = self.array()?;
        Ok(match marker {
            0x00..=0x7f => Value::Int(i64::from(marker)),
            0xe0..=0xff => Value::Int(i64::from(marker.cast_signed())),
            0x80..=0x8f => self.map(usize::from(marker & 0x0f), depth)?,
            0x90..=0x9f => self.items(usize::from(marker & 0x0f), depth)?,
            0xa0..=0xbf => self.text(usize::from(marker & 0x1f))?,
            0xc0 => Value::None,
            0xc2 => Value::Bool(false),
            0xc3 => Value::Bool(true),
            0xc4..=0xc6 => {
                let len = self.length(marker - 0xc4)?;
                Value::Bytes(Cow::Borrowed(self.take(len)?))
            }
            0xca => Value::Float(f64::from(f32::from_be_bytes(self.array()?))),
            0xcb => Value::Float(f64::from_be_bytes(self.array()?)),
            0xcc => Value::Int(i64::from(u8::from_be_bytes(self.array()?))),
            0xcd => Value::Int(i64::from(u16::from_be_bytes(self.array()?))),
            0xce => Value::Int(i64::from(u32::from_be_bytes(self.array()?))),
            0xcf => Value::unsigned(u64::from_be_bytes(self.array()?)),
            0xd0 => Value::Int(i64::from(i8::from_be_bytes(self.array()?))),
            0xd1 => Value::Int(i64::from(i16::from_be_bytes(self.array()?))),
            0xd2 => Value::Int(i64::from(i32::from_be_bytes(self.array()?))),
            0xd3 => Value::Int(i64::from_be_bytes(self.array()?)),
            0xd9..=0xdb => {
                let len = self.length(marker - 0xd9)?;
                self.text(len)?
            }
            0xdc | 0xdd => {
                let len = self.length(marker - 0xdc + 1)?;
                self.items(len, depth)?
            }
            0xde | 0xdf => {
                let len = self.length(marker - 0xde + 1)?;
                self.map(len, depth)?
            }
            0xc1 | 0xc7..=0xc9 | 0xd4..=0xd8 => {
                return Err(undecodable(format!("msgpack type {marker:#04x}")));
            }
        })
    }

    fn items(&mut self, len: usize, depth: usize) -> Result<Value<'a>, Undecodable> {
        self.announce(len)?;
        let mut items = Vec::with_capacity(len);
        for _ in 0..len {
            items.push(self.value(depth)?);
        }
        Ok(Value::Tuple(items))
    }

    fn map(&mut self, len: usize, depth: usize) -> Result<Value<'a>, Undecodable> {
        self.announce(len.saturating_mul(2))?;
        let mut pairs = Vec::with_capacity(len);
        for _ in 0..len {
            let key = self.value(depth)?;
            if !key.is_hashable() {
                return Err(undecodable("a key that is not hashable"));
            }
            pairs.push((key, self.value(depth)?));
        }
        Ok(Value::Dict(pairs))
    }

    /// Checks a container's claim to `values` values before memory is taken for them: nested claims count together.
    fn announce(&mut self, values: usize) -> Result<(), Undecodable> {
        self.budget = self.budget.checked_sub(values).ok_or_else(|| undecodable("too many values"))?;
        self.announced += values;
        if self.announced > self.rest.len() { Err(undecodable("the message ends too early")) } else { Ok(()) }
    }

    fn text(&mut self, len: usize) -> Result<Value<'a>, Undecodable> {
        let text = std::str::from_utf8(self.take(len)?).map_err(|_| undecodable("text that is not UTF-8"))?;
        Ok(Value::Text(Cow::Borrowed(text)))
    }

    /// A length of 1, 2 or 4 bytes.
    fn length(&mut self, power: u8) -> Result<usize, Undecodable> {
        Ok(match power {
            0 => usize::from(u8::from_be_bytes(self.array()?)),
            1 => usize::from(u16::from_be_bytes(self.array()?)),
            _ => u32::from_be_bytes(self.array()?) as usize,
        })
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Undecodable> {
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or_else(|| undecodable("the message ends too early"))?;
        self.rest = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Undecodable> {
        Ok(self.take(N)?.try_into().expect("take gives as many bytes as asked for"))
    }
}

pub(super) fn int(out: &mut Vec<u8>, value: i64) {
    if let Ok(value) = u64::try_from(value) {
        return unsigned(out, value);
    }
    if let Ok(byte) = i8::try_from(value) {
        if byte < -32 {
            out.push(0xd0);
        }
        out.push(byte.cast_unsigned());
    } else if let Ok(short) = i16::try_from(value) {
        tagged(out, 0xd1, &short.to_be_bytes());
    } else if let Ok(word) = i32::try_from(value) {
        tagged(out, 0xd2, &word.to_be_bytes());
    } else {
        tagged(out, 0xd3, &value.to_be_bytes());
    }
}

pub(super) fn unsigned(out: &mut Vec<u8>, value: u64) {
    if let Ok(byte) = u8::try_from(value) {
        if byte > 0x7f {
            out.push(0xcc);
        }
        out.push(byte);
    } else if let Ok(short) = u16::try_from(value) {
        tagged(out, 0xcd, &short.to_be_bytes());
    } else if let Ok(word) = u32::try_from(value) {
        tagged(out, 0xce, &word.to_be_bytes());
    } else {
        tagged(out, 0xcf, &value.to_be_bytes());
    }
}

/// The marker and length before the content of a `bytes`.
pub(super) fn bytes_head(out: &mut Vec<u8>, len: usize) {
    length(out, len, [Some(0xc4), Some(0xc5), Some(0xc6)]);
}

pub(super) fn text(out: &mut Vec<u8>, text: &str) {
    match u8::try_from(text.len()) {
        Ok(len @ 0..32) => out.push(0xa0 | len),
        _ => length(out, text.len(), [Some(0xd9), Some(0xda), Some(0xdb)]),
    }
    out.extend_from_slice(text.as_bytes());
}

pub(super) fn array_head(out: &mut Vec<u8>, len: usize) {
    match u8::try_from(len) {
        Ok(len @ 0..16) => out.push(0x90 | len),
        _ => length(out, len, [None, Some(0xdc), Some(0xdd)]),
    }
}

pub(super) fn map_head(out: &mut Vec<u8>, len: usize) {
    match u8::try_from(len) {
        Ok(len @ 0..16) => out.push(0x80 | len),
        _ => length(out, len, [None, Some(0xde), Some(0xdf)]),
    }
}

/// A length in its shortest form; `markers` are those for lengths of 1, 2 and 4 bytes.
fn length(out: &mut Vec<u8>, len: usize, markers: [Option<u8>; 3]) {
    match (u8::try_from(len), u16::try_from(len), markers) {
        (Ok(len), _, [Some(marker), ..]) => tagged(out, marker, &[len]),
        (_, Ok(len), [_, Some(marker), _]) => tagged(out, marker, &len.to_be_bytes()),
        (.., [.., marker]) => {
            let len = u32::try_from(len).expect("frames are much smaller than 4 GiB");
            tagged(out, marker.expect("there is a form of four bytes for everything"), &len.to_be_bytes());
        }
    }
}

fn tagged(out: &mut Vec<u8>, marker: u8, bytes: &[u8]) {
    out.push(marker);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_claims_are_refused_before_memory_is_taken_for_them() {
        let claim = b"\xdd\0\x01\0\0";
        let bytes = [&claim.repeat(60)[..], &[0xc0; 1 << 16]].concat();
        let mut reader = Reader::new(&bytes, 1 << 24).unwrap();
        assert!(reader.value(NESTING).is_err());
        let read = (bytes.len() - reader.rest.len()) / claim.len();
        assert_eq!(read, 2, "the second claim is one too many");
    }
}
