//! The values of settings as operators write them: numbers, times and lists of nodes, the same for flags and the file.
//!
//! Each refusal names the value and says what is expected.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

/// The units that a time may have, in seconds.
const UNITS: [(&str, f64); 4] = [("ms", 0.001), ("s", 1.0), ("min", 60.0), ("h", 3_600.0)];
/// A year is more than enough, and sums of such times are far from overflowing.
const LONGEST: f64 = 31_536_000.0;

/// The number of a node.
pub fn node(text: &str) -> Result<u64, String> {
    text.trim().parse().map_err(|_| format!("{text:?} is not the number of a node: write a whole number from 1 on"))
}

/// A number of MiB.
pub fn mebibytes(text: &str) -> Result<u32, String> {
    text.trim().parse().map_err(|_| format!("{text:?} is not a whole number (of MiB)"))
}

/// Yes or no, also in the words of ZConfig.
pub fn boolean(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" => Ok(true),
        "false" | "no" | "off" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false")),
    }
}

/// The value of `--peers`: `1=HOST:PORT,2=HOST:PORT`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PeerList(pub BTreeMap<u64, String>);

impl FromStr for PeerList {
    type Err = String;

    fn from_str(text: &str) -> Result<PeerList, String> {
        let mut peers = BTreeMap::new();
        for entry in text.split(',').filter(|entry| !entry.trim().is_empty()) {
            let (number, address) = entry
                .split_once('=')
                .ok_or_else(|| format!("{entry:?} is not NUMBER=HOST:PORT (1=a:8100,2=b:8100,3=c:8100)"))?;
            let number = node(number)?;
            if peers.insert(number, address.trim().to_owned()).is_some() {
                return Err(format!("node {number} is listed twice"));
            }
        }
        if peers.is_empty() {
            return Err("the list is empty (1=a:8100,2=b:8100,3=c:8100)".into());
        }
        Ok(PeerList(peers))
    }
}

/// A time, of which a plain number is in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seconds(pub Duration);

impl FromStr for Seconds {
    type Err = String;

    fn from_str(text: &str) -> Result<Seconds, String> {
        time(text, "s", "seconds").map(Seconds)
    }
}

/// A time, of which a plain number is in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Milliseconds(pub Duration);

impl FromStr for Milliseconds {
    type Err = String;

    fn from_str(text: &str) -> Result<Milliseconds, String> {
        time(text, "ms", "milliseconds").map(Milliseconds)
    }
}

/// A number with a unit, `300ms` or `1.5 s`; without one it is in the `usual` unit.
fn time(text: &str, usual: &str, words: &str) -> Result<Duration, String> {
    let written = text.trim();
    let number = written.trim_end_matches(char::is_alphabetic);
    let unit = match &written[number.len()..] {
        "" => usual,
        unit => unit,
    };
    let unit = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit));
    let (Some((_, unit)), Ok(number)) = (unit, number.trim_end().parse::<f64>()) else {
        return Err(format!(
            "{text:?} is not a time: write a number of {words}, or one with a unit: 300ms, 1.5s, 2min"
        ));
    };
    let seconds = number * unit;
    if seconds.is_nan() || !(0.0..=LONGEST).contains(&seconds) {
        return Err(format!("{text:?} is not a time from 0 to 365 days"));
    }
    Ok(Duration::from_secs_f64(seconds))
}
