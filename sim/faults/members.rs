//! An operator who changes the members while everything goes on: adds hosts, as voters or as observers, promotes
//! observers, has voters vote no more, takes nodes out, replaces them, whether they are there or lost, and moves
//! one to another address.
//!
//! Each time, it is one story of a few acts, as an operator would do it by hand: a host is started with an empty
//! folder; a wish is said to any node, again and again until one grants it; the operator waits until the members
//! are as wanted; a host that has left is stopped. Several operators may be at work, each with nodes of his own.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use zrs::roster::Part;
use zrs::server::MembersAsk;

use super::death::crash;
use super::fault::{EndFault, Fault, When};
use crate::chance::Chance;
use crate::checks::members_as_wished::REFUSED;
use crate::cluster::{Cluster, Death, address, tell};
use crate::members::meaning;
use crate::node::{Ask, address_of};
use crate::seen;

/// The members are changed.
pub const MEMBERS: Fault = Fault {
    name: "members",
    when: When::Moment,
    rate: 24,
    lasts: 0..1,
    begin: |cluster, chance| Some(tell_story("members", PATIENCE, cluster, chance, draw)),
};

/// A node is down, and an operator asks for what must be refused then: that a voter leaves without which no majority
/// would be there.
pub const DARE: Fault = Fault {
    name: "dare",
    when: When::Running,
    rate: 20,
    lasts: 0..1,
    begin: |cluster, chance| {
        let primary = cluster.primary()?;
        let members = cluster.server(primary)?.node().status().members;
        let voters = members.iter().filter(|member| member.part == Part::Voter).map(|member| member.node);
        let others: Vec<u64> = voters.filter(|node| *node != primary).collect();
        // (With another one down there would be no primary to be asked.)
        let all_are_up = !others.is_empty() && others.iter().all(|node| cluster.is_up(*node));
        let away = all_are_up.then(|| chance.one_of(&others))?;
        let mut come_back = crash(cluster, away, Death::Killed)?;
        let mut story = tell_story("dare", DARING, cluster, chance, draw_a_dare);
        let mut is_told = false;
        Some(Box::new(move |cluster| {
            is_told = is_told || story(cluster);
            is_told && come_back(cluster)
        }))
    },
};

/// How many stories are drawn until one is possible.
const TRIES: usize = 3;
/// How long an operator goes on with a story.
const PATIENCE: Duration = Duration::from_secs(14);
/// The same for what must be refused, as a node is down meanwhile.
const DARING: Duration = Duration::from_secs(5);
/// How long an operator waits for an answer.
const ANSWER: Duration = Duration::from_secs(4);
/// The pause between two questions, in milliseconds.
const AGAIN: std::ops::Range<u64> = 100..900;

/// Something that an operator does.
#[derive(Clone, Debug)]
enum Act {
    /// Starts a host with an empty folder.
    Begin(u64),
    /// Says a wish until it is granted.
    Ask(MembersAsk),
    /// Waits until the members are as wanted, as the primary has it.
    Settle,
    /// Stops a host that has left.
    Stop(u64),
    /// A machine is lost, with its disk.
    Lose(u64),
    /// Starts a node at another address, or at its own one.
    Move(u64, bool),
    /// Says a wish that must be refused, as it would leave too few voters of those that are there.
    Dare(MembersAsk),
}

struct Story {
    acts: VecDeque<Act>,
    /// The nodes that it is about.
    nodes: Vec<u64>,
    deadline: Duration,
    /// Before that, nothing more is done.
    next: Duration,
    asked: Option<(Ask, Duration)>,
    /// Whether a wish was said whose answer never came.
    unknown: bool,
    chance: Chance,
}

/// What is done, one act after the other, and the nodes that it is about.
type Drawn = (VecDeque<Act>, Vec<u64>);

/// Waits until a story can be drawn, and goes on with it to its end.
fn tell_story(
    name: &'static str,
    patience: Duration,
    cluster: &Cluster,
    chance: &Chance,
    draw: impl Fn(&Cluster, &mut Chance) -> Option<Drawn> + 'static,
) -> EndFault {
    let deadline = cluster.elapsed() + patience;
    let mut chance = chance.clone();
    let mut story: Option<Story> = None;
    Box::new(move |cluster| {
        let Some(story) = &mut story else {
            // (Nobody changes the members of a cluster that does not work.)
            let drawn = (0..TRIES).find_map(|_| draw(cluster, &mut chance));
            if let Some((acts, nodes)) = drawn {
                seen::fault(name, 1);
                cluster.books.busy.extend(nodes.iter());
                cluster.books.touched.extend(nodes.iter());
                let (next, asked, unknown, chance) = (cluster.elapsed(), None, false, chance.clone());
                story = Some(Story { acts, nodes, deadline, next, asked, unknown, chance });
            }
            return story.is_none() && (cluster.is_over() || cluster.elapsed() > deadline);
        };
        let is_over = story.go_on(cluster);
        if is_over {
            story.end(cluster);
        }
        is_over
    })
}

/// A voter without which no majority would be left.
fn draw_a_dare(cluster: &Cluster, chance: &mut Chance) -> Option<Drawn> {
    let members = cluster.server(cluster.primary()?)?.node().status().members;
    let voters = members.iter().filter(|member| member.part == Part::Voter).map(|member| member.node);
    let is_free = |node: &u64| !cluster.books.busy.contains(node) && !cluster.node(*node).is_taken;
    let needed: Vec<u64> = voters.filter(|node| is_free(node) && cluster.is_needed(*node)).collect();
    let node = (!needed.is_empty()).then(|| chance.one_of(&needed))?;
    let leaves = chance.one_of(&[true, false]);
    let wish = if leaves { MembersAsk::Remove { node } } else { MembersAsk::Observe { node } };
    Some(([Act::Dare(wish)].into(), vec![node]))
}

/// Draws a story that is possible with the members as they are.
fn draw(cluster: &Cluster, chance: &mut Chance) -> Option<Drawn> {
    let primary = cluster.server(cluster.primary()?)?;
    let members = primary.node().status().members;
    let is_free = |node: &u64| !cluster.books.busy.contains(node) && !cluster.node(*node).is_taken;
    let of = |part: Part| {
        let those = members.iter().filter(move |member| member.part == part).map(|member| member.node);
        those.filter(is_free).collect::<Vec<u64>>()
    };
    let (voters, observers) = (of(Part::Voter), of(Part::Observer));
    let wanted = cluster.wanted()?;
    let mut hosts: Vec<u64> = cluster.hosts().iter().copied().filter(is_free).collect();
    hosts.retain(|host| !wanted.contains(host));
    let one = |among: &[u64], chance: &mut Chance| (!among.is_empty()).then(|| chance.one_of(among));
    let (host, voter, observer) = (one(&hosts, chance), one(&voters, chance), one(&observers, chance));
    let in_place = |old: u64, node: u64, planned: bool| {
        Act::Ask(MembersAsk::Replace { old, node, address: address(node), planned })
    };
    let (acts, nodes) = match (chance.below(10), host, voter, observer) {
        (0..2, Some(node), ..) => {
            let wish = MembersAsk::Add { node, address: address(node), observer: false };
            (vec![Act::Begin(node), Act::Ask(wish), Act::Settle], vec![node])
        }
        (2, Some(node), ..) => {
            let wish = MembersAsk::Add { node, address: address(node), observer: true };
            (vec![Act::Begin(node), Act::Ask(wish), Act::Settle], vec![node])
        }
        (3..5, _, _, Some(node)) => (vec![Act::Ask(MembersAsk::Promote { node }), Act::Settle], vec![node]),
        (5, _, Some(node), _) if voters.len() > 2 => {
            (vec![Act::Ask(MembersAsk::Observe { node }), Act::Settle], vec![node])
        }
        (6, _, Some(node), None) if voters.len() > 2 => leave(node),
        (6, _, _, Some(node)) => leave(node),
        (7, Some(node), Some(old), _) => {
            (vec![Act::Begin(node), in_place(old, node, true), Act::Settle, Act::Stop(old)], vec![old, node])
        }
        (8, Some(node), Some(old), _) if cluster.may_lose(old) => {
            (vec![Act::Lose(old), Act::Begin(node), in_place(old, node, false), Act::Settle], vec![old, node])
        }
        (9, _, Some(node), _) => {
            // (Not two at a time: clients look for nodes where they were.)
            let moved = cluster.hosts().iter().find(|host| cluster.has_moved(**host));
            let (node, moves) = (moved.copied().unwrap_or(node), moved.is_none());
            if !is_free(&node) || !wanted.contains(&node) || !cluster.is_up(node) {
                return None;
            }
            let wish = MembersAsk::Address { node, address: address_of(node, moves) };
            (vec![Act::Move(node, moves), Act::Ask(wish), Act::Settle], vec![node])
        }
        _ => return None,
    };
    Some((acts.into(), nodes))
}

fn leave(node: u64) -> (Vec<Act>, Vec<u64>) {
    (vec![Act::Ask(MembersAsk::Remove { node }), Act::Settle, Act::Stop(node)], vec![node])
}

impl Story {
    /// Does what can be done now; whether the story is over.
    fn go_on(&mut self, cluster: &mut Cluster) -> bool {
        let now = cluster.elapsed();
        if cluster.is_over() || now > self.deadline {
            return true;
        }
        if now < self.next {
            return false;
        }
        let Some(act) = self.acts.front().cloned() else { return true };
        match self.act(cluster, &act) {
            Some(true) => drop(self.acts.pop_front()),
            Some(false) => return true,
            None => {}
        }
        false
    }

    /// `Some`: whether it is done, or can't be; else it goes on.
    fn act(&mut self, cluster: &mut Cluster, act: &Act) -> Option<bool> {
        match act {
            Act::Begin(node) => {
                if cluster.node(*node).is_taken || !cluster.may_lose(*node) {
                    return Some(false);
                }
                cluster.begin_host(*node);
                self.next = cluster.elapsed() + self.chance.millis(AGAIN);
                Some(true)
            }
            Act::Move(node, moves) => {
                if !cluster.is_up(*node) {
                    return Some(false);
                }
                cluster.move_to(*node, *moves);
                self.next = cluster.elapsed() + self.chance.millis(AGAIN);
                Some(true)
            }
            Act::Ask(wish) => self.ask(cluster, wish),
            Act::Dare(wish) => self.dare(cluster, wish),
            Act::Settle => {
                let server = cluster.server(cluster.primary()?)?;
                let settled = server.node().status().changes.is_empty();
                settled.then_some(true)
            }
            Act::Stop(node) => {
                if cluster.node(*node).is_taken || cluster.wanted()?.contains(node) {
                    return Some(false);
                }
                if cluster.is_up(*node) {
                    cluster.stop(*node);
                    return None;
                }
                cluster.has_stopped(*node).then(|| {
                    cluster.put_away(*node);
                    true
                })
            }
            Act::Lose(node) => {
                if cluster.node(*node).is_taken || !cluster.may_lose(*node) {
                    return Some(false);
                }
                cluster.wipe(*node, Death::PowerLost);
                Some(true)
            }
        }
    }

    fn ask(&mut self, cluster: &mut Cluster, wish: &MembersAsk) -> Option<bool> {
        let now = cluster.elapsed();
        if let Some((ask, until)) = &self.asked {
            let answer = ask.answer.lock().unwrap().take();
            let Some(answer) = answer else {
                if now > *until {
                    (self.asked, self.unknown) = (None, true);
                }
                return None;
            };
            self.asked = None;
            self.next = now + self.chance.millis(AGAIN);
            return match answer {
                Ok(words) => {
                    tell(0, "granted", words.as_bytes(), &format!("(an operator) is told: {words}"));
                    self.granted(cluster, wish);
                    Some(true)
                }
                Err(why) => {
                    // (What was not known to be granted may have been.)
                    self.unknown |= !why.starts_with("node ") || why.contains("already");
                    tracing::debug!("{wish:?} was refused: {why}");
                    let is_wished = self.is_wished(cluster, wish);
                    is_wished.then_some(true)
                }
            };
        }
        let leaves = match wish {
            MembersAsk::Observe { node } | MembersAsk::Remove { node } => Some(*node),
            MembersAsk::Replace { old, .. } => Some(*old),
            MembersAsk::Add { .. } | MembersAsk::Promote { .. } | MembersAsk::Address { .. } => None,
        };
        let is_lost = matches!(wish, MembersAsk::Replace { planned: false, .. });
        if let Some(node) = leaves
            && !is_lost
            && !cluster.may_shrink(node)
        {
            return None;
        }
        let running: Vec<u64> = cluster
            .nodes()
            .into_iter()
            .filter(|node| cluster.is_up(*node) && cluster.server(*node).is_some())
            .collect();
        if running.is_empty() {
            return None;
        }
        let node = self.chance.one_of(&running);
        cluster.books.leaving.extend(leaves);
        let ask = self.say(cluster, node, wish);
        self.asked = Some((ask, now + ANSWER));
        None
    }

    /// Says a wish once, and sees that it is refused, or that somebody has come back meanwhile.
    fn dare(&mut self, cluster: &mut Cluster, wish: &MembersAsk) -> Option<bool> {
        let (MembersAsk::Remove { node } | MembersAsk::Observe { node }) = wish else { return Some(false) };
        let now = cluster.elapsed();
        let Some((ask, until)) = &self.asked else {
            let primary = cluster.primary()?;
            if !cluster.is_needed(*node) {
                return Some(false);
            }
            cluster.books.leaving.insert(*node);
            self.asked = Some((self.say(cluster, primary, wish), now + ANSWER));
            return None;
        };
        let answer = ask.answer.lock().unwrap().take();
        if answer.is_none() && now <= *until {
            return None;
        }
        match answer {
            Some(Ok(words)) if cluster.is_needed(*node) => {
                cluster.fail(format!("members_as_wished: {wish:?} leaves too few voters, and the answer was: {words}"));
            }
            Some(Err(why)) if why.contains("can't do without") => {
                seen::check(REFUSED, 1);
                cluster.books.leaving.remove(node);
                self.asked = None;
            }
            _ => self.unknown = true,
        }
        Some(false)
    }

    /// Says a wish to a node.
    fn say(&self, cluster: &Cluster, node: u64, wish: &MembersAsk) -> Ask {
        let ask = Ask { wish: wish.clone(), answer: Arc::new(Mutex::new(None)) };
        tell(node, "asked", &[], &format!("is asked: {wish:?}"));
        let orders = &cluster.node(node).orders;
        orders.asks.lock().unwrap().push(ask.clone());
        orders.asked.notify_one();
        ask
    }

    /// Whether the wish is in the roster, though nobody said so.
    fn is_wished(&self, cluster: &Cluster, wish: &MembersAsk) -> bool {
        let Some(server) = cluster.primary().and_then(|primary| cluster.server(primary)) else { return false };
        let roster = server.store().roster().1;
        if let MembersAsk::Address { node, address } = wish {
            return roster.nodes.get(node).is_some_and(|wish| wish.address == *address);
        }
        !roster.nodes.is_empty()
            && meaning(wish, &roster).iter().all(|(node, part)| roster.nodes.get(node).map(|wish| wish.part) == *part)
    }

    fn granted(&mut self, cluster: &mut Cluster, wish: &MembersAsk) {
        let Some(server) = cluster.primary().and_then(|primary| cluster.server(primary)) else {
            // (What it comes to depends on a roster that nobody can show now; what was granted before is over.)
            cluster.books.granted.retain(|node, _| !self.nodes.contains(node));
            return;
        };
        for (node, part) in meaning(wish, &server.store().roster().1) {
            cluster.books.leaving.remove(&node);
            if self.unknown {
                cluster.books.granted.remove(&node);
            } else {
                cluster.books.granted.insert(node, part);
            }
        }
    }

    fn end(&mut self, cluster: &mut Cluster) {
        let is_open = self.unknown || self.asked.is_some();
        if let Some(Act::Ask(MembersAsk::Address { node, .. })) = self.acts.front()
            && !is_open
            && cluster.is_up(*node)
        {
            // (Where it is now, nobody looks for it.)
            let moved = cluster.has_moved(*node);
            cluster.move_to(*node, !moved);
        }
        for node in &self.nodes {
            cluster.books.busy.remove(node);
            if is_open {
                cluster.books.granted.remove(node);
            }
            // (A machine that was to be replaced, and was not, is repaired.)
            let state = cluster.node(*node);
            if !state.up && !state.is_taken && !state.is_idle && cluster.has_stopped(*node) {
                cluster.restart(*node);
            }
        }
    }
}
