//! The parts of the server's status that each page tells.
//!
//! Pure, over the one [`Status`] that the server gives, so that `/status`, `/readyz` and `/healthz` never disagree.

use serde_json::{Map, Value};

use crate::server::Status;

/// This node's role, as `/status` tells it: `primary` only while the node may commit.
pub fn role(status: &Status) -> &'static str {
    match status.node.role {
        _ if status.leading => "primary",
        "secondary" => "secondary",
        "excluded" => "excluded",
        // (Forming a cluster, electing, or about to lead.)
        _ => "candidate",
    }
}

/// The number of the primary that may commit, if this node knows one.
pub fn primary(status: &Status) -> Option<u64> {
    match role(status) {
        "candidate" | "excluded" => None,
        _ => status.node.primary,
    }
}

/// Whether this node knows a primary and has caught up with it; if not, why.
pub fn ready(status: &Status) -> Result<(), String> {
    healthy(status)?;
    if status.leading {
        return Ok(());
    }
    if let Some(waiting) = &status.node.waiting {
        return Err(format!("This node is in no cluster yet: {waiting}."));
    }
    match (role(status), primary(status), status.lag_seconds) {
        ("secondary", Some(_), _) if status.node.caught_up => Ok(()),
        ("secondary", Some(primary), Some(lag)) => Err(format!("Catching up with node {primary}; {lag:.1} s behind.")),
        ("secondary", Some(primary), None) => Err(format!("Catching up with node {primary}.")),
        _ => Err("No primary is known; an election goes on, or too few nodes are there for one.".into()),
    }
}

/// Whether this node works; if not, its fault.
pub fn healthy(status: &Status) -> Result<(), String> {
    match &status.node.fault {
        Some(fault) => Err(format!("Stopped by a fault: {fault}.")),
        None => Ok(()),
    }
}

/// The newest transaction of all storages that has been applied here.
pub fn last_tid(status: &Status) -> String {
    let newest = status.storages.iter().map(|storage| storage.last_transaction.as_str()).max();
    newest.unwrap_or("0000000000000000").to_owned()
}

/// The page of `/status`: the keys that operations.md promises, and the rest of the status.
pub fn document(status: &Status) -> Value {
    let mut page = match serde_json::to_value(status) {
        Ok(Value::Object(page)) => page,
        // (A status has only string keys and finite numbers.)
        _ => Map::new(),
    };
    page.insert("node".into(), status.node.node.into());
    page.insert("role".into(), role(status).into());
    page.insert("primary".into(), primary(status).into());
    page.insert("term".into(), status.node.term.into());
    page.insert("last_tid".into(), last_tid(status).into());
    page.insert("applied".into(), status.node.applied.into());
    page.insert("ready".into(), ready(status).is_ok().into());
    page.insert("version".into(), env!("CARGO_PKG_VERSION").into());
    Value::Object(page)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::NodeStatus;
    use crate::server::StorageStatus;

    fn status(role: &'static str, primary: Option<u64>) -> Status {
        Status {
            node: NodeStatus {
                node: 2,
                role,
                primary,
                caught_up: primary.is_some(),
                format: 2,
                proposes: 2,
                term: 3,
                applied: 7,
                committed: 7,
                log: 8,
                cluster: Some("c".into()),
                waiting: None,
                fault: None,
                alarms: Vec::new(),
                changes: Vec::new(),
                members: Vec::new(),
                log_syncs: 1,
                purged: 0,
                log_bytes: 0,
                fetching: None,
            },
            leading: false,
            reign: None,
            lag_seconds: Some(0.0),
            storages: ["03f0000000000001", "03f0000000000002"]
                .into_iter()
                .map(|tid| StorageStatus {
                    name: tid.into(),
                    last_transaction: tid.into(),
                    objects: 0,
                    bytes: 0,
                    transactions: 0,
                    connections: 0,
                    staged: 0,
                })
                .collect(),
            connections: 0,
            sessions: 0,
            held: 0,
            relays: 0,
            waiting_votes: 0,
            holding: 0,
            unknown: 0,
        }
    }

    #[test]
    fn the_page_has_what_is_promised() {
        let page = document(&status("secondary", Some(1)));
        assert_eq!((page["node"].as_u64(), page["role"].as_str()), (Some(2), Some("secondary")));
        assert_eq!((page["primary"].as_u64(), page["term"].as_u64()), (Some(1), Some(3)));
        assert_eq!((page["last_tid"].as_str(), page["applied"].as_u64()), (Some("03f0000000000002"), Some(7)));
    }

    #[test]
    fn a_primary_that_may_not_commit_yet_is_none() {
        let early = status("primary", Some(2));
        assert_eq!((role(&early), primary(&early), ready(&early).is_err()), ("candidate", None, true));
        let leading = Status { leading: true, ..early };
        assert_eq!((role(&leading), primary(&leading), ready(&leading)), ("primary", Some(2), Ok(())));
    }

    #[test]
    fn ready_says_why_not() {
        assert_eq!(ready(&status("secondary", Some(1))), Ok(()));
        let mut behind = Status { lag_seconds: Some(2.5), ..status("secondary", Some(1)) };
        behind.node.caught_up = false;
        assert_eq!(ready(&behind).unwrap_err(), "Catching up with node 1; 2.5 s behind.");
        assert!(ready(&status("candidate", None)).unwrap_err().contains("election"));
        let mut forming = status("forming", None);
        forming.node.waiting = Some("waiting for node 3".into());
        assert_eq!(ready(&forming).unwrap_err(), "This node is in no cluster yet: waiting for node 3.");
        assert_eq!(document(&forming)["waiting"].as_str(), Some("waiting for node 3"));
        let mut broken = Status { leading: true, ..status("primary", Some(2)) };
        broken.node.fault = Some("disk".into());
        assert!(healthy(&broken).is_err() && ready(&broken).is_err());
    }
}
