//! The headers of `Data.fs`, byte for byte. Numbers are big-endian; positions count from the start of the file.
//!
//! ```text
//! file         magic 4 ("FS30"; "FS21" was written by Python 2)   transaction*
//! transaction  tid 8   length 8   status 1   user length 2   description length 2   extension length 2
//!              user   description   extension   record*   length 8 again
//! record       oid 8   tid 8   previous 8   transaction 8   version length 2 (zero)   data length 8
//!              data, or if its length is zero: position 8 of a record whose data this one shows; zero: none
//! ```
//!
//! A transaction's length is that of all but its last eight bytes. `previous` is the position of the object's newest
//! record in earlier transactions, zero if it has none; `transaction` that of the transaction's header.

use crate::zodb::{Oid, Tid};

/// The first bytes of the file.
pub const MAGIC: &[u8; 4] = b"FS30";
/// The first bytes of a file that Python 2 wrote.
pub const MAGIC_PYTHON2: &[u8; 4] = b"FS21";

/// The position of the first transaction.
pub const FIRST: u64 = MAGIC.len() as u64;

/// Bytes of a transaction's header, without its texts.
pub const TRANSACTION: usize = 23;
/// Bytes of a record's header.
pub const RECORD: usize = 42;

/// Status of a whole transaction.
pub const DONE: u8 = b' ';
/// Status of a whole transaction that was packed.
pub const PACKED: u8 = b'p';
/// Status of a transaction undone by an old FileStorage, in place; it counts as not there.
pub const UNDONE: u8 = b'u';
/// Status of a transaction that was voted and never finished.
pub const UNFINISHED: u8 = b'c';

/// The header of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionHeader {
    /// The transaction's id.
    pub tid: Tid,
    /// Bytes of the transaction, but for the last eight.
    pub length: u64,
    /// One of the statuses above.
    pub status: u8,
    /// Lengths of user, description and extension.
    pub texts: [u16; 3],
}

/// The header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// The object.
    pub oid: Oid,
    /// The transaction's id again.
    pub tid: Tid,
    /// The position of the object's record before this one.
    pub previous: u64,
    /// The position of the transaction.
    pub transaction: u64,
    /// Zero, since there are no versions.
    pub version: u16,
    /// Bytes of the data; zero: a position follows instead.
    pub length: u64,
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(std::array::from_fn(|i| bytes[at + i]))
}

fn short(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

impl TransactionHeader {
    pub fn decode(bytes: &[u8; TRANSACTION]) -> TransactionHeader {
        TransactionHeader {
            tid: Tid(number(bytes, 0)),
            length: number(bytes, 8),
            status: bytes[16],
            texts: [short(bytes, 17), short(bytes, 19), short(bytes, 21)],
        }
    }

    pub fn encode(&self) -> [u8; TRANSACTION] {
        let mut bytes = [0; TRANSACTION];
        bytes[..8].copy_from_slice(&self.tid.to_bytes());
        bytes[8..16].copy_from_slice(&self.length.to_be_bytes());
        bytes[16] = self.status;
        for (n, length) in self.texts.iter().enumerate() {
            bytes[17 + 2 * n..19 + 2 * n].copy_from_slice(&length.to_be_bytes());
        }
        bytes
    }

    /// Bytes before the first record.
    pub fn head(&self) -> u64 {
        TRANSACTION as u64 + self.texts.iter().map(|length| u64::from(*length)).sum::<u64>()
    }
}

impl RecordHeader {
    pub fn decode(bytes: &[u8; RECORD]) -> RecordHeader {
        RecordHeader {
            oid: Oid(number(bytes, 0)),
            tid: Tid(number(bytes, 8)),
            previous: number(bytes, 16),
            transaction: number(bytes, 24),
            version: short(bytes, 32),
            length: number(bytes, 34),
        }
    }

    /// Bytes after the header: the data, or the position that stands for them.
    pub fn body(&self) -> u64 {
        if self.length == 0 { 8 } else { self.length }
    }

    pub fn encode(&self) -> [u8; RECORD] {
        let mut bytes = [0; RECORD];
        bytes[..8].copy_from_slice(&self.oid.to_bytes());
        bytes[8..16].copy_from_slice(&self.tid.to_bytes());
        bytes[16..24].copy_from_slice(&self.previous.to_be_bytes());
        bytes[24..32].copy_from_slice(&self.transaction.to_be_bytes());
        bytes[32..34].copy_from_slice(&self.version.to_be_bytes());
        bytes[34..].copy_from_slice(&self.length.to_be_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_these_bytes() {
        let header = TransactionHeader { tid: Tid(1), length: 2, status: PACKED, texts: [3, 4, 5] };
        assert_eq!(header.encode(), *b"\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02p\0\x03\0\x04\0\x05");
        assert_eq!(TransactionHeader::decode(&header.encode()), header);
        assert_eq!(header.head(), 35);
        let header = RecordHeader { oid: Oid(1), tid: Tid(2), previous: 3, transaction: 4, version: 5, length: 6 };
        let bytes = b"\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x04\0\x05\0\0\0\0\0\0\0\x06";
        assert_eq!(header.encode(), *bytes);
        assert_eq!(RecordHeader::decode(bytes), header);
    }
}
