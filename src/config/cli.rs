//! Flags and the TOML file: one list of settings for both.
//!
//! [`Settings`] is read twice, by clap from the flags and by serde from the file, where the keys are the flags' long
//! names. What the flags leave open the file says, and what both leave open [`Config::default`] says.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches, Parser};
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};

use super::{BadConfig, Config, bad};

const CLUSTER: &str = "The cluster";
const TLS: &str = "TLS (all of these files are read again on SIGHUP)";
const CLIENTS: &str = "What clients see";
const OPERATORS: &str = "Operators";
const TIMES: &str = "Times (see docs/operations.md before changing them)";

const EXAMPLES: &str = "\
Examples:
  One node, for trying out, at 127.0.0.1:8100:
    zrsd --data ./data

  Three nodes; the same list on each of them, only --node differs:
    zrsd --node 1 --peers 1=a:8100,2=b:8100,3=c:8100 --data /var/lib/zrs --http 127.0.0.1:8180
    zrsd --node 2 --peers 1=a:8100,2=b:8100,3=c:8100 --data /var/lib/zrs --http 127.0.0.1:8180
    zrsd --node 3 --peers 1=a:8100,2=b:8100,3=c:8100 --data /var/lib/zrs --http 127.0.0.1:8180

  The same from a file, whose keys are the names of the flags:
    zrsd --config /etc/zrs/zrsd.toml

  Clients get the whole list (zope.conf):
    <zeoclient>
      server a:8100 b:8100 c:8100
    </zeoclient>

  Who leads, and how far the others are:
    zrsctl --http 127.0.0.1:8180 status
    curl http://127.0.0.1:8180/status

  SIGTERM hands the primary's role over, answers what was begun, and stops.
  Exit codes: 0 stopped as asked, 1 failed, 2 wrong usage.";

/// A storage server for ZODB, replicated by Raft: unchanged ZEO clients, no single point of failure.
///
/// Start one on each of three machines with the same --peers list. They form a cluster, elect a primary, and
/// answer a commit once a majority has it on disk. Clients list all addresses; when the primary dies they find the
/// next one.
#[derive(Debug, Parser)]
#[command(name = "zrsd", version, after_long_help = EXAMPLES, after_help = "--help shows examples.", max_term_width = 110)]
struct Flags {
    /// A TOML file with any of these settings; flags win over it
    #[arg(long, value_name = "FILE", help_heading = OPERATORS)]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

/// Everything that may be chosen, by flag or in the file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct Settings {
    /// This node's number in --peers [default: 1]
    #[arg(long, value_name = "N", help_heading = CLUSTER)]
    node: Option<u64>,

    /// All nodes of the cluster, this one too: the addresses by which they and the clients find each other. Without it
    /// the node is a cluster of its own. It matters when the cluster forms; afterwards the members in the log rule
    #[arg(long, value_name = "1=HOST:PORT,2=HOST:PORT,...", help_heading = CLUSTER)]
    peers: Option<Peers>,

    /// The folder for this node's data; made if it is not there
    #[arg(long, value_name = "DIR", help_heading = CLUSTER)]
    data: Option<PathBuf>,

    /// What to bind for clients and peers, if it is not this node's address in --peers (0.0.0.0:8100, for example).
    /// Port 0 takes a free one, and what has a slash is the path of a unix socket, both for a node that is alone
    /// [default: its address in --peers, or 127.0.0.1:8100]
    #[arg(long, value_name = "HOST:PORT|PATH", help_heading = CLUSTER)]
    listen: Option<String>,

    /// A file with a secret of at least 16 bytes, the same on every node, by which peers prove that they are members
    #[arg(long, value_name = "FILE", help_heading = CLUSTER)]
    secret_file: Option<PathBuf>,

    /// A PEM file with this node's certificate (and those that lead to its CA): clients and peers then speak TLS
    #[arg(long, value_name = "FILE", help_heading = TLS)]
    tls_cert: Option<PathBuf>,

    /// A PEM file with the key of the certificate, without a password [default: the file of --tls-cert]
    #[arg(long, value_name = "FILE", help_heading = TLS)]
    tls_key: Option<PathBuf>,

    /// Clients must have a certificate that is in this file or folder, or that a CA in it has signed
    #[arg(long, value_name = "FILE|DIR", help_heading = TLS)]
    tls_client_ca: Option<PathBuf>,

    /// Peers must have a certificate that is in this file or folder, or that a CA in it has signed for the host by
    /// which --peers lists them. Without it all nodes must have the same certificate
    #[arg(long, value_name = "FILE|DIR", help_heading = TLS)]
    tls_peer_ca: Option<PathBuf>,

    /// A storage that clients may open; created if it is not there. Give it once for each [default: 1]
    #[arg(long = "storage", value_name = "NAME", help_heading = CLIENTS)]
    storage: Option<Vec<String>>,

    /// Refuse all writing
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = CLIENTS)]
    read_only: Option<bool>,

    /// One more address, for clients that only read: it serves what this node has, without waiting for a primary
    #[arg(long, value_name = "HOST:PORT|PATH", help_heading = CLIENTS)]
    read_listen: Option<String>,

    /// How old the last word from the primary may be for --read-listen to serve [default: 60]
    #[arg(long, value_name = "SECS", help_heading = CLIENTS)]
    max_lag: Option<Seconds>,

    /// How long a transaction may hold its locks before its client is disconnected [default: 60]
    #[arg(long, value_name = "SECS", help_heading = CLIENTS)]
    transaction_timeout: Option<Seconds>,

    /// Whether packing also removes objects that nothing refers to; false where an external garbage collector does that
    /// [default: true]
    #[arg(long, value_name = "BOOL", help_heading = CLIENTS)]
    pack_gc: Option<bool>,

    /// Greet clients with the msgpack encoding (M5, ZEO 5.2 and later) instead of pickle (Z5)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = CLIENTS)]
    msgpack: Option<bool>,

    /// Serve /healthz, /readyz, /primary, /status and /metrics here. It can hand over the primary's role and has no
    /// passwords: bind it where only operators come
    #[arg(long, value_name = "HOST:PORT", help_heading = OPERATORS)]
    http: Option<String>,

    /// Log to this file [default: standard error]
    #[arg(long, value_name = "FILE", help_heading = OPERATORS)]
    log_file: Option<PathBuf>,

    /// error, warn, info, debug or trace; or for parts of the program, such as info,zrs::raft=debug [default: info]
    #[arg(long, value_name = "LEVEL", help_heading = OPERATORS)]
    log_level: Option<String>,

    /// How often the primary says that it is there [default: 50]
    #[arg(long, value_name = "MS", help_heading = TIMES)]
    heartbeat: Option<Milliseconds>,

    /// How long a primary may be unheard of before it is none; the others elect after 1.6 to 2 times this [default: 300]
    #[arg(long, value_name = "MS", help_heading = TIMES)]
    election_timeout: Option<Milliseconds>,

    /// How long a secondary lets a client look for the primary before it relays to it [default: 1000]
    #[arg(long, value_name = "MS", help_heading = TIMES)]
    relay_grace: Option<Milliseconds>,
}

impl Settings {
    /// `self`, and `other` where it says nothing.
    fn or(self, other: Settings) -> Settings {
        Settings {
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
        }
    }
}

/// What a command line came to.
#[derive(Debug)]
pub enum Parsed {
    /// Run with this.
    Run(Box<Config>),
    /// `--help` or `--version`: say this, and end well.
    Said(clap::Error),
    /// Wrong usage: say this, and end with 2.
    Wrong(clap::Error),
}

/// The flags of `zrsd`, for its help and for those who check its documentation.
pub fn command() -> clap::Command {
    Flags::command()
}

/// Reads flags (the first is the program's name) and the file they name, and checks the outcome.
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
    let settings = match &flags.config {
        Some(file) => flags.settings.or(read_file(file)?),
        None => flags.settings,
    };
    let mut config = settings.into_config();
    config.check()?;
    config.read_secret()?;
    Ok(config)
}

fn read_file(file: &Path) -> Result<Settings, BadConfig> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(why) => return bad(format!("--config {}: {why}", file.display())),
    };
    toml::from_str(&text).or_else(|why| bad(format!("--config {}: {why}", file.display())))
}

/// `1=HOST:PORT,2=HOST:PORT`; in the file also a table.
#[derive(Clone, Debug, Default, PartialEq)]
struct Peers(BTreeMap<u64, String>);

impl Peers {
    fn add(&mut self, node: &str, address: &str) -> Result<(), String> {
        let number = node.trim().parse::<u64>().map_err(|_| format!("{node:?} is no node's number"))?;
        match self.0.insert(number, address.trim().to_owned()) {
            Some(_) => Err(format!("node {number} is listed twice")),
            None => Ok(()),
        }
    }
}

impl FromStr for Peers {
    type Err = String;

    fn from_str(text: &str) -> Result<Peers, String> {
        let mut peers = Peers::default();
        for entry in text.split(',').filter(|entry| !entry.trim().is_empty()) {
            let (node, address) = entry
                .split_once('=')
                .ok_or_else(|| format!("{entry:?} is not NUMBER=HOST:PORT (1=a:8100,2=b:8100,3=c:8100)"))?;
            peers.add(node, address)?;
        }
        if peers.0.is_empty() {
            return Err("it lists no node (1=a:8100,2=b:8100,3=c:8100)".into());
        }
        Ok(peers)
    }
}

impl<'de> Deserialize<'de> for Peers {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Peers, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Peers;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a table of addresses by node number, or \"1=HOST:PORT,2=HOST:PORT\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Peers, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Peers, A::Error> {
                let mut peers = Peers::default();
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
        // (A year is beyond every use, and far from where sums of times overflow.)
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
