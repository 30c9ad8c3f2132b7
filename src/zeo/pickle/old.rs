//! Opcodes of old pickles, and of objects: the text opcodes of protocol 0, instances, persistent ids, extensions.
//!
//! Only a lenient reading comes here. No object is made: where one would stand, there are words.

use std::borrow::Cow;

use super::super::value::{Undecodable, Value, undecodable};
use super::nodes::{Id, Node};
use super::read::{Unpickler, python2_string, unknown};

/// Digits of the longest integer that is read, as in Python 3.
const DIGITS: usize = 4300;

impl<'a> Unpickler<'a> {
    pub(super) fn old(&mut self, op: u8) -> Result<(), Undecodable> {
        let node = match op {
            b'I' | b'L' | b'F' | b'S' | b'V' => {
                let line = self.raw_line()?;
                match op {
                    b'I' => integer(line),
                    b'L' => integer(line.strip_suffix(b"L").unwrap_or(line)),
                    b'F' => float(line),
                    b'S' => string(line),
                    _ => Node::Leaf(Value::Text(raw_unicode(line).into())),
                }
            }
            b'p' | b'g' => {
                let key = text(self.raw_line()?).trim().parse();
                let key = key.map_err(|_| undecodable("an entry of the memo without a number"))?;
                return self.recall(key, op == b'g');
            }
            b'i' => {
                let (module, name) = (text(self.raw_line()?), text(self.raw_line()?));
                self.marked()?;
                instance(self.named(&module, &name)?)
            }
            b'o' => {
                let class = self.marked()?.first().copied().ok_or_else(|| undecodable("an object without a class"))?;
                instance(self.nodes.get(class).clone())
            }
            b'P' => {
                self.raw_line()?;
                persistent()
            }
            b'Q' => {
                self.pop()?;
                persistent()
            }
            0x82 => {
                self.byte()?;
                extension()
            }
            0x83 => {
                self.take(2)?;
                extension()
            }
            0x84 => {
                self.take(4)?;
                extension()
            }
            0x92 => {
                self.pop()?;
                let (args, callee) = (self.pop()?, self.pop()?);
                self.called(callee, args)
            }
            _ => return Err(unknown(op, self.at() - 1)),
        };
        self.push(node)
    }

    /// The result of a call that makes no plain data: words, but for the bytes that Python 3 wrote for Python 2.
    pub(super) fn called(&self, callee: Id, args: Id) -> Node<'a> {
        let Node::Words(name) = self.nodes.get(callee) else { return Node::Words("<an object>".to_owned()) };
        if name == "<_codecs.encode>"
            && let &[text, _latin1] = self.nodes.items(args)
            && let Node::Leaf(Value::Text(text)) = self.nodes.get(text)
            && let Ok(bytes) = text.chars().map(u8::try_from).collect::<Result<Vec<u8>, _>>()
        {
            return Node::Leaf(Value::Bytes(bytes.into()));
        }
        Node::Words(name.clone())
    }
}

fn instance<'a>(class: Node<'a>) -> Node<'a> {
    match class {
        Node::Words(name) => Node::Words(name),
        _ => Node::Words("<an object>".to_owned()),
    }
}

fn persistent<'a>() -> Node<'a> {
    Node::Words("<a persistent object>".to_owned())
}

fn extension<'a>() -> Node<'a> {
    Node::Words("<an object of a registered class>".to_owned())
}

fn text(line: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(line)
}

fn integer<'a>(line: &[u8]) -> Node<'a> {
    let digits = text(line);
    let digits = digits.trim();
    Node::Leaf(match (line, digits.parse()) {
        // (Python 2 writes booleans so.)
        (b"00", _) => Value::Bool(false),
        (b"01", _) => Value::Bool(true),
        (_, Ok(int)) => Value::Int(int),
        (_, Err(_)) => match long(digits) {
            Some(le) => Value::Long(le.into()),
            None => return Node::Words("<an integer>".to_owned()),
        },
    })
}

/// The two's complement of an integer in decimal digits, little-endian, as short as possible.
fn long(digits: &str) -> Option<Vec<u8>> {
    let (negative, digits) = match digits.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, digits),
    };
    if digits.is_empty() || digits.len() > DIGITS {
        return None;
    }
    let mut le: Vec<u8> = Vec::new();
    for digit in digits.chars() {
        let mut carry = digit.to_digit(10)?;
        for byte in &mut le {
            carry += u32::from(*byte) * 10;
            *byte = (carry & 0xff) as u8;
            carry >>= 8;
        }
        le.extend((carry > 0).then_some(carry as u8));
    }
    le.push(0);
    if negative {
        let mut carry = true;
        for byte in &mut le {
            (*byte, carry) = (!*byte).overflowing_add(u8::from(carry));
        }
    }
    while let [.., low, sign] = le[..]
        && ((sign == 0 && low < 0x80) || (sign == 0xff && low >= 0x80))
    {
        le.pop();
    }
    Some(le)
}

fn float<'a>(line: &[u8]) -> Node<'a> {
    match text(line).trim().parse() {
        Ok(float) => Node::Leaf(Value::Float(float)),
        Err(_) => Node::Words("<a number>".to_owned()),
    }
}

/// A string as Python 2's `repr` has it.
fn string<'a>(line: &[u8]) -> Node<'a> {
    let line = line.trim_ascii();
    let quoted = match line {
        [first @ (b'\'' | b'"'), inner @ .., last] if first == last => inner,
        _ => return Node::Words("<a string without quotes>".to_owned()),
    };
    Node::Leaf(python2_string(unescape(quoted).into()))
}

fn unescape(quoted: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(quoted.len());
    let mut rest = quoted;
    while let [byte, after @ ..] = rest {
        rest = after;
        if *byte != b'\\' {
            bytes.push(*byte);
            continue;
        }
        let [escaped, after @ ..] = rest else {
            bytes.push(b'\\');
            break;
        };
        rest = after;
        let digits = |base, most: usize, digits: &[u8]| -> (u32, usize) {
            let count = digits.iter().take(most).take_while(|digit| (**digit as char).is_digit(base)).count();
            let value = digits[..count].iter().filter_map(|digit| (*digit as char).to_digit(base));
            (value.fold(0, |value, digit| value * base + digit), count)
        };
        match *escaped {
            b'n' => bytes.push(b'\n'),
            b'r' => bytes.push(b'\r'),
            b't' => bytes.push(b'\t'),
            b'a' => bytes.push(7),
            b'b' => bytes.push(8),
            b'v' => bytes.push(11),
            b'f' => bytes.push(12),
            b'\n' => {}
            plain @ (b'\\' | b'\'' | b'"') => bytes.push(plain),
            b'x' if digits(16, 2, rest).1 == 2 => {
                bytes.push(digits(16, 2, rest).0 as u8);
                rest = &rest[2..];
            }
            b'0'..=b'7' => {
                let from = &quoted[quoted.len() - rest.len() - 1..];
                let (value, count) = digits(8, 3, from);
                bytes.push(value as u8);
                rest = &from[count..];
            }
            other => bytes.extend([b'\\', other]),
        }
    }
    bytes
}

/// Text as Python's `raw-unicode-escape` has it: Latin-1, and `\uXXXX` and `\UXXXXXXXX` behind an even number of
/// backslashes. Halves of surrogate pairs are put together, as Python 2 wrote larger characters so.
fn raw_unicode(line: &[u8]) -> String {
    let mut units: Vec<u16> = Vec::with_capacity(line.len());
    let (mut rest, mut backslashes) = (line, 0);
    while let [byte, after @ ..] = rest {
        rest = after;
        units.push((*byte).into());
        if *byte != b'\\' {
            backslashes = 0;
            continue;
        }
        backslashes += 1;
        let length = match rest.first() {
            Some(b'u') => 4,
            Some(b'U') => 8,
            _ => continue,
        };
        let code = rest.get(1..=length).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = code.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        if let Some(code) = code.filter(|_| backslashes % 2 == 1) {
            units.pop();
            match u16::try_from(code) {
                Ok(unit) => units.push(unit),
                Err(_) => {
                    let character = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
                    units.extend(character.encode_utf16(&mut [0; 2]).iter());
                }
            }
            (rest, backslashes) = (&rest[1 + length..], 0);
        }
    }
    String::from_utf16_lossy(&units)
}

#[cfg(test)]
mod tests {
    use super::super::read::read_pairs;
    use super::*;

    fn value(pickle: &[u8]) -> Value<'static> {
        let pickled = [b"(S'k'\n", pickle, b"d."].concat();
        let mut pairs = read_pairs(&pickled, 1000).unwrap();
        assert_eq!((pairs.len(), &pairs[0].0), (1, &Value::text("k")), "{}", pickle.escape_ascii());
        pairs.remove(0).1.into_owned()
    }

    #[test]
    fn protocol_0_is_read_as_python_reads_it() {
        for (pickle, expected) in [
            (&b"I7\n"[..], Value::Int(7)),
            (b"I01\n", Value::Bool(true)),
            (b"L-5L\n", Value::Int(-5)),
            (b"L18446744073709551615L\n", Value::unsigned(u64::MAX)),
            (
                b"L-170141183460469231731687303715884105728L\n",
                Value::integer(&[&[0; 15][..], &[0x80]].concat()).into_owned(),
            ),
            (b"F1.5\n", Value::Float(1.5)),
            (b"S'caf\\xe9'\n", Value::Bytes(b"caf\xe9".to_vec().into())),
            (b"S\"it's \\\"a\\\" \\n\\t\\101\\60\\\\\"\n", Value::text("it's \"a\" \n\tA0\\")),
            (
                b"Vcaf\xe9 \\u20ac \\ud83d\\ude00 \\U0001f600 \\\\u0041\n",
                Value::text("caf\u{e9} \u{20ac} \u{1f600} \u{1f600} \\\\u0041"),
            ),
            (b"(lp1\nI1\nag1\na", Value::text("<nested too deep>")),
            (b"(lp1\nI1\naI2\na", Value::List(vec![Value::Int(1), Value::Int(2)])),
            (b"(dp2\nS'a'\nNs", Value::Dict(vec![(Value::text("a"), Value::None)])),
            (b"(I1\nI2\nt", Value::Tuple(vec![Value::Int(1), Value::Int(2)])),
            (b"U\x04caf\xe9", Value::Bytes(b"caf\xe9".to_vec().into())),
            (b"X\x02\x00\x00\x00\xed\xa0", Value::text("\u{fffd}\u{fffd}")),
            (b"c_codecs\nencode\n(Vcaf\xe9\nVlatin1\ntR", Value::Bytes(b"caf\xe9".to_vec().into())),
            (b"cdatetime\ndatetime\n(S'x'\ntR", Value::text("<datetime.datetime>")),
            (b"(imine\nThing\n(dS'a'\nI1\nsb", Value::text("<mine.Thing>")),
            (b"(cmine\nThing\no}b", Value::text("<mine.Thing>")),
            (b"Pone\n", Value::text("<a persistent object>")),
            (b"ccopy_reg\n_reconstructor\n(cmine\nList\nc__builtin__\nlist\n(ltRI1\na", Value::text("<an object>")),
        ] {
            assert_eq!(value(pickle), expected, "{}", pickle.escape_ascii());
        }
    }

    #[test]
    fn one_odd_value_hides_no_other() {
        let pickled = b"(dS'a'\ncmine\nThing\nsS'b'\nI2\ns(lcmine\nThing\ns.";
        let pairs = read_pairs(pickled, 1000).unwrap();
        let text = Value::text;
        assert_eq!(pairs[..2], [(text("a"), text("<mine.Thing>")), (text("b"), Value::Int(2))]);
        assert_eq!(pairs[2], (text("()"), text("<mine.Thing>")));
        for broken in [&b"(dS'a'\n"[..], b"I7\n.", b""] {
            assert!(read_pairs(broken, 1000).is_err());
        }
    }
}
