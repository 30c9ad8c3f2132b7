//! The file `slots`: the few values that are written seldom and must not be forgotten.
//!
//! All values are written together, twice: first into the one place, then, once that is synced, into the other. So
//! whatever a crash leaves unfinished, one place holds either the values before or the values after it; and if one
//! place is damaged later, the other still holds the newest values. A *generation* counts the writes; entries and the
//! mark name it, so that an older file that was put in the place of this one is noticed.
//!
//! ```text
//! place   0 digest of the following u32   4 format u32   8 journal's id u64   16 generation u64   24 length u32
//!        28 postcard of the values
//! ```

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::damage::{Damage, Fault};
use super::entry::{MOST, digest};
use super::files::{Files, OpenFile};

/// The name of the file.
pub const NAME: &str = "slots";
/// Bytes of one of the two places.
const PLACE: u64 = 128 << 10;
const HEADER: usize = 28;
const FORMAT: u32 = 1;

/// Values by name.
pub type Values = BTreeMap<String, Vec<u8>>;

/// The open file, and what it holds.
pub struct Slots {
    file: Arc<dyn OpenFile>,
    journal: u64,
    pub generation: u64,
    values: Values,
    /// Where the newest values are.
    newest: u64,
}

impl Slots {
    /// Makes the file of a new journal, without values; durable after [`Files::sync`].
    pub fn create(files: &dyn Files, journal: u64) -> io::Result<Slots> {
        let mut made =
            Slots { file: files.create(NAME, 2 * PLACE)?, journal, generation: 0, values: Values::new(), newest: 0 };
        made.save(Values::new())?;
        Ok(made)
    }

    /// Opens the file of the journal with this id.
    pub fn open(files: &dyn Files, journal: u64) -> Result<Slots, Fault> {
        let file = files.open(NAME)?;
        if file.size()? != 2 * PLACE {
            return Err(
                Damage::of(NAME, format!("it should have {} bytes, and has {}", 2 * PLACE, file.size()?)).into()
            );
        }
        let places = [read(&*file, 0)?, read(&*file, PLACE)?];
        let found = places.into_iter().zip([0, PLACE]).filter_map(|(found, place)| Some((found?, place)));
        let Some((Found { journal: owner, generation, values }, newest)) = found.max_by_key(|(f, _)| f.generation)
        else {
            return Err(Damage::of(NAME, "neither of its two places can be read: the vote is lost").into());
        };
        if owner != journal {
            return Err(Damage::of(NAME, "it belongs to another log: it was copied here").into());
        }
        Ok(Slots { file, journal, generation, values, newest })
    }

    /// Writes the newest values as they are once more in both places. One may have been damaged, or cut off; or what
    /// was read of it is in memory alone, although a sync failed. (The place that has them comes first: if it is on
    /// the disk, writing the same there can't tear it; otherwise, the other place still holds what was acknowledged.)
    pub fn repair(&mut self) -> io::Result<()> {
        let bytes = self.bytes(self.generation, &self.values)?;
        self.write([self.newest, PLACE - self.newest], &bytes)
    }

    /// A value.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.values.get(name).map(Vec::as_slice)
    }

    /// Sets a value; durable on return.
    pub fn set(&mut self, name: &str, value: Vec<u8>) -> io::Result<()> {
        let mut values = self.values.clone();
        values.insert(name.to_owned(), value);
        self.save(values)
    }

    /// All values.
    pub fn values(&self) -> &Values {
        &self.values
    }

    fn save(&mut self, values: Values) -> io::Result<()> {
        let generation = self.generation + 1;
        let bytes = self.bytes(generation, &values)?;
        // The newest values stay until the newer ones are synced in the other place.
        self.write([PLACE - self.newest, self.newest], &bytes)?;
        (self.generation, self.values) = (generation, values);
        Ok(())
    }

    fn write(&self, places: [u64; 2], bytes: &[u8]) -> io::Result<()> {
        for place in places {
            self.file.write_at(place, bytes)?;
            self.file.sync()?;
        }
        Ok(())
    }

    fn bytes(&self, generation: u64, values: &Values) -> io::Result<Vec<u8>> {
        let body = postcard::to_stdvec(values).expect("values are plain data");
        if HEADER + body.len() > PLACE as usize {
            let why = format!("the values of the log take {} bytes; at most {PLACE} have room", body.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let mut bytes = vec![0; 4];
        bytes.extend_from_slice(&FORMAT.to_be_bytes());
        bytes.extend_from_slice(&self.journal.to_be_bytes());
        bytes.extend_from_slice(&generation.to_be_bytes());
        bytes.extend_from_slice(&(body.len() as u32).to_be_bytes());
        bytes.extend_from_slice(&body);
        let digest = digest(self.journal, &[&bytes[4..]]);
        bytes[..4].copy_from_slice(&digest.to_be_bytes());
        Ok(bytes)
    }
}

/// Whether the file, of whatever journal, holds values.
pub fn hold_values(files: &dyn Files) -> io::Result<bool> {
    let file = match files.open(NAME) {
        Err(gone) if gone.kind() == io::ErrorKind::NotFound => return Ok(false),
        opened => opened?,
    };
    if file.size()? != 2 * PLACE {
        return Err(Damage::of(NAME, "it was cut").into());
    }
    let places = [read(&*file, 0)?, read(&*file, PLACE)?];
    Ok(places.iter().flatten().any(|found| !found.values.is_empty()))
}

struct Found {
    journal: u64,
    generation: u64,
    values: Values,
}

/// What one of the places holds; `None` if it can't be read.
fn read(file: &dyn OpenFile, at: u64) -> io::Result<Option<Found>> {
    let mut bytes = vec![0; PLACE as usize];
    file.read_at(at, &mut bytes)?;
    let field = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let (journal, generation) = (field(8), field(16));
    let length = u32::from_be_bytes(bytes[24..HEADER].try_into().expect("four bytes")) as usize;
    let Some(whole) = bytes.get(..HEADER.saturating_add(length)) else { return Ok(None) };
    if digest(journal, &[&whole[4..]]).to_be_bytes() != whole[..4] || whole[4..8] != FORMAT.to_be_bytes() {
        return Ok(None);
    }
    let values = postcard::from_bytes(&whole[HEADER..]).ok().filter(|_| generation <= MOST);
    Ok(values.map(|values| Found { journal, generation, values }))
}
