//! The load: clients that count, by the Rust client.
//!
//! Every transaction of a writer adds one to some counters. Writers meet at the same counters, so that there are conflicts,
//! and they retry. One client only reads, from whichever node serves it. Everything that is answered goes into the
//! [`History`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use turmoil::Sim;
use zrs::client::{CallError, Client, CommitError, Options, Transaction};
use zrs::env::Env;
use zrs::net::Network;
use zrs::zodb::{Oid, Refusal};

use crate::chance::Chance;
use crate::cluster::{CLIENTS, Cluster, NODES, READER, address, client_name};
use crate::history::{End, History, Reached, Shown, read, record};
use crate::world::Host;

const COUNTERS: usize = 5;

/// Registers the clients with `sim`; they go on until `enough` is set.
pub fn start(sim: &mut Sim<'_>, cluster: &Cluster, seed: u64, history: &History, enough: &Arc<AtomicBool>) {
    for client in 0..CLIENTS {
        let env = Env::new(Host::new(seed, &client_name(client)));
        let network: Arc<dyn Network> = Arc::new(cluster.fabric.of(&client_name(client)));
        let chance = Chance::of(seed, &format!("workload of {}", client_name(client)));
        let (history, enough) = (history.clone(), enough.clone());
        sim.client(client_name(client), env.clone().scope(run(client, chance, env, network, history, enough)));
    }
}

async fn run(
    client: usize,
    mut chance: Chance,
    env: Env,
    network: Arc<dyn Network>,
    history: History,
    enough: Arc<AtomicBool>,
) -> turmoil::Result {
    let options = Options {
        // Some know the whole list, some only one address.
        addresses: if chance.once_in(3) { vec![address(chance.one_of(&NODES))] } else { NODES.map(address).to_vec() },
        read_only: client == READER,
        wait: Duration::from_secs(5),
        silence: Duration::from_secs(2),
        // Small enough that it has to forget.
        cache_bytes: if chance.once_in(2) { 1 << 20 } else { 800 },
        ..Options::default()
    };
    let connection = loop {
        if enough.load(Relaxed) {
            return Ok(());
        }
        match Client::connect(options.clone(), env.clone(), network.clone()).await {
            Ok(connection) => break connection,
            Err(why) => tracing::info!("client {client} could not connect: {why}"),
        }
    };
    let mut load = Load { client, connection, chance, history };
    while !enough.load(Relaxed) {
        load.step().await;
        let rest = load.chance.millis(1..30);
        env.sleep(rest).await;
    }
    Ok(())
}

struct Load {
    client: usize,
    connection: Client,
    chance: Chance,
    history: History,
}

impl Load {
    async fn step(&mut self) {
        let counters = self.history.look().counters.clone();
        match (counters.is_empty(), self.client) {
            (true, 0) => self.create().await,
            (true, _) => {}
            (false, READER) => self.look(&counters).await,
            (false, _) => match self.chance.below(20) {
                0..4 => self.look(&counters).await,
                4..6 => self.reserve_many().await,
                6..13 => self.count(&counters).await,
                _ => self.count_until_it_counts(&counters).await,
            },
        }
        if self.chance.once_in(10) {
            self.sync().await;
        }
    }

    async fn create(&mut self) {
        let mut oids = Vec::new();
        while oids.len() < COUNTERS {
            match self.reserve().await {
                Some(oid) => oids.push(oid),
                None => return,
            }
        }
        let Ok(transaction) = self.connection.begin().await else { return };
        let values: BTreeMap<Oid, u64> = oids.iter().map(|oid| (*oid, 0)).collect();
        if let End::Committed(_) = self.commit(transaction, values).await {
            self.history.look().counters = oids;
        }
    }

    async fn reserve(&mut self) -> Option<Oid> {
        let oid = self.connection.new_oid().await.ok()?;
        self.history.look().oids.push((self.client, oid));
        Some(oid)
    }

    /// Enough that the next ones come from the server, and from another range after a failover.
    async fn reserve_many(&mut self) {
        for _ in 0..60 {
            if self.reserve().await.is_none() {
                return;
            }
        }
    }

    /// After a sync the client sees whatever anybody was told before.
    async fn sync(&mut self) {
        let at_least = self.history.look().answered();
        if let Ok(view) = self.connection.sync().await {
            let why = "it synced after that was answered";
            self.history.look().reached.push(Reached { client: self.client, view, at_least, why });
        }
    }

    /// Reads all counters in one transaction.
    async fn look(&mut self, counters: &[Oid]) {
        let Ok(transaction) = self.connection.begin().await else { return };
        let _ = show(&self.history, self.client, &transaction, counters).await;
    }

    fn choose(&mut self, counters: &[Oid]) -> Vec<Oid> {
        let some = 1 + self.chance.below(3) as usize;
        let chosen: BTreeSet<Oid> = (0..some).map(|_| self.chance.one_of(counters)).collect();
        chosen.into_iter().collect()
    }

    fn padding(&mut self) -> usize {
        if self.chance.once_in(10) { self.chance.below(20_000) as usize } else { 20 }
    }

    /// Adds one to some counters, if nobody comes first.
    async fn count(&mut self, counters: &[Oid]) {
        let Ok(transaction) = self.connection.begin().await else { return };
        let chosen = self.choose(counters);
        let Ok(values) = show(&self.history, self.client, &transaction, &chosen).await else { return };
        let values = values.into_iter().map(|(oid, value)| (oid, value + 1)).collect();
        self.commit(transaction, values).await;
    }

    async fn commit(&mut self, transaction: Transaction, values: BTreeMap<Oid, u64>) -> End {
        let mark = self.history.begins(self.client, values.clone());
        let padding = self.padding();
        for (oid, value) in values {
            transaction.write(oid, record(value, mark, padding));
        }
        let end = match transaction.commit("somebody", "counted").await {
            Ok(tid) => End::Committed(Some(tid)),
            Err(error) => ended(&error),
        };
        if let End::Committed(Some(at_least)) = end {
            let (client, view) = (self.client, self.connection.view());
            self.history.look().reached.push(Reached { client, view, at_least, why: "it committed that itself" });
        }
        self.history.ends(mark, end.clone());
        end
    }

    /// The same by `transact`, which tries again after a conflict.
    async fn count_until_it_counts(&mut self, counters: &[Oid]) {
        let (chosen, padding) = (self.choose(counters), self.padding());
        let marks = Arc::new(Mutex::new(Vec::new()));
        let (history, client) = (&self.history, self.client);
        let work = async |transaction: Transaction| {
            let values = show(history, client, &transaction, &chosen).await?;
            let values: BTreeMap<Oid, u64> = values.into_iter().map(|(oid, value)| (oid, value + 1)).collect();
            let mark = history.begins(client, values.clone());
            marks.lock().unwrap().push(mark);
            for (oid, value) in values {
                transaction.write(oid, record(value, mark, padding));
            }
            Ok::<_, CommitError>(())
        };
        let done = self.connection.transact(work).await;
        let mut marks = std::mem::take(&mut *marks.lock().unwrap());
        let last = marks.pop();
        for mark in marks {
            self.history.ends(mark, End::NotCommitted("it was tried again".to_owned()));
        }
        if let Some(last) = last {
            let end = match done {
                Ok(()) => End::Committed(None),
                Err(error) => ended(&error),
            };
            self.history.ends(last, end);
        }
    }
}

/// Reads counters, and notes what was read.
async fn show(
    history: &History,
    client: usize,
    transaction: &Transaction,
    counters: &[Oid],
) -> Result<BTreeMap<Oid, u64>, CallError> {
    let mut values = BTreeMap::new();
    for oid in counters {
        let data = match transaction.read(*oid).await {
            Ok(data) => data,
            // Its snapshot may be from before they were created, and no one's promise is broken by that.
            Err(CallError::Refused(Refusal::NoObject(oid))) => {
                history.look().shown.push(Shown { client, snapshot: transaction.snapshot(), oid, value: None });
                return Err(CallError::Refused(Refusal::NoObject(oid)));
            }
            Err(error) => return Err(error),
        };
        let (value, _) = read(&data);
        history.look().shown.push(Shown { client, snapshot: transaction.snapshot(), oid: *oid, value: Some(value) });
        values.insert(*oid, value);
    }
    Ok(values)
}

fn ended(error: &CommitError) -> End {
    match error {
        CommitError::Unknown => End::Unknown,
        CommitError::Conflict(_) | CommitError::Refused(_) | CommitError::Disconnected => {
            End::NotCommitted(error.to_string())
        }
    }
}

const _: () = assert!(READER < CLIENTS, "one of the clients reads");
