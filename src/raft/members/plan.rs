//! The next step from the members as they are to the roster.

use std::collections::{BTreeMap, BTreeSet};

use super::facts::{Facts, ON_THEIR_WAY, TOLD};
use crate::raft::types::{Incarnation, Seat};
use crate::roster::{Part, Roster, Wish};

/// A change of the membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// One entry makes the members these.
    Members {
        voters: BTreeSet<Incarnation>,
        seats: BTreeMap<Incarnation, Seat>,
        /// What that means, for the log.
        words: String,
    },
    /// A member has another address.
    Address { member: Incarnation, seat: Seat },
}

/// A condition that is not met yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// The node that waits.
    pub node: u64,
    /// For what, in words that name it.
    pub words: String,
}

/// What is to be done now, and what is waited for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub step: Option<Step>,
    pub waits: Vec<Wait>,
}

impl Plan {
    fn wait(&mut self, node: u64, words: String) {
        self.waits.push(Wait { node, words });
    }
}

/// What is not yet as it is wanted, in words.
pub fn differences(facts: &Facts, roster: &Roster) -> Vec<String> {
    let mut found = Vec::new();
    if roster.nodes.is_empty() {
        return found;
    }
    for (folder, seat) in &facts.seats {
        let node = seat.node;
        match wish_for(roster, *folder, seat) {
            None if roster.nodes.contains_key(&node) => {
                found.push(format!("node {node} comes back with another data folder"));
            }
            None => found.push(format!("node {node} is to leave")),
            Some(wish) => {
                let votes = facts.voters.contains(folder);
                match wish.part {
                    Part::Voter if !votes => found.push(format!("node {node} is to become a voter")),
                    Part::Observer if votes => found.push(format!("node {node} is to become an observer")),
                    Part::Voter | Part::Observer => {}
                }
                if wish.address != seat.address {
                    found.push(format!("node {node} is to have the address {}", wish.address));
                }
            }
        }
    }
    for (node, _) in roster.nodes.iter().filter(|(node, _)| facts.member(**node).is_none()) {
        found.push(format!("node {node} is to join"));
    }
    found
}

/// The wish for the member with this folder.
fn wish_for<'a>(roster: &'a Roster, folder: Incarnation, seat: &Seat) -> Option<&'a Wish> {
    roster.nodes.get(&seat.node).filter(|wish| wish.folder == folder.0)
}

/// The next step. (Those that add come first, so that as many as possible are there when somebody leaves.)
pub fn plan(facts: &Facts, roster: &Roster) -> Plan {
    let mut plan = Plan::default();
    if roster.nodes.is_empty() {
        return plan;
    }
    let steps: [fn(&Facts, &Roster, &mut Plan); 4] = [join, promote, readdress, leave];
    for step in steps {
        step(facts, roster, &mut plan);
        if plan.step.is_some() {
            break;
        }
    }
    plan
}

/// Whoever is wanted, and has no seat, gets one. A former folder of the same number goes in the same step: there is
/// never more than one member of a number.
fn join(facts: &Facts, roster: &Roster, plan: &mut Plan) {
    for (&node, wish) in &roster.nodes {
        let folder = Incarnation(wish.folder);
        if facts.seats.contains_key(&folder) {
            continue;
        }
        let (mut voters, mut seats) = (facts.voters.clone(), facts.seats.clone());
        if let Some((former, _)) = facts.member(node) {
            seats.remove(&former);
            let voted = voters.remove(&former);
            let why = match facts.is_gone(former) {
                false => Some("its former data folder still answers".into()),
                true => facts.too_few(&voters).filter(|_| voted),
            };
            if let Some(why) = why {
                plan.wait(node, format!("node {node} can't come back yet: {why}"));
                continue;
            }
        }
        seats.insert(folder, Seat { node, address: wish.address.clone() });
        let words = format!("node {node} at {} joins as an observer", wish.address);
        plan.step = Some(Step::Members { voters, seats, words });
        return;
    }
}

/// An observer that is to vote does so once it has caught up.
fn promote(facts: &Facts, roster: &Roster, plan: &mut Plan) {
    for (folder, seat) in &facts.seats {
        let wanted = wish_for(roster, *folder, seat).is_some_and(|wish| wish.part == Part::Voter);
        if !wanted || facts.voters.contains(folder) {
            continue;
        }
        if let Some((done, total)) = facts.signs.get(folder).and_then(|sign| sign.fetching) {
            let (done, total) = (done >> 20, total >> 20);
            plan.wait(seat.node, format!("node {} fetches the database: {done} of {total} MiB", seat.node));
            continue;
        }
        match facts.behind(*folder) {
            Some(behind) if behind <= ON_THEIR_WAY => {
                let voters: BTreeSet<_> = facts.voters.iter().copied().chain([*folder]).collect();
                let words = format!("node {} becomes a voter, one of {}", seat.node, voters.len());
                plan.step = Some(Step::Members { voters, seats: facts.seats.clone(), words });
                return;
            }
            Some(behind) => plan.wait(seat.node, format!("node {} catches up: {behind} entries behind", seat.node)),
            None => plan.wait(seat.node, format!("node {} does not answer yet", seat.node)),
        }
    }
}

fn readdress(facts: &Facts, roster: &Roster, plan: &mut Plan) {
    for (folder, seat) in &facts.seats {
        if let Some(wish) = wish_for(roster, *folder, seat)
            && wish.address != seat.address
        {
            let seat = Seat { address: wish.address.clone(), ..*seat };
            plan.step = Some(Step::Address { member: *folder, seat });
            return;
        }
    }
}

/// Whoever is not wanted leaves, and whoever should not vote stops voting: a voter that is there becomes an observer
/// first, so that it hears of it.
fn leave(facts: &Facts, roster: &Roster, plan: &mut Plan) {
    for (folder, seat) in &facts.seats {
        let (node, votes) = (seat.node, facts.voters.contains(folder));
        let stays = match wish_for(roster, *folder, seat) {
            Some(wish) if wish.part == Part::Voter || !votes => continue,
            Some(_) => true,
            // (A former folder of a wanted node: `join` sees to it.)
            None if roster.nodes.contains_key(&node) => continue,
            None => false,
        };
        // (Not who has only missed a moment, or was not heard yet by a primary that has just begun.)
        let there = !facts.is_gone(*folder);
        if let Some(heir) = heir(roster, node).filter(|heir| there && !has_its_part(facts, roster, *heir)) {
            plan.wait(node, format!("node {node} leaves once node {heir} has taken its place"));
            continue;
        }
        if !votes {
            // (It may not have heard yet that it votes no more.)
            let knows = facts.signs.get(folder).is_some_and(|sign| sign.knows_members);
            if there && !knows && facts.settled < TOLD {
                plan.wait(node, format!("node {node} leaves once it has heard of it"));
                continue;
            }
            let mut seats = facts.seats.clone();
            seats.remove(folder);
            let words = format!("node {node} leaves");
            plan.step = Some(Step::Members { voters: facts.voters.clone(), seats, words });
            return;
        }
        let (mut voters, mut seats) = (facts.voters.clone(), facts.seats.clone());
        voters.remove(folder);
        if let Some(why) = facts.too_few(&voters) {
            plan.wait(node, format!("node {node} can't stop voting yet: {why}"));
            continue;
        }
        if *folder == facts.own {
            // (A primary that is unfit does that by itself: `node::steward`.)
            plan.wait(node, format!("node {node} is the primary, and hands its role over first"));
            continue;
        }
        let words = match stays || there {
            true => format!("node {node} becomes an observer"),
            false => format!("node {node} leaves"),
        };
        if !stays && !there {
            seats.remove(folder);
        }
        plan.step = Some(Step::Members { voters, seats, words });
        return;
    }
}

/// The node that takes the place of node `node`, if that is to leave.
fn heir(roster: &Roster, node: u64) -> Option<u64> {
    if roster.nodes.contains_key(&node) {
        return None;
    }
    roster.nodes.iter().find(|(_, wish)| wish.instead_of == Some(node)).map(|(heir, _)| *heir)
}

fn has_its_part(facts: &Facts, roster: &Roster, node: u64) -> bool {
    let Some(wish) = roster.nodes.get(&node) else { return true };
    let folder = Incarnation(wish.folder);
    match wish.part {
        Part::Voter => facts.voters.contains(&folder),
        Part::Observer => facts.seats.contains_key(&folder) && facts.behind(folder).is_some_and(|b| b <= ON_THEIR_WAY),
    }
}

#[cfg(test)]
mod tests {
    use super::super::facts::testing::{facts, silent};
    use super::*;

    fn step_of(facts: &Facts, roster: &Roster) -> (Vec<u64>, Vec<u64>) {
        match plan(facts, roster).step {
            Some(Step::Members { voters, seats, .. }) => {
                let observers = seats.keys().filter(|folder| !voters.contains(folder));
                (voters.iter().map(|v| v.0).collect(), observers.map(|o| o.0).collect())
            }
            other => panic!("{other:?}"),
        }
    }

    /// Does steps until there are no more; gives their words. (Whoever leaves or joins is there.)
    fn walk(facts: &mut Facts, roster: &Roster) -> Vec<String> {
        let mut said = Vec::new();
        while let Some(step) = plan(facts, roster).step {
            let Step::Members { voters, seats, words } = step else { panic!("{step:?}") };
            let changed = voters.symmetric_difference(&facts.voters).count();
            assert!(changed <= 1, "{changed} voters at a time");
            (facts.voters, facts.seats) = (voters, seats);
            for folder in facts.seats.keys() {
                facts.signs.entry(*folder).or_insert(super::super::facts::Sign::here());
            }
            said.push(words);
        }
        assert_eq!(differences(facts, roster), Vec::<String>::new());
        said
    }

    #[test]
    fn without_a_wish_nothing_changes() {
        assert_eq!(plan(&facts(&[1, 2, 3], &[4]), &Roster::default()), Plan::default());
        let facts = facts(&[1, 2, 3], &[4]);
        assert_eq!(plan(&facts, &facts.as_wished()), Plan::default());
    }

    #[test]
    fn a_wiped_voter_goes_out_and_comes_in_as_an_observer_in_one_step() {
        let mut facts = facts(&[1, 2, 3], &[]);
        let mut roster = facts.as_wished();
        roster.nodes.get_mut(&3).unwrap().folder = 33;
        // As long as the former folder answers, there are two nodes of that number.
        let Plan { step, waits } = plan(&facts, &roster);
        assert!(step.is_none() && waits[0].words.contains("still answers"), "{waits:?}");
        // A primary that has just begun knows nothing of that yet.
        facts.signs.get_mut(&Incarnation(3)).unwrap().silence = None;
        facts.reigns = std::time::Duration::from_millis(10);
        assert_eq!(plan(&facts, &roster).step, None);
        silent(&mut facts, 3);
        assert_eq!(step_of(&facts, &roster), (vec![1, 2], vec![33]));
        silent(&mut facts, 2);
        let Plan { step, waits } = plan(&facts, &roster);
        assert!(step.is_none() && waits[0].words.contains("1 of the 2 voters"), "{waits:?}");
        facts.signs.get_mut(&Incarnation(2)).unwrap().silence = Some(std::time::Duration::ZERO);
        assert_eq!(
            walk(&mut facts, &roster),
            ["node 3 at host3:1 joins as an observer", "node 3 becomes a voter, one of 3"]
        );
    }

    #[test]
    fn whoever_is_behind_does_not_vote() {
        let mut facts = facts(&[1, 2, 3], &[4]);
        let mut roster = facts.as_wished();
        roster.nodes.get_mut(&4).unwrap().part = Part::Voter;
        facts.signs.get_mut(&Incarnation(4)).unwrap().behind = 65;
        assert_eq!(plan(&facts, &roster).waits[0].words, "node 4 catches up: 65 entries behind");
        silent(&mut facts, 4);
        assert_eq!(plan(&facts, &roster).waits[0].words, "node 4 does not answer yet");
        facts.signs.get_mut(&Incarnation(4)).unwrap().silence = Some(std::time::Duration::ZERO);
        facts.signs.get_mut(&Incarnation(4)).unwrap().behind = 64;
        assert_eq!(step_of(&facts, &roster), (vec![1, 2, 3, 4], vec![]));
    }

    #[test]
    fn one_grows_to_three_and_three_shrink_to_one() {
        let mut small = facts(&[1], &[]);
        let large = facts(&[1, 2, 3], &[]);
        let (one, three) = (small.as_wished(), large.as_wished());
        assert_eq!(walk(&mut small, &three).len(), 4);
        assert_eq!(small.voters, large.voters);
        let said = walk(&mut small, &one);
        assert_eq!(
            said,
            ["node 2 becomes an observer", "node 2 leaves", "node 3 becomes an observer", "node 3 leaves"]
        );
    }

    #[test]
    fn the_one_that_is_replaced_leaves_last_unless_it_is_gone() {
        let mut facts = facts(&[1, 2, 3], &[]);
        let mut roster = facts.as_wished();
        roster.nodes.remove(&3);
        let wish = Wish { address: "host4:1".into(), part: Part::Voter, folder: 4, instead_of: Some(3) };
        roster.nodes.insert(4, wish);
        let mut gone = facts.clone();
        assert_eq!(
            walk(&mut facts, &roster),
            [
                "node 4 at host4:1 joins as an observer",
                "node 4 becomes a voter, one of 4",
                "node 3 becomes an observer",
                "node 3 leaves"
            ]
        );
        silent(&mut gone, 3);
        let (voters, observers) = step_of(&gone, &roster);
        assert_eq!((voters, observers), (vec![1, 2, 3], vec![4]));
    }

    #[test]
    fn the_primary_hands_over_before_it_leaves() {
        let facts = facts(&[1, 2, 3], &[]);
        let mut roster = facts.as_wished();
        roster.nodes.remove(&1);
        let Plan { step, waits } = plan(&facts, &roster);
        assert!(step.is_none() && waits[0].words.contains("hands its role over first"), "{waits:?}");
        // That holds up nobody else.
        roster.nodes.remove(&3);
        assert_eq!(step_of(&facts, &roster), (vec![1, 2], vec![3]));
    }

    #[test]
    fn nobody_leaves_whom_the_rest_can_t_do_without() {
        let mut facts = facts(&[1, 2, 3], &[]);
        let mut roster = facts.as_wished();
        roster.nodes.remove(&3);
        silent(&mut facts, 2);
        let Plan { step, waits } = plan(&facts, &roster);
        assert!(step.is_none() && waits[0].words.contains("can't stop voting yet"), "{waits:?}");
    }
}
