//! Looking at the journal of a node that does not run: nothing is changed.

use std::sync::Arc;

use super::damage::{Damage, Fault};
use super::files::Files;
use super::open::{Survey, survey};
use super::slots::Values;
use super::writer::Reader;

/// A journal as it lies in its folder.
pub struct Inspection {
    /// The values of the slots.
    pub values: Values,
    /// The last entry that was purged: its number and term.
    pub purged: Option<(u64, u64)>,
    /// Number and term of the last entry that is there, or was purged.
    pub last: Option<(u64, u64)>,
    /// What is wrong; only entries before it can be read.
    pub damage: Option<Damage>,
    /// Reads the entries.
    pub reader: Reader,
}

/// Looks at the journal in `files`; `None` if there is none.
pub fn inspect(files: Arc<dyn Files>) -> Result<Option<Inspection>, Fault> {
    let Some(Survey { mark, slots, purged, segments, last, damage, .. }) = survey(&*files)? else { return Ok(None) };
    let values = slots.values().clone();
    let reader = Reader::over(files, mark.journal, segments);
    Ok(Some(Inspection { values, purged, last, damage, reader }))
}
