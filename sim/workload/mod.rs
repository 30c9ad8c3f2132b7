//! The workloads of clients: those of the [`MENU`], by the Rust client, each a file.
//!
//! Writers meet at the same few objects ([`Things`](crate::things::Things)), so that there are conflicts. One client
//! only reads, from whichever node serves it. All answers go into the [`History`].
//!
//! A client has one connection and does one thing at a time: the workload whose pause is over first. Each workload of
//! each client draws from a stream of chance of its own, so that what one workload draws (a longer record, say) changes
//! nothing of what another one draws.

mod common;
mod increment;
mod look_back;
mod new_oids;
mod overwrite;
mod read_all;
mod sync;
mod transact;
mod transfer;
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;
use zrs::client::{Client, Options};
use zrs::env::Env;
use zrs::net::Network;

use crate::chance::Chance;
use crate::cluster::{CLIENTS, Cluster, NODES, READER, address, client_name};
use crate::faults;
use crate::history::{History, Manner};
use crate::host::Host;
use crate::seen;
use worker::{Clients, Worker, Workload};

/// All workloads.
static MENU: [Workload; 8] = [
    increment::INCREMENT,
    transact::TRANSACT,
    transfer::TRANSFER,
    overwrite::OVERWRITE,
    read_all::READ_ALL,
    look_back::LOOK_BACK,
    new_oids::NEW_OIDS,
    sync::SYNC,
];

/// How long the client that creates the objects waits before it tries again.
const AGAIN: Duration = Duration::from_millis(15);

/// How long a client waits for each step of what it does.
const PATIENT: Duration = Duration::from_secs(5);
/// The same in milliseconds, for those that wait for less.
const IMPATIENT: std::ops::Range<u64> = 250..900;

const _: () = assert!(READER < CLIENTS, "one of the clients reads");

/// The names of all workloads.
pub fn names() -> Vec<&'static str> {
    MENU.iter().map(|workload| workload.name).collect()
}

/// Registers the clients; they go on until `enough` is set.
pub fn start(cluster: &mut Cluster, seed: u64, history: &History, enough: &Arc<AtomicBool>) {
    for client in 0..CLIENTS {
        let env = Env::new(Host::new(seed, &client_name(client)));
        let scope = env.clone();
        let network: Arc<dyn Network> = Arc::new(cluster.fabric.of(&client_name(client)));
        let (history, enough) = (history.clone(), enough.clone());
        let work = async move {
            let done = run(client, seed, env, network, history.clone(), enough).await;
            history.look().gone.insert(client);
            done
        };
        cluster.add_client(client, scope.scope(work));
    }
}

/// A workload of one client.
struct Upcoming {
    workload: &'static Workload,
    chance: Chance,
    next: Instant,
}

async fn run(
    client: usize,
    seed: u64,
    env: Env,
    network: Arc<dyn Network>,
    history: History,
    enough: Arc<AtomicBool>,
) -> turmoil::Result {
    let options =
        options(client, faults::hosts(seed), &mut Chance::of(seed, &format!("options of {}", client_name(client))));
    let connection = loop {
        if enough.load(Relaxed) {
            return Ok(());
        }
        match Client::connect(options.clone(), env.clone(), network.clone()).await {
            Ok(connection) => break connection,
            Err(why) => tracing::info!("client {client} could not connect: {why}"),
        }
    };
    let manner = if options.wait < PATIENT { Manner::Risks } else { Manner::Waits };
    let worker = Worker { client, connection, env: env.clone(), history, manner };
    while worker.things().is_empty() && !enough.load(Relaxed) {
        if client == 0 {
            common::create(&worker).await;
        }
        env.sleep(AGAIN).await;
    }
    let mut upcoming: Vec<Upcoming> = MENU.iter().filter_map(|workload| of(workload, client, seed, &env)).collect();
    while let Some(first) = upcoming.iter_mut().min_by_key(|upcoming| upcoming.next) {
        env.sleep_until(first.next).await;
        if enough.load(Relaxed) {
            break;
        }
        let done = (first.workload.turn)(&worker, &mut first.chance).await;
        seen::workload(first.workload.name, done);
        if client == READER && done > 0 {
            worker.history.moved(client);
        }
        first.next = env.now() + first.chance.millis(first.workload.pause.clone());
    }
    Ok(())
}

fn options(client: usize, hosts: &[u64], chance: &mut Chance) -> Options {
    // Some clients know the whole list, some only one address. (Where nodes leave, all know all that may come.)
    let one = chance.once_in(3).then(|| chance.one_of(&NODES)).filter(|_| hosts.len() == NODES.len());
    let known = one.map_or(hosts.to_vec(), |node| vec![node]);
    // Some give a slow server up, and don't know what has become of their transactions then.
    let wait = if chance.once_in(4) { chance.millis(IMPATIENT) } else { PATIENT };
    Options {
        addresses: known.into_iter().map(address).collect(),
        read_only: client == READER,
        wait,
        silence: Duration::from_secs(2),
        // Some caches are so small that they have to forget.
        cache_bytes: if chance.once_in(2) { 1 << 20 } else { 800 },
        ..Options::default()
    }
}

/// The client's part of a workload, if it has one.
fn of(workload: &'static Workload, client: usize, seed: u64, env: &Env) -> Option<Upcoming> {
    if workload.clients == Clients::Writers && client == READER {
        return None;
    }
    let mut chance = Chance::of(seed, &format!("workload {} of {}", workload.name, client_name(client)));
    let next = env.now() + chance.millis(workload.pause.clone());
    Some(Upcoming { workload, chance, next })
}
