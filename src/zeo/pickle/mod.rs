//! Pickle, as far as plain data goes: what a `Z5` connection speaks, and how a transaction's extension is kept.
//!
//! A pickle is a program that builds objects; this reader builds none. It understands the opcodes that ZEO clients use,
//! the ones that other picklers write for the same data (a memo, protocols 1 to 5), and those few globals which make
//! plain data; anything else makes a frame undecodable. What it takes is bounded: in nesting, in number of values, and
//! in time, which is linear in the frame. The writer writes what ZEO's own pickler does (protocol 3, no memo), byte for
//! byte.
//!
//! Left out: the text opcodes of protocol 0, persistent ids, and whatever `copyreg` extensions may be.

mod globals;
mod read;
pub(super) mod write;

pub use read::read;
pub use write::dumps;
