//! The house rules that the compiler does not know, as tests: docs/architecture.md's table of modules and the rules of
//! docs/style.md.
//!
//! | rule | file |
//! |---|---|
//! | which module may use which, and which room of a module which other | `layers.rs` |
//! | no circle of files | `circles.rs` |
//! | where time, chance and threads come from; who prints | `words.rs` |
//! | how long a file is, how wide a comment; how a file begins; `mod.rs` | `shape.rs` |
//! | what operators may set is documented, and every limit is used | `settings.rs` |
//! | what the documents point to exists | `links.rs` |
//!
//! These tests read source text. They are simple on purpose, and tests do not count (`#[cfg(test)] mod name { ... }`,
//! which is the last thing in its file, and the files of `#[cfg(test)] mod name;`). Places that are being rebuilt stand
//! in `unfinished.rs`.

mod circles;
mod imports;
mod layers;
mod links;
mod settings;
mod shape;
mod source;
mod tokens;
mod unfinished;
mod words;
