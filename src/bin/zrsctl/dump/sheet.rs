//! Where a dump goes, line by line, and how bytes, texts and times are written there.

use std::io::{self, Write};

use serde_json::Value;

use zrs::zodb::Tid;

/// Lines of text, or of JSON.
pub struct Sheet<'w> {
    out: &'w mut dyn Write,
    json: bool,
    damaged: u64,
}

impl<'w> Sheet<'w> {
    pub fn new(out: &'w mut dyn Write, json: bool) -> Sheet<'w> {
        Sheet { out, json, damaged: 0 }
    }

    /// Writes one line: `text`, or `json` where that was asked for.
    pub fn line(&mut self, text: impl FnOnce() -> String, json: impl FnOnce() -> Value) -> io::Result<()> {
        match self.json {
            true => writeln!(self.out, "{}", json()),
            false => writeln!(self.out, "{}", text()),
        }
    }

    /// Writes a whole page: `text`, or `json` indented.
    pub fn page(&mut self, text: impl FnOnce() -> String, json: impl FnOnce() -> Value) -> io::Result<()> {
        match self.json {
            true => writeln!(self.out, "{:#}", json()),
            false => write!(self.out, "{}", text()),
        }
    }

    /// Counts a value that is damaged; its line says how.
    pub fn note_damage(&mut self) {
        self.damaged += 1;
    }

    pub fn damaged(&self) -> u64 {
        self.damaged
    }
}

/// The moment that a tid was made for, in UTC.
pub fn time(tid: Tid) -> String {
    let micros = (tid.unix_seconds() * 1e6).round() as i64;
    jiff::Timestamp::from_microsecond(micros).map_or_else(|_| "-".to_owned(), |moment| format!("{moment:.6}"))
}

/// A tid and its moment; `none` for [`Tid::ZERO`].
pub fn tid(tid: Tid) -> String {
    if tid == Tid::ZERO { "none".to_owned() } else { format!("{tid} {}", time(tid)) }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A text that a client gave, in quotes, on one line.
pub fn quoted(text: &[u8]) -> String {
    format!("{:?}", plain(text))
}

/// The same without quotes, for JSON.
pub fn plain(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

/// `1 entry`, `2 entries`.
pub fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tid_has_the_time_that_python_gives_it() {
        // TimeStamp(bytes.fromhex("040d31ff84f1076e")).timeTime() is 1795384291.1581688.
        let tid = Tid(0x040d_31ff_84f1_076e);
        assert_eq!(super::tid(tid), "040d31ff84f1076e 2026-11-22T21:51:31.158169Z");
        assert_eq!(super::tid(Tid::ZERO), "none");
        assert_eq!(time(Tid(101)), "1900-01-01T00:00:00.000001Z");
        assert!(time(Tid(u64::MAX)).starts_with("9917-"), "{}", time(Tid(u64::MAX)));
    }

    #[test]
    fn texts_of_clients_stay_on_their_line() {
        assert_eq!(quoted(b"a\nb\x1b[2J\xff"), "\"a\\nb\\u{1b}[2J\u{fffd}\"");
        assert_eq!(
            (counted(1, "entry", "entries"), counted(0, "entry", "entries")),
            ("1 entry".into(), "0 entries".into())
        );
    }
}
