//! The settings of one node, as the rest of the program sees them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::open_files::OpenFiles;
use super::sizes::Sizes;

/// The address of a node that names none: the port is that of ZEO's documentation.
pub const DEFAULT_ADDRESS: &str = "127.0.0.1:8100";

/// The settings of one node.
#[derive(Clone, PartialEq, Eq)]
pub struct Config {
    /// This node's number, from 1.
    pub node: u64,
    /// All nodes of the cluster at its formation, this one included: number and `host:port`. Empty: a cluster of one.
    pub peers: BTreeMap<u64, String>,
    /// The address to bind for clients and peers, if it is not this node's entry in `peers`.
    pub listen: Option<String>,
    /// The data folder.
    pub data: PathBuf,
    /// The address to bind for operators.
    pub http: Option<String>,
    /// The storages to create if they do not exist.
    pub storages: Vec<String>,
    /// Whether all writes are refused.
    pub read_only: bool,
    /// The address to bind for clients that only read, and read what this node has.
    pub read_listen: Option<String>,
    /// How long ago the primary may last have been heard of for this node to serve at `read_listen`.
    pub max_lag: Duration,
    /// How long a transaction may take to finish once its locks are granted.
    pub transaction_timeout: Duration,
    /// Whether the server greets clients with `M5` (msgpack) instead of `Z5` (pickle).
    pub msgpack: bool,
    /// The log file; none: standard error.
    pub log_file: Option<PathBuf>,
    /// A level, or directives of `tracing-subscriber` (`info,zrs::raft=debug`).
    pub log_level: String,
    /// The file with the secret that all members share.
    pub secret_file: Option<PathBuf>,
    /// The content of `secret_file`; [`Config::read_secret`] sets it.
    pub secret: Option<Vec<u8>>,
    /// The file with this node's certificate: with it, `listen` and `read_listen` speak TLS.
    pub tls_cert: Option<PathBuf>,
    /// The file with the key of that certificate; none: the key stands in the same file.
    pub tls_key: Option<PathBuf>,
    /// A file or a folder with the certificates that clients are trusted by.
    pub tls_client_ca: Option<PathBuf>,
    /// A file or a folder with the certificates that peers are trusted by.
    pub tls_peer_ca: Option<PathBuf>,
    /// The time between the primary's heartbeats.
    pub heartbeat: Duration,
    /// How long a primary's lease lasts. The other nodes call an election after 1.6 to 2 times this without a
    /// heartbeat.
    pub election_timeout: Duration,
    /// How long a secondary sends nothing to a new client before it relays the client.
    pub relay_grace: Duration,
    /// Whether packing removes objects that nothing refers to.
    pub pack_gc: bool,
    /// For tests of upgrades: this node passes for one of the next version, in all that nodes tell each other.
    pub pretend_newer: bool,
    /// Bytes of the disk that stay free: with less, this node takes no new entries, and does not lead.
    pub disk_reserve: u64,
    /// How old the log's entries become before they may go: a node that was away for less comes back by the log.
    pub log_keep: Duration,
    /// Bytes of the log beyond which entries go although they are younger.
    pub log_size: u64,
    /// Bytes in a second that this node sends of its database to nodes that fetch it.
    pub snapshot_rate: u64,
    /// Bytes of memory for the objects that clients load most; 0: none.
    pub cache_size: u64,
    /// How many files this process may have open, and for what: no setting, but the system's limit.
    pub open_files: OpenFiles,
    /// For tests: where this node cuts large things into parts.
    pub sizes: Sizes,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            node: 1,
            peers: BTreeMap::new(),
            listen: None,
            data: PathBuf::new(),
            http: None,
            storages: vec!["1".into()],
            read_only: false,
            read_listen: None,
            max_lag: Duration::from_secs(60),
            transaction_timeout: Duration::from_secs(60),
            msgpack: false,
            log_file: None,
            log_level: "info".into(),
            secret_file: None,
            secret: None,
            tls_cert: None,
            tls_key: None,
            tls_client_ca: None,
            tls_peer_ca: None,
            heartbeat: Duration::from_millis(50),
            election_timeout: Duration::from_millis(300),
            relay_grace: Duration::from_secs(1),
            pack_gc: true,
            pretend_newer: false,
            disk_reserve: 512 << 20,
            log_keep: Duration::from_secs(3600),
            log_size: 4 << 30,
            snapshot_rate: 100 << 20,
            cache_size: 64 << 20,
            open_files: OpenFiles::default(),
            sizes: Sizes::default(),
        }
    }
}

/// Leaves the secret out, as a config may be logged.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("node", &self.node)
            .field("peers", &self.peers)
            .field("listen", &self.listen)
            .field("data", &self.data)
            .field("http", &self.http)
            .field("storages", &self.storages)
            .field("read_only", &self.read_only)
            .field("read_listen", &self.read_listen)
            .field("max_lag", &self.max_lag)
            .field("transaction_timeout", &self.transaction_timeout)
            .field("msgpack", &self.msgpack)
            .field("secret", &self.secret.as_ref().map(|_| "set"))
            .field("tls", &self.tls())
            .field("heartbeat", &self.heartbeat)
            .field("election_timeout", &self.election_timeout)
            .field("relay_grace", &self.relay_grace)
            .finish_non_exhaustive()
    }
}

/// The files of TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// This node's certificate, and the certificates that lead from it to its CA.
    pub cert: PathBuf,
    /// The key of this node's certificate.
    pub key: PathBuf,
    /// The certificates that clients are trusted by; none: clients need no certificate.
    pub client_ca: Option<PathBuf>,
    /// The certificates that peers are trusted by.
    pub peers: PeerTrust,
}

/// The certificates that a peer may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerTrust {
    /// None: this node has no peers.
    Nobody,
    /// The certificate of this node.
    SameCertificate,
    /// A certificate in this file or folder, or one signed by a CA in it.
    Ca(PathBuf),
}

impl Config {
    /// The address to bind for clients and peers.
    pub fn address(&self) -> String {
        self.listen.clone().unwrap_or_else(|| self.public_address())
    }

    /// The setting that [`Config::address`] comes from.
    pub fn origin_of_address(&self) -> String {
        match (&self.listen, self.peers.contains_key(&self.node)) {
            (Some(_), _) => "--listen".into(),
            (None, true) => format!("the address of node {} in --peers", self.node),
            (None, false) => "the default of --listen".into(),
        }
    }

    /// The address by which clients and peers find this node.
    pub fn public_address(&self) -> String {
        let listed = self.peers.get(&self.node).or(self.listen.as_ref());
        listed.cloned().unwrap_or_else(|| DEFAULT_ADDRESS.into())
    }

    /// All nodes, this one included; of a cluster of one, this one.
    pub fn members(&self) -> BTreeMap<u64, String> {
        if self.peers.is_empty() { BTreeMap::from([(self.node, self.public_address())]) } else { self.peers.clone() }
    }

    /// The files of TLS; `None`: connections are plain.
    pub fn tls(&self) -> Option<TlsFiles> {
        let cert = self.tls_cert.clone()?;
        let peers = match &self.tls_peer_ca {
            Some(path) => PeerTrust::Ca(path.clone()),
            None if self.peers.len() > 1 => PeerTrust::SameCertificate,
            None => PeerTrust::Nobody,
        };
        let key = self.tls_key.clone().unwrap_or_else(|| cert.clone());
        Some(TlsFiles { cert, key, client_ca: self.tls_client_ca.clone(), peers })
    }
}
