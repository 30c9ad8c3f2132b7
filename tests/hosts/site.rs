//! Three servers in this process, over real sockets and files, on hosts whose disks and clocks the test has in its
//! hand.

use std::io;
use std::ops::Deref;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use zrs::client::{Client, CommitError, Options};
use zrs::config::Config;
use zrs::engine::{Durability, FolderShelf, Rocks};
use zrs::env::{Env, Work, Working, World};
use zrs::journal::{Directory, Files, Identity, OpenFile, Sizes};
use zrs::net::Tcp;
use zrs::server::{Disks, Server};
use zrs::zodb::{Oid, Tid};

use crate::support::PATIENCE;
use crate::support::ports::Port;

/// A host's clocks, beside the system's own.
#[derive(Clone, Default)]
pub struct Clocks {
    /// By how many milliseconds the wall clock is ahead.
    pub ahead: Arc<AtomicI64>,
    /// For how many milliseconds the machine was suspended.
    pub suspended: Arc<AtomicU64>,
}

impl World for Clocks {
    fn wall(&self) -> Duration {
        let ahead = self.ahead.load(SeqCst);
        Env::system().wall() + Duration::from_millis(ahead.try_into().unwrap())
    }

    fn suspended(&self) -> Duration {
        Duration::from_millis(self.suspended.load(SeqCst))
    }

    fn stretch(&self, wanted: Duration) -> Duration {
        wanted
    }

    fn seed(&self) -> u64 {
        Env::system().seed()
    }

    fn offload(&self, work: Work) -> Working {
        Box::pin(async { tokio::task::spawn_blocking(work).await.unwrap() })
    }

    fn has_threads(&self) -> bool {
        true
    }
}

/// The gate that every fsync of a log passes.
#[derive(Clone, Default)]
pub struct Gate {
    held: Arc<Mutex<()>>,
    /// fsyncs that wait.
    pub waiting: Arc<AtomicU64>,
}

impl Gate {
    fn pass(&self) {
        self.waiting.fetch_add(1, SeqCst);
        drop(self.hold());
        self.waiting.fetch_sub(1, SeqCst);
    }

    pub fn hold(&self) -> MutexGuard<'_, ()> {
        self.held.lock().unwrap()
    }
}

/// A folder whose fsyncs pass a gate, and whose disk has as much room as the test says.
struct TestFolder {
    folder: Directory,
    gate: Gate,
    free: Arc<AtomicU64>,
}

struct GatedFile(Arc<dyn OpenFile>, Gate);

impl Files for TestFolder {
    fn list(&self) -> io::Result<Vec<String>> {
        self.folder.list()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn OpenFile>> {
        Ok(Arc::new(GatedFile(self.folder.open(name)?, self.gate.clone())))
    }

    fn create(&self, name: &str, size: u64) -> io::Result<Arc<dyn OpenFile>> {
        Ok(Arc::new(GatedFile(self.folder.create(name, size)?, self.gate.clone())))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.folder.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.folder.remove(name)
    }

    fn sync(&self) -> io::Result<()> {
        self.gate.pass();
        self.folder.sync()
    }

    fn identity(&self, name: &str) -> io::Result<Identity> {
        self.folder.identity(name)
    }

    fn free(&self) -> io::Result<Option<u64>> {
        Ok(Some(self.free.load(SeqCst)))
    }

    fn place(&self) -> String {
        self.folder.place()
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

/// A server and its host.
pub struct Host {
    pub server: Server,
    pub gate: Gate,
    pub clocks: Clocks,
    /// Bytes that are free on its disk.
    pub free: Arc<AtomicU64>,
}

impl Deref for Host {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

/// Three hosts, and a client.
pub struct Site {
    pub hosts: Vec<Host>,
    pub client: Client,
    folder: tempfile::TempDir,
    _ports: Vec<Port>,
}

/// A reign that a busy machine does not end: the trouble is to be the test's alone.
pub const LEASE: Duration = Duration::from_millis(500);
/// Room that is enough.
pub const ROOM: u64 = 4 << 30;

impl Site {
    pub async fn start() -> Site {
        let folder = tempfile::tempdir().unwrap();
        let ports: Vec<Port> = (0..3).map(|_| Port::free()).collect();
        let peers: Vec<(u64, String)> =
            ports.iter().zip(1..).map(|(port, node)| (node, format!("127.0.0.1:{}", port.number))).collect();
        let mut hosts = Vec::new();
        for (node, _) in &peers {
            let data = folder.path().join(node.to_string());
            std::fs::create_dir(&data).unwrap();
            let (gate, clocks, free) = (Gate::default(), Clocks::default(), Arc::new(AtomicU64::new(ROOM)));
            let log = TestFolder {
                folder: Directory::open(&data.join("log")).unwrap(),
                gate: gate.clone(),
                free: free.clone(),
            };
            let store = Rocks::open(&data.join("store"), zrs::storage::TABLES, Durability::Flush).unwrap();
            let shelf = Arc::new(FolderShelf::open(&data, zrs::storage::TABLES).unwrap());
            let disks = Disks { log: Arc::new(log), segments: Sizes::default(), store: Arc::new(store), shelf };
            let peers = peers.iter().cloned().collect();
            let config = Config { node: *node, peers, election_timeout: LEASE, ..Config::default() };
            let env = Env::new(clocks.clone());
            let starting = Server::start(Arc::new(config), env.clone(), Arc::new(Tcp), None, disks);
            let server = env.scope(starting).await.unwrap();
            hosts.push(Host { server, gate, clocks, free });
        }
        let addresses = peers.into_iter().map(|(_, address)| address).collect();
        let options = Options { addresses, wait: PATIENCE, ..Options::default() };
        let client = Client::connect(options, Env::current(), Arc::new(Tcp)).await.unwrap();
        Site { hosts, client, folder, _ports: ports }
    }

    /// The index of the primary, once there is one.
    pub async fn primary(&self) -> usize {
        self.until("a primary", || self.hosts.iter().position(|host| host.is_primary())).await
    }

    /// Waits until `look` gives something.
    pub async fn until<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let looking = async {
            loop {
                if let Some(found) = look() {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let situation = || self.hosts.iter().map(|host| format!("{:?}", host.status().node)).collect::<Vec<_>>();
        tokio::time::timeout(PATIENCE, looking).await.unwrap_or_else(|_| panic!("no {what}: {:#?}", situation()))
    }

    /// Has the role handed to node `to`, once that is able to take it.
    pub async fn hand_over(&self, to: u64) {
        let asking = async {
            loop {
                let primary = self.primary().await;
                match self.hosts[primary].hand_over(Some(to)).await {
                    Ok(now) => return assert_eq!(now, to),
                    Err(why) => println!("not yet: {why}"),
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, asking).await.expect("a hand-over");
    }

    /// Waits until it is refused to hand the role to node `to`, with all of these words.
    pub async fn refuses(&self, to: u64, words: &[&str]) {
        let asking = async {
            loop {
                let primary = self.primary().await;
                let why = self.hosts[primary].hand_over(Some(to)).await.unwrap_err().to_string();
                if words.iter().all(|word| why.contains(word)) {
                    return;
                }
                println!("not for that reason: {why}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("never refused as {words:?}"));
    }

    /// Commits a value.
    pub async fn try_set(&self, value: &str) -> Result<Tid, CommitError> {
        let transaction = self.client.begin().await.map_err(CommitError::from)?;
        transaction.write(Oid(0), value.to_owned());
        transaction.commit("test", "set").await
    }

    /// The same until it succeeds: a client that is cut off by a change of the primary comes back.
    pub async fn set(&self, value: &str) -> Tid {
        let setting = async {
            loop {
                match self.try_set(value).await {
                    Ok(tid) => return tid,
                    Err(failure) => println!("{value}: {failure}"),
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, setting).await.expect("a commit")
    }

    /// Stops the servers; nothing of them is left then that holds a database open.
    pub async fn stop(self) {
        for host in &self.hosts {
            host.stop().await;
        }
        drop(self.hosts);
        for node in 1..=3 {
            let store = self.folder.path().join(format!("{node}/store"));
            let closed = async {
                while Rocks::open(&store, zrs::storage::TABLES, Durability::Flush).is_err() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            tokio::time::timeout(PATIENCE, closed).await.expect("a database that was closed");
        }
    }
}

/// Runs a test as a task of the system's own Env.
pub async fn scoped(test: impl Future<Output = ()>) {
    Env::system().scope(test).await;
}
