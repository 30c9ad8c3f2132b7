//! Faults while the cluster forms.

use super::death::crash;
use super::fault::{EndFault, Fault, When};
use super::host::pause;
use super::network::cut;
use crate::cluster::{Death, NODES, Ways, name};

/// A node that goes down.
pub const FORMING_DEATH: Fault = Fault {
    name: "forming_death",
    when: When::Forming,
    rate: 60,
    lasts: 50..1_500,
    begin: |cluster, chance| {
        let node = chance.one_of(&NODES);
        let death = chance.one_of(&[Death::Killed, Death::PowerLost]);
        crash(cluster, node, death)
    },
};

/// A node that others don't reach, or that does not reach them.
pub const FORMING_CUT: Fault = Fault {
    name: "forming_cut",
    when: When::Forming,
    rate: 60,
    lasts: 50..1_500,
    begin: |cluster, chance| {
        let node = chance.one_of(&NODES);
        let ways = chance.one_of(&[Ways::Both, Ways::Out, Ways::In]);
        let others = cluster.other_nodes(node);
        Some(cut(cluster, name(node), others, ways))
    },
};

/// A node that stands still.
pub const FORMING_PAUSE: Fault = Fault {
    name: "forming_pause",
    when: When::Forming,
    rate: 60,
    lasts: 50..1_500,
    begin: |cluster, chance| -> Option<EndFault> {
        let node = chance.one_of(&NODES);
        pause(cluster, node)
    },
};
