//! Clusters of real processes with real clients: nothing that was answered is lost, whatever is killed.
//!
//! `cargo test --test cluster` takes a few minutes on two cores. `ZRS_HEAVY=1` does more of everything.

#[path = "cluster/busy.rs"]
mod busy;
#[path = "cluster/catch_up.rs"]
mod catch_up;
#[path = "cluster/counters.rs"]
mod counters;
#[path = "cluster/damage.rs"]
mod damage;
#[path = "cluster/folders.rs"]
mod folders;
#[path = "cluster/formation.rs"]
mod formation;
#[path = "cluster/kills.rs"]
mod kills;
#[path = "cluster/members.rs"]
mod members;
#[path = "cluster/odd.rs"]
mod odd;
#[path = "cluster/operators.rs"]
mod operators;
#[path = "cluster/past.rs"]
mod past;
#[path = "cluster/records.rs"]
mod records;
#[path = "cluster/recover.rs"]
mod recover;
#[path = "cluster/rolling.rs"]
mod rolling;
#[path = "cluster/site.rs"]
mod site;
mod support;

use std::sync::Arc;

use zrs::client::{Client, Options};
use zrs::env::Env;
use zrs::net::Tcp;

use support::PATIENCE;
use support::cluster::Cluster;

/// `everyday` times, or `heavy` times where `ZRS_HEAVY` is set.
fn times(everyday: usize, heavy: usize) -> usize {
    if std::env::var_os("ZRS_HEAVY").is_some() { heavy } else { everyday }
}

/// A client of all nodes.
async fn connect(cluster: &Cluster) -> Client {
    let options = Options { addresses: cluster.addresses(), wait: PATIENCE, ..Options::default() };
    Client::connect(options, Env::system(), Arc::new(Tcp)).await.unwrap()
}
