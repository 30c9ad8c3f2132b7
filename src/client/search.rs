//! The search for a server: the refusals and faults met so far.

use std::collections::BTreeMap;

use crate::zodb::Refusal;

/// Why the server at an address does not serve this client.
pub enum NotServing {
    /// The node is not primary; the address of the primary, if the node knows one.
    NotPrimary(Option<String>),
    Refused(Refusal),
    Fault(String),
}

/// How often servers have to refuse a client before the refusal is believed: a server that has just begun may not be
/// ready.
const REFUSALS: u32 = 3;

/// How the search for a server goes, for the caller that waits for its end.
#[derive(Default)]
pub struct Search {
    /// Per address, the reason why the server there does not serve, as of the last attempt.
    missed: BTreeMap<String, NotServing>,
    refusals: u32,
}

impl Search {
    /// Remembers why `address` does not serve.
    pub fn note(&mut self, address: &str, why: NotServing) {
        self.refusals += u32::from(matches!(why, NotServing::Refused(_)));
        self.missed.insert(address.to_owned(), why);
    }

    /// The refusal to believe, once servers have refused often enough.
    pub fn refusal(&self) -> Option<Refusal> {
        if self.refusals < REFUSALS {
            return None;
        }
        // Where another node may become primary, a read-only one has not the last word.
        let may_come = self.missed.values().any(|missed| matches!(missed, NotServing::NotPrimary(_)));
        self.missed.values().find_map(|missed| match missed {
            NotServing::Refused(Refusal::ReadOnly) if may_come => None,
            NotServing::Refused(refusal) => Some(refusal.clone()),
            _ => None,
        })
    }

    /// Each address, and why it does not serve.
    pub fn whys(&self) -> Vec<(String, String)> {
        self.missed.iter().map(|(address, missed)| (address.clone(), missed.to_string())).collect()
    }
}

impl std::fmt::Display for NotServing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NotServing::NotPrimary(Some(primary)) => write!(f, "not the primary; says it is {primary}"),
            NotServing::NotPrimary(None) => f.write_str("not the primary; knows of none"),
            NotServing::Refused(refusal) => write!(f, "refused: {refusal}"),
            NotServing::Fault(why) => f.write_str(why),
        }
    }
}
