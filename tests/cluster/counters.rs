//! Stock clients that count while nodes go down, and what must be true of their counts.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::cluster::Cluster;
use crate::support::python::{self, Counting};
use crate::support::{PATIENCE, wait_for};

const NAMES: [&str; 3] = ["one", "two", "three"];

/// Clients that count all the while.
pub struct Counters {
    clients: Vec<Counting>,
}

fn with_addresses<'a>(words: &[&'a str], addresses: &'a [String]) -> Vec<&'a str> {
    let mut arguments = words.to_vec();
    arguments.extend(addresses.iter().map(String::as_str));
    arguments
}

impl Counters {
    pub fn start(cluster: &Cluster) -> Counters {
        let addresses = cluster.addresses();
        python::run("count.py", &with_addresses(&["setup", &NAMES.join(",")], &addresses));
        let counters = Counters { clients: NAMES.iter().map(|name| Counting::start(name, &addresses)).collect() };
        counters.wait_progress(cluster);
        counters
    }

    /// Waits until every client was answered twice more: the second commit was begun after now. -> how long that took
    pub fn wait_progress(&self, cluster: &Cluster) -> Duration {
        let began = Instant::now();
        let wanted: Vec<u64> = self.clients.iter().map(|c| c.acknowledged() + 2).collect();
        wait_for(
            || format!("the clients to go on: {}", cluster.situation()),
            PATIENCE,
            || self.clients.iter().zip(&wanted).all(|(c, wanted)| c.acknowledged() >= *wanted).then_some(()),
        );
        began.elapsed()
    }

    /// Stops the clients and compares what they were told with what every node has.
    pub fn check(self, cluster: &Cluster) {
        self.stop().check(cluster);
    }

    /// Stops the clients.
    pub fn stop(self) -> Told {
        Told(self.clients.into_iter().map(Counting::stop).collect())
    }
}

/// What each client was told.
pub struct Told(Vec<Value>);

impl Told {
    /// Compares that with what every node has.
    pub fn check(self, cluster: &Cluster) {
        let Told(told) = self;
        cluster.wait_ready();
        let statuses = cluster.wait_same();
        let mut views = vec![cluster.addresses()];
        views.extend(cluster.nodes.iter().map(|n| vec![format!("ro:{}", n.address())]));
        for view in &views {
            let found = python::run("count.py", &with_addresses(&["check", &NAMES.join(",")], view));
            assert_eq!(
                found["whole"],
                Value::Bool(true),
                "torn transactions or lost updates at {view:?}: {found} {told:?}"
            );
            for client in &told {
                let name = client["name"].as_str().unwrap();
                let own = found["own"][name].as_u64().unwrap();
                let (acknowledged, unknown) =
                    (client["acknowledged"].as_u64().unwrap(), client["unknown"].as_u64().unwrap());
                assert!(own >= acknowledged, "an answered commit is lost at {view:?}: {found} {client}");
                assert!(own <= acknowledged + unknown, "more than was ever sent at {view:?}: {found} {client}");
            }
        }
        for client in &told {
            println!("{client}");
            assert_eq!(client["errors"], Value::Array(vec![]), "clients get the errors that ZODB knows: {client}");
        }
        println!("{statuses:?}");
    }
}
