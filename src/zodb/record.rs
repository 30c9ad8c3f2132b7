//! What a transaction leaves behind: its meta data and the revisions it wrote.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Oid, Tid};

/// What a revision says of its object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The object's pickles, as the client sent them.
    Data(Bytes),
    /// The object does not exist any more: its creation was undone, or it was deleted.
    Absent,
}

/// One object as one transaction left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// The object.
    pub oid: Oid,
    /// The transaction that wrote it: the revision's *serial*.
    pub tid: Tid,
    /// What the object was made to be.
    pub state: State,
    /// The transaction whose data this revision shows again (undo, restore); `data_txn` of ZODB's iterators.
    pub data_tid: Option<Tid>,
}

/// What a transaction says of itself, kept as the client gave it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionMeta {
    /// `b' '` as a rule; `b'p'` where a copied transaction had been packed (`TransactionRecord.status`).
    pub status: u8,
    /// Who committed, as the client says.
    #[serde(with = "serde_bytes")]
    pub user: Vec<u8>,
    /// What for, as the client says.
    #[serde(with = "serde_bytes")]
    pub description: Vec<u8>,
    /// The pickle of the extension dictionary, empty when there is none; ZODB's `extension_bytes`.
    #[serde(with = "serde_bytes")]
    pub extension: Vec<u8>,
}
