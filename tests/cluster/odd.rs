//! A node whose database is not the same as that of the others finds out, and serves nobody.

use std::sync::Arc;

use zrs::command::{self, Change, Command, Content};
use zrs::engine::{Durability, Folder, Rocks};
use zrs::journal::{self, Directory};
use zrs::raft::offline::{self, LogContent};
use zrs::storage::{self, Store};

use crate::counters::Counters;
use crate::support::cluster::{Cluster, Node};
use crate::support::{PATIENCE, wait_for};

/// Makes the database of a stopped node anew from its log, as a node would have that has applied one commit wrongly.
fn apply_wrongly(node: &Node) {
    std::fs::remove_dir_all(node.data.join("store")).unwrap();
    let folder = Folder::open(&node.data).unwrap();
    let log = journal::inspect(Arc::new(Directory::open_read_only(&folder.log()).unwrap())).unwrap().unwrap();
    let engine = Rocks::open(&folder.store(), storage::TABLES, Durability::Flush).unwrap();
    let store = Store::open(Arc::new(engine)).unwrap();
    let mut wrong = 0;
    for entry in offline::entries(&log, 1, u64::MAX) {
        let entry = entry.unwrap();
        match entry.content {
            LogContent::Blank | LogContent::Membership(_) => store.pass(entry.position).unwrap(),
            LogContent::Command(bytes) => {
                let mut command = Command::decode(&bytes, command::FORMAT).unwrap();
                if let Change::Commit(commit) = &mut command.change
                    && wrong == 0
                    && let Some(Content::Data(data)) = commit.writes.first_mut().map(|write| &mut write.content)
                {
                    *data = [&data[..], b"!"].concat().into();
                    wrong += 1;
                }
                store.apply(entry.position, &command).unwrap();
            }
        }
    }
    assert_eq!(wrong, 1);
    store.flush().unwrap();
}

#[test]
fn a_node_with_another_database_takes_no_part() {
    let mut cluster = Cluster::started(3);
    cluster.wait_ready();
    let primary = cluster.wait_primary();
    let odd = (primary + 1) % 3;
    let counters = Counters::start(&cluster);
    counters.wait_progress(&cluster);
    assert!(cluster.nodes[odd].terminate().success());
    apply_wrongly(&cluster.nodes[odd]);
    cluster.start(odd);
    let excluded = || {
        let status = cluster.nodes[odd].status();
        let why = status["fault"].as_str().filter(|_| status["role"] == "excluded")?;
        Some(why.to_owned())
    };
    let why = wait_for(|| format!("the odd one to notice: {}", cluster.situation()), PATIENCE, excluded);
    assert!(why.contains("its database is not the same as that of a majority"), "{why}");
    assert_eq!(cluster.nodes[odd].get("/healthz"), Some(503));
    // The others go on, and it comes back as one that has lost its disk.
    counters.wait_progress(&cluster);
    cluster.nodes[odd].kill();
    cluster.nodes[odd].empty();
    cluster.start(odd);
    cluster.wait_ready();
    counters.check(&cluster);
}
