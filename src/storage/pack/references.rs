//! The objects that a record refers to.
//!
//! This file alone looks into records. A record is two pickles in a row, of the object's class and of its state, which
//! share a memo. References stand in them as *persistent ids*, and all else is passed over: the scanner is a machine
//! that only knows how many items each opcode takes off the stack and puts on it, and whether such an item may be part
//! of a persistent id. Nothing is built, imported or called.
//!
//! | persistent id | refers to |
//! |---|---|
//! | `(oid, class)`, `(oid, …)` | the object |
//! | `oid`, as bytes or as a text of eight ASCII characters | the object |
//! | a list: `['w', (oid,)]`, `[oid]` (weak), `['m', …]`, `['n', …]` (other databases) | nothing to keep |
//!
//! as in `ZODB.serialize.referencesf`. **Read**: protocols 0 to 5 (ZODB itself writes 3, in former times 1, and reads
//! no more than 3). **Promises**: any bytes give references or an error, never a panic, in time and memory
//! proportional to their length, holding at most [`limits::PICKLE_ITEMS`] of each kind; a record of which anything is
//! unclear is an error, as a missed reference costs an object.
//!
//! **Left out**: bytes behind the second pickle are not looked at; ZODB ignores them too.

use std::collections::BTreeMap;
use std::fmt;

use super::items::{Item, Scanned, of_bytes, of_text, tuple};
use super::texts::{of_escaped, of_quoted};
use crate::config::limits;
use crate::zodb::Oid;

/// The reason why the references of a record can't be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnreadableRecord {
    /// How many bytes of the record were read.
    pub at: usize,
    /// The error at that byte.
    pub why: &'static str,
}

impl fmt::Display for UnreadableRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "its references can't be read: {} (at byte {})", self.why, self.at)
    }
}

impl std::error::Error for UnreadableRecord {}

/// The objects that `record` refers to, in the order of the record, with repetitions. An empty record refers to none.
pub fn references(record: &[u8]) -> Result<Vec<Oid>, UnreadableRecord> {
    scan(record, limits::PICKLE_ITEMS)
}

/// [`references`], holding at most `most` items, places of the memo, and references at once.
fn scan(record: &[u8], most: usize) -> Result<Vec<Oid>, UnreadableRecord> {
    if record.is_empty() {
        return Ok(Vec::new());
    }
    let mut scanner = Scanner { bytes: record, most, ..Scanner::default() };
    // The class, and the state.
    for _ in 0..2 {
        scanner.pickle().map_err(|why| UnreadableRecord { at: scanner.at, why })?;
    }
    Ok(scanner.found)
}

#[derive(Default)]
struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The most items, places of the memo, and references that the scanner may hold.
    most: usize,
    stack: Vec<Item>,
    /// The places of the memo that were filled in a row from 0 on, as picklers fill them.
    memo: Vec<Item>,
    /// All other places of the memo. (In a map, so that a far place costs no more memory than a near one.)
    sparse: BTreeMap<usize, Item>,
    found: Vec<Oid>,
}

const CUT: &str = "the record ends too early";
const EMPTY: &str = "an opcode takes more off the stack than there is";
const TOO_MUCH: &str = "the record holds too much at once";
const NO_MARK: &str = "an opcode goes back to a mark that is not there";

impl Scanner<'_> {
    /// Reads one pickle, to its end.
    fn pickle(&mut self) -> Scanned<()> {
        self.stack.clear();
        loop {
            let opcode = self.take(1)?[0];
            if opcode == b'.' {
                return Ok(());
            }
            self.opcode(opcode)?;
            // Each opcode adds at most one item, place or reference.
            let held = self.stack.len().max(self.memo.len() + self.sparse.len()).max(self.found.len());
            if held > self.most {
                return Err(TOO_MUCH);
            }
        }
    }

    fn opcode(&mut self, opcode: u8) -> Scanned<()> {
        match opcode {
            // Frames.
            0x80 => self.skip(1)?,
            0x95 => self.skip(8)?,
            // The stack itself.
            b'(' => self.stack.push(Item::Mark),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.back_to_mark()?),
            b'2' => self.stack.push(self.top()?),
            // Numbers and constants.
            b'N' | 0x88 | 0x89 => self.push(0)?,
            b'K' => self.push(1)?,
            b'M' => self.push(2)?,
            b'J' => self.push(4)?,
            b'G' => self.push(8)?,
            0x8a => self.counted(1, |_| Item::Other)?,
            0x8b => self.counted(4, |_| Item::Other)?,
            b'I' | b'L' | b'F' => {
                self.line()?;
                self.stack.push(Item::Other);
            }
            // Strings.
            b'U' | b'C' => self.counted(1, of_bytes)?,
            b'T' | b'B' => self.counted(4, of_bytes)?,
            0x8e => self.counted(8, of_bytes)?,
            0x8c => self.counted(1, of_text)?,
            b'X' => self.counted(4, of_text)?,
            0x8d => self.counted(8, of_text)?,
            0x96 => self.counted(8, |_| Item::Other)?,
            b'S' => {
                let item = of_quoted(self.line()?)?;
                self.stack.push(item);
            }
            b'V' => {
                let item = of_escaped(self.line()?)?;
                self.stack.push(item);
            }
            0x98 => drop(self.top()?),
            _ => return self.composing(opcode),
        }
        Ok(())
    }

    /// Opcodes that put values together.
    fn composing(&mut self, opcode: u8) -> Scanned<()> {
        match opcode {
            // Tuples.
            b')' => self.stack.push(Item::Other),
            b't' => {
                let first = self.back_to_mark()?;
                self.stack.push(tuple(first));
            }
            0x85..=0x87 => {
                let mut first = Item::Other;
                for _ in 0x85..=opcode {
                    first = self.pop()?;
                }
                self.stack.push(tuple(Some(first)));
            }
            // Lists, dictionaries and sets.
            b']' => self.stack.push(Item::List),
            b'l' => {
                self.back_to_mark()?;
                self.stack.push(Item::List);
            }
            b'}' | 0x8f => self.stack.push(Item::Other),
            b'd' | 0x91 => {
                self.back_to_mark()?;
                self.stack.push(Item::Other);
            }
            b'a' => self.change(1)?,
            b's' => self.change(2)?,
            b'e' | b'u' | 0x90 => {
                self.back_to_mark()?;
                self.top()?;
            }
            // Classes and instances.
            b'c' => {
                self.line()?;
                self.line()?;
                self.stack.push(Item::Other);
            }
            b'i' => {
                self.line()?;
                self.line()?;
                self.back_to_mark()?;
                self.stack.push(Item::Other);
            }
            b'o' => {
                self.back_to_mark()?;
                self.stack.push(Item::Other);
            }
            b'R' | 0x81 | 0x93 => self.instead_of(2)?,
            0x92 => self.instead_of(3)?,
            b'b' => self.change(1)?,
            0x82 => self.push(1)?,
            0x83 => self.push(2)?,
            0x84 => self.push(4)?,
            _ => return self.referring(opcode),
        }
        Ok(())
    }

    /// Opcodes of the memo, and of persistent ids.
    fn referring(&mut self, opcode: u8) -> Scanned<()> {
        match opcode {
            b'q' => {
                let at = self.number(1)?;
                self.remember(at)?;
            }
            b'r' => {
                let at = self.number(4)?;
                self.remember(at)?;
            }
            b'p' => {
                let at = self.decimal()?;
                self.remember(at)?;
            }
            0x94 => self.remember(self.memo.len() + self.sparse.len())?,
            b'h' => {
                let at = self.number(1)?;
                self.recall(at)?;
            }
            b'j' => {
                let at = self.number(4)?;
                self.recall(at)?;
            }
            b'g' => {
                let at = self.decimal()?;
                self.recall(at)?;
            }
            b'Q' => {
                let id = self.pop()?;
                self.reference(id)?;
            }
            b'P' => {
                let id = of_bytes(self.line()?);
                self.reference(id)?;
            }
            0x97 => return Err("an opcode wants a buffer from outside the record"),
            _ => return Err("there is no such opcode"),
        }
        Ok(())
    }

    fn reference(&mut self, id: Item) -> Scanned<()> {
        match id {
            Item::Oid(oid) | Item::Tuple(oid) => self.found.push(Oid(u64::from_be_bytes(oid))),
            Item::List => {}
            Item::Mark | Item::Other => return Err("a persistent id is of no known form"),
        }
        self.stack.push(Item::Other);
        Ok(())
    }

    fn take(&mut self, count: usize) -> Scanned<&[u8]> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..count).ok_or(CUT)?;
        self.at += count;
        Ok(taken)
    }

    fn skip(&mut self, count: usize) -> Scanned<()> {
        self.take(count).map(drop)
    }

    /// A number of `count` bytes, little-endian.
    fn number(&mut self, count: usize) -> Scanned<usize> {
        let bytes = self.take(count)?;
        let number = bytes.iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        usize::try_from(number).map_err(|_| CUT)
    }

    fn line(&mut self) -> Scanned<&[u8]> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(|byte| *byte == b'\n').ok_or(CUT)?;
        self.at += length + 1;
        Ok(&rest[..length])
    }

    fn decimal(&mut self) -> Scanned<usize> {
        let line = std::str::from_utf8(self.line()?).ok();
        line.and_then(|line| line.trim().parse().ok()).ok_or("the place in a memo is no number")
    }

    /// Pushes a value of no interest; skips `argument` bytes.
    fn push(&mut self, argument: usize) -> Scanned<()> {
        self.skip(argument)?;
        self.stack.push(Item::Other);
        Ok(())
    }

    /// Pushes the item for the bytes behind a count of `width` bytes.
    fn counted(&mut self, width: usize, item: fn(&[u8]) -> Item) -> Scanned<()> {
        let length = self.number(width)?;
        let item = item(self.take(length)?);
        self.stack.push(item);
        Ok(())
    }

    fn top(&self) -> Scanned<Item> {
        self.stack.last().copied().ok_or(EMPTY)
    }

    fn pop(&mut self) -> Scanned<Item> {
        self.stack.pop().ok_or(EMPTY)
    }

    /// Takes `count` items off the stack; they change the item below them, which stays.
    fn change(&mut self, count: usize) -> Scanned<()> {
        for _ in 0..count {
            self.pop()?;
        }
        self.top().map(drop)
    }

    fn instead_of(&mut self, count: usize) -> Scanned<()> {
        for _ in 0..count {
            self.pop()?;
        }
        self.stack.push(Item::Other);
        Ok(())
    }

    /// Takes everything off the stack down to the last mark, and the mark; gives the item that lay right above the
    /// mark.
    fn back_to_mark(&mut self) -> Scanned<Option<Item>> {
        let mark = self.stack.iter().rposition(|item| *item == Item::Mark).ok_or(NO_MARK)?;
        let first = self.stack.get(mark + 1).copied();
        self.stack.truncate(mark);
        Ok(first)
    }

    fn remember(&mut self, at: usize) -> Scanned<()> {
        let item = self.top()?;
        if let Some(place) = self.memo.get_mut(at) {
            *place = item;
        } else if at == self.memo.len() && !self.sparse.contains_key(&at) {
            self.memo.push(item);
        } else {
            self.sparse.insert(at, item);
        }
        Ok(())
    }

    fn recall(&mut self, at: usize) -> Scanned<()> {
        match self.memo.get(at).or_else(|| self.sparse.get(&at)) {
            None | Some(Item::Mark) => Err("an opcode recalls an empty place of the memo"),
            Some(item) => {
                self.stack.push(*item);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::texts::QUOTES;
    use super::*;
    use proptest::prelude::*;

    const OID: &[u8] = b"\0\0\0\0\0\0\x01\x02";

    /// A record whose state is `state`, without its stop; the class is `N`.
    fn record(state: &[&[u8]]) -> Vec<u8> {
        [b"\x80\x03N.\x80\x03", &state.concat()[..], b"."].concat()
    }

    fn found(state: &[&[u8]]) -> Vec<u64> {
        references(&record(state)).unwrap().into_iter().map(|oid| oid.0).collect()
    }

    fn refused(state: &[&[u8]]) -> &'static str {
        references(&record(state)).unwrap_err().why
    }

    #[test]
    fn a_reference_is_found_in_every_form() {
        let class = b"cmodule\nClass\n";
        assert_eq!(found(&[b"(C\x08", OID, class, b"tQ"]), [0x102]);
        assert_eq!(found(&[b"C\x08", OID, class, b"\x86Q"]), [0x102]);
        assert_eq!(found(&[b"C\x08", OID, b"\x85Q"]), [0x102]);
        assert_eq!(found(&[b"C\x08", OID, b"NN\x87Q"]), [0x102]);
        assert_eq!(found(&[b"C\x08", OID, b"Q"]), [0x102]);
        assert_eq!(found(&[b"B\x08\0\0\0", OID, b"Q"]), [0x102]);
        assert_eq!(found(&[b"U\x08", OID, b"Q"]), [0x102]);
        assert_eq!(found(&[b"T\x08\0\0\0", OID, b"Q"]), [0x102]);
        assert_eq!(found(&[b"X\x08\0\0\0", OID, b"Q"]), [0x102]);
        assert_eq!(found(&[b"\x8c\x08", OID, b"Q"]), [0x102]);
        assert_eq!(found(&[b"\x8e\x08\0\0\0\0\0\0\0", OID, b"Q"]), [0x102]);
        assert_eq!(found(&[b"S'\\x00\\x00\\x00\\x00\\x00\\x00\\x01\\x02'\nQ"]), [0x102]);
        assert_eq!(found(&[b"S\"\\0\\00\\000\\000\\000\\000\\001\\t\"\nQ"]), [0x109]);
        assert_eq!(found(&[b"V\\u0000\\u0000\\U00000000\\u0000\0\0\x01\x02\nQ"]), [0x102]);
        assert_eq!(found(&[b"P", OID, b"\n"]), [0x102]);
    }

    #[test]
    fn weak_references_and_other_databases_are_none() {
        assert_eq!(found(&[b"](X\x01\0\0\0wC\x08", OID, b"\x85eQ"]), [0u64; 0]);
        assert_eq!(found(&[b"]C\x08", OID, b"aQ"]), [0u64; 0]);
        assert_eq!(found(&[b"(C\x08", OID, b"lQ"]), [0u64; 0]);
        assert_eq!(found(&[b"](X\x01\0\0\0mX\x01\0\0\0xC\x08", OID, b"N\x87eQ"]), [0u64; 0]);
    }

    #[test]
    fn what_is_no_persistent_id_is_no_reference() {
        assert_eq!(found(&[b"C\x08", OID]), [0u64; 0]);
        assert_eq!(found(&[b"C\x08", OID, b"N\x86"]), [0u64; 0]);
    }

    #[test]
    fn both_pickles_share_one_memo() {
        let record = [b"\x80\x03C\x08", OID, b"q\x01.\x80\x03h\x01Q."].concat();
        assert_eq!(references(&record).unwrap(), [Oid(0x102)]);
        for (put, get) in [(&b"r\x01\0\0\0"[..], &b"j\x01\0\0\0"[..]), (b"p1\n", b"g1\n")] {
            assert_eq!(found(&[b"C\x08", OID, put, b"0", get, b"Q"]), [0x102]);
        }
        assert_eq!(found(&[b"\x95\0\0\0\0\0\0\0\0\x8c\x08", OID, b"\x94\x85\x940h\x01Q"]), [0x102]);
    }

    #[test]
    fn a_place_in_the_memo_may_be_anywhere() {
        let far = b"\xff\xff\xff\x7f";
        assert_eq!(found(&[b"C\x08", OID, b"r", far, b"0j", far, b"Q"]), [0x102]);
        // The next free place is the number of those that are filled, as Python has it: 1, after the far one.
        assert_eq!(found(&[b"Nr", far, b"C\x08", OID, b"\x940h\x01Q"]), [0x102]);
        // 2 first, then 0, 1 and 2 again, and 3.
        assert_eq!(found(&[b"Nq\x02q\0q\x01C\x08", OID, b"q\x02q\x030h\x02Qh\x03Q"]), [0x102, 0x102]);
        assert_eq!(refused(&[b"Nq\x02h\x01"]), "an opcode recalls an empty place of the memo");
    }

    #[test]
    fn what_holds_too_much_at_once_is_an_error() {
        let tried = |state: &[&[u8]]| scan(&record(state), 10).map(|found| found.len()).map_err(|refused| refused.why);
        assert_eq!(tried(&[&[b'N'; 10]]), Ok(0));
        assert_eq!(tried(&[&[b'N'; 11]]), Err(TOO_MUCH));
        assert_eq!(tried(&[b"N", &[0x94; 10]]), Ok(0));
        assert_eq!(tried(&[b"N", &[0x94; 11]]), Err(TOO_MUCH));
        let far: Vec<u8> = (100..111).flat_map(|at| [b'q', at]).collect();
        assert_eq!(tried(&[b"N", &far[2..]]), Ok(0));
        assert_eq!(tried(&[b"N", &far]), Err(TOO_MUCH));
        let again = b"h\0Q0".repeat(11);
        assert_eq!(tried(&[b"C\x08", OID, b"q\0", &again[4..]]), Ok(10));
        assert_eq!(tried(&[b"C\x08", OID, b"q\0", &again]), Err(TOO_MUCH));
    }

    #[test]
    fn what_is_unclear_is_an_error() {
        assert_eq!(refused(&[b"NQ"]), "a persistent id is of no known form");
        assert_eq!(refused(&[b"C\x03abcQ"]), "a persistent id is of no known form");
        assert_eq!(refused(&[b"X\x09\0\0\0\0\0\0\0\0\0\x01\xc3\xa9Q"]), "a persistent id is of no known form");
        assert_eq!(refused(&[b"Pabc\n"]), "a persistent id is of no known form");
        assert_eq!(refused(&[b"h\x07"]), "an opcode recalls an empty place of the memo");
        assert_eq!(refused(&[b"0"]), EMPTY);
        assert_eq!(refused(&[b"t"]), NO_MARK);
        assert_eq!(refused(&[b"\xff"]), "there is no such opcode");
        assert_eq!(refused(&[b"S'\n"]), QUOTES);
        // One pickle is not a record.
        assert_eq!(references(b"\x80\x03N."), Err(UnreadableRecord { at: 4, why: CUT }));
        assert_eq!(references(b""), Ok(vec![]));
    }

    #[test]
    fn a_cut_record_is_an_error_at_every_length() {
        let whole = record(&[b"(C\x08", OID, b"cmodule\nClass\nq\x01tQ}(X\x01\0\0\0ah\x01u"]);
        assert!(references(&whole).is_ok());
        for length in 1..whole.len() {
            assert!(references(&whole[..length]).is_err(), "{length} bytes were taken for whole");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_bytes_are_references_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = references(&bytes);
        }

        #[test]
        fn any_opcodes_are_references_or_an_error(
            opcodes in prop::collection::vec(prop::sample::select(&b"(0122NKMJG\x8aUCTBXSV)t\x85\x86\x87]l}dasebcioR\x81qrphjgQP.\x94\x95\n18\x08\0"[..]), 0..200)
        ) {
            let _ = references(&opcodes);
        }
    }
}
