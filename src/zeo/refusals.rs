//! Refusals as the Python exceptions that clients expect.
//!
//! An error reply is `(class name, data)`: data is the exception's attributes as a dictionary if it has any, else its
//! arguments as a tuple. ZEO's client rebuilds only some classes, and raises
//! `ZEO.Exceptions.ServerException(class name, data)` for any other.
//!
//! | refusal | class | data |
//! |---|---|---|
//! | `NoObject` | `ZODB.POSException.POSKeyError` | `(oid,)` |
//! | `NoBlob` | the same | `("No blob file", oid, serial)` |
//! | `Conflict` | `ZODB.POSException.ConflictError` | dict: message, oid, class_name, serials |
//! | `ReadConflict` | `ZODB.POSException.ReadConflictError` | the same |
//! | `ReadOnly` | `ZODB.POSException.ReadOnlyError` | `()` |
//! | `WrongTransaction` | `ZODB.POSException.StorageTransactionError` | `(text,)` |
//! | `UndoFailed` | `ZODB.POSException.MultipleUndoErrors` | dict: _reason, _oid, _errs = [(oid, text)] |
//! | `NotUndoable` | the same | dict: _reason, _oid, _errs = [(None, text)] |
//! | `NoKey`, `BadType` | `builtins.KeyError`, `TypeError` | `(text,)` |
//! | `NoStorage`, `BadValue` | `builtins.ValueError` | `(text,)`; of `NoStorage` with the names that there are |
//! | `NotServed` | `builtins.NotImplementedError` | `(text,)` |
//! | `TooLarge` | `ZODB.POSException.StorageError` | `(text,)` |
//! | `NotPrimary` | `zrs.NotPrimary` | `(address or None,)` |
//!
//! Stock sends `UndoError` if a transaction can't be undone at all, which stock's own client can't rebuild; it can
//! rebuild the subclass `MultipleUndoErrors`.

use bytes::Bytes;

use super::greeting::Encoding;
use super::message::MessageId;
use super::value::Value;
use super::writer::{Flag, Writer, message};
use crate::zodb::{Conflict, Oid, Refusal};

const POS_KEY_ERROR: &str = "ZODB.POSException.POSKeyError";
const CONFLICT_ERROR: &str = "ZODB.POSException.ConflictError";
const READ_CONFLICT_ERROR: &str = "ZODB.POSException.ReadConflictError";
const READ_ONLY_ERROR: &str = "ZODB.POSException.ReadOnlyError";
const STORAGE_TRANSACTION_ERROR: &str = "ZODB.POSException.StorageTransactionError";
const MULTIPLE_UNDO_ERRORS: &str = "ZODB.POSException.MultipleUndoErrors";
const STORAGE_ERROR: &str = "ZODB.POSException.StorageError";
const KEY_ERROR: &str = "builtins.KeyError";
const TYPE_ERROR: &str = "builtins.TypeError";
const VALUE_ERROR: &str = "builtins.ValueError";
const NOT_IMPLEMENTED_ERROR: &str = "builtins.NotImplementedError";
const NOT_PRIMARY: &str = "zrs.NotPrimary";

const NO_BLOB: &str = "No blob file";
const UNKNOWN_STORAGE: &str = "unknown storage: ";
/// Stands between the name that was asked for and the names that there are, which end with a parenthesis.
const KNOWN_STORAGES: &str = " (there are: ";

/// Writes an error reply.
pub fn encode_refusal(encoding: Encoding, id: &MessageId, refusal: &Refusal) -> Bytes {
    let error = |w: &mut Writer| w.tuple(2, |w| write(w, refusal));
    message(encoding, id, Flag::Error, ".reply", error)
}

fn write(w: &mut Writer, refusal: &Refusal) {
    match refusal {
        Refusal::NoObject(oid) => {
            w.text(POS_KEY_ERROR);
            w.tuple(1, |w| w.oid(*oid));
        }
        Refusal::NoBlob(oid, serial) => {
            w.text(POS_KEY_ERROR);
            w.tuple(3, |w| {
                w.text(NO_BLOB);
                w.oid(*oid);
                w.tid(*serial);
            });
        }
        Refusal::Conflict(conflict) => write_conflict(w, CONFLICT_ERROR, "database conflict error", conflict),
        Refusal::ReadConflict(conflict) => {
            write_conflict(w, READ_CONFLICT_ERROR, "database read conflict error", conflict);
        }
        Refusal::ReadOnly => {
            w.text(READ_ONLY_ERROR);
            w.tuple(0, |_| ());
        }
        Refusal::UndoFailed(objects) => {
            let failures: Vec<_> = objects.iter().map(|(oid, why)| (Some(*oid), why.as_str())).collect();
            write_undo(w, &failures);
        }
        Refusal::NotUndoable(why) => write_undo(w, &[(None, why)]),
        Refusal::WrongTransaction(why) => write_text(w, STORAGE_TRANSACTION_ERROR, why),
        Refusal::NoStorage { name, known } => {
            let known = if known.is_empty() { String::new() } else { format!("{KNOWN_STORAGES}{})", known.join(", ")) };
            write_text(w, VALUE_ERROR, &format!("{UNKNOWN_STORAGE}{name}{known}"));
        }
        Refusal::BadValue(why) => write_text(w, VALUE_ERROR, why),
        Refusal::NoKey(why) => write_text(w, KEY_ERROR, why),
        Refusal::BadType(why) => write_text(w, TYPE_ERROR, why),
        Refusal::NotServed(why) => write_text(w, NOT_IMPLEMENTED_ERROR, why),
        Refusal::TooLarge(why) => write_text(w, STORAGE_ERROR, why),
        Refusal::NotPrimary(address) => {
            w.text(NOT_PRIMARY);
            w.tuple(1, |w| w.optional(address.as_deref(), Writer::text));
        }
    }
}

fn write_text(w: &mut Writer, class: &str, text: &str) {
    w.text(class);
    w.tuple(1, |w| w.text(text));
}

/// The attributes of a `ConflictError`, in the order in which its constructor sets them.
fn write_conflict(w: &mut Writer, class: &str, message: &str, conflict: &Conflict) {
    w.text(class);
    w.dict(["message", "oid", "class_name", "serials"].into_iter(), |w, key| {
        w.text(key);
        match key {
            "message" => w.text(message),
            "oid" => w.oid(conflict.oid),
            "class_name" => w.none(),
            _ => w.tuple(2, |w| {
                w.tid(conflict.committed);
                w.tid(conflict.read);
            }),
        }
    });
}

fn write_undo(w: &mut Writer, failures: &[(Option<Oid>, &str)]) {
    // The client unpacks the first failure, so there must be one.
    let Some(&(oid, why)) = failures.first() else { return write_undo(w, &[(None, "undo failed")]) };
    w.text(MULTIPLE_UNDO_ERRORS);
    w.dict(["_reason", "_oid", "_errs"].into_iter(), |w, key| {
        w.text(key);
        match key {
            // ZODB's constructor passes reason and oid to `UndoError` in the wrong order; clients read `_errs`.
            "_reason" => w.optional(oid, Writer::oid),
            "_oid" => w.text(why),
            _ => w.list(failures.iter(), |w, (oid, why)| {
                w.tuple(2, |w| {
                    w.optional(*oid, Writer::oid);
                    w.text(why);
                });
            }),
        }
    });
}

/// The refusal behind `NAME` or `NAME (there are: NAME, NAME)`.
fn no_storage(told: &str) -> Refusal {
    let parts = told.strip_suffix(')').and_then(|told| told.rsplit_once(KNOWN_STORAGES));
    let (name, known) = parts.map_or((told, Vec::new()), |(name, known)| (name, known.split(", ").collect()));
    Refusal::NoStorage { name: name.to_owned(), known: known.into_iter().map(str::to_owned).collect() }
}

/// An error as a client received it.
#[derive(Clone, Debug, PartialEq)]
pub struct RemoteError {
    /// `module.Class` of the Python exception.
    pub class: String,
    /// The exception's attributes (a dictionary) or arguments (a tuple).
    pub data: Value<'static>,
}

impl RemoteError {
    pub(super) fn of_value(value: Value<'_>) -> Option<RemoteError> {
        let [class, data] = <[Value<'_>; 2]>::try_from(value.into_items()?).ok()?;
        Some(RemoteError { class: class.as_text()?.to_owned(), data: data.into_owned() })
    }

    /// The refusal behind the exception; `None` for an exception that zrs does not send.
    pub fn refusal(&self) -> Option<Refusal> {
        let first = || self.data.as_items()?.first();
        let text = || first().and_then(Value::as_text).map(str::to_owned).or(Some(String::new()));
        match self.class.as_str() {
            POS_KEY_ERROR => match self.data.as_items()? {
                [oid] => oid.as_oid().map(Refusal::NoObject),
                [Value::Text(_), oid, serial] => Some(Refusal::NoBlob(oid.as_oid()?, serial.as_tid()?)),
                _ => None,
            },
            CONFLICT_ERROR => self.conflict().map(Refusal::Conflict),
            READ_CONFLICT_ERROR => self.conflict().map(Refusal::ReadConflict),
            READ_ONLY_ERROR => Some(Refusal::ReadOnly),
            STORAGE_TRANSACTION_ERROR => text().map(Refusal::WrongTransaction),
            MULTIPLE_UNDO_ERRORS => self.undo(),
            KEY_ERROR => text().map(Refusal::NoKey),
            TYPE_ERROR => text().map(Refusal::BadType),
            VALUE_ERROR => text().map(|why| match why.strip_prefix(UNKNOWN_STORAGE) {
                Some(told) => no_storage(told),
                None => Refusal::BadValue(why),
            }),
            NOT_IMPLEMENTED_ERROR => text().map(Refusal::NotServed),
            STORAGE_ERROR => text().map(Refusal::TooLarge),
            NOT_PRIMARY => Some(Refusal::NotPrimary(first()?.as_text().map(str::to_owned))),
            _ => None,
        }
    }

    fn conflict(&self) -> Option<Conflict> {
        let [committed, read] = self.data.get("serials")?.as_items()? else { return None };
        Some(Conflict { oid: self.data.get("oid")?.as_oid()?, committed: committed.as_tid()?, read: read.as_tid()? })
    }

    fn undo(&self) -> Option<Refusal> {
        let failures = self.data.get("_errs")?.as_items()?;
        if let [failure] = failures
            && let [Value::None, why] = failure.as_items()?
        {
            return Some(Refusal::NotUndoable(why.as_text()?.to_owned()));
        }
        let failure = |failure: &Value<'_>| match failure.as_items()? {
            [oid, why] => Some((oid.as_oid()?, why.as_text()?.to_owned())),
            _ => None,
        };
        Some(Refusal::UndoFailed(failures.iter().map(failure).collect::<Option<_>>()?))
    }
}
