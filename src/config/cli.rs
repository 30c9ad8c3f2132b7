//! Flags and the TOML file: one list of settings for both.
//!
//! clap reads [`Choices`] from the flags, and again from each key of the file, as from the flag of that name (`file`).
//! A flag wins over the file, and the file over [`Config::default`].

use std::error::Error as _;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser};

use super::check::BadConfig;
use super::file::{self, Entry};
use super::settings::Config;
use super::values::{self, Milliseconds, PeerList, Seconds};

const CLUSTER: &str = "The cluster";
const TLS: &str = "TLS (SIGHUP makes zrsd read all of these files again)";
const CLIENTS: &str = "What clients see";
const OPERATORS: &str = "Operators";
const TIMES: &str = "Times (250, 250ms and 0.25s are the same; see docs/operations.md before changing them)";

const EXAMPLES: &str = "\
Examples:
  One node, for trying out, at 127.0.0.1:8100, and how it is:
    zrsd --data ./data --http 127.0.0.1:8180
    zrsctl status

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
    zrsctl status
    curl http://127.0.0.1:8180/status

  SIGTERM hands the primary's role over, finishes the transactions that are being committed, and stops zrsd.
  SIGHUP and SIGUSR2 open the log file again, after a rotation; SIGHUP reads the files of TLS again, too.
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
#[derive(Clone, Debug, Default, PartialEq, clap::Args)]
struct Choices {
    /// This node's number in --peers [default: 1]
    #[arg(long, value_name = "N", help_heading = CLUSTER, value_parser = values::node)]
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
    #[arg(long, value_name = "BOOL", hide = true, num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", value_parser = values::boolean)]
    pretend_newer: Option<bool>,

    /// How much of the disk of --data stays free, in MiB: with less this node takes no new data, until there is room
    /// again; 0: the disk may fill up [default: 512]
    #[arg(long, value_name = "MIB", value_parser = values::mebibytes)]
    disk_reserve: Option<u32>,

    /// How long the log keeps its entries: a node that was away for less comes back by the log, another one by a copy
    /// of the database [default: 1h]
    #[arg(long, value_name = "SECS")]
    log_keep: Option<Seconds>,

    /// How large the log may become for that, in MiB [default: 4096]
    #[arg(long, value_name = "MIB", value_parser = values::mebibytes_of_some)]
    log_size: Option<u32>,

    /// How much of its database a node sends in a second to nodes that fetch it, in MiB [default: 100]
    #[arg(long, value_name = "MIB", value_parser = values::mebibytes_of_some)]
    snapshot_rate: Option<u32>,

    /// How much memory the objects take that clients load most, in MiB; 0: none are kept [default: 64]
    #[arg(long, value_name = "MIB", help_heading = CLIENTS, value_parser = values::mebibytes)]
    cache_size: Option<u32>,

    /// A storage that clients may open; zrsd creates the storage if it does not exist. Repeat the flag for more
    /// storages [default: 1]
    #[arg(long = "storage", value_name = "NAME", help_heading = CLIENTS)]
    storage: Option<Vec<String>>,

    /// Refuse all writes
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(help_heading = CLIENTS, value_parser = values::boolean)]
    read_only: Option<bool>,

    /// A second address, for clients that only read: this node serves what it has, without waiting for a primary
    #[arg(long, value_name = "HOST:PORT|PATH", help_heading = CLIENTS)]
    read_listen: Option<String>,

    /// How long ago the primary may last have been heard of for --read-listen to serve clients (90, 90s and 1.5min are
    /// the same) [default: 60s]
    #[arg(long, value_name = "SECS", help_heading = CLIENTS)]
    max_lag: Option<Seconds>,

    /// How long a transaction may hold its locks before zrsd disconnects its client [default: 60s]
    #[arg(long, value_name = "SECS", help_heading = CLIENTS)]
    transaction_timeout: Option<Seconds>,

    /// Whether packing also removes objects that no other object refers to; set to false if an external garbage
    /// collector removes them [default: true]
    #[arg(long, value_name = "BOOL", help_heading = CLIENTS, value_parser = values::boolean)]
    pack_gc: Option<bool>,

    /// Greet clients with the msgpack encoding (M5, ZEO 5.2 and later) instead of pickle (Z5)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(help_heading = CLIENTS, value_parser = values::boolean)]
    msgpack: Option<bool>,

    /// The address of the HTTP service: /healthz, /readyz, /primary, /status, /metrics (127.0.0.1:8180 is where zrsctl
    /// looks). HTTP can also hand over the primary's role and drop empty storages, without a password: bind an address
    /// that only operators can reach
    #[arg(long, value_name = "HOST:PORT", help_heading = OPERATORS)]
    http: Option<String>,

    /// Log to this file, which SIGHUP and SIGUSR2 open again [default: standard error]
    #[arg(long, value_name = "FILE", help_heading = OPERATORS)]
    log_file: Option<PathBuf>,

    /// error, warn, info, debug or trace; or levels for parts of the program, such as info,zrs::raft=debug
    /// [default: info]
    #[arg(long, value_name = "LEVEL", help_heading = OPERATORS)]
    log_level: Option<String>,

    /// The time between the primary's heartbeats [default: 50ms]
    #[arg(long, value_name = "MS", help_heading = TIMES)]
    heartbeat: Option<Milliseconds>,

    /// How long a primary without contact to a majority stays primary; the other nodes call an election after 1.6 to 2
    /// times this without a heartbeat [default: 300ms]
    #[arg(long, value_name = "MS", help_heading = TIMES)]
    election_timeout: Option<Milliseconds>,

    /// How long a secondary lets a client look for the primary before it relays the client to the primary
    /// [default: 1s]
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
            log_keep: self.log_keep.or(other.log_keep),
            log_size: self.log_size.or(other.log_size),
            snapshot_rate: self.snapshot_rate.or(other.snapshot_rate),
            cache_size: self.cache_size.or(other.cache_size),
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
            log_keep: self.log_keep.map_or(usual.log_keep, |t| t.0),
            log_size: self.log_size.map_or(usual.log_size, |mib| u64::from(mib) << 20),
            snapshot_rate: self.snapshot_rate.map_or(usual.snapshot_rate, |mib| u64::from(mib) << 20),
            cache_size: self.cache_size.map_or(usual.cache_size, |mib| u64::from(mib) << 20),
            open_files: usual.open_files,
            sizes: usual.sizes,
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
    /// Exit with 2.
    Wrong(Wrong),
}

/// Settings that can't work; its text is for standard error.
#[derive(Debug)]
pub struct Wrong {
    /// The reason, in a line for the log.
    pub why: String,
    /// The log file, as far as the settings could be read.
    pub log_file: Option<PathBuf>,
    text: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The flags of `zrsd`, for its help and for the test of its documentation.
pub fn command() -> clap::Command {
    Flags::command()
}

/// Reads the flags (the first argument is the program's name) and the file of `--config`, and checks the settings.
pub fn command_line<I, T>(arguments: I) -> Parsed
where
    I: IntoIterator<Item = T>,
    T: Into<OsString>,
{
    let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
    match command().try_get_matches_from(&arguments).and_then(|found| Flags::from_arg_matches(&found)) {
        Ok(flags) => match resolve(flags) {
            Ok(config) => Parsed::Run(Box::new(config)),
            Err(wrong) => Parsed::Wrong(wrong),
        },
        Err(said) if said.use_stderr() => {
            let text = said.to_string().trim_end().to_owned();
            let why = text.lines().next().unwrap_or_default();
            let why = why.strip_prefix("error: ").unwrap_or(why).to_owned();
            Parsed::Wrong(Wrong { why, log_file: log_file_among(&arguments), text })
        }
        Err(said) => Parsed::Said(said),
    }
}

/// The log file, of a command line that can't be understood as a whole. (clap stops at the first fault.)
fn log_file_among(arguments: &[OsString]) -> Option<PathBuf> {
    let path = |flag: &str| {
        let joined = |argument: &OsString| argument.to_str()?.strip_prefix(flag)?.strip_prefix('=').map(PathBuf::from);
        let apart = || {
            let at = arguments.iter().position(|argument| argument.as_os_str() == flag)?;
            arguments.get(at + 1).map(PathBuf::from)
        };
        arguments.iter().find_map(joined).or_else(apart)
    };
    path("--log-file").or_else(|| read_file(&path("--config")?).0.log_file)
}

fn resolve(flags: Flags) -> Result<Config, Wrong> {
    let (in_file, fault) = flags.config.as_deref().map(read_file).unwrap_or_default();
    let choices = flags.choices.or(in_file);
    let log_file = choices.log_file.clone();
    let checked = || -> Result<Config, BadConfig> {
        fault.map_or(Ok(()), Err)?;
        let mut config = choices.into_config();
        config.check()?;
        config.read_secret()?;
        Ok(config)
    };
    checked().map_err(|BadConfig(why)| Wrong { text: format!("zrsd: {why}"), why, log_file })
}

/// The choices of the file, and the first thing that is wrong with it.
fn read_file(file: &Path) -> (Choices, Option<BadConfig>) {
    let name = file.display();
    let wrong = |why| (Choices::default(), Some(BadConfig(format!("--config {name}: {why}"))));
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(why) => return wrong(why.to_string()),
    };
    let entries = match file::entries(&text, &command()) {
        Ok(entries) => entries,
        Err(why) => return wrong(why),
    };
    let (mut choices, mut fault) = (Choices::default(), None);
    for entry in entries {
        match choice(&entry) {
            Ok(choice) => choices = choices.or(choice),
            Err(why) => {
                let Entry { key, line, .. } = &entry;
                fault.get_or_insert_with(|| BadConfig(format!("--config {name}: line {line}: {key}: {why}")));
            }
        }
    }
    (choices, fault)
}

/// The choice that a key of the file makes: what its flag would say.
fn choice(entry: &Entry) -> Result<Choices, String> {
    let arguments = entry.arguments.clone()?;
    let line = ["zrsd".to_owned()].into_iter().chain(arguments);
    let read = command().try_get_matches_from(line).and_then(|found| Flags::from_arg_matches(&found));
    read.map(|flags| flags.choices).map_err(|error| match (error.kind(), error.source()) {
        (ErrorKind::ValueValidation, Some(why)) => why.to_string(),
        _ => format!("expected {}", entry.expected),
    })
}
