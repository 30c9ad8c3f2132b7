//! Where the members are: seats may get another address while links to them live on, and a member that has moved may be
//! needed before anybody can write that into the log, or has got that far in it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::types::Incarnation;

/// The places of the members, as far as they are known; cheap to clone.
#[derive(Clone)]
pub struct Addresses {
    /// By number, as this node's `--peers` has them.
    listed: Arc<BTreeMap<u64, String>>,
    told: Arc<Mutex<BTreeMap<Incarnation, Places>>>,
}

/// The places of a member.
#[derive(Clone, Default)]
struct Places {
    /// As its seat has it; `None`: not asked for yet.
    seat: Option<String>,
    /// As the member last said itself.
    said: Option<String>,
}

impl Addresses {
    /// Those in `--peers`. They count last, and are needed when members move while nobody leads: neither finds the
    /// other where the log has it, and only their operator can have told them.
    pub fn listed(peers: &BTreeMap<u64, String>) -> Addresses {
        Addresses { listed: Arc::new(peers.clone()), told: Arc::default() }
    }

    /// Notes where the member's seat has it.
    pub fn set(&self, member: Incarnation, address: &str) {
        self.lock().entry(member).or_default().seat = Some(address.to_owned());
    }

    /// Notes where a member has said to be.
    pub fn said(&self, member: Incarnation, address: &str) {
        self.lock().entry(member).or_default().said = Some(address.to_owned());
    }

    /// Forgets all others.
    pub fn keep_only(&self, members: &[Incarnation]) {
        self.lock().retain(|member, _| members.contains(member));
    }

    /// Everywhere `member`, node `node`, may be, each place once: where it has said to be, where its seat is, and where
    /// `--peers` has that number.
    pub fn of(&self, node: u64, member: Incarnation) -> Vec<String> {
        let Places { seat, said } = self.lock().get(&member).cloned().unwrap_or_default();
        let mut places = Vec::new();
        for place in [said, seat, self.listed.get(&node).cloned()].into_iter().flatten() {
            if !places.contains(&place) {
                places.push(place);
            }
        }
        places
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Incarnation, Places>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
