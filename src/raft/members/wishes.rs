//! What operators ask for, and a node that comes back with an empty folder: a new roster, or why not.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::facts::{Facts, ON_THEIR_WAY};
use crate::config::limits;
use crate::raft::types::Incarnation;
use crate::roster::{Part, Roster, Wish};

/// An operator's wish for another membership.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MembersAsk {
    /// A node that was started with an empty folder is to join.
    Add {
        /// Its number.
        node: u64,
        /// `host:port`
        address: String,
        /// Whether it never votes.
        observer: bool,
    },
    /// An observer is to vote.
    Promote {
        /// Its number.
        node: u64,
    },
    /// A voter is to vote no more.
    Observe {
        /// Its number.
        node: u64,
    },
    /// A node is to leave.
    Remove {
        /// Its number.
        node: u64,
    },
    /// A node is to leave, and another one, started with an empty folder, to take its place.
    Replace {
        /// The one that leaves.
        old: u64,
        /// The other one's number.
        node: u64,
        /// `host:port` of the other one.
        address: String,
        /// Whether the one that leaves may be there.
        planned: bool,
    },
    /// A node has another address.
    Address {
        /// Its number.
        node: u64,
        /// `host:port`
        address: String,
    },
}

/// What was found at the address that a [`MembersAsk`] names.
#[derive(Clone, Copy, Debug)]
pub enum Found {
    /// Nobody was asked: whoever is there will do.
    Unasked,
    /// The folder that is there; for a new node an empty one.
    Folder(Incarnation),
}

/// The roster once `ask` is granted; or why it is not. `found`: who is there at the address that it names, if it names
/// one.
pub fn changed(ask: &MembersAsk, facts: &Facts, roster: &Roster, found: Found) -> Result<Roster, String> {
    let mut wanted = if roster.nodes.is_empty() { facts.as_wished() } else { roster.clone() };
    let folder = match found {
        Found::Unasked => 0,
        Found::Folder(folder) => folder.0,
    };
    if let MembersAsk::Add { node, .. } | MembersAsk::Replace { node, .. } = ask {
        // (Whoever was to take the place of a node of that number has done so, or never will.)
        wanted.nodes.values_mut().filter(|wish| wish.instead_of == Some(*node)).for_each(|wish| wish.instead_of = None);
    }
    match ask {
        MembersAsk::Add { node, address, observer } => {
            let part = if *observer { Part::Observer } else { Part::Voter };
            if wanted.nodes.len() >= limits::MEMBERS {
                return Err(format!("a cluster has no more than {} members", limits::MEMBERS));
            }
            let folder = free(facts, &wanted, *node, address, None).map(|()| folder)?;
            wanted.nodes.insert(*node, Wish { address: address.clone(), part, folder, instead_of: None });
        }
        MembersAsk::Promote { node } => {
            let wish = wanted.nodes.get_mut(node).ok_or_else(|| no_member(*node, facts))?;
            if wish.part == Part::Voter {
                return Err(format!("node {node} is a voter already, or is about to become one"));
            }
            match facts.behind(Incarnation(wish.folder)) {
                None => return Err(format!("node {node} does not answer")),
                Some(behind) if behind > ON_THEIR_WAY => {
                    return Err(format!("node {node} has not caught up: it is {behind} log entries behind"));
                }
                Some(_) => wish.part = Part::Voter,
            }
        }
        MembersAsk::Observe { node } => {
            let wish = wanted.nodes.get_mut(node).ok_or_else(|| no_member(*node, facts))?;
            if wish.part == Part::Observer {
                return Err(format!("node {node} is an observer already, or is about to become one"));
            }
            wish.part = Part::Observer;
        }
        MembersAsk::Remove { node } => {
            wanted.nodes.remove(node).ok_or_else(|| no_member(*node, facts))?;
        }
        MembersAsk::Replace { old, node, address, planned } => {
            let leaves = wanted.nodes.get(old).cloned().ok_or_else(|| no_member(*old, facts))?;
            if !planned && !facts.is_gone(Incarnation(leaves.folder)) {
                return Err(format!(
                    "node {old} is there: give --planned to replace it all the same, once the other one has caught up"
                ));
            }
            if node == old {
                return Err(format!(
                    "a new node needs a number of its own; node {old} with an empty folder at the same address comes \
                     back by itself"
                ));
            }
            // (The new one may have the old one's address, if the old one is gone.)
            let folder = free(facts, &wanted, *node, address, Some(*old)).map(|()| folder)?;
            wanted.nodes.remove(old);
            // (The one that leaves may itself be about to take a place.)
            let seated = |node: &u64| facts.member(*node).is_some();
            let instead_of = leaves.instead_of.filter(seated).or(Some(*old));
            let wish = Wish { address: address.clone(), part: leaves.part, folder, instead_of };
            wanted.nodes.insert(*node, wish);
        }
        MembersAsk::Address { node, address } => {
            let wish = wanted.nodes.get(node).ok_or_else(|| no_member(*node, facts))?;
            if wish.address == *address {
                return Err(format!("node {node} has that address already"));
            }
            if matches!(found, Found::Folder(there) if there.0 != wish.folder) {
                return Err(format!("node {node} does not answer at {address}"));
            }
            taken(facts, &wanted, address, Some(*node))?;
            if let Some(wish) = wanted.nodes.get_mut(node) {
                wish.address.clone_from(address);
            }
        }
    }
    if !matches!(ask, MembersAsk::Replace { planned: true, .. }) {
        may_stop_voting(facts, roster, &wanted)?;
    }
    Ok(wanted)
}

/// The roster once node `node`, which has come with the empty folder `folder`, is let in again; `None`: that is what is
/// wanted already. Or why it is not let in.
pub fn returned(node: u64, folder: Incarnation, facts: &Facts, roster: &Roster) -> Result<Option<Roster>, String> {
    let mut wanted = if roster.nodes.is_empty() { facts.as_wished() } else { roster.clone() };
    let Some(wish) = wanted.nodes.get_mut(&node) else {
        return Err(format!("node {node} is no member: zrsctl member add {node}=HOST:PORT makes it one"));
    };
    if wish.folder == folder.0 {
        return Ok(None);
    }
    let known = Incarnation(wish.folder);
    if facts.seats.contains_key(&known) && !facts.is_gone(known) {
        return Err(format!("node {node}'s data folder in the cluster is another one, and has answered a moment ago"));
    }
    wish.folder = folder.0;
    Ok(Some(wanted))
}

/// An error if the number or the address is another node's. `leaves`: a node that is about to go.
fn free(facts: &Facts, wanted: &Roster, node: u64, address: &str, leaves: Option<u64>) -> Result<(), String> {
    if node == 0 {
        return Err("a node's number is 1 or more".into());
    }
    if wanted.nodes.contains_key(&node) || facts.member(node).is_some() {
        return Err(format!("there is a node {node} already"));
    }
    taken(facts, wanted, address, leaves)
}

fn taken(facts: &Facts, wanted: &Roster, address: &str, but: Option<u64>) -> Result<(), String> {
    let wished = wanted.nodes.iter().map(|(node, wish)| (*node, &wish.address));
    let seated = facts.seats.values().map(|seat| (seat.node, &seat.address));
    match wished.chain(seated).find(|(node, known)| *known == address && but != Some(*node)) {
        Some((node, _)) => Err(format!("{address} is node {node}'s address")),
        None => Ok(()),
    }
}

/// An error if voters are to stop voting, and the cluster could not write without them.
fn may_stop_voting(facts: &Facts, roster: &Roster, wanted: &Roster) -> Result<(), String> {
    let voting = |roster: &Roster| -> BTreeSet<Incarnation> {
        let wishes = roster.nodes.values().filter(|wish| wish.part == Part::Voter);
        wishes.map(|wish| Incarnation(wish.folder)).collect()
    };
    let after = voting(wanted);
    if after.is_empty() {
        return Err("nobody who votes would be left".into());
    }
    let before = if roster.nodes.is_empty() { facts.voters.clone() } else { voting(roster) };
    let stop = before.difference(&after).any(|folder| facts.voters.contains(folder));
    let rest = facts.voters.intersection(&after).copied().collect();
    match facts.too_few(&rest).filter(|_| stop) {
        Some(why) => Err(format!("the cluster can't do without that node's vote: {why}")),
        None => Ok(()),
    }
}

fn no_member(node: u64, facts: &Facts) -> String {
    let mut known: Vec<u64> = facts.seats.values().map(|seat| seat.node).collect();
    known.sort_unstable();
    let known: Vec<String> = known.iter().map(u64::to_string).collect();
    format!("node {node} is no member of this cluster; its members are {}", known.join(", "))
}

#[cfg(test)]
mod tests {
    use super::super::facts::testing::{facts, silent};
    use super::*;

    fn ask(ask: MembersAsk, facts: &Facts, found: Option<u64>) -> Result<Roster, String> {
        let found = found.map_or(Found::Unasked, |folder| Found::Folder(Incarnation(folder)));
        changed(&ask, facts, &Roster::default(), found)
    }

    fn add(node: u64, address: &str) -> MembersAsk {
        MembersAsk::Add { node, address: address.into(), observer: false }
    }

    #[test]
    fn a_new_node_must_be_there_and_have_a_number_and_an_address_of_its_own() {
        let facts = facts(&[1, 2, 3], &[]);
        assert!(ask(add(2, "host4:1"), &facts, Some(4)).unwrap_err().contains("there is a node 2 already"));
        assert!(ask(add(4, "host3:1"), &facts, Some(4)).unwrap_err().contains("is node 3's address"));
        assert!(ask(add(0, "host4:1"), &facts, Some(4)).is_err());
        let roster = ask(add(4, "host4:1"), &facts, Some(44)).unwrap();
        let wish = Wish { address: "host4:1".into(), part: Part::Voter, folder: 44, instead_of: None };
        assert_eq!((roster.nodes.len(), &roster.nodes[&4]), (4, &wish));
    }

    #[test]
    fn the_quorum_stays() {
        let mut facts = facts(&[1, 2, 3], &[4]);
        for ask_for in [MembersAsk::Remove { node: 3 }, MembersAsk::Observe { node: 3 }] {
            ask(ask_for.clone(), &facts, None).unwrap();
            let mut weak = facts.clone();
            silent(&mut weak, 2);
            let why = ask(ask_for, &weak, None).unwrap_err();
            assert!(why.contains("can't do without that node's vote: 1 of the 2 voters"), "{why}");
        }
        // Without an observer anything goes on.
        silent(&mut facts, 2);
        ask(MembersAsk::Remove { node: 4 }, &facts, None).unwrap();
        let alone = super::super::facts::testing::facts(&[1], &[]);
        assert!(ask(MembersAsk::Remove { node: 1 }, &alone, None).unwrap_err().contains("nobody who votes"));
        assert!(ask(MembersAsk::Remove { node: 9 }, &alone, None).unwrap_err().contains("its members are 1"));
    }

    #[test]
    fn wishes_that_are_not_met_yet_count() {
        let facts = facts(&[1, 2], &[]);
        let first = ask(MembersAsk::Observe { node: 1 }, &facts, None).unwrap();
        for second in [MembersAsk::Observe { node: 2 }, MembersAsk::Remove { node: 2 }] {
            let why = changed(&second, &facts, &first, Found::Unasked).unwrap_err();
            assert!(why.contains("nobody who votes would be left"), "{why}");
        }
    }

    #[test]
    fn a_replacement_that_is_replaced_hands_its_task_on() {
        let facts = facts(&[1, 2, 3], &[]);
        let replace = |old, node| MembersAsk::Replace { old, node, address: format!("host{node}:1"), planned: true };
        let first = ask(replace(3, 4), &facts, Some(4)).unwrap();
        let second = changed(&replace(4, 5), &facts, &first, Found::Folder(Incarnation(5))).unwrap();
        assert_eq!(second.nodes[&5].instead_of, Some(3));
        assert!(!second.nodes.contains_key(&4));
    }

    #[test]
    fn only_who_has_caught_up_is_promoted() {
        let mut facts = facts(&[1, 2, 3], &[4]);
        let promote = || MembersAsk::Promote { node: 4 };
        assert_eq!(ask(promote(), &facts, None).unwrap().nodes[&4].part, Part::Voter);
        facts.signs.get_mut(&Incarnation(4)).unwrap().behind = 1000;
        assert!(ask(promote(), &facts, None).unwrap_err().contains("1000 log entries behind"));
        silent(&mut facts, 4);
        assert!(ask(promote(), &facts, None).unwrap_err().contains("does not answer"));
        assert!(ask(MembersAsk::Promote { node: 2 }, &facts, None).unwrap_err().contains("a voter already"));
    }

    #[test]
    fn who_is_there_is_replaced_only_as_planned() {
        let mut facts = facts(&[1, 2, 3], &[]);
        let replace = |planned| MembersAsk::Replace { old: 3, node: 4, address: "host4:1".into(), planned };
        assert!(ask(replace(false), &facts, Some(4)).unwrap_err().contains("--planned"));
        let roster = ask(replace(true), &facts, Some(4)).unwrap();
        assert_eq!((roster.nodes.contains_key(&3), roster.nodes[&4].instead_of), (false, Some(3)));
        silent(&mut facts, 3);
        ask(replace(false), &facts, Some(4)).unwrap();
    }

    #[test]
    fn an_address_is_that_of_the_node_that_answers_there() {
        let facts = facts(&[1, 2, 3], &[]);
        let address = |to: &str| MembersAsk::Address { node: 3, address: to.into() };
        assert!(ask(address("host9:1"), &facts, Some(2)).unwrap_err().contains("does not answer at host9:1"));
        assert_eq!(ask(address("host9:1"), &facts, Some(3)).unwrap().nodes[&3].address, "host9:1");
        assert!(ask(address("host2:1"), &facts, Some(3)).is_err());
    }

    #[test]
    fn a_wiped_node_is_let_in_once_its_former_folder_is_silent() {
        let mut facts = facts(&[1, 2, 3], &[]);
        let roster = Roster::default();
        assert!(returned(3, Incarnation(33), &facts, &roster).unwrap_err().contains("a moment ago"));
        assert!(returned(4, Incarnation(44), &facts, &roster).unwrap_err().contains("member add 4=HOST:PORT"));
        silent(&mut facts, 3);
        let wanted = returned(3, Incarnation(33), &facts, &roster).unwrap().unwrap();
        assert_eq!((wanted.nodes[&3].folder, wanted.nodes[&3].part), (33, Part::Voter));
        assert_eq!(returned(3, Incarnation(33), &facts, &wanted), Ok(None));
        assert!(returned(1, Incarnation(11), &facts, &roster).is_err());
    }
}
