//! Nodes that lose their data folder, and come back with an empty one: to Raft they are other nodes, which are let in,
//! fetch a database, and vote again once they have caught up. None of that needs an operator.
//!
//! Never do so many lose their folders that the cluster would lose data by right ([`Cluster::may_lose`]).

use std::time::Duration;

use zrs::raft::Role;

use super::death::start;
use super::fault::{EndFault, Fault, When, aim, victim, victim_that_runs};
use crate::chance::Chance;
use crate::cluster::{Cluster, Death, News, tell};
use crate::seen;

/// A node's disk is replaced by an empty one.
pub const WIPE: Fault = Fault {
    name: "wipe",
    when: When::Moment,
    rate: 12,
    lasts: 0..1,
    begin: |cluster, chance| {
        wait(cluster, chance, "wipe", 1, 1, |cluster, chance| {
            victim_that_runs(cluster, chance).filter(|node| cluster.may_lose(*node))
        })
    },
};

/// The same, together with a kill of the primary (or of another node, if it is the primary that loses its disk).
pub const WIPE_AND_KILL: Fault = Fault {
    name: "wipe_and_kill",
    when: When::Running,
    rate: 12,
    lasts: 0..2_000,
    begin: |cluster, chance| {
        let node = chance.one_of(&cluster.nodes());
        let others: Vec<u64> = cluster.nodes().into_iter().filter(|other| *other != node).collect();
        let primary = cluster.primary().filter(|primary| *primary != node);
        let other = primary.unwrap_or(chance.one_of(&others));
        if !cluster.is_up(node) || !cluster.is_up(other) {
            return None;
        }
        let mut wiped = wipe(cluster, node, Death::Killed)?;
        cluster.crash(other, chance.one_of(&[Death::Killed, Death::PowerLost]));
        let back = cluster.elapsed() + chance.millis(100..2_000);
        let mut started = false;
        Some(Box::new(move |cluster| {
            started = started || wiped(cluster);
            let is_due = cluster.elapsed() >= back || cluster.is_over();
            if is_due {
                cluster.restart(other);
            }
            is_due
        }))
    },
};

/// How long a fault waits for its moment. (A node that was wiped is let in after five seconds.)
const PATIENCE: Duration = Duration::from_secs(9);

/// A node is about to come back, or has just done so: that node is hit, or another one, by a kill or by another loss of
/// its folder.
pub const AT_RETURN: Fault = Fault {
    name: "at_return",
    when: When::Moment,
    rate: 16,
    lasts: 0..1,
    begin: |cluster, chance| {
        // (One that has nothing to do with the moment that is waited for will do, too.)
        let first = chance.one_of(&cluster.nodes());
        let mut first = wipe(cluster, first, Death::Killed);
        let moment = chance.one_of(&[Moment::Fetches, Moment::Begins, Moment::Votes, Moment::Votes]);
        let own = chance.once_in(2);
        let mut hit = wait(cluster, chance, "at_return", 60, 3, move |cluster, chance| {
            let found = match moment {
                Moment::Fetches => cluster.nodes().into_iter().find(|node| fetches(cluster, *node)),
                Moment::Begins => cluster.news().iter().find_map(|news| match news {
                    News::Restarted(node) if cluster.node(*node).was_wiped => Some(*node),
                    _ => None,
                }),
                Moment::Votes => cluster.news().iter().find_map(|news| match news {
                    News::Votes(node) => Some(*node),
                    _ => None,
                }),
            };
            let others: Vec<u64> = cluster.nodes().into_iter().filter(|node| Some(*node) != found).collect();
            found.map(|node| if own || others.is_empty() { node } else { chance.one_of(&others) })
        })?;
        Some(Box::new(move |cluster| {
            if let Some(mut start) = first.take() {
                start(cluster);
            }
            hit(cluster)
        }))
    },
};

/// What a node that comes back is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// It fetches the primary's database.
    Fetches,
    /// It begins, or begins anew with that database.
    Begins,
    /// It is a voter from now on.
    Votes,
}

/// A pack goes on: a node loses its folder.
pub const AT_PACK: Fault = Fault {
    name: "wipe_at_pack",
    when: When::Moment,
    rate: 8,
    lasts: 0..1,
    begin: |cluster, chance| {
        wait(cluster, chance, "wipe_at_pack", 30, 3, |cluster, chance| {
            let server = cluster.server(cluster.primary()?)?;
            let (_, summaries) = server.store().summaries();
            let packs = summaries.values().any(|summary| summary.packing != zrs::zodb::Tid::ZERO);
            packs.then(|| victim(cluster, chance))
        })
    },
};

/// Whether a node fetches the database with which it is to begin.
fn fetches(cluster: &Cluster, node: u64) -> bool {
    let server = cluster.servers().get(&node).cloned();
    server.is_some_and(|server| {
        matches!(&*server.node().role().look(), Role::Forming(_)) && server.node().status().fetching.is_some()
    })
}

/// Takes a node's folder away, if the cluster can do without it; its end starts the node.
fn wipe(cluster: &mut Cluster, node: u64, death: Death) -> Option<EndFault> {
    if !cluster.is_up(node) || !cluster.may_lose(node) {
        return None;
    }
    cluster.wipe(node, death);
    Some(start(node))
}

/// Waits until `choose` names a node, and hits it at most `within` milliseconds later: it loses its folder, if that may
/// be, or is killed, as it is once in `kills` times anyway (1: never).
fn wait(
    cluster: &mut Cluster,
    chance: &mut Chance,
    name: &'static str,
    within: u64,
    kills: u64,
    choose: impl Fn(&Cluster, &mut Chance) -> Option<u64> + 'static,
) -> Option<EndFault> {
    let wipes = kills == 1 || !chance.once_in(kills);
    aim(cluster, chance, PATIENCE, within, choose, move |cluster, node, chance| {
        if !cluster.is_up(node) {
            return None;
        }
        tell(node, "moment", name.as_bytes(), &format!("is hit at a moment ({name})"));
        let death = chance.one_of(&[Death::Killed, Death::PowerLost]);
        let wiped = if wipes { wipe(cluster, node, death) } else { None };
        let end = wiped.unwrap_or_else(|| {
            cluster.crash(node, death);
            start(node)
        });
        seen::fault(name, 1);
        Some((chance.millis(0..2_000), end))
    })
}
