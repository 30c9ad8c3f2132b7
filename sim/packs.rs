//! The packs of a run: those that clients asked for, and those that nodes were seen to carry out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use zrs::server::Server;
use zrs::zodb::Tid;

use crate::{seen, trace};

/// A client's request to pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub client: usize,
    /// The node that was asked and answers itself, as every node does those that only read. (Others it may relay.)
    pub node: Option<u64>,
    /// The pack is to reach this tid at least,
    pub upto: Tid,
    /// and this one at most: a pack time is a float, and has the time to some microseconds.
    pub latest: Tid,
    /// The newest tid that any client was answered before.
    pub answered: Tid,
    pub began: Duration,
    /// The answer, if it came; a refusal as text.
    pub answer: Option<(Duration, Result<(), String>)>,
}

/// A pack that was carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pack {
    /// The pack time: a pack removes nothing younger.
    pub upto: Tid,
    pub began: Duration,
    /// When the first node has applied its end.
    pub ended: Option<Duration>,
    /// When which node was seen to have applied its end.
    pub ended_at: BTreeMap<u64, Duration>,
    /// The newest transaction of any node by then.
    pub last: Tid,
    /// Another node than the first primary has gone on with it.
    pub resumed: bool,
    /// The nodes at which it was seen to go on.
    seen_at: BTreeSet<u64>,
    first_index: u64,
    last_index: u64,
    primary: Option<u64>,
}

/// The packs that were carried out, in their order.
///
/// Nodes are looked at each millisecond, and a pack takes several: each of its commands goes to another node and back.
#[derive(Default)]
pub struct Packs {
    pub seen: Vec<Pack>,
    newest: Tid,
}

impl Packs {
    /// Looks at all nodes that run.
    pub fn look(&mut self, servers: &BTreeMap<u64, Arc<Server>>, primary: Option<u64>) {
        for (node, server) in servers {
            let store = server.store();
            let Some(storage) = store.storage("1") else { continue };
            let (position, summaries) = store.summaries();
            let Some(summary) = summaries.get(&storage) else { continue };
            self.newest = self.newest.max(summary.last_tid);
            self.node(*node, position.index, summary.packing, primary);
        }
    }

    fn node(&mut self, node: u64, index: u64, packing: Tid, primary: Option<u64>) {
        let now = trace::now();
        // (A node that is behind, or was started again, is still in the middle of an older one.)
        if let Some(pack) = self.seen.last_mut()
            && pack.ended.is_none()
        {
            if packing != pack.upto && index > pack.first_index {
                pack.ended = Some(now);
                pack.last = self.newest;
                // (The next one may have begun.)
                pack.last_index = if packing == Tid::ZERO { index } else { index - 1 };
                seen::tell(&format!("the pack up to {} is over", pack.upto));
            } else if packing == pack.upto {
                pack.first_index = pack.first_index.min(index);
                pack.resumed |= primary.is_some() && pack.primary.is_some() && pack.primary != primary;
            }
        }
        for pack in self.seen.iter_mut().rev().take_while(|pack| !pack.ended_at.contains_key(&node)) {
            if packing == pack.upto {
                pack.seen_at.insert(node);
            } else if pack.ended.is_some() && (index >= pack.last_index || pack.seen_at.contains(&node)) {
                pack.ended_at.insert(node, now);
            }
        }
        let is_new = self.seen.last().is_none_or(|pack| pack.ended.is_some() && index > pack.last_index);
        if packing != Tid::ZERO && is_new {
            let (began, first_index) = (now, index);
            seen::tell(&format!("n{node} packs up to {packing}"));
            self.seen.push(Pack {
                upto: packing,
                began,
                ended: None,
                ended_at: BTreeMap::new(),
                last: self.newest,
                resumed: false,
                seen_at: BTreeSet::new(),
                first_index,
                last_index: index,
                primary,
            });
        }
    }

    /// The pack that has not ended.
    pub fn going_on(&self) -> Option<&Pack> {
        self.seen.last().filter(|pack| pack.ended.is_none())
    }
}
