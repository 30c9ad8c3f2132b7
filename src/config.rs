//! What an installation may choose, and every limit.
//!
//! A [`Config`] is made by [`command_line`] from flags and a TOML file that say the same things (flags win), or in
//! tests and simulation from [`Config::default`]; [`Config::check`] names what is wrong with it and what to do. Nobody
//! reads flags, files or the environment after that. [`limits`] is the page of what nobody may choose.
//!
//! **Left out.** Reloading: members are changed in the log and not by files, and the rest is worth a restart.

mod address;
mod cli;
pub mod limits;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

pub use address::{host, is_address, is_path, port};
pub use cli::{Parsed, command, command_line};

/// Where a node is that was not told: the port that ZEO's documentation uses.
pub const DEFAULT_ADDRESS: &str = "127.0.0.1:8100";

/// The settings of one node.
#[derive(Clone, PartialEq, Eq)]
pub struct Config {
    /// This node's number, from 1.
    pub node: u64,
    /// All nodes of the cluster at its formation, this one included: number and `host:port`. Empty: it is alone.
    pub peers: BTreeMap<u64, String>,
    /// What to bind for clients and peers, where it is not this node's entry in `peers`.
    pub listen: Option<String>,
    /// The folder of everything that is kept.
    pub data: PathBuf,
    /// What to bind for operators.
    pub http: Option<String>,
    /// The storages to create if they are not there.
    pub storages: Vec<String>,
    /// Whether all writing is refused.
    pub read_only: bool,
    /// What to bind for clients that only read and take what this node has.
    pub read_listen: Option<String>,
    /// How far behind the primary (or out of touch with it) this node may be and still serve at `read_listen`.
    pub max_lag: Duration,
    /// From the grant of its locks, how long a transaction may take to finish.
    pub transaction_timeout: Duration,
    /// Whether clients are greeted with `M5` (msgpack) and not `Z5` (pickle).
    pub msgpack: bool,
    /// Where to log to; none: standard error.
    pub log_file: Option<PathBuf>,
    /// A level, or directives as `tracing-subscriber` has them (`info,zrs::raft=debug`).
    pub log_level: String,
    /// The file with the secret that all members share.
    pub secret_file: Option<PathBuf>,
    /// What is in it; [`Config::read_secret`] fills it in.
    pub secret: Option<Vec<u8>>,
    /// The file with this node's certificate: with it, `listen` and `read_listen` speak TLS.
    pub tls_cert: Option<PathBuf>,
    /// The file with its key, where that is another one.
    pub tls_key: Option<PathBuf>,
    /// A file or a folder with the certificates by which clients are believed.
    pub tls_client_ca: Option<PathBuf>,
    /// The same for peers.
    pub tls_peer_ca: Option<PathBuf>,
    /// How often the primary tells the others that it is there.
    pub heartbeat: Duration,
    /// How long a primary's lease lasts. The others call an election when they have heard nothing for 1.6 to 2 times this.
    pub election_timeout: Duration,
    /// How long a client of a node that is not primary is held in silence before it is relayed.
    pub relay_grace: Duration,
    /// Whether packing removes objects that nothing refers to.
    pub pack_gc: bool,
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
        }
    }
}

/// Without the secret: a config gets logged.
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
    /// This node's certificate, and those that lead from it to its CA.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// By which clients are believed; none: clients need no certificate.
    pub client_ca: Option<PathBuf>,
    /// By which peers are believed.
    pub peers: PeerTrust,
}

/// Who is believed to be a peer, with TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerTrust {
    /// There are none.
    Nobody,
    /// Who has the certificate that this node has.
    SameCertificate,
    /// Whom the certificates in this file or folder say.
    Ca(PathBuf),
}

/// A setting that can't be: which one, what is wrong with it, what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadConfig(pub String);

impl fmt::Display for BadConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadConfig {}

fn bad<T>(why: impl Into<String>) -> Result<T, BadConfig> {
    Err(BadConfig(why.into()))
}

impl Config {
    /// What to bind for clients and peers.
    pub fn address(&self) -> String {
        self.listen.clone().unwrap_or_else(|| self.public_address())
    }

    /// Where others find this node.
    pub fn public_address(&self) -> String {
        let listed = self.peers.get(&self.node).or(self.listen.as_ref());
        listed.cloned().unwrap_or_else(|| DEFAULT_ADDRESS.into())
    }

    /// All nodes, this one included, also when it is alone.
    pub fn members(&self) -> BTreeMap<u64, String> {
        if self.peers.is_empty() { BTreeMap::from([(self.node, self.public_address())]) } else { self.peers.clone() }
    }

    /// The files of TLS, if it is to be spoken.
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

    /// Refuses what can't work, in words that say which setting it is and what to do.
    pub fn check(&self) -> Result<(), BadConfig> {
        self.check_members()?;
        self.check_addresses()?;
        self.check_storages()?;
        self.check_times()?;
        self.check_tls()?;
        if self.data.as_os_str().is_empty() {
            return bad("--data is missing: say which folder keeps this node's data, such as --data /var/lib/zrs");
        }
        Ok(())
    }

    fn check_members(&self) -> Result<(), BadConfig> {
        if self.node == 0 {
            return bad("--node 0: nodes are numbered from 1");
        }
        if self.peers.is_empty() {
            return Ok(());
        }
        if self.peers.len() > limits::MEMBERS {
            return bad(format!(
                "--peers lists {} nodes; a cluster has {} at most (three or five serve best)",
                self.peers.len(),
                limits::MEMBERS
            ));
        }
        if !self.peers.contains_key(&self.node) {
            let known: Vec<String> = self.peers.keys().map(u64::to_string).collect();
            return bad(format!(
                "--node {} is not in --peers, which lists {}: give every node the same list, and each its own number",
                self.node,
                known.join(", ")
            ));
        }
        let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
        for (&node, address) in &self.peers {
            if node == 0 {
                return bad(format!("--peers 0={address}: nodes are numbered from 1"));
            }
            check_address("--peers", address)?;
            if port(address) == Some(0) {
                return bad(format!("--peers {node}={address}: others can't find port 0; give it a port of its own"));
            }
            if let Some(other) = seen.insert(address, node) {
                return bad(format!("--peers: nodes {other} and {node} have the same address {address}"));
            }
        }
        Ok(())
    }

    fn check_addresses(&self) -> Result<(), BadConfig> {
        let address = self.address();
        let mut bound = BTreeSet::new();
        let ports = [
            ("--listen", Some(&address)),
            ("--read-listen", self.read_listen.as_ref()),
            ("--http", self.http.as_ref()),
        ];
        for (flag, address) in ports {
            let Some(address) = address else { continue };
            match is_path(address) {
                true if flag == "--http" => return bad(format!("--http {address}: HTTP is served at HOST:PORT only")),
                true => {}
                false => check_address(flag, address)?,
            }
            if port(address) != Some(0) && !bound.insert(address) {
                return bad(format!(
                    "{flag} {address}: this address is already taken by another flag; use another port"
                ));
            }
        }
        if self.peers.len() > 1 && is_path(&address) {
            return bad(format!(
                "--listen {address}: a socket in the file system serves a node that is alone; with --peers, others must \
                 reach it: write HOST:PORT (--read-listen may be a path)"
            ));
        }
        if self.peers.len() > 1 && port(&address) == Some(0) {
            return bad("--listen with port 0 serves a node that is alone; with --peers, others must know the port");
        }
        Ok(())
    }

    fn check_storages(&self) -> Result<(), BadConfig> {
        if self.storages.is_empty() {
            return bad("no storage is named: leave --storage out for one that is called 1");
        }
        let mut seen = BTreeSet::new();
        for name in &self.storages {
            if name.is_empty() || name.len() > limits::STORAGE_NAME || name.chars().any(char::is_control) {
                return bad(format!(
                    "--storage {name:?}: a name has 1 to {} bytes and no control characters",
                    limits::STORAGE_NAME
                ));
            }
            if !seen.insert(name) {
                return bad(format!("--storage {name} is given twice"));
            }
        }
        Ok(())
    }

    fn check_times(&self) -> Result<(), BadConfig> {
        let ms = |d: Duration| d.as_millis();
        if self.heartbeat < limits::HEARTBEAT_MIN {
            return bad(format!("--heartbeat {}: at least {} ms", ms(self.heartbeat), ms(limits::HEARTBEAT_MIN)));
        }
        if self.election_timeout > limits::ELECTION_TIMEOUT_MAX {
            return bad(format!(
                "--election-timeout {}: at most {} ms, as nobody can write while an election waits",
                ms(self.election_timeout),
                ms(limits::ELECTION_TIMEOUT_MAX)
            ));
        }
        let least = self.heartbeat * limits::HEARTBEATS_PER_ELECTION;
        if self.election_timeout < least {
            return bad(format!(
                "--election-timeout {} with --heartbeat {}: it must be at least {} heartbeats ({} ms), or a single late \
                 packet costs an election",
                ms(self.election_timeout),
                ms(self.heartbeat),
                limits::HEARTBEATS_PER_ELECTION,
                ms(least)
            ));
        }
        for (flag, time) in [("--transaction-timeout", self.transaction_timeout), ("--max-lag", self.max_lag)] {
            if time.is_zero() {
                return bad(format!("{flag} 0: it must be more than zero seconds"));
            }
        }
        Ok(())
    }

    fn check_tls(&self) -> Result<(), BadConfig> {
        if let Some(cert) = &self.tls_cert {
            let address = self.address();
            if [Some(&address), self.read_listen.as_ref()].into_iter().flatten().all(|address| is_path(address)) {
                return bad(format!(
                    "--tls-cert {} where all addresses are unix sockets: these are plain, as stock clients want them; \
                     leave TLS out, or listen at HOST:PORT",
                    cert.display()
                ));
            }
            return Ok(());
        }
        let others = [
            ("--tls-key", &self.tls_key),
            ("--tls-client-ca", &self.tls_client_ca),
            ("--tls-peer-ca", &self.tls_peer_ca),
        ];
        match others.iter().find_map(|(flag, path)| Some((flag, path.as_ref()?))) {
            Some((flag, path)) => bad(format!(
                "{flag} {} without --tls-cert: TLS needs this node's certificate and its key (--tls-cert, --tls-key)",
                path.display()
            )),
            None => Ok(()),
        }
    }

    /// What is worth a warning although it works.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.peers.len().is_multiple_of(2) && !self.peers.is_empty() {
            warnings.push(format!(
                "{} nodes survive the loss of no more nodes than {} would: odd numbers serve best",
                self.peers.len(),
                self.peers.len() - 1
            ));
        }
        if self.peers.len() > 1 && self.secret.is_none() && self.tls_cert.is_none() {
            warnings.push(
                "neither --secret-file nor --tls-cert: peers are known only by the address that they come from, so whoever can use such an \
                 address can read and write everything"
                    .into(),
            );
        }
        warnings
    }

    /// Reads `secret_file`, where there is one, into `secret`. White space at its end does not count.
    pub fn read_secret(&mut self) -> Result<(), BadConfig> {
        let Some(file) = &self.secret_file else { return Ok(()) };
        let shown = file.display();
        let mut secret = match std::fs::read(file) {
            Ok(secret) => secret,
            Err(why) => return bad(format!("--secret-file {shown}: {why}")),
        };
        secret.truncate(secret.trim_ascii_end().len());
        if !limits::SECRET.contains(&secret.len()) {
            return bad(format!(
                "--secret-file {shown} holds {} bytes; it must be {} to {}, the same on every node \
                 (openssl rand -hex 32 > {shown})",
                secret.len(),
                limits::SECRET.start(),
                limits::SECRET.end()
            ));
        }
        self.secret = Some(secret);
        Ok(())
    }
}

fn check_address(flag: &str, address: &str) -> Result<(), BadConfig> {
    if is_address(address) {
        return Ok(());
    }
    bad(format!("{flag} {address:?} is no address: write HOST:PORT, such as 10.0.0.1:8100, db1:8100 or [::1]:8100"))
}

#[cfg(test)]
mod tests;
