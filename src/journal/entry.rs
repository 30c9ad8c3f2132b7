//! The bytes of an entry and of a segment's header.
//!
//! All numbers are big-endian. A *digest* is a crc32c over the journal's id and the bytes that it covers, so that an
//! entry of another journal (one that a client has stored as data, say) is not taken for one of this.
//!
//! ```text
//! segment   0  "zrsjrnl1"    8  format u32    12  digest of the following u32    16  journal's id u64
//!          24  number of its first entry u64   32  chain before that entry u32   36  0 u32   40  size of the file u64
//!        4096  entries, each at a multiple of 8, then zeros
//! entry     0  "zrsE"    4  digest of bytes 12 to 56 u32    8  chain u32    12  length of the payload u32
//!          16  number u64   24  term u64   32  first entry of its batch u64   40  generation of the slots u64
//!          48  digest of the payload u32   52  0 u32   56  payload
//! ```
//!
//! The *chain* of an entry is the crc32c of the chain before it and of the entry's digest: it stands for everything
//! before it.

use bytes::Bytes;

/// Bytes of a segment before its first entry: a page, so that no later write touches the header's.
pub const SEGMENT_HEADER: u64 = 4096;
/// Bytes of an entry before its payload.
pub const ENTRY_HEADER: usize = 56;
/// No number that is counted here can be greater: a file that says so is damaged.
pub const MOST: u64 = u64::MAX / 2;
/// Entries begin at multiples of this.
const ALIGNMENT: usize = 8;

const SEGMENT_MAGIC: &[u8; 8] = b"zrsjrnl1";
const ENTRY_MAGIC: &[u8; 4] = b"zrsE";
/// The format of segments.
const FORMAT: u32 = 1;

/// An entry as it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number, from 1 on.
    pub number: u64,
    /// The term that it was appended with.
    pub term: u64,
    /// Its bytes, a part of what was read from the disk in one go.
    pub payload: Bytes,
}

/// What an entry's header says besides its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About {
    pub number: u64,
    pub term: u64,
    /// The number of the first entry of its batch: everything before it was synced when this one was written.
    pub batch: u64,
    /// How often the slots had been written by then.
    pub generation: u64,
}

/// An entry's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryHeader {
    pub about: About,
    pub length: u32,
    pub digest: u32,
    pub chain: u32,
    pub payload: u32,
}

/// A segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    pub journal: u64,
    pub first: u64,
    pub chain: u32,
    pub size: u64,
}

/// Bytes that an entry takes with its header, up to the next entry.
pub fn space(payload: usize) -> u64 {
    (ENTRY_HEADER + payload).next_multiple_of(ALIGNMENT) as u64
}

/// The chain after an entry with this digest.
pub fn chain(before: u32, digest: u32) -> u32 {
    crc32c::crc32c_append(before, &digest.to_be_bytes())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// A digest over `parts`, for the journal with this id.
pub fn digest(journal: u64, parts: &[&[u8]]) -> u32 {
    let seed = crc32c::crc32c(&journal.to_be_bytes());
    parts.iter().fold(seed, |crc, part| crc32c::crc32c_append(crc, part))
}

impl EntryHeader {
    /// Appends an entry to `out`, whose length is and stays a multiple of the alignment; gives its chain.
    pub fn write(out: &mut Vec<u8>, journal: u64, about: &About, before: u32, payload: &[&[u8]]) -> u32 {
        let start = out.len();
        let length = payload.iter().map(|part| part.len()).sum::<usize>() as u32;
        out.extend_from_slice(ENTRY_MAGIC);
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&length.to_be_bytes());
        for field in [about.number, about.term, about.batch, about.generation] {
            out.extend_from_slice(&field.to_be_bytes());
        }
        out.extend_from_slice(&digest(journal, payload).to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        let digest = digest(journal, &[&out[start + 12..]]);
        payload.iter().for_each(|part| out.extend_from_slice(part));
        let chain = chain(before, digest);
        out[start + 4..start + 8].copy_from_slice(&digest.to_be_bytes());
        out[start + 8..start + 12].copy_from_slice(&chain.to_be_bytes());
        out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
        chain
    }

    /// Reads a header; `None` if the bytes, at least [`ENTRY_HEADER`], don't begin as one. Nothing of it is checked
    /// yet.
    pub fn read(bytes: &[u8]) -> Option<EntryHeader> {
        (&bytes[..4] == ENTRY_MAGIC).then(|| EntryHeader {
            digest: u32_at(bytes, 4),
            chain: u32_at(bytes, 8),
            length: u32_at(bytes, 12),
            payload: u32_at(bytes, 48),
            about: About {
                number: u64_at(bytes, 16),
                term: u64_at(bytes, 24),
                batch: u64_at(bytes, 32),
                generation: u64_at(bytes, 40),
            },
        })
    }

    /// Whether the header, with which `bytes` begin, is as it was written.
    pub fn is_intact(&self, journal: u64, bytes: &[u8]) -> bool {
        let About { number, batch, .. } = self.about;
        let possible = (1..=MOST).contains(&number) && (1..=number).contains(&batch);
        possible && digest(journal, &[&bytes[12..ENTRY_HEADER]]) == self.digest
    }

    /// Whether header and payload are as they were written, and zeros fill the entry up; `bytes` is all of the entry.
    pub fn is_whole(&self, journal: u64, bytes: &[u8]) -> bool {
        let (payload, filling) = bytes[ENTRY_HEADER..].split_at(self.length as usize);
        self.is_intact(journal, bytes)
            && digest(journal, &[payload]) == self.payload
            && filling.iter().all(|byte| *byte == 0)
    }
}

impl SegmentHeader {
    /// The header's bytes.
    pub fn write(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(48);
        out.extend_from_slice(SEGMENT_MAGIC);
        out.extend_from_slice(&FORMAT.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.journal.to_be_bytes());
        out.extend_from_slice(&self.first.to_be_bytes());
        out.extend_from_slice(&self.chain.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.size.to_be_bytes());
        let digest = digest(self.journal, &[&out[16..]]);
        out[12..16].copy_from_slice(&digest.to_be_bytes());
        out
    }

    /// Reads the header of the journal with this id; otherwise, what is wrong with it.
    pub fn read(bytes: &[u8; 48], journal: u64) -> Result<SegmentHeader, String> {
        if &bytes[..8] != SEGMENT_MAGIC {
            return Err("it does not begin as a segment of a log".into());
        }
        let format = u32_at(bytes, 8);
        if format != FORMAT {
            return Err(format!("it has format {format}, and this zrsd knows {FORMAT}"));
        }
        let header = SegmentHeader {
            journal: u64_at(bytes, 16),
            first: u64_at(bytes, 24),
            chain: u32_at(bytes, 32),
            size: u64_at(bytes, 40),
        };
        if digest(header.journal, &[&bytes[16..]]) != u32_at(bytes, 12) {
            return Err("the checksum of its header does not match".into());
        }
        if !(1..=MOST).contains(&header.first) {
            return Err("the number of its first entry is impossible".into());
        }
        if header.journal != journal {
            return Err("it belongs to another log: it was copied here".into());
        }
        Ok(header)
    }
}
