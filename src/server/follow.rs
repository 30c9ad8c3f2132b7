//! Follows this node's role in the cluster: begins and ends its reigns, and tells all connections where the node
//! stands.
//!
//! One task follows the role. This node counts as *leading* only once the storages that its configuration asks for
//! exist, and no more from the moment its role changes.

use std::sync::Arc;
use std::time::Duration;

use super::pack;
use super::primary::{Packs, Primary};
use super::shared::{Phase, Shared};
use super::standing::Standing;
use crate::command::{Change, Outcome, Reign};
use crate::env::Watching;
use crate::raft::Role;

/// How long to wait before the creation of a storage is tried again.
const AGAIN: Duration = Duration::from_millis(100);

/// Follows the node's role until the server closes.
pub async fn follow(shared: Arc<Shared>) {
    let mut role = shared.node.role();
    let mut phase = shared.phase.watching();
    loop {
        let present = role.look_now().clone();
        match present {
            Role::Primary(reign) => lead(&shared, reign, &mut role).await,
            Role::Forming(_) => stand(&shared, Standing::Forming),
            Role::Candidate | Role::Excluded(_) => stand(&shared, Standing::Electing),
            Role::Secondary { primary, caught_up } => stand(&shared, Standing::Following { primary, caught_up }),
        }
        let stopping = tokio::select! { biased;
            _ = phase.until(|phase| *phase == Phase::Closing) => true,
            news = role.changed() => news.is_err(),
        };
        if stopping {
            stand(&shared, Standing::Electing);
            return;
        }
    }
}

/// Tells all connections the new standing, and ends the reign that was.
fn stand(shared: &Shared, standing: Standing) {
    let (now, mut before) = (standing.primary(), None);
    tracing::debug!(primary = ?now, "standing");
    let mut over = None;
    shared.standing.send_if(|present| {
        before = present.primary();
        if let Standing::Leading(primary) = std::mem::replace(present, standing) {
            over = Some(primary);
        }
        true
    });
    if let Some(primary) = over {
        tracing::debug!(reign = %primary.reign(), "no longer primary");
        primary.end();
    }
    if now.is_some() && now != before {
        shared.elections.send_if(|count| {
            *count += 1;
            true
        });
    }
}

/// Begins a reign; leads once everything exists that clients expect. Returns early if the role changes meanwhile.
async fn lead(shared: &Arc<Shared>, reign: Reign, role: &mut Watching<Role>) {
    if matches!(&*shared.standing.look(), Standing::Leading(primary) if primary.reign() == reign) {
        return;
    }
    stand(shared, Standing::Electing);
    let config = &shared.config;
    let timeout = config.transaction_timeout;
    let packs = Packs::new(config.pack_gc, config.sizes.pack_revisions, shared.metrics.packs.clone());
    let primary = Primary::begin(reign, timeout, &shared.env, &shared.node, &shared.store, packs);
    let mut still = role.clone();
    let mut phase = shared.phase.watching();
    let ready = tokio::select! { biased;
        _ = still.until(|role| !matches!(role, Role::Primary(now) if *now == reign)) => false,
        _ = phase.until(|phase| *phase != Phase::Open) => false,
        () = create_storages(shared, &primary) => true,
    };
    if ready {
        tracing::debug!(%reign, "primary");
        pack::resume(&primary);
        stand(shared, Standing::Leading(primary));
    } else {
        primary.end();
    }
}

/// Creates the configured storages that do not exist; tries until the future is dropped.
async fn create_storages(shared: &Shared, primary: &Primary) {
    for name in &shared.config.storages {
        while shared.store.storage(name).is_none() {
            match primary.change(Change::CreateStorage { name: name.clone() }).await {
                Some(Outcome::Storage(id)) => tracing::info!(storage = %name, %id, "created a storage"),
                other => {
                    tracing::warn!(storage = %name, ?other, "a storage could not be created");
                    shared.env.sleep(AGAIN).await;
                }
            }
        }
    }
}
