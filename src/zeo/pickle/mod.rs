//! Pickle, as far as plain data goes: the encoding of a `Z5` connection, and of a stored transaction's extension.
//!
//! A pickle is a program that builds objects; this reader builds none. It understands the opcodes that ZEO clients
//! use, the opcodes that other picklers write for the same data (a memo, protocols 1 to 5), and those few globals that
//! make plain data; any other makes a frame undecodable. Reading is bounded: in nesting, in the number of values, and
//! in time, which is linear in the frame. The writer writes the bytes of ZEO's own pickler (protocol 3, no memo).
//!
//! For a stored extension, which an application may have written years ago with Python 2, the reader is lenient
//! ([`read_pairs`]): it understands the text opcodes of protocol 0, strings with any bytes, and gives words for what is
//! no plain data, so that one odd value does not hide the others.
//!
//! Left out of messages: the text opcodes of protocol 0, persistent ids, and `copyreg` extensions.

mod construct;
mod globals;
mod nodes;
mod old;
mod read;
pub(super) mod write;

pub use read::{read, read_pairs};
