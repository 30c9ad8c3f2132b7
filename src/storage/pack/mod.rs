//! Packing: removing history before a time, and objects that nothing refers to.
//!
//! A pack is planned on the primary ([`Plan`] reads, and says what goes) and carried out everywhere (`step`, a part of apply).
//! What goes is what goes from a `FileStorage`:
//!
//! - Of each object the revision that is current at the pack time stays, with all later ones; older ones go.
//! - An object that is absent at the pack time (deleted, its creation undone) loses all revisions up to it.
//! - With garbage collection, so does an object that is not reachable from the root at the pack time. What a later revision
//!   shows again then stays as well, where it stands.
//! - A transaction up to the pack time goes with its last record, or if it never had one.
//!
//! And one thing beyond: what is referred to by a record that is younger than the pack time stays, and what can be reached
//! from there. A `FileStorage` removes it, and leaves a reference behind that leads nowhere.
//!
//! **Where to look**: `references` reads records (`texts`: strings of old ones), `oids` is a set of object ids, `plan` says what goes, `step` removes it.

mod items;
mod oids;
mod plan;
mod references;
mod step;
#[cfg(test)]
mod tests;
mod texts;

pub use oids::Oids;
pub use plan::{Fate, Fault, Page, Plan, Planned};
pub use references::{UnreadableRecord, references};
