//! A node's status: what the node tells people about itself and the other members.

use openraft::Instant;
use serde::Serialize;
use std::sync::atomic::Ordering;

use super::inner::{Inner, Member, NO_MEMBER, Role};
use crate::raft::catch_up::Progress;
use crate::raft::machine::Raft;
use crate::raft::members::{Facts, differences};
use crate::raft::types::Seat;
use crate::raft::wire::Fetched;
use crate::roster::Part;

/// The state of this node's consensus, as of the moment of asking.
#[derive(Clone, Debug, Serialize)]
pub struct NodeStatus {
    /// This node's number in `--peers`.
    pub node: u64,
    /// `forming`, `candidate`, `secondary`, `primary` or `excluded`.
    pub role: &'static str,
    /// The primary's node id, as far as this node knows one that is alive.
    pub primary: Option<u64>,
    /// Whether this node has caught up with that primary once (the primary itself has).
    pub caught_up: bool,
    /// The newest command format that this node knows.
    pub format: u8,
    /// The format in which this node proposes, if it is primary: the newest that all members were known to know lately.
    pub proposes: u8,
    /// The Raft term.
    pub term: u64,
    /// How many log entries this node has applied.
    pub applied: u64,
    /// How many log entries are known to be committed.
    pub committed: u64,
    /// How many log entries this node has.
    pub log: u64,
    /// The cluster's id; `None` while this node belongs to none.
    pub cluster: Option<String>,
    /// The condition that this node waits for, in words.
    pub waiting: Option<String>,
    /// Why this node has stopped taking part, if it has.
    pub fault: Option<String>,
    /// What people should look after: why this node is not fit to lead, clocks and databases that differ, and why it
    /// can't fetch a database that it needs.
    pub alarms: Vec<String>,
    /// How the members differ from what the operators want, and, on the primary, what that waits for.
    pub changes: Vec<String>,
    /// All members, this one included.
    pub members: Vec<MemberStatus>,
    /// fsyncs of the Raft log since the start.
    pub log_syncs: u64,
    /// How many entries the log does not have any more, as they are in the database.
    pub purged: u64,
    /// Bytes of the log's files.
    pub log_bytes: u64,
    /// The database that this node fetches from another one, as its log does not go back far enough.
    pub fetching: Option<Progress>,
}

/// A member, as this node knows it.
#[derive(Clone, Debug, Serialize)]
pub struct MemberStatus {
    /// The member's number in `--peers`.
    pub node: u64,
    /// `host:port`, for clients and peers alike.
    pub address: String,
    /// `voter` or `observer`.
    pub part: Part,
    /// On the primary: how many log entries that member is known to have on disk.
    pub log: Option<u64>,
    /// How many log entries that member has applied, as it last said.
    pub applied: Option<u64>,
    /// Seconds for which that member had not been sure to have all, when it last said so.
    pub lag_seconds: Option<f64>,
    /// Milliseconds since that member last answered, or, if it never did, since this node's start; none for this node.
    pub silence_ms: Option<u64>,
    /// On the primary: milliseconds since that member last answered a heartbeat.
    #[serde(skip)]
    pub answered_ms: Option<u64>,
    /// Why that member was refused by this node, or has refused it, when they last met.
    pub refusal: Option<String>,
    /// Why that member is not fit to lead, as it said lately.
    pub unfit: Option<String>,
    /// How far that member is that fetches a database from this node, or, on the primary, from any.
    pub fetching: Option<Fetching>,
}

/// How far a member is that fetches a database.
#[derive(Clone, Debug, Serialize)]
pub struct Fetching {
    /// Bytes that it has.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
    /// Bytes in a second.
    pub rate: u64,
}

/// The status of `node` now; `raft` is `None` until the cluster has formed.
pub fn describe(node: &Inner, raft: Option<&Raft>) -> NodeStatus {
    let role = node.role();
    let mut status = NodeStatus {
        node: node.config.node,
        role: match &role {
            Role::Forming(_) => "forming",
            Role::Excluded(_) => "excluded",
            Role::Candidate => "candidate",
            Role::Secondary { .. } => "secondary",
            Role::Primary(_) => "primary",
        },
        primary: match &role {
            Role::Secondary { primary, .. } => Some(primary.id),
            Role::Primary(_) => Some(node.config.node),
            Role::Forming(_) | Role::Candidate | Role::Excluded(_) => None,
        },
        caught_up: matches!(role, Role::Primary(_) | Role::Secondary { caught_up: true, .. }),
        format: node.caller.newest.format,
        proposes: node.format.load(Ordering::Relaxed),
        term: 0,
        applied: node.store.applied().index,
        committed: 0,
        log: 0,
        cluster: node.cluster(),
        waiting: match role {
            Role::Forming(what) if !what.is_empty() => Some(what),
            _ => None,
        },
        fault: node.fault().or_else(|| node.excluded()),
        alarms: alarms(node),
        changes: changes(node),
        members: Vec::new(),
        log_syncs: node.log.syncs(),
        purged: node.log.purged().map_or(0, |place| place.index + 1),
        log_bytes: node.log.size(),
        fetching: node.catch_up.progress(),
    };
    let metrics = raft.map(|raft| {
        let metrics = raft.metrics().look().clone();
        status.term = metrics.current_term;
        status.committed = metrics.local_committed.map_or(0, |id| id.index + 1);
        status.log = metrics.last_log_index.map_or(0, |index| index + 1);
        metrics
    });
    let own_lag = node.lag();
    let describe = |member: Member| {
        let reads = node.checkpoints.progress_of(member.incarnation);
        let fetching = reads.map(|(Fetched { done, total, .. }, rate)| Fetching { done, total, rate });
        let Member { id, incarnation, address, votes } = member;
        let replication = metrics.as_ref().and_then(|metrics| metrics.replication.as_ref()?.get(&incarnation));
        let answered = metrics.as_ref().and_then(|metrics| *metrics.heartbeat.as_ref()?.get(&incarnation)?);
        let is_own = id == node.config.node;
        let answered_ms = answered.map(|at| at.elapsed().as_millis() as u64);
        let (unheard, said) = node.fitness.heard_of(id);
        let unheard_ms = unheard.as_millis() as u64;
        MemberStatus {
            node: id,
            address,
            part: if votes { Part::Voter } else { Part::Observer },
            refusal: node.caller.memory.refusal_of(id),
            fetching,
            unfit: if is_own { node.fitness.unfit() } else { node.fitness.unfit_of(id) },
            log: replication.map(|matching| matching.map_or(0, |id| id.index + 1)),
            applied: if is_own { Some(status.applied) } else { said.map(|said| said.applied) },
            lag_seconds: if is_own { own_lag } else { said.and_then(|said| said.lag) }.map(|lag| lag.as_secs_f64()),
            silence_ms: (!is_own).then(|| answered_ms.unwrap_or(u64::MAX).min(unheard_ms)),
            answered_ms,
        }
    };
    status.members = node.members().into_iter().map(describe).collect();
    status
}

/// What people should look after.
fn alarms(node: &Inner) -> Vec<String> {
    let differences = node.alarms.look().clone();
    let own = node.fitness.alarms().into_iter().chain(node.catch_up.trouble()).chain(removed(node));
    own.chain(differences).collect()
}

/// That this node was taken out of the cluster, if all others that it can reach say so.
fn removed(node: &Inner) -> Option<String> {
    if node.role() != Role::Candidate {
        return None;
    }
    let others = node.members().into_iter().filter(|member| member.id != node.config.node);
    let said: Vec<String> = others.filter_map(|member| node.caller.memory.refusal_of(member.id)).collect();
    let is_removed = !said.is_empty() && said.iter().all(|why| why.contains(NO_MEMBER));
    is_removed
        .then(|| "the other nodes say that this one is no member any more: it was removed, and can be stopped".into())
}

/// How the members differ from the roster, and what the primary waits for in that.
fn changes(node: &Inner) -> Vec<String> {
    let mut facts = Facts { own: node.caller.incarnation, ..Facts::default() };
    for Member { id, incarnation, address, votes } in node.members() {
        facts.seats.insert(incarnation, Seat { node: id, address });
        facts.voters.extend(votes.then_some(incarnation));
    }
    let waits: Vec<String> = node.waits.look().iter().map(|wait| wait.words.clone()).collect();
    differences(&facts, &node.store.roster().1).into_iter().chain(waits).collect()
}
