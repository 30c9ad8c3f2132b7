//! Checks of the settings: those that can't work, and those that deserve a warning; and the file of the secret.
//!
//! Every message begins with the flag and says what to change.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::time::Duration;

use super::address::{fault, is_address, is_path, port};
use super::settings::Config;
use super::{level, limits};

/// A setting that can't work: the message names the setting, what is wrong with it, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadConfig(pub String);

impl fmt::Display for BadConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadConfig {}

pub(super) fn bad<T>(why: impl Into<String>) -> Result<T, BadConfig> {
    Err(BadConfig(why.into()))
}

impl Config {
    /// Refuses settings that can't work.
    pub fn check(&self) -> Result<(), BadConfig> {
        self.check_members()?;
        self.check_addresses()?;
        self.check_storages()?;
        self.check_times()?;
        self.check_tls()?;
        if let Err(why) = level::directives(&self.log_level) {
            return bad(format!("--log-level: {why}"));
        }
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
            check_address(&format!("--peers: node {node}:"), address)?;
            if port(address) == Some(0) {
                let why = "the other nodes can't find port 0; give the node a fixed port";
                return bad(format!("--peers {node}={address}: {why}"));
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
            // (A URL has slashes, too; what is wrong with it is said below.)
            match is_path(address) && !address.contains("://") {
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
                "--listen {address}: a unix socket serves a cluster of one node; with --peers, the others must reach \
                 this one: write HOST:PORT (--read-listen may be a path)"
            ));
        }
        if self.peers.len() > 1 && port(&address) == Some(0) {
            return bad(
                "--listen with port 0 serves a cluster of one node; with --peers, the others must know the port",
            );
        }
        Ok(())
    }

    fn check_storages(&self) -> Result<(), BadConfig> {
        if self.storages.is_empty() {
            return bad("no storage is named: leave --storage out for a storage with the name 1");
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
                "--election-timeout {}: at most {} ms, as no client can write while an election waits",
                ms(self.election_timeout),
                ms(limits::ELECTION_TIMEOUT_MAX)
            ));
        }
        let least = self.heartbeat * limits::HEARTBEATS_PER_ELECTION;
        if self.election_timeout < least {
            return bad(format!(
                "--election-timeout {} with --heartbeat {}: it must be at least {} heartbeats ({} ms), or a single \
                 late packet causes an election",
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
                    "--tls-cert {} with unix sockets only: these are always plain, as stock clients expect; leave TLS \
                     out, or listen at HOST:PORT",
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

    /// Settings that work, but deserve a warning in the log.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.peers.len().is_multiple_of(2) && !self.peers.is_empty() {
            warnings.push(format!(
                "a cluster of {} nodes survives the loss of no more nodes than one of {}: odd numbers serve best",
                self.peers.len(),
                self.peers.len() - 1
            ));
        }
        if self.peers.len() > 1 && self.secret.is_none() && self.tls_cert.is_none() {
            warnings.push(
                "neither --secret-file nor --tls-cert is set: a peer is known only by its address, so anybody who can \
                 connect from such an address can read and write everything"
                    .into(),
            );
        }
        warnings
    }

    /// Reads `secret_file`, if it is set, into `secret`, without the white space at its end.
    pub fn read_secret(&mut self) -> Result<(), BadConfig> {
        let Some(file) = &self.secret_file else { return Ok(()) };
        let shown = file.display();
        let mut secret = match std::fs::read(file) {
            Ok(secret) => secret,
            Err(why) if why.kind() == io::ErrorKind::PermissionDenied => {
                return bad(format!("--secret-file {shown}: {why}: the user of zrsd must be able to read it"));
            }
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
    bad(format!("{flag} {address:?} is no address: {}", fault(address)))
}
