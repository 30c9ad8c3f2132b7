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

/// The dictionary that was kept. One that holds more than plain data (it was imported, or was given as bytes) is
/// shown as empty: no ZEO client would let us name a class.
pub fn extension_of_pickle(pickled: &[u8]) -> Vec<(Value<'_>, Value<'_>)> {
    match pickle::read(pickled, CALL_VALUES) {
        Ok(Value::Dict(pairs)) if !pickled.is_empty() => pairs.into_iter().map(|(k, v)| (k, without_sets(v))).collect(),
        _ => Vec::new(),
    }
}

/// Sets become lists: in a pickle they are a call of a class, which ZEO's clients refuse.
fn without_sets(value: Value<'_>) -> Value<'_> {
    let all = |items: Vec<_>| items.into_iter().map(without_sets).collect();
    match value {
        Value::Set(items) | Value::FrozenSet(items) | Value::List(items) => Value::List(all(items)),
        Value::Tuple(items) => Value::Tuple(all(items)),
        Value::Dict(pairs) => Value::Dict(pairs.into_iter().map(|(key, value)| (key, without_sets(value))).collect()),
        Value::Prefix(path) => Value::text(&path.join("/")),
        other => other,
    }
}

/// Writes the extension of this pickle as a dictionary.
pub(super) fn write(w: &mut Writer, pickled: &[u8]) {
    w.pairs(&extension_of_pickle(pickled));
}
