//! The steward: brings the members nearer to the roster while this node is primary, one step at a time; and grants
//! wishes for another roster.
//!
//! What was wished stands in the log, and each step is an entry of it. So a primary that dies in the middle leaves
//! nothing half done: the next one goes on from what the log says.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use openraft::raft::Precondition;
use openraft::{ChangeMembers, EntryPayload, Instant};

use super::inner::{Inner, Member, Reigning, Role};
use super::proposal::submit;
use crate::command::{Change, Command, Outcome, ROSTER_FORMAT, Reign};
use crate::config::limits;
use crate::raft::fitness::Cause;
use crate::raft::hello::{Purpose, SeatClaim};
use crate::raft::link::Target;
use crate::raft::machine::Raft;
use crate::raft::members::{Facts, Found, MembersAsk, Plan, Sign, Step, changed, plan, returned};
use crate::raft::stamp::cluster_name;
use crate::raft::types::{Incarnation, LogPosition, Members};
use crate::raft::wire::{FormAnswer, FormAsk};
use crate::roster::{Part, Roster};

/// Looks after the members until the node stops.
pub async fn keep(node: Arc<Inner>, raft: Raft) {
    while !node.stopping() {
        note_own_seat(&node, &raft);
        node.env().sleep(limits::STEWARD_LOOK).await;
        let (_, roster) = node.store.roster();
        judge_own_part(&node, &roster);
        let Role::Primary(reign) = node.role() else {
            node.waits.send(Vec::new());
            continue;
        };
        let (facts, log_id) = facts(&node, &raft, reign);
        let Plan { step, waits } = plan(&facts, &roster);
        node.waits.send(waits);
        let Some(step) = step else { continue };
        match node.env().timeout(limits::PEER_CALL_TIMEOUT, take(&raft, &facts, log_id, &step)).await {
            Ok(Ok(())) => {}
            Ok(Err(why)) => tracing::debug!("a change of the members came to nothing: {why}"),
            Err(_) => tracing::debug!("a change of the members takes long: {step:?}"),
        }
    }
}

/// Keeps in mind where this node has its seat from: it tells that to peers that may not know of it yet.
fn note_own_seat(node: &Inner, raft: &Raft) {
    let metrics = raft.metrics().look().clone();
    let stored = &metrics.membership_config;
    let own = stored.membership().get_node(&node.caller.incarnation);
    let (Some(seat), Some(log_id)) = (own, stored.log_id()) else { return };
    let claim =
        Some(SeatClaim { entry: log_id.index + 1, address: seat.address.clone(), now: node.config.public_address() });
    node.caller.seat.send_if(|known| {
        let news = *known != claim;
        if news {
            known.clone_from(&claim);
        }
        news
    });
}

/// A voter that is to leave, or to vote no more, should not lead. (An observer can't.)
fn judge_own_part(node: &Inner, roster: &Roster) {
    let votes = node.member_of(node.caller.incarnation).is_some_and(|member| member.votes);
    let wish = roster.nodes.get(&node.config.node).filter(|wish| wish.folder == node.caller.incarnation.0);
    let why = match wish {
        _ if roster.nodes.is_empty() || !votes => None,
        Some(wish) if wish.part == Part::Voter => None,
        Some(_) => Some("it is to be an observer".to_owned()),
        None => Some("it is to leave the cluster".to_owned()),
    };
    node.fitness.set(Cause::Part, why);
}

/// The members as the log has them now, and how this node sees them; and the entry that made them so.
fn facts(node: &Inner, raft: &Raft, reign: Reign) -> (Facts, Option<LogPosition>) {
    let metrics = raft.metrics().look().clone();
    let stored = &metrics.membership_config;
    let Members { voters, seats } = Members::from(stored.membership());
    let last = metrics.last_log_index.map_or(0, |index| index + 1);
    let (matched, heard) = (metrics.replication.unwrap_or_default(), metrics.heartbeat.unwrap_or_default());
    let sign = |member: &Incarnation| {
        let answered = heard.get(member).copied().flatten().map(|at| at.elapsed());
        let entries = matched.get(member).copied().flatten().map_or(0, |last| last.index + 1);
        let fetching = node.checkpoints.progress_of(*member).map(|(fetched, _)| (fetched.done, fetched.total));
        Sign {
            silence: answered.or(fetching.map(|_| Duration::ZERO)),
            behind: last.saturating_sub(entries),
            knows_members: stored.log_id().is_none_or(|log_id| entries > log_id.index),
            fetching,
        }
    };
    let signs = seats.keys().map(|member| (*member, sign(member))).collect();
    let voters = voters.into_iter().flatten().collect();
    let now = node.env().now();
    let entry = stored.log_id().map_or(0, |log_id| log_id.index);
    let (reigns, settled) = {
        let mut known = node.reigns.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.filter(|known| known.reign == reign);
        let since = before.map_or(now, |known| known.since);
        let settled = before.filter(|known| known.entry == entry).map_or(now, |known| known.settled);
        *known = Some(Reigning { reign, since, entry, settled });
        (now.saturating_duration_since(since), now.saturating_duration_since(settled))
    };
    (Facts { own: node.caller.incarnation, voters, seats, signs, reigns, settled }, *stored.log_id())
}

/// Takes a step: an entry of the log. (`log_id`: of the entry whose members the step goes out from.)
async fn take(raft: &Raft, facts: &Facts, log_id: Option<LogPosition>, step: &Step) -> Result<(), String> {
    let unchanged = [Precondition::LastMembershipLogId { last_membership_log_id: log_id }];
    match step {
        Step::Members { voters, seats, words } => {
            let members = Members { voters: vec![voters.clone()], seats: seats.clone() };
            let membership = members.into_membership().map_err(|e| e.to_string())?;
            let appended = raft.append_membership(membership, EntryPayload::Blank, unchanged).await;
            appended.map_err(|e| e.to_string())?;
            let gone = facts.seats.keys().filter(|folder| !seats.contains_key(folder)).count();
            let also =
                if gone > 0 && seats.len() >= facts.seats.len() { ", in place of its former data folder" } else { "" };
            tracing::info!("members: {words}{also}");
        }
        Step::Address { member, seat } => {
            let nodes = [(*member, seat.clone())].into();
            let changed = raft.change_membership(ChangeMembers::SetNodes(nodes), true).await;
            changed.map_err(|e| e.to_string())?;
            tracing::info!("members: node {} has the address {}", seat.node, seat.address);
        }
    }
    Ok(())
}

/// Grants an operator's wish; gives what is going to happen, or why nothing is, in words.
pub async fn change(node: &Arc<Inner>, ask: &MembersAsk) -> Result<String, String> {
    let (reign, raft) = leading(node)?;
    // (Before anybody is asked: a wrong number is not to be looked for.)
    let wanted = |found| {
        let (at, roster) = node.store.roster();
        changed(ask, &facts(node, &raft, reign).0, &roster, found).map(|roster| (at.index, roster))
    };
    wanted(Found::Unasked)?;
    let found = found(node, ask).await?;
    let _turn = node.rostering.lock().await;
    let (after, roster) = wanted(found)?;
    let votes = roster.nodes.values().filter(|wish| wish.part == Part::Voter).count();
    propose(node, &raft, reign, after, roster).await?;
    let mut words = match ask {
        MembersAsk::Add { node, observer: true, .. } => format!("Node {node} joins as an observer."),
        MembersAsk::Add { node, .. } => format!("Node {node} joins, and votes once it has caught up."),
        MembersAsk::Promote { node } => format!("Node {node} becomes a voter."),
        MembersAsk::Observe { node } => format!("Node {node} becomes an observer."),
        MembersAsk::Remove { node } => format!("Node {node} leaves."),
        MembersAsk::Replace { old, node, .. } => format!("Node {node} takes the place of node {old}."),
        MembersAsk::Address { node, address } => format!("Node {node} has the address {address}."),
    };
    if votes.is_multiple_of(2) && votes > 0 {
        let (losses, odd) = (votes / 2 - 1, votes - 1);
        words.push_str(&format!(
            " ({votes} voters survive the loss of {losses}, as {odd} do: an odd number is better.)"
        ));
    }
    Ok(words)
}

/// Notes that node `number` has come with the empty folder `folder`; gives why it is not in yet.
pub async fn note_folder(node: &Arc<Inner>, reign: Reign, number: u64, folder: Incarnation) -> String {
    let noting = async {
        let (_, raft) = leading(node)?;
        let mut last = node.rostering.lock().await;
        let (facts, _) = facts(node, &raft, reign);
        let (at, roster) = node.store.roster();
        match returned(number, folder, &facts, &roster)? {
            Some(roster) => {
                // (Two folders of one number take turns no faster than either could come in.)
                let now = node.env().now();
                if last.get(&number).is_some_and(|last| now < *last + limits::FOLDER_KEPT) {
                    return Err("another data folder of that number came a moment ago".into());
                }
                tracing::info!("members: node {number} comes with an empty data folder, and is let in again");
                propose(node, &raft, reign, at.index, roster).await?;
                last.insert(number, now);
                Ok(())
            }
            None => Ok(()),
        }
    };
    match noting.await {
        Ok(()) => {
            let waits = node.waits.look();
            let own = waits.iter().find(|wait| wait.node == number);
            own.map_or("it is about to be let in".into(), |wait| wait.words.clone())
        }
        Err(why) => why,
    }
}

fn leading(node: &Inner) -> Result<(Reign, Raft), String> {
    match (node.role(), node.running.get()) {
        (Role::Primary(reign), Some(running)) => Ok((reign, running.raft.clone())),
        _ => Err("this node is not the primary any more".into()),
    }
}

/// Proposes a roster that was made of the one that entry `after` of the log has set.
async fn propose(node: &Arc<Inner>, raft: &Raft, reign: Reign, after: u64, roster: Roster) -> Result<(), String> {
    // (A folder that is gone, and wanted no more, reads nothing. This node may never have met it.)
    let (facts, _) = facts(node, raft, reign);
    let stays = |folder: Incarnation| roster.nodes.values().any(|wish| wish.folder == folder.0);
    let reads = |member: &Member| stays(member.incarnation) || !facts.is_gone(member.incarnation);
    // (Where one roster is in the log already, every member has to read that format anyway.)
    if after == 0 {
        node.all_read(ROSTER_FORMAT, reads)?;
    }
    let format = node.format_of(reads);
    let format = format.max(ROSTER_FORMAT);
    let command = Command { reign, change: Change::Roster { after, roster } };
    let proposal = submit(raft, command.encode(format)).await.in_reign(node.clone(), reign);
    match node.env().timeout(limits::PEER_CALL_TIMEOUT, proposal.outcome()).await {
        Ok(Ok(Outcome::Done)) => Ok(()),
        Ok(Ok(Outcome::Refused(why))) => Err(why.to_string()),
        Ok(Ok(_) | Err(_)) => Err("the primary has changed meanwhile: look at the status, and ask again".into()),
        Err(_) => Err("the log did not take it in time: look at the status, and ask again".into()),
    }
}

/// Who is at the address that the wish names, if it names one.
async fn found(node: &Inner, ask: &MembersAsk) -> Result<Found, String> {
    let (number, address) = match ask {
        MembersAsk::Add { node, address, .. } | MembersAsk::Replace { node, address, .. } => (*node, address),
        MembersAsk::Address { node: number, address } => return moved(node, *number, address).await,
        MembersAsk::Promote { .. } | MembersAsk::Observe { .. } | MembersAsk::Remove { .. } => {
            return Ok(Found::Unasked);
        }
    };
    let target = Target { node: number, incarnation: None, address: address.clone() };
    match node.formation.ask(&target, &FormAsk::Probe).await {
        Ok(FormAnswer::Empty { incarnation, base, .. }) if base == Default::default() => Ok(Found::Folder(incarnation)),
        Ok(FormAnswer::Empty { base, .. }) => {
            Err(format!("node {number}'s data folder has {base}: start it with an empty one"))
        }
        Ok(FormAnswer::Stamped(stamp)) => Err(format!(
            "node {number}'s data folder belongs to cluster {} already: start it with an empty one",
            cluster_name(&stamp.cluster)
        )),
        Ok(FormAnswer::Refused(why)) => Err(format!("node {number} at {address}: {why}")),
        Ok(FormAnswer::Admitted(_) | FormAnswer::Primary(_)) => {
            Err(format!("node {number} at {address} gave an answer to another question"))
        }
        Err(why) => Err(format!(
            "node {number} does not answer at {address} ({why}): start it there, with an empty data folder and with all \
             members in its --peers"
        )),
    }
}

/// The folder of a member that is to be at another address.
async fn moved(node: &Inner, number: u64, address: &str) -> Result<Found, String> {
    let member = node.member(number).ok_or_else(|| node.no_member(number))?;
    let running = node.running.get().ok_or("the cluster has not formed")?;
    let folder = member.incarnation;
    let target = Target { node: number, incarnation: Some(folder), address: address.to_owned() };
    match node.caller.connect(&target, Some(running.peers.cluster()), Purpose::Calls).await {
        Ok(_) => Ok(Found::Folder(folder)),
        Err(why) => Err(format!("node {number} does not answer at {address}: {why}")),
    }
}
