//! Checkpoints of the store, and databases that were fetched from one.

use std::io;
use std::sync::Arc;

use super::position::Position;
use super::store::{FORMAT, Store};
use super::{keys, value};
use crate::engine::{Checkpoint, Engine, Shelf};

impl Store {
    /// A checkpoint of the store, and the position that it has: read from the checkpoint itself, as entries may be
    /// applied while it is made.
    pub fn checkpoint(&self, shelf: &dyn Shelf, name: &str) -> io::Result<(Arc<dyn Checkpoint>, Position)> {
        let checkpoint = shelf.checkpoint(self.engine(), name)?;
        let position = position_of(&*checkpoint.open()?)?;
        Ok((checkpoint, position))
    }
}

/// The position of the database in `engine`.
///
/// # Errors
/// `InvalidData` if it is no database that this program could open, or one in which nothing was applied.
pub fn position_of(engine: &dyn Engine) -> io::Result<Position> {
    let format = engine.get(keys::META, &keys::FORMAT)?;
    let format = format.ok_or_else(|| value::damaged("the database has no format"))?;
    let format = value::body(&keys::FORMAT, value::FORMAT, &format)?;
    if format != FORMAT.to_be_bytes() {
        let why = format!("the database is of format {format:?} (u32), and this program knows format {FORMAT}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    let sealed = engine.get(keys::META, &keys::POSITION)?;
    let sealed = sealed.ok_or_else(|| value::damaged("the database has no position: nothing was applied to it"))?;
    Position::from_bytes(value::body(&keys::POSITION, value::POSITION, &sealed)?)
}
