//! The few globals that stand for plain data.
//!
//! ZEO's server lets clients name anything in five modules, `builtins` among them. Here a name is a word for a kind of
//! data, and no function is ever called.

use super::super::value::{Undecodable, undecodable};

/// A constructor of plain data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Global {
    Dict,
    List,
    Tuple,
    Set,
    FrozenSet,
    /// `bytes`, `bytearray`, `zodbpickle.binary`.
    Bytes,
    Text,
    Int,
    Float,
    Bool,
    Object,
    /// `copyreg._reconstructor(class, base, state)`: how protocols 0 and 1 write a subclass of a builtin type.
    Reconstructor,
    Prefix,
}

/// The global that a pickle calls `module.name`.
pub(super) fn find(module: &str, name: &str) -> Result<Global, Undecodable> {
    Ok(match (module, name) {
        ("builtins" | "__builtin__", "dict") => Global::Dict,
        ("builtins" | "__builtin__", "list") => Global::List,
        ("builtins" | "__builtin__", "tuple") => Global::Tuple,
        ("builtins" | "__builtin__", "set") => Global::Set,
        ("builtins" | "__builtin__", "frozenset") => Global::FrozenSet,
        ("builtins" | "__builtin__", "bytes" | "bytearray") | ("zodbpickle", "binary") => Global::Bytes,
        ("builtins", "str") | ("__builtin__", "unicode") => Global::Text,
        ("builtins" | "__builtin__", "int") | ("__builtin__", "long") => Global::Int,
        ("builtins" | "__builtin__", "float") => Global::Float,
        ("builtins" | "__builtin__", "bool") => Global::Bool,
        ("builtins" | "__builtin__", "object") => Global::Object,
        ("copy_reg" | "copyreg", "_reconstructor") => Global::Reconstructor,
        ("ZopeUndo.Prefix", "Prefix") => Global::Prefix,
        _ => return Err(undecodable(format!("a global that is not plain data: {module:.100}.{name:.100}"))),
    })
}
