//! The stamp: the record that ties a data folder to a cluster.
//!
//! A node takes part in a cluster if, and only if, its folder is stamped; `formation` says how a folder gets its stamp.
//! Disk and peers get the same bytes of a stamp.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::types::{Incarnation, Seat};

/// A cluster's name for itself: drawn by chance when it forms.
pub type ClusterId = [u8; 16];

/// The record that ties a data folder to a cluster; in `log/` as `stamp`, fsynced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    pub cluster: ClusterId,
    /// The members that the cluster began with.
    pub members: BTreeMap<Incarnation, Seat>,
    /// The digest of the data that every member began with (`base`).
    pub base: [u8; 32],
}

impl Stamp {
    /// The number of the node that made the stamp, and initialises the log.
    pub fn founder(&self) -> Option<u64> {
        self.members.values().map(|seat| seat.node).min()
    }

    /// The members' numbers and addresses, as `--peers` lists them.
    pub fn addresses(&self) -> BTreeMap<u64, String> {
        self.members.values().map(|seat| (seat.node, seat.address.clone())).collect()
    }
}

/// The cluster id as people see it.
pub fn cluster_name(id: &ClusterId) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The list of peers as `--peers` has it.
pub fn peers_list(peers: &BTreeMap<u64, String>) -> String {
    peers.iter().map(|(id, address)| format!("{id}={address}")).collect::<Vec<_>>().join(",")
}
