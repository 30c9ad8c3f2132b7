//! Flags and the TOML file: one list of settings for both.
//!
//! [`Choices`] are read twice: by clap from the flags, and by serde from the file, whose keys are the long names of
//! the flags. A flag wins over the file, and the file over [`Config::default`].

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches, Parser};
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};

use super::check::{BadConfig, bad};
use super::settings::Config;

const CLUSTER: &str = "The cluster";
const TLS: &str = "TLS (SIGHUP makes zrsd read all of these files again)";
const CLIENTS: &str = "What clients see";
const OPERATORS: &str = "Operators";
const TIMES: &str = "Times (see docs/operations.md before changing them)";

const EXAMPLES: &str = "\
Examples:
  One node, for trying out, at 127.0.0.1:8100:
    zrsd --data ./data

  Three nodes, each with the same list and its own --node:
    zrsd --node 1 --peers 1=a:8100,2=b:8100,3=c:8100 --data /var/lib/zrs --http 127.0.0.1:8180
    zrsd --node 2 --peers 1=a:8100,2=b:8100,3=c:8100 --data /var/lib/zrs --http 127.0.0.1:8180
    zrsd --node 3 --peers 1=a:8100,2=b:8100,3=c:8100 --data /var/lib/zrs --http 127.0.0.1:8180

  Settings from a file, whose keys are the names of the flags:
    zrsd --config /etc/zrs/zrsd.toml

  Clients list all addresses, one a line (zope.conf):
    <zeoclient>
      server a:8100
      server b:8100
      server c:8100
    </zeoclient>

  Which node is primary, and how far the others are:
    zrsctl --http 127.0.0.1:8180 status
    curl http://127.0.0.1:8180/status

  SIGTERM hands the primary's role over, finishes the transactions that are being committed, and stops zrsd.
  Exit codes: 0 stopped as asked, 1 failed, 2 wrong usage.";

/// A storage server for ZODB, replicated by Raft: unchanged ZEO clients, no single point of failure.
///
/// Start one on each of three machines with the same --peers list. They form a cluster, elect a primary, and
/// answer a commit once a majority has it on disk. Clients list all addresses; when the primary dies, they find the
/// next one.
#[derive(Debug, Parser)]
#[command(name = "zrsd", version, after_long_help = EXAMPLES, after_help = "--help shows examples.")]
#[command(max_term_width = 110)]
struct Flags {
    /// A TOML file with any of these settings; a flag wins over the file
    #[arg(long, value_name = "FILE", help_heading = OPERATORS)]
    config: Option<PathBuf>,
    #[command(flatten)]
    choices: Choices,
}

/// Every setting, as flags or the file may give it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct Choices {
    /// This node's number in --peers [default: 1]
    #[arg(long, value_name = "N", help_heading = CLUSTER)]
    node: Option<u64>,

    /// All nodes of the cluster, this one included, with the addresses by which nodes and clients find each other.
    /// Without --peers the node is a cluster of one. The list matters when the cluster forms; after that, the log says
    /// which nodes are members
    #[arg(long, value_name = "1=HOST:PORT,2=HOST:PORT,...", help_heading = CLUSTER)]
    peers: Option<PeerList>,

    /// The folder for this node's data; zrsd creates the folder if it does not exist
    #[arg(long, value_name = "DIR", help_heading = CLUSTER)]
    data: Option<PathBuf>,

    /// The address to bind for clients and peers, if it is not this node's address in --peers (0.0.0.0:8100, for
    /// example). A cluster of one node may also bind port 0 (any free port), or a unix socket (a path with a slash)
    /// [default: the address in --peers, or 127.0.0.1:8100]
    #[arg(long, value_name = "HOST:PORT|PATH", help_heading = CLUSTER)]
    listen: Option<String>,

    /// A file with a secret of at least 16 bytes, the same on every node: with the secret, peers prove that they are
    /// members
    #[arg(long, value_name = "FILE", help_heading = CLUSTER)]
    secret_file: Option<PathBuf>,

    /// A PEM file with this node's certificate (and the certificates that lead to its CA): clients and peers must then
    /// speak TLS
    #[arg(long, value_name = "FILE", help_heading = TLS)]
    tls_cert: Option<PathBuf>,

    /// A PEM file with the key of that certificate, without a password [default: the file of --tls-cert]
    #[arg(long, value_name = "FILE", help_heading = TLS)]
    tls_key: Option<PathBuf>,

    /// Clients must have a certificate that is in this file or folder, or that is signed by a CA in it
    #[arg(long, value_name = "FILE|DIR", help_heading = TLS)]
    tls_client_ca: Option<PathBuf>,

    /// Peers must have a certificate that is in this file or folder, or that is signed by a CA in it for the peer's
    /// host in --peers. Without --tls-peer-ca all nodes must have the same certificate
    #[arg(long, value_name = "FILE|DIR", help_heading = TLS)]
    tls_peer_ca: Option<PathBuf>,

    /// For tests of upgrades: pass for a node of the next version
    #[cfg(debug_assertions)]
    #[arg(long, hide = true, num_args = 0, default_missing_value = "true")]
    pretend_newer: Option<bool>,

    /// How much of the disk of --data stays free, in MiB: with less this node takes no new data, until there is room
    /// again; 0: the disk may fill up [default: 512]
    #[arg(long, value_name = "MIB")]
    disk_reserve: Option<u32>,

    /// A storage that clients may open; zrsd creates the storage if it does not exist. Repeat the flag for more
    /// storages [default: 1]
    #[arg(long = "storage", value_name = "NAME", help_heading = CLIENTS)]
    storage: Option<Vec<String>>,

    /// Refuse all writes
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(help_heading = CLIENTS)]
    read_only: Option<bool>,

    /// A second address, for clients that only read: this node serves what it has, without waiting for a primary
    #[arg(long, value_name = "HOST:PORT|PATH", help_heading = CLIENTS)]
    read_listen: Option<String>,

    /// How long ago the primary may last have been heard of for --read-listen to serve clients [default: 60]
    #[arg(long, value_name = "SECS", help_heading = CLIENTS)]
    max_lag: Option<Seconds>,

    /// How long a transaction may hold its locks before zrsd disconnects its client [default: 60]
    #[arg(long, value_name = "SECS", help_heading = CLIENTS)]
    transaction_timeout: Option<Seconds>,

    /// Whether packing also removes objects that no other object refers to; set to false if an external garbage
    /// collector removes them [default: true]
    #[arg(long, value_name = "BOOL", help_heading = CLIENTS)]
    pack_gc: Option<bool>,

    /// Greet clients with the msgpack encoding (M5, ZEO 5.2 and later) instead of pickle (Z5)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(help_heading = CLIENTS)]
    msgpack: Option<bool>,

    /// The address of the HTTP service: /healthz, /readyz, /primary, /status, /metrics. HTTP can also hand over the
    /// primary's role, without a password: bind an address that only operators can reach
    #[arg(long, value_name = "HOST:PORT", help_heading = OPERATORS)]
    http: Option<String>,

    /// Log to this file [default: standard error]
    #[arg(long, value_name = "FILE", help_heading = OPERATORS)]
    log_file: Option<PathBuf>,

    /// error, warn, info, debug or trace; or levels for parts of the program, such as info,zrs::raft=debug
    /// [default: info]
    #[arg(long, value_name = "LEVEL", help_heading = OPERATORS)]
    log_level: Option<String>,

    /// The time between the primary's heartbeats [default: 50]
    #[arg(long, value_name = "MS", help_heading = TIMES)]
    heartbeat: Option<Milliseconds>,

    /// How long a primary without contact to a majority stays primary; the other nodes call an election after 1.6 to 2
    /// times this without a heartbeat [default: 300]
    #[arg(long, value_name = "MS", help_heading = TIMES)]
    election_timeout: Option<Milliseconds>,

    /// How long a secondary lets a client look for the primary before it relays the client to the primary
    /// [default: 1000]
    #[arg(long, value_name = "MS", help_heading = TIMES)]
    relay_grace: Option<Milliseconds>,
}

impl Choices {
    /// `self`, with the choices of `other` for all that `self` leaves open.
    fn or(self, other: Choices) -> Choices {
        Choices {
            node: self.node.or(other.node),
            peers: self.peers.or(other.peers),
            data: self.data.or(other.data),
            listen: self.listen.or(other.listen),
            secret_file: self.secret_file.or(other.secret_file),
            tls_cert: self.tls_cert.or(other.tls_cert),
            tls_key: self.tls_key.or(other.tls_key),
            tls_client_ca: self.tls_client_ca.or(other.tls_client_ca),
            tls_peer_ca: self.tls_peer_ca.or(other.tls_peer_ca),
            storage: self.storage.or(other.storage),
            read_only: self.read_only.or(other.read_only),
            read_listen: self.read_listen.or(other.read_listen),
            max_lag: self.max_lag.or(other.max_lag),
            transaction_timeout: self.transaction_timeout.or(other.transaction_timeout),
            pack_gc: self.pack_gc.or(other.pack_gc),
            #[cfg(debug_assertions)]
            pretend_newer: self.pretend_newer.or(other.pretend_newer),
            disk_reserve: self.disk_reserve.or(other.disk_reserve),
            msgpack: self.msgpack.or(other.msgpack),
            http: self.http.or(other.http),
            log_file: self.log_file.or(other.log_file),
            log_level: self.log_level.or(other.log_level),
            heartbeat: self.heartbeat.or(other.heartbeat),
            election_timeout: self.election_timeout.or(other.election_timeout),
            relay_grace: self.relay_grace.or(other.relay_grace),
        }
    }

    fn into_config(self) -> Config {
        let usual = Config::default();
        Config {
            node: self.node.unwrap_or(usual.node),
            peers: self.peers.map(|peers| peers.0).unwrap_or_default(),
            data: self.data.unwrap_or_default(),
            listen: self.listen,
            secret_file: self.secret_file,
            secret: None,
            tls_cert: self.tls_cert,
            tls_key: self.tls_key,
            tls_client_ca: self.tls_client_ca,
            tls_peer_ca: self.tls_peer_ca,
            storages: self.storage.unwrap_or(usual.storages),
            read_only: self.read_only.unwrap_or(usual.read_only),
            read_listen: self.read_listen,
            max_lag: self.max_lag.map_or(usual.max_lag, |t| t.0),
            transaction_timeout: self.transaction_timeout.map_or(usual.transaction_timeout, |t| t.0),
            msgpack: self.msgpack.unwrap_or(usual.msgpack),
            http: self.http,
            log_file: self.log_file,
            log_level: self.log_level.unwrap_or(usual.log_level),
            heartbeat: self.heartbeat.map_or(usual.heartbeat, |t| t.0),
            election_timeout: self.election_timeout.map_or(usual.election_timeout, |t| t.0),
            relay_grace: self.relay_grace.map_or(usual.relay_grace, |t| t.0),
            pack_gc: self.pack_gc.unwrap_or(usual.pack_gc),
            #[cfg(debug_assertions)]
            pretend_newer: self.pretend_newer.unwrap_or(usual.pretend_newer),
            #[cfg(not(debug_assertions))]
            pretend_newer: usual.pretend_newer,
            disk_reserve: self.disk_reserve.map_or(usual.disk_reserve, |mib| u64::from(mib) << 20),
            open_files: usual.open_files,
        }
    }
}

/// The outcome of reading a command line.
#[derive(Debug)]
pub enum Parsed {
    /// Run with these settings.
    Run(Box<Config>),
    /// `--help` or `--version`: print this, and exit with 0.
    Said(clap::Error),
    /// Wrong usage: print this, and exit with 2.
    Wrong(clap::Error),
}

/// The flags of `zrsd`, for its help and for the test of its documentation.
pub fn command() -> clap::Command {
    Flags::command()
}

/// Reads the flags (the first argument is the program's name) and the file of `--config`, and checks the settings.
pub fn command_line<I, T>(arguments: I) -> Parsed
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let mut command = command();
    let flags = match command.try_get_matches_from_mut(arguments).and_then(|found| Flags::from_arg_matches(&found)) {
        Ok(flags) => flags,
        Err(said) if said.use_stderr() => return Parsed::Wrong(said),
        Err(said) => return Parsed::Said(said),
    };
    match resolve(flags) {
        Ok(config) => Parsed::Run(Box::new(config)),
        Err(why) => Parsed::Wrong(command.error(clap::error::ErrorKind::ValueValidation, why)),
    }
}

fn resolve(flags: Flags) -> Result<Config, BadConfig> {
    let choices = match &flags.config {
        Some(file) => flags.choices.or(read_file(file)?),
        None => flags.choices,
    };
    let mut config = choices.into_config();
    config.check()?;
    config.read_secret()?;
    Ok(config)
}

fn read_file(file: &Path) -> Result<Choices, BadConfig> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(why) => return bad(format!("--config {}: {why}", file.display())),
    };
    toml::from_str(&text).or_else(|why| bad(format!("--config {}: {why}", file.display())))
}

/// The value of `--peers`: `1=HOST:PORT,2=HOST:PORT`, or a table in the file.
#[derive(Clone, Debug, Default, PartialEq)]
struct PeerList(BTreeMap<u64, String>);

impl PeerList {
    fn add(&mut self, node: &str, address: &str) -> Result<(), String> {
        let number = node.trim().parse::<u64>().map_err(|_| format!("{node:?} is not the number of a node"))?;
        match self.0.insert(number, address.trim().to_owned()) {
            Some(_) => Err(format!("node {number} is listed twice")),
            None => Ok(()),
        }
    }
}

impl FromStr for PeerList {
    type Err = String;

    fn from_str(text: &str) -> Result<PeerList, String> {
        let mut peers = PeerList::default();
        for entry in text.split(',').filter(|entry| !entry.trim().is_empty()) {
            let (node, address) = entry
                .split_once('=')
                .ok_or_else(|| format!("{entry:?} is not NUMBER=HOST:PORT (1=a:8100,2=b:8100,3=c:8100)"))?;
            peers.add(node, address)?;
        }
        if peers.0.is_empty() {
            return Err("the list is empty (1=a:8100,2=b:8100,3=c:8100)".into());
        }
        Ok(peers)
    }
}

impl<'de> Deserialize<'de> for PeerList {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<PeerList, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = PeerList;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a table of addresses by node number, or \"1=HOST:PORT,2=HOST:PORT\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<PeerList, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<PeerList, A::Error> {
                let mut peers = PeerList::default();
                while let Some((node, address)) = map.next_entry::<String, String>()? {
                    peers.add(&node, &address).map_err(de::Error::custom)?;
                }
                Ok(peers)
            }
        }
        from.deserialize_any(Either)
    }
}

/// A time in seconds; fractions are fine.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(try_from = "f64")]
struct Seconds(Duration);

impl TryFrom<f64> for Seconds {
    type Error = String;

    fn try_from(seconds: f64) -> Result<Seconds, String> {
        // A year is more than enough, and sums of such times are far from overflowing.
        if seconds.is_nan() || !(0.0..=31_536_000.0).contains(&seconds) {
            return Err(format!("{seconds} is not a time from 0 to 31536000 seconds"));
        }
        Ok(Seconds(Duration::from_secs_f64(seconds)))
    }
}

impl FromStr for Seconds {
    type Err = String;

    fn from_str(text: &str) -> Result<Seconds, String> {
        text.trim().parse::<f64>().map_err(|_| format!("{text:?} is not a number of seconds"))?.try_into()
    }
}

/// A time in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(from = "u32")]
struct Milliseconds(Duration);

impl From<u32> for Milliseconds {
    fn from(ms: u32) -> Milliseconds {
        Milliseconds(Duration::from_millis(ms.into()))
    }
}

impl FromStr for Milliseconds {
    type Err = String;

    fn from_str(text: &str) -> Result<Milliseconds, String> {
        Ok(text.trim().parse::<u32>().map_err(|_| format!("{text:?} is not a number of milliseconds"))?.into())
    }
}
