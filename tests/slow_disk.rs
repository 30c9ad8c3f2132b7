//! A disk that stalls: heartbeats are answered from memory, so that a reign outlives fsyncs that take longer than its
//! lease. Real servers in this process, over real sockets and files; only the fsyncs of their logs can be held up.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use zrs::client::{Client, Options};
use zrs::config::Config;
use zrs::engine::{Durability, Rocks};
use zrs::env::Env;
use zrs::journal::{Directory, Files, Identity, OpenFile, Sizes};
use zrs::net::Tcp;
use zrs::server::{Disks, Server};
use zrs::zodb::Oid;

mod support;

use support::PATIENCE;
use support::ports::Port;

/// The gate that every fsync of a log passes.
#[derive(Clone, Default)]
struct Gate {
    held: Arc<Mutex<()>>,
    /// fsyncs that wait.
    waiting: Arc<AtomicU64>,
}

impl Gate {
    fn pass(&self) {
        self.waiting.fetch_add(1, SeqCst);
        drop(self.hold());
        self.waiting.fetch_sub(1, SeqCst);
    }

    fn hold(&self) -> MutexGuard<'_, ()> {
        self.held.lock().unwrap()
    }
}

struct GatedFolder(Directory, Gate);

struct GatedFile(Arc<dyn OpenFile>, Gate);

impl Files for GatedFolder {
    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn OpenFile>> {
        Ok(Arc::new(GatedFile(self.0.open(name)?, self.1.clone())))
    }

    fn create(&self, name: &str, size: u64) -> io::Result<Arc<dyn OpenFile>> {
        Ok(Arc::new(GatedFile(self.0.create(name, size)?, self.1.clone())))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }

    fn sync(&self) -> io::Result<()> {
        self.1.pass();
        self.0.sync()
    }

    fn identity(&self, name: &str) -> io::Result<Identity> {
        self.0.identity(name)
    }

    fn free(&self) -> io::Result<Option<u64>> {
        self.0.free()
    }

    fn place(&self) -> String {
        self.0.place()
    }
}

impl OpenFile for GatedFile {
    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.1.pass();
        self.0.sync()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reign_outlives_disks_that_stall() {
    let env = Env::system();
    env.clone().scope(stall(env)).await;
}

async fn stall(env: Env) {
    let folder = tempfile::tempdir().unwrap();
    let ports = [1u64, 2, 3].map(|node| (node, Port::free()));
    let peers: Vec<(u64, String)> =
        ports.iter().map(|(node, port)| (*node, format!("127.0.0.1:{}", port.number))).collect();
    let mut nodes = Vec::new();
    for (node, _) in &peers {
        let data = folder.path().join(node.to_string());
        std::fs::create_dir(&data).unwrap();
        let gate = Gate::default();
        let log = GatedFolder(Directory::open(&data.join("log")).unwrap(), gate.clone());
        let store = Rocks::open(&data.join("store"), zrs::storage::TABLES, Durability::Flush).unwrap();
        let disks = Disks { log: Arc::new(log), segments: Sizes::default(), store: Arc::new(store) };
        let config = Config { node: *node, peers: peers.iter().cloned().collect(), ..Config::default() };
        let server = Server::start(Arc::new(config), env.clone(), Arc::new(Tcp), None, disks).await.unwrap();
        nodes.push((server, gate));
    }
    let primary = loop {
        if let Some(at) = nodes.iter().position(|(server, _)| server.is_primary()) {
            break at;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let lease = nodes[primary].0.config().election_timeout;
    let addresses = peers.into_iter().map(|(_, address)| address).collect();
    let options = Options { addresses, wait: PATIENCE, ..Options::default() };
    let client = Client::connect(options, env.clone(), Arc::new(Tcp)).await.unwrap();
    let set = async |value: &str| {
        let transaction = client.begin().await.unwrap();
        transaction.write(Oid(0), value.to_owned());
        transaction.commit("test", "set").await.unwrap()
    };
    set("before").await;
    let reign = nodes[primary].0.store().reign();

    // Both secondaries have a commit to sync, and can't, for the time of many leases.
    let secondaries: Vec<&Gate> = (0..3).filter(|at| *at != primary).map(|at| &nodes[at].1).collect();
    let held: Vec<Gate> = secondaries.into_iter().cloned().collect();
    let (let_go, wait_for_it) = std::sync::mpsc::channel::<()>();
    let gates = held.clone();
    let (closed, are_closed) = tokio::sync::oneshot::channel();
    // (A lock of the standard library must not be held over an await.)
    let holder = std::thread::spawn(move || {
        let guards: Vec<_> = gates.iter().map(Gate::hold).collect();
        closed.send(()).unwrap();
        let _ = wait_for_it.recv();
        drop(guards);
    });
    are_closed.await.unwrap();
    let commit = set("during");
    tokio::pin!(commit);
    tokio::select! {
        tid = &mut commit => panic!("committed as {tid} without a majority's disks"),
        () = tokio::time::sleep(lease * 6) => {}
    }
    assert!(held.iter().all(|gate| gate.waiting.load(SeqCst) > 0), "no fsync waits: the test tests nothing");
    assert!(nodes[primary].0.is_primary(), "the reign is over");
    let_go.send(()).unwrap();
    holder.join().unwrap();
    commit.await;
    assert!(nodes[primary].0.is_primary());
    assert_eq!(nodes[primary].0.store().reign(), reign, "another reign has begun");
    for (server, _) in &nodes {
        server.stop().await;
    }
}
