//! The extension of a transaction: a dictionary of the application's, kept as the pickle that ZODB calls
//! `extension_bytes`.

use bytes::Bytes;

use super::value::Value;
use super::writer::Writer;
use super::{pickle, share};
use crate::config::limits::CALL_VALUES;

/// What is kept of the extension in a `tpc_begin`: a dictionary, or its pickle already. `None` if it is neither.
pub(super) fn to_pickle(extension: &Value<'_>, frame: &Bytes) -> Option<Bytes> {
    match extension {
        Value::None => Some(Bytes::new()),
        Value::Dict(pairs) if pairs.is_empty() => Some(Bytes::new()),
        Value::Dict(_) => Some(pickle::dumps(extension).into()),
        Value::Bytes(pickled) => Some(share(frame, pickled)),
        _ => None,
    }
}

/// The dictionary that was kept, as it is given in a `tpc_begin`. One that holds more than plain data (it was imported,
/// or came as a pickle) counts as empty.
pub(super) fn of_pickle(pickled: &[u8]) -> Vec<(Value<'_>, Value<'_>)> {
    if pickled.is_empty() {
        return Vec::new();
    }
    match pickle::read(pickled, CALL_VALUES) {
        Ok(Value::Dict(pairs)) => pairs,
        _ => Vec::new(),
    }
}

/// The dictionary that was kept, as clients are shown it: without what is written as a call of a class, which they
/// would refuse together with the message around it.
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

/// Writes the extension of this pickle as clients are shown it.
pub(super) fn write_shown(w: &mut Writer, pickled: &[u8]) {
    w.pairs(&shown_extension(pickled));
}
