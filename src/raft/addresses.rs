//! Where the members are: seats may get another address while links to them live on, and a member that has moved may be
//! needed before anybody can write that into the log, or has got that far in it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::types::Incarnation;

/// The places of the members, as far as they are known; cheap to clone.
#[derive(Clone, Default)]
pub struct Addresses(Arc<Mutex<BTreeMap<Incarnation, Places>>>);

/// The places of a member.
#[derive(Clone, Default)]
struct Places {
    /// As its seat has it; `None`: not asked for yet.
    seat: Option<String>,
    /// As the member last said itself.
    said: Option<String>,
}

impl Addresses {
    /// Notes where the member's seat has it.
    pub fn set(&self, member: Incarnation, address: &str) {
        self.lock().entry(member).or_default().seat = Some(address.to_owned());
    }

    /// Notes where a member has said to be.
    pub fn said(&self, member: Incarnation, address: &str) {
        self.lock().entry(member).or_default().said = Some(address.to_owned());
    }

    /// Where a member has said to be.
    pub fn said_by(&self, member: Incarnation) -> Option<String> {
        self.lock().get(&member)?.said.clone()
    }

    /// Forgets all others.
    pub fn keep_only(&self, members: &[Incarnation]) {
        self.lock().retain(|member, _| members.contains(member));
    }

    /// Where to call the member for the `attempt`th time: where its seat is, or, each other time, where it has said to
    /// be.
    pub fn of(&self, member: Incarnation, attempt: u32) -> Option<String> {
        let Places { seat, said } = self.lock().get(&member).cloned()?;
        let (first, second) = if attempt.is_multiple_of(2) { (seat, said) } else { (said, seat) };
        first.or(second)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Incarnation, Places>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
