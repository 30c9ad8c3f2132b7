//! The meta data of a transaction, and the revisions that it wrote.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::ids::{Oid, Tid};

/// The state of an object in one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The object's two pickles, as the client sent them.
    Data(Bytes),
    /// No object: its creation was undone, or it was deleted.
    Absent,
}

/// One object as one transaction left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// The object.
    pub oid: Oid,
    /// The transaction that wrote it: the revision's *serial*.
    pub tid: Tid,
    /// The state of the object from that transaction on.
    pub state: State,
    /// The transaction whose data this revision repeats (undo, restore); `data_txn` of ZODB's iterators.
    pub data_tid: Option<Tid>,
}

/// The descriptions of a transaction, stored as the client sent them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionMeta {
    /// `b' '` as a rule; `b'p'` where a copied transaction had been packed (`TransactionRecord.status`).
    pub status: u8,
    /// The name of the user who committed.
    #[serde(with = "serde_bytes")]
    pub user: Vec<u8>,
    /// A note about the commit.
    #[serde(with = "serde_bytes")]
    pub description: Vec<u8>,
    /// The pickle of the extension dictionary, empty when there is none; ZODB's `extension_bytes`.
    #[serde(with = "serde_bytes")]
    pub extension: Vec<u8>,
}
