//! The file of `--config`: TOML, whose keys are the long names of the flags.
//!
//! A key is read as its flag would be: this module makes the flag's arguments of each key, and does not know what they
//! mean. So a value means the same in both places, and is refused in the same words, here with the line before them.

use clap::error::{ContextKind, ContextValue};
use clap::{Arg, ArgAction, Command};
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

/// Flags that the file can't give.
const FLAGS_ONLY: [&str; 3] = ["config", "help", "version"];
/// Characters of a wrong value that are shown.
const SHOWN: usize = 40;

/// A key of the file.
#[derive(Debug)]
pub struct Entry {
    pub key: String,
    pub line: usize,
    /// The arguments that say the same on the command line, or the reason why there are none.
    pub arguments: Result<Vec<String>, String>,
    /// The values that are expected, in words.
    pub expected: String,
}

/// The keys of the file with this text, from its first line to its last; an error if it is no TOML.
pub fn entries(text: &str, flags: &Command) -> Result<Vec<Entry>, String> {
    let table = DeTable::parse(text).map_err(|why| {
        let line = line_of(text, why.span().map_or(0, |span| span.start));
        let shown = text.lines().nth(line - 1).unwrap_or_default().trim();
        format!("line {line}: {} ({})", why.message(), short(shown))
    })?;
    let mut entries: Vec<Entry> = table.get_ref().iter().map(|(key, value)| entry(text, flags, key, value)).collect();
    entries.sort_by_key(|entry| entry.line);
    Ok(entries)
}

fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

/// The first line of `text`, or its beginning.
fn short(text: &str) -> String {
    let first = text.lines().next().unwrap_or_default();
    match first.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &first[..end]),
        None => first.to_owned(),
    }
}

fn entry(text: &str, flags: &Command, key: &Spanned<DeString<'_>>, value: &Spanned<DeValue<'_>>) -> Entry {
    let line = line_of(text, key.span().start);
    let key = key.get_ref().to_string();
    let flag =
        flags.get_arguments().find(|flag| flag.get_long() == Some(key.as_str()) && !FLAGS_ONLY.contains(&key.as_str()));
    let Some(flag) = flag else {
        return Entry { arguments: Err(unknown(&key, value.get_ref(), flags)), key, line, expected: String::new() };
    };
    let expected = expected(flag);
    let arguments = values(flag, value.get_ref()).map_err(|odd| match odd {
        Odd::Kind => {
            let found = text.get(value.span()).map(short).unwrap_or_default();
            format!("expected {expected}, and found {found}")
        }
        Odd::Said(why) => why,
    });
    let arguments = arguments.map(|values| values.into_iter().map(|value| format!("--{key}={value}")).collect());
    Entry { key, line, arguments, expected }
}

fn unknown(key: &str, value: &DeValue<'_>, flags: &Command) -> String {
    if FLAGS_ONLY.contains(&key) {
        return "this is for the command line alone".into();
    }
    // (clap knows which flag is meant.)
    let tried = flags.clone().try_get_matches_from(["zrsd".to_owned(), format!("--{key}")]);
    match tried.err().as_ref().and_then(|error| error.get(ContextKind::SuggestedArg)) {
        Some(ContextValue::String(similar)) => {
            format!("there is no such setting: did you mean {}?", similar.trim_start_matches('-'))
        }
        _ if matches!(value, DeValue::Table(_)) => {
            format!("there is no such setting: leave [{key}] out, as all settings stand at the top")
        }
        _ => "there is no such setting (zrsd --help has all of them)".into(),
    }
}

/// Why a value is none for its key.
enum Odd {
    /// The value is of the wrong type.
    Kind,
    Said(String),
}

/// The values of a key for its flag: several, if the flag may be given more than once.
fn values(flag: &Arg, value: &DeValue<'_>) -> Result<Vec<String>, Odd> {
    let is_list = matches!(flag.get_action(), ArgAction::Append);
    match value {
        DeValue::Array(array) if array.is_empty() => Err(Odd::Said("the list is empty".into())),
        DeValue::Array(array) if is_list || is_peers(flag) => {
            let values: Result<Vec<String>, Odd> = array.iter().map(|value| scalar(flag, value.get_ref())).collect();
            Ok(if is_list { values? } else { vec![values?.join(",")] })
        }
        DeValue::Table(table) if is_peers(flag) => {
            let peers: Result<Vec<String>, Odd> =
                table.iter().map(|(node, address)| peer(flag, node.get_ref(), address.get_ref())).collect();
            Ok(vec![peers?.join(",")])
        }
        value => Ok(vec![scalar(flag, value)?]),
    }
}

/// A line of the table `[peers]`.
fn peer(flag: &Arg, node: &str, address: &DeValue<'_>) -> Result<String, Odd> {
    if node.parse::<u64>().is_err() {
        let why = format!("{node:?} is not the number of a node (all other settings stand above the line [peers])");
        return Err(Odd::Said(why));
    }
    Ok(format!("{node}={}", scalar(flag, address)?))
}

fn is_peers(flag: &Arg) -> bool {
    flag.get_long() == Some("peers")
}

/// A single value. A number may stand in quotes, but a text must.
fn scalar(flag: &Arg, value: &DeValue<'_>) -> Result<String, Odd> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) if !is_text(flag) => match number.radix() {
            10 => Ok(number.as_str().to_owned()),
            radix => i64::from_str_radix(number.as_str(), radix).map(|n| n.to_string()).map_err(|_| Odd::Kind),
        },
        DeValue::Float(number) if !is_text(flag) => Ok(number.as_str().to_owned()),
        DeValue::Boolean(yes) if kind(flag) == "BOOL" => Ok(yes.to_string()),
        _ => Err(Odd::Kind),
    }
}

/// The placeholder that help shows for the flag's value.
fn kind(flag: &Arg) -> &str {
    flag.get_value_names().and_then(|names| names.first()).map_or("", |name| name.as_str())
}

fn is_text(flag: &Arg) -> bool {
    !["N", "MIB", "SECS", "MS", "BOOL", "NAME"].contains(&kind(flag))
}

fn expected(flag: &Arg) -> String {
    match kind(flag) {
        "N" => "a whole number".into(),
        "MIB" => "a whole number of MiB".into(),
        "SECS" => "a number of seconds, or a time in quotes (\"90s\")".into(),
        "MS" => "a number of milliseconds, or a time in quotes (\"300ms\")".into(),
        "BOOL" => "true or false".into(),
        "NAME" => "a name in quotes, or a list of such names".into(),
        "LEVEL" => "a level in quotes (\"info\")".into(),
        _ if is_peers(flag) => "\"1=HOST:PORT,2=HOST:PORT,...\", or a table of such addresses".into(),
        other => format!("{other} in quotes"),
    }
}
