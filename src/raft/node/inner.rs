//! The state that the parts of a node share: the node's settings, log, store and present role.
//!
//! Data, and the short ways to look at it. Everything else in this folder works on an [`Inner`] and lies above it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use crate::command::Reign;
use crate::config::Config;
use crate::env::{Env, Watch};
use crate::raft::formation::Formation;
use crate::raft::heard::Heard;
use crate::raft::link::Caller;
use crate::raft::log::LogStore;
use crate::raft::peers::{Peers, Raft};
use crate::raft::stamp::cluster_name;
use crate::raft::types::{Members, Seat};
use crate::storage::Store;

/// A member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The member's number in `--peers`.
    pub id: u64,
    /// `host:port`, for clients and peers alike.
    pub address: String,
}

/// The present role of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Not a member of a cluster yet; the text says what this node waits for.
    Forming(String),
    /// A member that knows no living primary.
    Candidate,
    /// Another node is primary.
    Secondary {
        /// The node that leads.
        primary: Member,
        /// Whether this node has once applied everything that this primary had said it had committed.
        caught_up: bool,
    },
    /// This node is primary and may commit.
    Primary(Reign),
}

/// One node, as its handles and its tasks share it.
pub struct Inner {
    pub config: Arc<Config>,
    pub caller: Caller,
    pub store: Store,
    pub log: LogStore,
    pub formation: Formation,
    pub heard: Heard,
    pub role: Watch<Role>,
    /// The greatest reign of which a proposal came back refused.
    pub abdicated: Watch<Option<Reign>>,
    /// Why this node can't take part any more.
    pub fault: Watch<Option<String>>,
    pub stopping: AtomicBool,
    /// Set once, when this node belongs to a cluster.
    pub running: OnceLock<Running>,
}

/// The parts that only a node of a cluster has.
pub struct Running {
    pub raft: Raft,
    pub peers: Peers,
}

impl Inner {
    /// Sets this node's role; watchers of the role wake if the role has changed.
    pub fn publish(&self, role: Role) {
        self.role.send_if(|present| {
            let news = *present != role;
            if news {
                tracing::debug!("role: {role:?}");
                *present = role;
            }
            news
        });
    }

    /// Waits for news of Raft, or for a heartbeat's time.
    pub async fn pause(&self, raft: &Raft) {
        let mut metrics = raft.server_metrics();
        // openraft gives out copies of a receiver that has seen only the first value: the present one is no news.
        metrics.look_now();
        let _ = self.env().timeout(self.config.heartbeat, metrics.changed()).await;
    }

    /// Members with their addresses: from the log, or the stamp before the log has any.
    pub fn members(&self) -> Vec<Member> {
        let logged = self.store.membership().and_then(|(_, bytes)| postcard::from_bytes::<Members>(&bytes).ok());
        let seats = match (logged, &*self.formation.stamp.look()) {
            (Some(members), _) => members.seats,
            (None, Some(stamp)) => stamp.members.clone(),
            (None, None) => BTreeMap::new(),
        };
        seats.into_iter().map(|(id, seat)| Member { id, address: seat.address }).collect()
    }

    /// The member with this id, as the log or else the stamp has it.
    pub fn member(&self, id: u64) -> Option<Member> {
        self.members().into_iter().find(|member| member.id == id)
    }

    /// The nodes that may be peers, by id: the members, or those in `--peers` before the cluster has formed.
    pub fn seats(&self) -> BTreeMap<u64, Seat> {
        match &*self.formation.stamp.look() {
            Some(stamp) => stamp.members.clone(),
            None => {
                let seat = |address: &String| Seat { address: address.clone(), incarnation: 0 };
                self.formation.peers.iter().map(|(id, address)| (*id, seat(address))).collect()
            }
        }
    }

    /// The cluster's id in hexadecimal; `None` while this node belongs to none.
    pub fn cluster(&self) -> Option<String> {
        self.formation.stamp.look().as_ref().map(|stamp| cluster_name(&stamp.cluster))
    }

    pub fn env(&self) -> &Env {
        &self.caller.env
    }

    pub fn role(&self) -> Role {
        self.role.look().clone()
    }

    pub fn fault(&self) -> Option<String> {
        self.fault.look().clone()
    }

    pub fn stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }
}
