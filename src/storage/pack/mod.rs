//! Packing: removing history before a time, and objects that nothing refers to.
//!
//! A pack is planned on the primary ([`Plan`] only reads) and carried out on every node (`step`, a part of apply). It
//! removes what a `FileStorage` removes:
//!
//! - Of each object the revision that is current at the pack time stays, with all later ones; older ones go.
//! - An object that is absent at the pack time (deleted, its creation undone) loses all revisions up to the pack time.
//! - With garbage collection, so does an object that can't be reached from the root at the pack time. A revision that a
//!   later one shows again then stays as well, where it stands.
//! - A transaction up to the pack time goes with its last record, or if it never had one.
//!
//! With one exception: an object that a record younger than the pack time refers to stays, and every object that can be
//! reached from there. A `FileStorage` removes such an object, and leaves a reference behind that leads nowhere.
//!
//! **Where to look**: `references` finds the references of a record (`items`: the stack of its reader; `texts`: the
//! strings of old records), `oids` is a set of object ids, `plan` says what is to go, `step` removes it. The scripts
//! `tests/scripts/storage/pack_*.txt` play packs step by step.

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
