//! Every table of a node's store, and every key in it.
//!
//! All numbers are big-endian, so that byte order is number order. Each value is sealed (`value`): one byte for its
//! kind, a checksum, then the body given here.
//!
//! | table | key | kind | body |
//! |---|---|---|---|
//! | `meta` | `01` | `31` | format of the store: u32 |
//! | `meta` | `02` | `32` | applied position: index u64, term u64 |
//! | `meta` | `03` | `33` | open reign: term u64, number u64 |
//! | `meta` | `04` | `34` | membership: position as above, then Raft's bytes |
//! | `meta` | `05` | `38` | position as above, then postcard of the [`Roster`](crate::roster::Roster) |
//! | `meta` | `10` storage u32 | `35` | name of the storage, UTF-8 |
//! | | | `37` | the name that the storage had until it was dropped: its number is never given again |
//! | `meta` | `11` storage u32 | `36` | its summary, 128 bytes (`summary`) |
//! | `objects` | storage u32, oid u64 | `21` | tid u64 of the newest revision, which has data |
//! | | | `22` | tid u64 of the newest revision, which is absent |
//! | `revisions` | storage u32, oid u64, !tid u64 | `01` | the record, as the client sent it |
//! | | | `02` | the object is absent as of tid: nothing, or *link* u64 |
//! | | | `03` | the record lies with an older revision: *data tid* u64; *link* u64 if that is another |
//! | | | `04` | the record lies in pieces: content hash 32 bytes, length u64, *spans* |
//! | `blobs` | storage u32, oid u64, !tid u64 | `51` | the blob, in pieces: as `04`, with the blob's hash |
//! | | | `52` | the blob lies with an older revision of the object, of kind `51`: its tid u64 |
//! | `pieces` | storage u32, piece u64 | `41` | bytes of a record or blob, at most 1 MiB |
//! | `unclaimed` | storage u32, piece u64 | `42` | nothing: the piece belongs to no revision (yet) |
//! | `transactions` | storage u32, tid u64 | `11` | the transaction's *head* |
//! | | storage u32, tid u64, part u32 | `12` | oids from the (512 * part)th on, at most 512; part >= 1 |
//!
//! - *head*: status u8, length u64 (in a `Data.fs`), count u32, left u32 (its revisions that no pack has removed);
//!   user, description and extension, each length u32 and bytes; then the first 512 oids u64.
//! - *spans*: each the first piece u64 and the count u32.
//! - *data tid*: an older revision of the object, of kind `01` or `04`.
//! - *link*: the older revision that undo (or a copied transaction) made this one show again. That one may show a still
//!   older one itself, and may have been packed away since. Loads have no use for a link; iterators tell it, and undo
//!   asks for it.
//!
//! The tid in a revision's key is inverted (`!tid`), so that an object's newest revision comes first, and the revision
//! that a view shows is the first at or after the view's own key. `objects` repeats the newest revision of each object
//! without its data: a vote or apply, which only asks *which* revision is current, must not read a record to learn
//! that.
//!
//! No tid is 0, so the key of tid 0 ends an object's revisions.

use crate::engine::Table;
use crate::zodb::{Oid, StorageId, Tid};

/// The catalog: the store's format, position and reign, and the storages.
pub const META: Table = Table { index: 0, name: "meta", large_values: false, cached: true };
/// The newest revision of each object.
pub const OBJECTS: Table = Table { index: 1, name: "objects", large_values: false, cached: true };
/// Each object as each transaction left it.
pub const REVISIONS: Table = Table { index: 2, name: "revisions", large_values: true, cached: true };
/// Each transaction's meta data, and the objects that it wrote, in order.
pub const TRANSACTIONS: Table = Table { index: 3, name: "transactions", large_values: false, cached: true };

/// The blobs of revisions.
pub const BLOBS: Table = Table { index: 4, name: "blobs", large_values: false, cached: true };
/// Records and blobs that came ahead of their transactions.
pub const PIECES: Table = Table { index: 5, name: "pieces", large_values: true, cached: false };
/// The pieces that belong to no revision.
pub const UNCLAIMED: Table = Table { index: 6, name: "unclaimed", large_values: false, cached: true };

/// The tables that the engine of a store is opened with.
pub const TABLES: &[Table] = &[META, OBJECTS, REVISIONS, TRANSACTIONS, BLOBS, PIECES, UNCLAIMED];

/// The most oids that stand in one value of `transactions`.
pub const OIDS_PER_PART: usize = 512;

pub(super) const FORMAT: [u8; 1] = [0x01];
pub(super) const POSITION: [u8; 1] = [0x02];
pub(super) const REIGN: [u8; 1] = [0x03];
pub(super) const MEMBERSHIP: [u8; 1] = [0x04];
pub(super) const ROSTER: [u8; 1] = [0x05];
const NAME: u8 = 0x10;
const SUMMARY: u8 = 0x11;

/// The key of a storage's name.
pub(super) fn name(storage: StorageId) -> [u8; 5] {
    of_storage(NAME, storage)
}

/// The span of all names.
pub(super) const NAMES: ([u8; 1], [u8; 1]) = ([NAME], [NAME + 1]);

/// The storage of a name's key.
pub(super) fn decode_name(key: &[u8]) -> Option<StorageId> {
    let number = key.strip_prefix(&[NAME])?.try_into().ok()?;
    Some(StorageId(u32::from_be_bytes(number)))
}

/// The key of a storage's summary.
pub(super) fn summary(storage: StorageId) -> [u8; 5] {
    of_storage(SUMMARY, storage)
}

fn of_storage(prefix: u8, storage: StorageId) -> [u8; 5] {
    let mut key = [prefix; 5];
    key[1..].copy_from_slice(&storage.0.to_be_bytes());
    key
}

/// The key of an object in `objects`.
pub fn object(storage: StorageId, oid: Oid) -> [u8; 12] {
    pair(storage, oid.0)
}

/// Reads the key that [`object`] made.
pub fn decode_object(key: &[u8]) -> Option<(StorageId, Oid)> {
    let (storage, oid) = split_pair(key)?;
    Some((storage, Oid(oid)))
}

/// The key of a revision in `revisions`.
pub fn revision(storage: StorageId, oid: Oid, tid: Tid) -> [u8; 20] {
    let mut key = [0; 20];
    key[..12].copy_from_slice(&pair(storage, oid.0));
    key[12..].copy_from_slice(&(!tid.0).to_be_bytes());
    key
}

/// Reads the key that [`revision`] made.
pub fn decode_revision(key: &[u8]) -> Option<(StorageId, Oid, Tid)> {
    let (head, inverted) = key.split_at_checked(12)?;
    let (storage, oid) = split_pair(head)?;
    Some((storage, Oid(oid), Tid(!u64::from_be_bytes(inverted.try_into().ok()?))))
}

/// The key of a transaction in `transactions`.
pub fn transaction(storage: StorageId, tid: Tid) -> [u8; 12] {
    pair(storage, tid.0)
}

/// The key of the oids from the `512 * part`th on; `part` is at least 1, the first oids stand with the transaction.
pub fn transaction_part(storage: StorageId, tid: Tid, part: u32) -> [u8; 16] {
    let mut key = [0; 16];
    key[..12].copy_from_slice(&pair(storage, tid.0));
    key[12..].copy_from_slice(&part.to_be_bytes());
    key
}

/// Reads the key that [`transaction`] (part 0) or [`transaction_part`] made.
pub fn decode_transaction(key: &[u8]) -> Option<(StorageId, Tid, u32)> {
    let (head, part) = key.split_at_checked(12)?;
    let (storage, tid) = split_pair(head)?;
    let part = if part.is_empty() { 0 } else { u32::from_be_bytes(part.try_into().ok()?) };
    Some((storage, Tid(tid), part))
}

/// The key of a piece in `pieces` and `unclaimed`.
pub fn piece(storage: StorageId, piece: u64) -> [u8; 12] {
    pair(storage, piece)
}

/// Reads the key that [`piece`] made.
pub fn decode_piece(key: &[u8]) -> Option<(StorageId, u64)> {
    split_pair(key)
}

/// The first key past everything of `storage`, in each table but `meta`.
pub fn storage_end(storage: StorageId) -> [u8; 4] {
    storage.0.checked_add(1).expect("apply gives out no storage id that is u32::MAX").to_be_bytes()
}

fn pair(storage: StorageId, id: u64) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&storage.0.to_be_bytes());
    key[4..].copy_from_slice(&id.to_be_bytes());
    key
}

fn split_pair(key: &[u8]) -> Option<(StorageId, u64)> {
    let (storage, id) = key.split_at_checked(4)?;
    Some((StorageId(u32::from_be_bytes(storage.try_into().ok()?)), u64::from_be_bytes(id.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const S: StorageId = StorageId(0x01020304);

    #[test]
    fn keys_are_these_bytes() {
        assert_eq!(object(S, Oid(0x1112)), [1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0x11, 0x12]);
        let tid = Tid(0x2122);
        assert_eq!(
            revision(S, Oid(0x1112), tid),
            [1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0x11, 0x12, 255, 255, 255, 255, 255, 255, 0xde, 0xdd]
        );
        assert_eq!(transaction(S, tid), [1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0x21, 0x22]);
        assert_eq!(transaction_part(S, tid, 7), [1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0x21, 0x22, 0, 0, 0, 7]);
        assert_eq!(name(S), [0x10, 1, 2, 3, 4]);
        assert_eq!(summary(S), [0x11, 1, 2, 3, 4]);
        assert_eq!(storage_end(S), [1, 2, 3, 5]);
    }

    #[test]
    fn tables_stand_at_their_index() {
        for (index, table) in TABLES.iter().enumerate() {
            assert_eq!(table.index, index);
        }
    }

    proptest! {
        #[test]
        fn keys_survive_the_round_trip(s: u32, id: u64, tid: u64, part in 1u32..) {
            let (storage, oid, tid) = (StorageId(s), Oid(id), Tid(tid));
            prop_assert_eq!(decode_object(&object(storage, oid)), Some((storage, oid)));
            prop_assert_eq!(decode_revision(&revision(storage, oid, tid)), Some((storage, oid, tid)));
            prop_assert_eq!(decode_transaction(&transaction(storage, tid)), Some((storage, tid, 0)));
            prop_assert_eq!(decode_transaction(&transaction_part(storage, tid, part)), Some((storage, tid, part)));
            prop_assert_eq!(decode_name(&name(storage)), Some(storage));
        }

        #[test]
        fn revisions_are_sorted_by_object_and_then_from_young_to_old(a: (u32, u64, u64), b: (u32, u64, u64)) {
            let key = |(s, oid, tid)| revision(StorageId(s), Oid(oid), Tid(tid));
            let order = (a.0, a.1, std::cmp::Reverse(a.2)).cmp(&(b.0, b.1, std::cmp::Reverse(b.2)));
            prop_assert_eq!(key(a).cmp(&key(b)), order);
        }
    }
}
