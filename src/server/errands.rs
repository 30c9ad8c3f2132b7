//! Errands of operators, taken at any node of the cluster: done here if this node is the primary, else handed to the
//! node that is, whose answer comes back in its own words.
//!
//! A node that was handed an errand does it or refuses it, and hands it to nobody: the primary may have changed on the
//! way, and the operator asks again. Every wait has its deadline in [`limits`], so that an answer comes while the
//! operator still waits for it.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;

use super::hand_over::hand_over;
use super::primary::Primary;
use super::shared::{Phase, Shared};
use super::standing::{KnownPrimary, Standing};
use crate::command::{Change, Outcome};
use crate::config::limits;
use crate::raft::{Brought, Errand, Report};

/// Does an operator's errand, here or at the primary: what was done, or why nothing was, in words.
pub async fn run(shared: &Shared, errand: Errand) -> Result<String, String> {
    let report = match known_primary(shared).await? {
        KnownPrimary::ThisNode => here(shared, errand).await,
        KnownPrimary::Node(node) => {
            let sent = shared.node.send(node, errand, limits::ERRAND).await;
            sent.map_err(|why| {
                format!(
                    "Node {node} is the primary, and did not answer ({why}). Look at the status whether it was done."
                )
            })?
        }
    };
    match report {
        Report::Done(words) => Ok(words),
        Report::Refused(words) => Err(words),
        Report::Storage { .. } => Err("The primary gave an answer to another question.".into()),
    }
}

/// Reports on the errands that other nodes bring, until the server closes.
pub async fn serve(shared: Arc<Shared>, mut brought: mpsc::Receiver<Brought>) {
    let mut phase = shared.phase.watching();
    let shared = &*shared;
    let mut under_way = FuturesUnordered::new();
    loop {
        tokio::select! { biased;
            _ = phase.until(|phase| *phase == Phase::Closing) => return,
            Some(()) = under_way.next(), if !under_way.is_empty() => {}
            next = brought.recv(), if under_way.len() < limits::ERRANDS => match next {
                Some(Brought { errand, report }) => under_way.push(async move {
                    let _ = report.send(brought_here(shared, errand).await);
                }),
                None => return,
            },
        }
    }
}

/// The report on an errand that another node has brought.
async fn brought_here(shared: &Shared, errand: Errand) -> Report {
    if let Errand::LookAtStorage { name } = &errand {
        return look(shared, name);
    }
    match known_primary(shared).await {
        Ok(KnownPrimary::ThisNode) => here(shared, errand).await,
        Ok(KnownPrimary::Node(node)) => {
            let own = shared.config.node;
            Report::Refused(format!("Node {own} is not the primary any more, node {node} is: ask again."))
        }
        Err(why) => Report::Refused(why),
    }
}

/// The primary, once one is known.
async fn known_primary(shared: &Shared) -> Result<KnownPrimary, String> {
    let status = shared.node.status();
    if let Some(why) = status.fault {
        return Err(format!("Node {} takes no part: {why}.", status.node));
    }
    if let Some(what) = status.waiting {
        return Err(format!("This node is in no cluster yet: {what}."));
    }
    let mut standing = shared.standing.watching();
    let _ = shared.env.timeout(limits::PRIMARY_AWAITED, standing.until(|now| now.primary().is_some())).await;
    let known = standing.look().primary();
    known.ok_or_else(|| "No primary is known; an election goes on, or too few nodes are there for one.".into())
}

async fn here(shared: &Shared, errand: Errand) -> Report {
    let done = match errand {
        Errand::Transfer { to } if to == Some(shared.config.node) => {
            Ok(format!("Node {} is the primary already.", shared.config.node))
        }
        Errand::Transfer { to } => match hand_over(shared, to).await {
            Ok(node) => Ok(format!("Node {node} is the primary now.")),
            Err(why) => Err(format!("Not handed over: {why:#}.")),
        },
        Errand::DropStorage { name } => match drop_storage(shared, &name).await {
            Ok(words) => Ok(words),
            Err(why) => Err(format!("Not dropped: {why}.")),
        },
        Errand::Members(wish) => match shared.node.change_members(&wish).await {
            Ok(words) => Ok(words),
            Err(why) => Err(format!("Nothing is changed: {why}.")),
        },
        Errand::LookAtStorage { name } => return look(shared, &name),
    };
    done.map_or_else(Report::Refused, Report::Done)
}

/// This node's need of a storage.
fn look(shared: &Shared, name: &str) -> Report {
    let is_configured = shared.config.storages.iter().any(|configured| configured == name);
    let storage = shared.store.storage(name);
    Report::Storage {
        is_configured,
        clients: storage.map_or(0, |storage| shared.tallies.of(storage).connections.get()),
    }
}

/// Drops a storage, if it is empty and no node needs it; this node is primary.
///
/// A node that can't be asked does not stand in the way: clients that read there lose their connections once it has
/// applied the change. But it may name the storage in its settings, so the words say which node it is.
async fn drop_storage(shared: &Shared, name: &str) -> Result<String, String> {
    let primary = match &*shared.standing.look() {
        Standing::Leading(primary) => primary.clone(),
        _ => return Err("this node is not the primary any more".into()),
    };
    let Some(storage) = shared.store.storage(name) else {
        return Err(format!("there is no storage {name:?}; there are: {}", shared.storage_names().join(", ")));
    };
    if let Some(why) = shared.store.summary(storage).not_empty(name) {
        return Err(why);
    }
    let needs = look_everywhere(shared, name).await;
    if let Some(why) = needs.objection(name) {
        return Err(why);
    }
    propose(shared, &primary, name).await?;
    tracing::info!(storage = %name, id = %storage, "dropped a storage");
    let mut words = format!("Storage {name:?} is dropped.");
    for node in needs.silent {
        words.push_str(&format!(
            " Node {node} did not answer: if it is started with --storage {name}, it makes the storage again once it \
             is primary."
        ));
    }
    Ok(words)
}

async fn propose(shared: &Shared, primary: &Arc<Primary>, name: &str) -> Result<(), String> {
    let change = primary.change(Change::DropStorage { name: name.to_owned() });
    match shared.env.timeout(limits::PEER_CALL_TIMEOUT, change).await {
        Ok(Some(Outcome::Done)) => Ok(()),
        Ok(Some(Outcome::Refused(refusal))) => Err(refusal.to_string()),
        Ok(Some(_) | None) => Err("the primary has changed meanwhile; look whether it is there, and ask again".into()),
        Err(_) => Err("the log did not take it in time; look whether it is there, and ask again".into()),
    }
}

/// The nodes' need of a storage.
#[derive(Debug, Default)]
struct Needs {
    /// The nodes whose settings name it.
    configured: Vec<u64>,
    /// The nodes at which it is open, each with the number of its clients.
    open: Vec<(u64, u64)>,
    /// The nodes that did not say.
    silent: Vec<u64>,
}

impl Needs {
    /// Adds what a node has answered.
    fn add(&mut self, node: u64, answer: Result<Report, String>) {
        let why = match answer {
            Ok(Report::Storage { is_configured, clients }) => {
                if is_configured {
                    self.configured.push(node);
                }
                if clients > 0 {
                    self.open.push((node, clients));
                }
                return;
            }
            // (It stops, or has too much to do.)
            Ok(Report::Done(words) | Report::Refused(words)) => words,
            Err(why) => why,
        };
        tracing::debug!(node, why, "could not ask about a storage");
        self.silent.push(node);
    }

    /// Why the storage should not be dropped.
    fn objection(&self, name: &str) -> Option<String> {
        if !self.open.is_empty() {
            let clients: u64 = self.open.iter().map(|(_, clients)| clients).sum();
            let what = if clients == 1 { "1 client has" } else { &format!("{clients} clients have") };
            let each: Vec<String> =
                self.open.iter().map(|(node, clients)| format!("{clients} at node {node}")).collect();
            return Some(format!("{what} storage {name:?} open: {}", each.join(", ")));
        }
        let nodes: Vec<String> = self.configured.iter().map(u64::to_string).collect();
        (!nodes.is_empty()).then(|| {
            let nodes = nodes.join(", ");
            format!(
                "storage {name:?} is named by --storage (or the settings' file) of node {nodes}, which would make it \
                 again: take it out there, start the node again, and drop it then"
            )
        })
    }
}

/// Asks all nodes.
async fn look_everywhere(shared: &Shared, name: &str) -> Needs {
    let mut needs = Needs::default();
    needs.add(shared.config.node, Ok(look(shared, name)));
    let members = shared.node.status().members.into_iter().map(|member| member.node);
    let others = members.filter(|node| *node != shared.config.node).map(|node| async move {
        let errand = Errand::LookAtStorage { name: name.to_owned() };
        (node, shared.node.send(node, errand, limits::STORAGE_LOOK).await)
    });
    join_all(others).await.into_iter().for_each(|(node, answer)| needs.add(node, answer));
    needs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storage_that_is_needed_is_not_dropped() {
        let mut needs = Needs::default();
        let need = |is_configured, clients| Ok(Report::Storage { is_configured, clients });
        needs.add(1, need(false, 0));
        assert_eq!(needs.objection("mian"), None);
        needs.add(2, need(true, 0));
        needs.add(3, need(true, 0));
        let why = needs.objection("mian").unwrap();
        assert!(
            why.starts_with("storage \"mian\" is named by --storage (or the settings' file) of node 2, 3"),
            "{why}"
        );
        needs.add(1, need(false, 1));
        assert_eq!(needs.objection("mian").unwrap(), "1 client has storage \"mian\" open: 1 at node 1");
        needs.add(2, need(true, 2));
        assert_eq!(needs.objection("mian").unwrap(), "3 clients have storage \"mian\" open: 1 at node 1, 2 at node 2");
        assert!(needs.silent.is_empty());
    }

    #[test]
    fn a_node_that_answers_something_else_has_not_said_what_it_needs() {
        let mut needs = Needs::default();
        needs.add(2, Ok(Report::Refused("The node that was asked stops.".into())));
        needs.add(3, Err("no answer".into()));
        needs.add(4, Ok(Report::Done("Done.".into())));
        needs.add(5, Ok(Report::Storage { is_configured: false, clients: 0 }));
        assert_eq!((needs.silent.clone(), needs.objection("mian")), (vec![2, 3, 4], None));
    }
}
