//! Members that come and go: who has a seat, which data folders are gone for good, and what operators were
//! granted.
//!
//! A cluster loses data by right if a majority of its voters lose their folders. So a folder is only taken away
//! as long as more than half of the voters keep theirs ([`Cluster::may_lose`]): of the voters as they are, and of
//! those that may be left by what operators have asked for. A voter that came back counts again once it is seated
//! with its new folder as one that votes, and that entry is applied: from then on the others may lose theirs.

use std::collections::BTreeSet;
use std::time::Duration;

use zrs::env::World;
use zrs::raft::Role;
use zrs::roster::{Part, Roster};
use zrs::server::MembersAsk;
use zrs::storage::Store;

use crate::cluster::{Cluster, Death, EVERY_CLIENT, client_name, name, tell};
use crate::folder::Folder;
use crate::node::address_of;
use crate::seats::Seats;
use crate::seen;

/// How long a node is down before the primary must know it.
const NOTICED: Duration = Duration::from_millis(2_800);

impl Cluster {
    /// The hosts that are in use, whether they run at the moment or not.
    pub fn nodes(&self) -> Vec<u64> {
        self.hosts().iter().copied().filter(|node| !self.node(*node).is_idle).collect()
    }

    /// The names of the other nodes.
    pub fn other_nodes(&self, node: u64) -> Vec<String> {
        self.nodes().into_iter().filter(|other| *other != node).map(name).collect()
    }

    /// The names of all other hosts, the clients' too.
    pub fn all_others(&self, node: u64) -> Vec<String> {
        let hosts = self.hosts().iter().filter(|other| **other != node).map(|other| name(*other));
        hosts.chain((0..EVERY_CLIENT).map(client_name)).collect()
    }

    /// Those that vote now, as the primary has applied, and did not when it was last looked at.
    pub fn new_voters(&mut self) -> Vec<u64> {
        let server = self.primary().and_then(|primary| self.server(primary));
        let Some(seats) = server.and_then(|server| Seats::of(server.store())) else { return Vec::new() };
        let voting = seats.voting();
        if voting == self.books.voting {
            return Vec::new();
        }
        seen::tell(&format!("{voting:?} vote"));
        let before = std::mem::replace(&mut self.books.voting, voting);
        self.books.voting.difference(&before).copied().collect()
    }

    /// Whether the cluster keeps all data, and is able to go on, without the folder that node `node` has now.
    pub fn may_lose(&self, node: u64) -> bool {
        self.lacks_after(Some(node), None).is_some_and(|lacks| !lacks)
    }

    /// Whether all that would still vote without node `node`, or with it, have their folders.
    pub fn may_shrink(&self, node: u64) -> bool {
        let lost = |seats: &Seats| seats.voters.iter().any(|folder| self.books.gone.contains(folder));
        let seats = self.primary().and_then(|primary| Seats::of(self.server(primary)?.store()));
        seats.is_some_and(|seats| !lost(&seats)) && self.lacks_after(None, Some(node)) == Some(false)
    }

    /// Whether half of the voters lack their folders, once `loses` has lost its own and `leaves` votes no more; `None`:
    /// nobody can tell who the members are.
    fn lacks_after(&self, loses: Option<u64>, leaves: Option<u64>) -> Option<bool> {
        let server = self.server(self.primary()?)?;
        let (seats, roster) = (Seats::of(server.store())?, server.store().roster().1);
        let has_folder = |node: &u64| {
            let folder = seats.folder(*node).filter(|folder| !self.books.gone.contains(folder));
            folder.is_some() && loses != Some(*node)
        };
        let members = server.node().status().members;
        let logged: BTreeSet<u64> =
            members.iter().filter(|member| member.part == Part::Voter).map(|member| member.node).collect();
        let stays = |node: &&u64| {
            let wished = roster.nodes.get(node).map(|wish| wish.part);
            let wanted = roster.nodes.is_empty() || wished == Some(Part::Voter);
            wanted && !self.books.leaving.contains(node) && leaves != Some(**node)
        };
        let left: BTreeSet<u64> = logged.iter().filter(stays).copied().collect();
        // (One that is to vote may be promoted in this very moment, before anybody knows that it has lost its folder.)
        let is_to_vote = |node: &u64| roster.nodes.get(node).is_some_and(|wish| wish.part == Part::Voter);
        let soon: BTreeSet<u64> = logged.iter().copied().chain(loses.filter(is_to_vote)).collect();
        let lacks = |voters: &BTreeSet<u64>| voters.iter().filter(|node| has_folder(node)).count() <= voters.len() / 2;
        Some(lacks(&seats.voting()) || lacks(&logged) || lacks(&left) || lacks(&soon))
    }

    /// A member, as `store` has it, whose folder is gone.
    pub fn lost(&self, store: &Store) -> Option<u64> {
        let seats = Seats::of(store)?;
        seats.numbers.into_iter().find(|(folder, _)| self.books.gone.contains(folder)).map(|(_, node)| node)
    }

    /// Whether too few voters are there without node `node`, and have not been for so long that the primary knows it.
    pub fn is_needed(&self, node: u64) -> bool {
        let Some(primary) = self.primary() else { return false };
        let Some(server) = self.server(primary) else { return false };
        let members = server.node().status().members;
        let mut others: Vec<u64> = members.iter().filter(|m| m.part == Part::Voter).map(|member| member.node).collect();
        let was_there = others.len();
        others.retain(|other| *other != node);
        // (A primary whose machine was ever suspended may have noticed less. How long it has heard nothing can't be
        // asked from out here, where its clock is not that of the simulation.)
        if self.node(primary).host.suspended() > Duration::ZERO {
            return false;
        }
        let is_away = |other: &&u64| {
            self.node(**other).down_since.is_some_and(|at| at.max(self.leads_since) + NOTICED < self.elapsed())
        };
        let away = others.iter().filter(is_away).count();
        others.len() < was_there && others.len() - away < others.len() / 2 + 1
    }

    /// Takes a node's folder away: the node is down afterwards, and its next life begins with an empty one.
    pub fn wipe(&mut self, node: u64, death: Death) {
        if let Some(server) = self.primary().and_then(|primary| self.server(primary)) {
            let wish = server.store().roster().1.nodes.get(&node).map(|wish| wish.folder);
            let seated = Seats::of(server.store()).and_then(|seats| seats.folder(node));
            self.books.gone.extend(wish.into_iter().chain(seated));
        }
        if self.server(node).is_some() || self.node(node).up {
            self.crash(node, death);
        }
        drop(self.put_folder(node, Folder::default(), "loses its folder"));
        let hosts = self.hosts().to_vec();
        let state = self.node_mut(node);
        state.was_wiped = true;
        *state.peers.lock().unwrap() = hosts;
    }

    /// Starts a host that is no member, with an empty folder.
    pub fn begin_host(&mut self, node: u64) {
        self.wipe(node, Death::Killed);
        self.note_moved(node, false);
        self.node_mut(node).is_idle = false;
        self.restart(node);
    }

    /// Starts a node again at another address, or at its own one.
    pub fn move_to(&mut self, node: u64, moves: bool) {
        self.crash(node, Death::Killed);
        self.moves_to(node, moves);
        self.restart(node);
    }

    /// A node's next life will be at another address, or at its own one.
    pub fn moves_to(&mut self, node: u64, moves: bool) {
        self.note_moved(node, moves);
        tell(node, "moves", &[u8::from(moves)], &format!("moves to {}", address_of(node, moves)));
    }

    /// Ends the use of a host that is no member any more.
    pub fn put_away(&mut self, node: u64) {
        self.crash(node, Death::Killed);
        self.node_mut(node).is_idle = true;
        tell(node, "away", &[], "is put away");
    }

    /// The nodes that should be there, as the primary has it: its members, and those that are wanted.
    pub fn wanted(&self) -> Option<BTreeSet<u64>> {
        let server = self.server(self.primary()?)?;
        let members = server.node().status().members.into_iter().map(|member| member.node);
        Some(members.chain(server.store().roster().1.nodes.into_keys()).collect())
    }

    /// A member that is not where it is wanted, and seated.
    fn astray(&self) -> Option<u64> {
        // (Perhaps nobody can lead just for that: then the one that knows most is believed, wherever it is itself.)
        let knows = |node: &u64| self.server(*node).map(|server| server.node().status().log);
        let told = self.primary().or_else(|| self.nodes().into_iter().max_by_key(knows))?;
        let server = self.server(told)?;
        let (members, roster) = (server.node().status().members, server.store().roster().1);
        let is_there = |node: u64| self.node(node).up && !self.node(node).is_taken && !self.books.busy.contains(&node);
        let astray = |node: u64, seat: &str| {
            let is_at = address_of(node, self.has_moved(node));
            let wished = roster.nodes.get(&node).map(|wish| wish.address.as_str());
            is_at != seat && wished.is_none_or(|wished| wished == seat)
        };
        let mut members = members.into_iter().filter(|member| is_there(member.node));
        members.find(|member| astray(member.node, &member.address)).map(|member| member.node)
    }

    /// A node that waits to be let in, and looks for the others where they were.
    fn misled(&self) -> Option<u64> {
        let waits = |node: u64| {
            let server = self.server(node)?;
            Some(matches!(&*server.node().role().look(), Role::Forming(_)))
        };
        let is_there = |node: u64| self.node(node).up && !self.node(node).is_taken;
        let mut nodes = self.nodes().into_iter();
        nodes.find(|node| is_there(*node) && self.node(*node).listed != self.moved() && waits(*node).unwrap_or(false))
    }

    /// What an operator does in the end, once nothing fails any more: starts whoever should be there, and puts the
    /// others away.
    pub fn tidy_hosts(&mut self) {
        if self.hosts().len() == self.nodes().len()
            && self.astray().is_none()
            && self.misled().is_none()
            && self.nodes().iter().all(|node| self.node(*node).up)
        {
            let all: BTreeSet<u64> = self.nodes().into_iter().collect();
            if self.wanted().is_none_or(|wanted| wanted == all) {
                return;
            }
        }
        if let Some(node) = self.astray() {
            let moved = self.has_moved(node);
            self.move_to(node, !moved);
        } else if let Some(node) = self.misled() {
            self.crash(node, Death::Killed);
            self.restart(node);
        }
        let Some(wanted) = self.wanted() else { return };
        for node in self.hosts().to_vec() {
            let state = self.node(node);
            if state.is_taken {
                continue;
            }
            match (wanted.contains(&node), state.up) {
                (true, false) => {
                    self.node_mut(node).is_idle = false;
                    self.restart(node);
                }
                (false, true) => self.put_away(node),
                (true, true) | (false, false) => {}
            }
        }
    }
}

/// The node that a wish is about, and what is wanted of it; `None`: that it is no member. (Another address: nothing.)
pub fn meaning(wish: &MembersAsk, roster: &Roster) -> Vec<(u64, Option<Part>)> {
    let part = |observer: bool| if observer { Part::Observer } else { Part::Voter };
    match wish {
        MembersAsk::Add { node, observer, .. } => vec![(*node, Some(part(*observer)))],
        MembersAsk::Promote { node } => vec![(*node, Some(Part::Voter))],
        MembersAsk::Observe { node } => vec![(*node, Some(Part::Observer))],
        MembersAsk::Remove { node } => vec![(*node, None)],
        MembersAsk::Replace { old, node, .. } => {
            let part = roster.nodes.get(old).map_or(Part::Voter, |wish| wish.part);
            vec![(*old, None), (*node, Some(part))]
        }
        MembersAsk::Address { .. } => Vec::new(),
    }
}
