//! Faults that wait for a moment: in the middle of what a node's disks do ([`Moment`]), or soon after something has
//! happened to a node ([`News`]). Then the node dies, or stands still, or the call fails.

use std::time::Duration;

use super::death::{crash, start};
use super::fault::{EndFault, Fault, When, aim, victim};
use super::host::{go_on, pause};
use super::network::cut;
use crate::chance::Chance;
use crate::cluster::{Cluster, Death, News, Ways, name, tell};
use crate::moments::{Deed, Moment, Trap};
use crate::seen;

/// How long a fault waits for its moment.
const PATIENCE: Duration = Duration::from_secs(4);
/// For how many milliseconds a primary is alone, and takes proposals that will not become the cluster's.
const ALONE: std::ops::Range<u64> = 300..2_000;
/// After how many milliseconds a node loses its power, if not at the moment.
const LATER: std::ops::Range<u64> = 30..2_000;
/// The same after a truncation: before the log's next segment makes all durable anyhow.
const SOON: std::ops::Range<u64> = 20..400;
/// For how many milliseconds a node is down, or stands still.
const LASTS: std::ops::Range<u64> = 50..2_500;

/// A fault that waits.
const fn aimed(name: &'static str, begin: fn(&mut Cluster, &mut Chance) -> Option<EndFault>) -> Fault {
    Fault { name, when: When::Moment, rate: 12, lasts: 0..1, begin }
}

/// The votes and other values of any node's log were written, or synced, in one of their two places.
pub const AT_SLOTS: Fault = aimed("at_slots", |cluster, chance| {
    let moment = chance.one_of(&[Moment::SlotsWritten, Moment::SlotsSynced]);
    trap(cluster, chance, "at_slots", (moment, None), 3)
});

/// Entries were written to the log of one node and not synced, or synced and not told: proposals are in flight.
pub const AT_ENTRIES: Fault = aimed("at_entries", |cluster, chance| {
    let moment = chance.one_of(&[Moment::EntriesWritten, Moment::EntriesSynced]);
    let node = victim(cluster, chance);
    trap(cluster, chance, "at_entries", (moment, Some(node)), 5)
});

/// Any node takes entries back that did not become the cluster's. (That is rare, so it is waited for nearly always, and
/// most times provoked: the other nodes don't reach the primary any more, but its clients do.)
pub const AT_TRUNCATION: Fault = Fault {
    rate: 30,
    ..aimed("at_truncation", |cluster, chance| {
        let mut trapped = trap(cluster, chance, "at_truncation", (Moment::Truncating, None), 6)?;
        let alone = cluster.primary().filter(|primary| cluster.is_up(*primary) && !chance.once_in(4));
        let mut cut = alone.map(|primary| {
            seen::fault("cut_from_nodes", 1);
            let others = cluster.other_nodes(primary);
            (cluster.elapsed() + chance.millis(ALONE), cut(cluster, name(primary), others, Ways::Both))
        });
        let mut is_done = false;
        Some(Box::new(move |cluster| {
            let is_over = cluster.is_over();
            if cut.as_mut().is_some_and(|(until, end)| (is_over || cluster.elapsed() > *until) && end(cluster)) {
                cut = None;
            }
            is_done = is_done || trapped(cluster);
            is_done && cut.is_none()
        }))
    })
};

/// Any node's log begins a new segment.
pub const AT_SEGMENT: Fault =
    aimed("at_segment", |cluster, chance| trap(cluster, chance, "at_segment", (Moment::SegmentBegun, None), 2));

/// One node has applied a command, and not flushed it.
pub const AT_APPLY: Fault = aimed("at_apply", |cluster, chance| {
    let node = victim(cluster, chance);
    trap(cluster, chance, "at_apply", (Moment::Applied, Some(node)), 5)
});

/// Any node flushes its store.
pub const AT_FLUSH: Fault = aimed("at_flush", |cluster, chance| {
    let moment = chance.one_of(&[Moment::Flushing, Moment::Flushed]);
    trap(cluster, chance, "at_flush", (moment, None), 1)
});

/// A node was started again, and may still be bound by the lease that it confirmed before.
pub const AFTER_RESTART: Fault = aimed("after_restart", |cluster, chance| {
    watch(cluster, chance, "after_restart", 600, |_, news, _| match news {
        News::Restarted(node) => Some(node),
        _ => None,
    })
});

/// A node hands the role over, as it is told to: the node itself is hit, or the one that is to take over.
pub const AT_HAND_OVER: Fault = aimed("at_hand_over", |cluster, chance| {
    let primary = cluster.primary().filter(|primary| cluster.is_up(*primary))?;
    cluster.hand_over(primary);
    watch(cluster, chance, "at_hand_over", 80, |cluster, news, chance| match news {
        News::HandsOver(node) => Some(if chance.once_in(2) { node } else { any_other(cluster, node, chance)? }),
        _ => None,
    })
});

/// There is no primary any more: one of those is hit that elect another.
pub const AT_ELECTION: Fault = aimed("at_election", |cluster, chance| {
    watch(cluster, chance, "at_election", 900, |cluster, news, chance| match news {
        News::LeadsNoMore(node) => any_other(cluster, node, chance),
        _ => None,
    })
});

/// A node has just become primary.
pub const AT_REIGN: Fault = aimed("at_reign", |cluster, chance| {
    watch(cluster, chance, "at_reign", 60, |_, news, _| match news {
        News::Leads(node) => Some(node),
        _ => None,
    })
});

fn any_other(cluster: &Cluster, node: u64, chance: &mut Chance) -> Option<u64> {
    let others: Vec<u64> = cluster.nodes().into_iter().filter(|other| *other != node).collect();
    (!others.is_empty()).then(|| chance.one_of(&others))
}

/// Sets a trap, and waits until it springs.
fn trap(
    cluster: &mut Cluster,
    chance: &mut Chance,
    name: &'static str,
    (moment, node): (Moment, Option<u64>),
    most: u64,
) -> Option<EndFault> {
    let power = Deed::Die(Death::PowerLost, chance.number());
    let killed = Deed::Die(Death::Killed, 0);
    let loses_soon = matches!(moment, Moment::Truncating) && chance.once_in(2);
    let deed = match loses_soon {
        true => Deed::PowerLater,
        false => chance.one_of(&[killed, power, power, Deed::StandStill, Deed::Fail, Deed::PowerLater]),
    };
    let number = cluster.traps.set(Trap { node, moment, pass: chance.below(most), deed });
    let (deadline, lasts) = (cluster.elapsed() + PATIENCE, chance.millis(LASTS));
    let later = chance.millis(if loses_soon { SOON } else { LATER });
    let mut rest: Option<(Duration, EndFault)> = None;
    Some(Box::new(move |cluster| {
        let now = cluster.elapsed();
        if let Some((due, end)) = &mut rest {
            return (now >= *due || cluster.is_over()) && end(cluster);
        }
        let Some((node, deed)) = cluster.traps.sprung(number) else {
            let is_late = now > deadline || cluster.is_over();
            if is_late {
                cluster.traps.disarm(number);
            }
            return is_late;
        };
        seen::fault(name, 1);
        tell(node, "moment", name.as_bytes(), &format!("was hit at a moment ({name}, {moment:?}): {deed:?}"));
        let end: EndFault = match deed {
            Deed::Die(..) => start(node),
            Deed::StandStill => go_on(cluster, node, |_| 0),
            Deed::Fail => return true,
            Deed::PowerLater => {
                rest = Some((now + later, lose_power(node, lasts)));
                return false;
            }
        };
        rest = Some((now + lasts, end));
        false
    }))
}

/// Takes a node's power away, for a while.
fn lose_power(node: u64, lasts: Duration) -> EndFault {
    let mut back: Option<(Duration, EndFault)> = None;
    Box::new(move |cluster| {
        let now = cluster.elapsed();
        let Some((due, end)) = &mut back else {
            back = crash(cluster, node, Death::PowerLost).map(|end| (now + lasts, end));
            return back.is_none();
        };
        (now >= *due || cluster.is_over()) && end(cluster)
    })
}

/// Waits for news of which `choose` makes a node, and hits the node at most `within` milliseconds later.
fn watch(
    cluster: &mut Cluster,
    chance: &mut Chance,
    name: &'static str,
    within: u64,
    choose: fn(&Cluster, News, &mut Chance) -> Option<u64>,
) -> Option<EndFault> {
    let choose = move |cluster: &Cluster, chance: &mut Chance| {
        cluster.news().to_vec().into_iter().find_map(|news| choose(cluster, news, chance))
    };
    aim(cluster, chance, PATIENCE, within, choose, move |cluster, node, chance| {
        // (It may be about to stop.)
        let runs = cluster.server(node).is_some() || cluster.is_up(node);
        if !runs || cluster.node(node).is_taken {
            return None;
        }
        let death = chance.one_of(&[Death::Killed, Death::PowerLost]);
        let end = if chance.once_in(3) {
            pause(cluster, node)?
        } else {
            cluster.crash(node, death);
            start(node)
        };
        seen::fault(name, 1);
        tell(node, "moment", name.as_bytes(), &format!("was hit at a moment ({name})"));
        Some((chance.millis(LASTS), end))
    })
}
