//! Strings as pickles of protocol 0 have them, a line each, as far as they may be object ids.

use super::items::{Item, Scanned, of_bytes};

/// The error for a line that is no such string.
pub const QUOTES: &str = "a string is not what is written for one";

/// A string as Python's `repr` writes it.
pub fn of_quoted(line: &[u8]) -> Scanned<Item> {
    let line = line.trim_ascii_end();
    let (quote, inner) = match line {
        [quote @ (b'\'' | b'"'), inner @ .., last] if quote == last => (*quote, inner),
        _ => return Err(QUOTES),
    };
    let mut rest = inner.iter().copied();
    let mut string = Vec::with_capacity(8);
    while let Some(byte) = rest.next() {
        let byte = match byte {
            b'\\' => match rest.next().ok_or(QUOTES)? {
                b'x' => hexadecimal(&mut rest, 2)?.try_into().map_err(|_| QUOTES)?,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'a' => 7,
                b'b' => 8,
                b'v' => 11,
                b'f' => 12,
                digit @ b'0'..=b'7' => octal(digit, &mut rest)?,
                other @ (b'\\' | b'\'' | b'"') => other,
                // As Python reads it: a backslash before any other byte stays.
                other => {
                    string.push(b'\\');
                    other
                }
            },
            _ if byte == quote => return Err(QUOTES),
            _ => byte,
        };
        string.push(byte);
    }
    Ok(of_bytes(&string))
}

fn octal(first: u8, rest: &mut (impl Iterator<Item = u8> + Clone)) -> Scanned<u8> {
    let mut number = u32::from(first - b'0');
    for _ in 0..2 {
        let mut ahead = rest.clone();
        match ahead.next() {
            Some(digit @ b'0'..=b'7') => number = number * 8 + u32::from(digit - b'0'),
            _ => break,
        }
        *rest = ahead;
    }
    u8::try_from(number & 0xff).map_err(|_| QUOTES)
}

fn hexadecimal(rest: &mut impl Iterator<Item = u8>, digits: usize) -> Scanned<u32> {
    let mut number = 0;
    for _ in 0..digits {
        let digit = rest.next().and_then(|digit| char::from(digit).to_digit(16)).ok_or(QUOTES)?;
        number = number << 4 | digit;
    }
    Ok(number)
}

/// A text as Python's codec `raw-unicode-escape` writes it.
pub fn of_escaped(line: &[u8]) -> Scanned<Item> {
    let mut rest = line.iter().copied();
    let mut text = Vec::with_capacity(8);
    while let Some(byte) = rest.next() {
        let mut ahead = rest.clone();
        let digits = match (byte, ahead.next()) {
            (b'\\', Some(b'u')) => 4,
            (b'\\', Some(b'U')) => 8,
            _ => 0,
        };
        let character = match digits {
            0 => u32::from(byte),
            _ => {
                rest = ahead;
                hexadecimal(&mut rest, digits)?
            }
        };
        match u8::try_from(character) {
            Ok(byte) if byte.is_ascii() => text.push(byte),
            // No text with such a character is an object id.
            _ => return Ok(Item::Other),
        }
    }
    Ok(of_bytes(&text))
}
