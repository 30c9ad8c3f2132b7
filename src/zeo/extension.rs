//! The extension of a transaction: the application's dictionary, stored as the pickle that ZODB calls
//! `extension_bytes`.

use bytes::Bytes;

use super::message::share;
use super::pickle;
use super::value::Value;
use super::writer::{Writer, dumps};
use crate::config::limits::CALL_VALUES;

/// The pickle to store for the extension in a `tpc_begin`, which is a dictionary, or a pickle already. `None` if it is
/// neither.
pub(super) fn to_pickle(extension: &Value<'_>, frame: &Bytes) -> Option<Bytes> {
    match extension {
        Value::None => Some(Bytes::new()),
        Value::Dict(pairs) if pairs.is_empty() => Some(Bytes::new()),
        Value::Dict(_) => Some(dumps(extension).into()),
        Value::Bytes(pickled) => Some(share(frame, pickled)),
        _ => None,
    }
}

/// The dictionary of a stored extension, as stock ZODB on Python 3 reads it; where a value is an application's object,
/// words for it. A pickle that can't be read, or makes no dictionary, counts as empty.
pub(super) fn of_pickle(pickled: &[u8]) -> Vec<(Value<'_>, Value<'_>)> {
    if pickled.is_empty() {
        return Vec::new();
    }
    pickle::read_pairs(pickled, CALL_VALUES).unwrap_or_default()
}

/// The dictionary of a stored extension for a client: without sets and prefixes, whose pickles call a class. A client
/// would refuse the whole message for them.
pub fn shown_extension(pickled: &[u8]) -> Vec<(Value<'_>, Value<'_>)> {
    shown_pairs(of_pickle(pickled))
}

fn shown(value: Value<'_>) -> Value<'_> {
    let all = |items: Vec<_>| items.into_iter().map(shown).collect();
    match value {
        Value::Set(items) | Value::FrozenSet(items) | Value::List(items) => Value::List(all(items)),
        Value::Tuple(items) => Value::Tuple(all(items)),
        Value::Dict(pairs) => Value::Dict(shown_pairs(pairs)),
        Value::Prefix(path) => Value::text(&path.join("/")),
        other => other,
    }
}

fn shown_pairs<'a>(pairs: Vec<(Value<'a>, Value<'a>)>) -> Vec<(Value<'a>, Value<'a>)> {
    let key = |key| match key {
        Value::FrozenSet(_) | Value::Tuple(_) => Value::Text(key.to_text().into()),
        scalar => scalar,
    };
    pairs.into_iter().map(|(k, value)| (key(k), shown(value))).collect()
}

/// Writes the dictionary of a stored extension for a client.
pub(super) fn write_shown(w: &mut Writer, pickled: &[u8]) {
    w.pairs(&shown_extension(pickled));
}
