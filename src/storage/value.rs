//! The values behind the keys: how they are sealed, and their bodies.
//!
//! A sealed value is one byte for its kind (the kinds are listed in `keys`; the list grows, a number is never used
//! again), four bytes of CRC-32C (big-endian) over the key, the kind and the body, and the body. As the key is part of
//! the checksum, a value that turns up in another's place is found out as well as one that was damaged.

use std::fmt::Display;
use std::io;

use bytes::{Buf, Bytes};

use super::keys::{self, OIDS_PER_PART};
use super::position::Position;
use crate::command::{Reign, Span, Staged};
use crate::zodb::{Oid, Tid, TransactionMeta};

pub(super) const DATA: u8 = 0x01;
pub(super) const ABSENT: u8 = 0x02;
pub(super) const SAME_AS: u8 = 0x03;
pub(super) const IN_PIECES: u8 = 0x04;
pub(super) const TRANSACTION: u8 = 0x11;
pub(super) const MORE_OIDS: u8 = 0x12;
pub(super) const CURRENT_DATA: u8 = 0x21;
pub(super) const CURRENT_ABSENT: u8 = 0x22;
pub(super) const FORMAT: u8 = 0x31;
pub(super) const POSITION: u8 = 0x32;
pub(super) const REIGN: u8 = 0x33;
pub(super) const MEMBERSHIP: u8 = 0x34;
pub(super) const NAME: u8 = 0x35;
pub(super) const SUMMARY: u8 = 0x36;
pub(super) const DROPPED: u8 = 0x37;
pub(super) const ROSTER: u8 = 0x38;
pub(super) const PIECE: u8 = 0x41;
pub(super) const UNCLAIMED: u8 = 0x42;
const BLOB: u8 = 0x51;
const BLOB_SAME_AS: u8 = 0x52;

/// The status of a transaction that a pack has reached (`TransactionRecord.status`).
pub(super) const PACKED: u8 = b'p';
/// The status of any other.
pub(super) const UNPACKED: u8 = b' ';

/// Bytes before the body.
const HEAD: usize = 5;

/// The fault that this node's data is damaged.
pub(super) fn damaged(what: impl Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the store is damaged: {what}"))
}

fn checksum(key: &[u8], kind: u8, body: &[u8]) -> [u8; 4] {
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(key), &[kind]), body).to_be_bytes()
}

pub(super) fn seal(key: &[u8], kind: u8, body: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(HEAD + body.len());
    value.push(kind);
    value.extend_from_slice(&checksum(key, kind, body));
    value.extend_from_slice(body);
    value
}

/// The kind, after the checksum was compared; the body is `value[5..]`. The error says what is wrong; the caller adds
/// where.
fn unseal(key: &[u8], value: &[u8]) -> Result<u8, String> {
    let (head, body) = value.split_at_checked(HEAD).ok_or_else(|| format!("only {} bytes", value.len()))?;
    let found = checksum(key, head[0], body);
    if found != head[1..] {
        return Err(format!("its checksum is {}, not {}", hex(&found), hex(&head[1..])));
    }
    Ok(head[0])
}

/// The body of a value that [`body`] has checked, without copying it.
pub(super) fn into_body(value: Vec<u8>) -> Bytes {
    let mut body = Bytes::from(value);
    body.advance(HEAD);
    body
}

/// Whether a value says to be of this kind; [`body`] tells whether it is right.
pub(super) fn is_of(kind: u8, value: &[u8]) -> bool {
    value.first() == Some(&kind)
}

/// The record in a sealed revision, if it lies there.
pub(super) fn record_in(revision: &[u8]) -> Option<&[u8]> {
    if is_of(DATA, revision) { revision.get(HEAD..) } else { None }
}

/// The body of a value that can only be of one kind.
pub(super) fn body<'v>(key: &[u8], kind: u8, value: &'v [u8]) -> io::Result<&'v [u8]> {
    match unseal(key, value) {
        Ok(found) if found == kind => Ok(&value[HEAD..]),
        Ok(found) => Err(damaged(format_args!("the value of key {} is of kind {found:02x}, not {kind:02x}", hex(key)))),
        Err(why) => Err(damaged(format_args!("the value of key {}: {why}", hex(key)))),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// A revision as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    Data(Bytes),
    Absent,
    /// The data lies with the revision of this tid, which is `Data` or `Pieces` (never another pointer).
    SameAs(Tid),
    /// The data lies in pieces.
    Pieces(Staged),
}

impl Stored {
    pub fn encode(&self, key: &[u8]) -> Vec<u8> {
        match self {
            Stored::Data(data) => seal(key, DATA, data),
            Stored::Absent => seal(key, ABSENT, &[]),
            Stored::SameAs(tid) => seal(key, SAME_AS, &tid.to_bytes()),
            Stored::Pieces(staged) => seal(key, IN_PIECES, &staged_bytes(staged)),
        }
    }

    /// As [`Stored::encode`], of a revision that was made to show revision `link` again.
    pub fn encode_linked(&self, key: &[u8], link: Option<Tid>) -> Vec<u8> {
        match (self, link) {
            (Stored::Absent, Some(link)) => seal(key, ABSENT, &link.to_bytes()),
            (Stored::SameAs(tid), Some(link)) if *tid != link => {
                seal(key, SAME_AS, &[tid.to_bytes(), link.to_bytes()].concat())
            }
            _ => self.encode(key),
        }
    }

    /// The older revision that a sealed revision was made to show again (the data may lie further back). `value` is
    /// one that [`Stored::decode`] takes.
    pub fn link(value: &[u8]) -> Option<Tid> {
        let tid = |bytes: &[u8]| Tid::from_bytes(&bytes[bytes.len().saturating_sub(8)..]);
        match value.split_at_checked(HEAD)? {
            ([ABSENT | SAME_AS, ..], body) => tid(body),
            _ => None,
        }
    }

    /// Reads a sealed revision; its data is not copied.
    pub fn decode(key: &[u8], value: Vec<u8>) -> io::Result<Stored> {
        let wrong = |why: String| match keys::decode_revision(key) {
            Some((storage, oid, tid)) => {
                damaged(format_args!("storage {storage}, object {oid}, transaction {tid}: {why}"))
            }
            None => damaged(format_args!("revision key {}: {why}", hex(key))),
        };
        match unseal(key, &value).map_err(wrong)? {
            DATA => Ok(Stored::Data(into_body(value))),
            ABSENT if value.len() == HEAD || value.len() == HEAD + 8 => Ok(Stored::Absent),
            SAME_AS => match value[HEAD..].split_at_checked(8) {
                Some((tid, link)) if link.is_empty() || link.len() == 8 => {
                    Ok(Stored::SameAs(Tid::from_bytes(tid).expect("the slice has 8 bytes")))
                }
                _ => Err(wrong("half a pointer".into())),
            },
            IN_PIECES => staged(&value[HEAD..])
                .map(Stored::Pieces)
                .ok_or_else(|| wrong("its list of pieces is cut short".into())),
            kind => Err(wrong(format!("unknown kind {kind:02x}"))),
        }
    }

    /// Bytes of the record that lies with this revision.
    pub fn length(&self) -> u64 {
        match self {
            Stored::Data(data) => data.len() as u64,
            Stored::Pieces(staged) => staged.length,
            Stored::Absent | Stored::SameAs(_) => 0,
        }
    }
}

/// The blob of a revision as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StoredBlob {
    Pieces(Staged),
    /// The blob lies with the revision of this tid, which is `Pieces`.
    SameAs(Tid),
}

impl StoredBlob {
    pub fn encode(&self, key: &[u8]) -> Vec<u8> {
        match self {
            StoredBlob::Pieces(staged) => seal(key, BLOB, &staged_bytes(staged)),
            StoredBlob::SameAs(tid) => seal(key, BLOB_SAME_AS, &tid.to_bytes()),
        }
    }

    pub fn decode(key: &[u8], value: &[u8]) -> io::Result<StoredBlob> {
        let wrong = |why: String| match keys::decode_revision(key) {
            Some((storage, oid, tid)) => {
                damaged(format_args!("storage {storage}, blob of object {oid}, transaction {tid}: {why}"))
            }
            None => damaged(format_args!("blob key {}: {why}", hex(key))),
        };
        let found = match unseal(key, value).map_err(wrong)? {
            BLOB => staged(&value[HEAD..]).map(StoredBlob::Pieces),
            BLOB_SAME_AS => Tid::from_bytes(&value[HEAD..]).map(StoredBlob::SameAs),
            kind => return Err(wrong(format!("unknown kind {kind:02x}"))),
        };
        found.ok_or_else(|| wrong("its value is cut short".into()))
    }
}

fn staged_bytes(staged: &Staged) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(40 + 12 * staged.pieces.len());
    bytes.extend_from_slice(&staged.hash);
    bytes.extend_from_slice(&staged.length.to_be_bytes());
    for span in &staged.pieces {
        bytes.extend_from_slice(&span.first.to_be_bytes());
        bytes.extend_from_slice(&span.count.to_be_bytes());
    }
    bytes
}

fn staged(mut bytes: &[u8]) -> Option<Staged> {
    let hash = take(&mut bytes, 32)?.try_into().ok()?;
    let length = u64::from_be_bytes(take(&mut bytes, 8)?.try_into().ok()?);
    let span = |span: &[u8]| {
        let (first, count) = span.split_at_checked(8)?;
        let (first, count) = (first.try_into().ok()?, count.try_into().ok()?);
        Some(Span { first: u64::from_be_bytes(first), count: u32::from_be_bytes(count) })
    };
    Some(Staged { hash, length, pieces: bytes.chunks(12).map(span).collect::<Option<_>>()? })
}

/// The newest revision of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Current {
    /// The transaction that wrote the revision.
    pub tid: Tid,
    /// Whether the object does not exist any more.
    pub absent: bool,
}

impl Current {
    pub(super) fn encode(self, key: &[u8]) -> Vec<u8> {
        seal(key, if self.absent { CURRENT_ABSENT } else { CURRENT_DATA }, &self.tid.to_bytes())
    }

    pub(super) fn decode(key: &[u8], value: &[u8]) -> io::Result<Current> {
        let wrong = |why: String| match keys::decode_object(key) {
            Some((storage, oid)) => {
                damaged(format_args!("storage {storage}, object {oid}, its newest revision: {why}"))
            }
            None => damaged(format_args!("object key {}: {why}", hex(key))),
        };
        let absent = match unseal(key, value).map_err(wrong)? {
            CURRENT_DATA => false,
            CURRENT_ABSENT => true,
            kind => return Err(wrong(format!("unknown kind {kind:02x}"))),
        };
        let tid = Tid::from_bytes(&value[HEAD..]).ok_or_else(|| wrong("not a tid".into()))?;
        Ok(Current { tid, absent })
    }
}

/// A transaction's own value: everything but the oids in further parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TransactionHead {
    pub meta: TransactionMeta,
    /// The transaction's length in a `Data.fs` (`tlen`); the undo log calls it the size.
    pub length: u64,
    /// How many objects the transaction lists: those that it wrote, in order, some perhaps twice.
    pub count: u32,
    /// How many of the transaction's revisions are left; packs lower the number, and at 0 remove the
    /// transaction.
    pub left: u32,
    /// The first [`OIDS_PER_PART`] of the listed objects.
    pub oids: Vec<Oid>,
}

impl TransactionHead {
    pub fn encode(&self, key: &[u8]) -> Vec<u8> {
        let mut body = Vec::with_capacity(64 + 8 * self.oids.len());
        body.push(self.meta.status);
        body.extend_from_slice(&self.length.to_be_bytes());
        body.extend_from_slice(&self.count.to_be_bytes());
        body.extend_from_slice(&self.left.to_be_bytes());
        for text in texts(&self.meta) {
            put_text(&mut body, text);
        }
        put_oids(&mut body, &self.oids);
        seal(key, TRANSACTION, &body)
    }

    pub fn decode(key: &[u8], value: &[u8]) -> io::Result<TransactionHead> {
        let mut rest = body(key, TRANSACTION, value)?;
        let head = take_head(&mut rest).and_then(|mut head| {
            head.oids = oids(rest)?;
            (head.oids.len() == OIDS_PER_PART.min(head.count as usize)).then_some(head)
        });
        head.ok_or_else(|| damaged(format_args!("the transaction of key {} is cut short", hex(key))))
    }
}

/// The head without its oids.
fn take_head(rest: &mut &[u8]) -> Option<TransactionHead> {
    let status = take(rest, 1)?[0];
    let length = u64::from_be_bytes(take(rest, 8)?.try_into().ok()?);
    let count = u32::from_be_bytes(take(rest, 4)?.try_into().ok()?);
    let left = u32::from_be_bytes(take(rest, 4)?.try_into().ok()?);
    let meta =
        TransactionMeta { status, user: take_text(rest)?, description: take_text(rest)?, extension: take_text(rest)? };
    Some(TransactionHead { meta, length, count, left, oids: Vec::new() })
}

/// The byte strings of a transaction's meta data, in the order in which they are stored and digested.
pub(super) fn texts(meta: &TransactionMeta) -> [&[u8]; 3] {
    [&meta.user, &meta.description, &meta.extension]
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    let length = u32::try_from(text.len()).expect("frames are limited to far less than 4 GiB");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(text);
}

fn take<'v>(rest: &mut &'v [u8], count: usize) -> Option<&'v [u8]> {
    let (taken, left) = rest.split_at_checked(count)?;
    *rest = left;
    Some(taken)
}

fn take_text(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let length = u32::from_be_bytes(take(rest, 4)?.try_into().ok()?);
    take(rest, length as usize).map(<[u8]>::to_vec)
}

fn put_oids(out: &mut Vec<u8>, oids: &[Oid]) {
    for oid in oids {
        out.extend_from_slice(&oid.to_bytes());
    }
}

fn oids(bytes: &[u8]) -> Option<Vec<Oid>> {
    bytes.chunks(8).map(Oid::from_bytes).collect()
}

/// One part of a large transaction's oids.
pub(super) fn encode_oids(key: &[u8], oids: &[Oid]) -> Vec<u8> {
    let mut body = Vec::with_capacity(8 * oids.len());
    put_oids(&mut body, oids);
    seal(key, MORE_OIDS, &body)
}

pub(super) fn decode_oids(key: &[u8], value: &[u8]) -> io::Result<Vec<Oid>> {
    oids(body(key, MORE_OIDS, value)?)
        .ok_or_else(|| damaged(format_args!("the oids of key {} are cut short", hex(key))))
}

impl Position {
    pub(super) fn to_bytes(self) -> [u8; 16] {
        two(self.index, self.term)
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> io::Result<Position> {
        match numbers(bytes) {
            Some([index, term]) => Ok(Position { index, term }),
            None => Err(damaged("a position is not 16 bytes")),
        }
    }
}

pub(super) fn reign_bytes(reign: Reign) -> [u8; 16] {
    two(reign.term, reign.number)
}

pub(super) fn reign_from_bytes(bytes: &[u8]) -> io::Result<Reign> {
    match numbers(bytes) {
        Some([term, number]) => Ok(Reign { term, number }),
        None => Err(damaged("a reign is not 16 bytes")),
    }
}

fn two(a: u64, b: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&a.to_be_bytes());
    bytes[8..].copy_from_slice(&b.to_be_bytes());
    bytes
}

/// Exactly `N` numbers.
pub(super) fn numbers<const N: usize>(bytes: &[u8]) -> Option<[u64; N]> {
    if bytes.len() != 8 * N {
        return None;
    }
    let mut numbers = [0; N];
    for (number, bytes) in numbers.iter_mut().zip(bytes.chunks(8)) {
        *number = u64::from_be_bytes(bytes.try_into().ok()?);
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zodb::StorageId;

    fn key() -> [u8; 20] {
        keys::revision(StorageId(1), Oid(2), Tid(3))
    }

    fn head(count: u32) -> TransactionHead {
        TransactionHead {
            meta: TransactionMeta {
                status: b' ',
                user: b"jim".to_vec(),
                description: b"did".to_vec(),
                extension: vec![],
            },
            length: 0x0102,
            count,
            left: count,
            oids: (0..count.min(512)).map(|n| Oid(n.into())).collect(),
        }
    }

    #[test]
    fn values_are_these_bytes() {
        let data = Stored::Data(Bytes::from_static(b"pickle")).encode(&key());
        assert_eq!(hex(&data), "01803e39137069636b6c65");
        assert_eq!(hex(&Stored::Absent.encode(&key())), "02793825f9");
        assert_eq!(hex(&Stored::SameAs(Tid(2)).encode(&key())), "03beb6d2ac0000000000000002");
        let linked = |stored: Stored, link| hex(&stored.encode_linked(&key(), Some(Tid(link)))[HEAD..]);
        assert_eq!(linked(Stored::SameAs(Tid(1)), 2), "00000000000000010000000000000002");
        assert_eq!(linked(Stored::SameAs(Tid(1)), 1), "0000000000000001");
        assert_eq!(linked(Stored::Absent, 2), "0000000000000002");
        let key = keys::transaction(StorageId(1), Tid(3));
        assert_eq!(
            hex(&head(2).encode(&key)[HEAD..]),
            "20 0000000000000102 00000002 00000002 00000003 6a696d 00000003 646964 00000000 0000000000000000 0000000000000001"
                .replace(' ', "")
        );
        let key = keys::object(StorageId(1), Oid(2));
        let current = Current { tid: Tid(3), absent: false };
        assert_eq!(hex(&current.encode(&key)[HEAD..]), "0000000000000003");
        let position = Position { index: 1, term: 2 };
        assert_eq!(hex(&position.to_bytes()), "00000000000000010000000000000002");
    }

    #[test]
    fn values_survive_the_round_trip() {
        for stored in [
            Stored::Data(Bytes::from_static(b"pickle")),
            Stored::Data(Bytes::new()),
            Stored::Absent,
            Stored::SameAs(Tid(9)),
        ] {
            assert_eq!(Stored::decode(&key(), stored.encode(&key())).unwrap(), stored);
            let points = !matches!(stored, Stored::Data(_));
            for link in [Tid(8), Tid(9)] {
                let linked = stored.encode_linked(&key(), Some(link));
                assert_eq!(Stored::link(&linked), points.then_some(link));
                assert_eq!(Stored::decode(&key(), linked).unwrap(), stored);
            }
        }
        assert_eq!(Stored::link(&Stored::Absent.encode(&key())), None);
        let key = keys::transaction(StorageId(1), Tid(3));
        for count in [0, 1, 511, 512, 513, 2000] {
            assert_eq!(TransactionHead::decode(&key, &head(count).encode(&key)).unwrap(), head(count));
        }
        let key = keys::object(StorageId(1), Oid(2));
        for absent in [false, true] {
            let current = Current { tid: Tid(7), absent };
            assert_eq!(Current::decode(&key, &current.encode(&key)).unwrap(), current);
        }
        let position = Position { index: 1, term: 2 };
        assert_eq!(Position::from_bytes(&position.to_bytes()).unwrap(), position);
    }

    #[test]
    fn every_flipped_bit_is_noticed_and_the_record_named() {
        let value = Stored::Data(Bytes::from_static(b"pickle")).encode(&key());
        for bit in 0..8 * value.len() {
            let mut flipped = value.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let fault = Stored::decode(&key(), flipped).unwrap_err().to_string();
            assert!(fault.contains("storage s1, object 0000000000000002, transaction 0000000000000003"), "{fault}");
        }
    }

    #[test]
    fn a_value_in_anothers_place_is_noticed() {
        let value = Stored::Absent.encode(&key());
        assert!(Stored::decode(&keys::revision(StorageId(1), Oid(2), Tid(4)), value).is_err());
    }

    #[test]
    fn a_cut_value_is_noticed_at_every_length() {
        let key = keys::transaction(StorageId(1), Tid(3));
        let value = head(3).encode(&key);
        for length in 0..value.len() {
            assert!(TransactionHead::decode(&key, &value[..length]).is_err(), "{length} bytes were taken for whole");
        }
    }
}
