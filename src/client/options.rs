//! How to connect: where to, as what, and how patiently.

use std::time::Duration;

use crate::net::TlsClient;

/// How to connect. `Options { addresses, ..Options::default() }`
#[derive(Clone, Debug)]
pub struct Options {
    /// `host:port` of some nodes of the cluster, at best all.
    pub addresses: Vec<String>,
    /// The name of the storage; `1` by default.
    pub storage: String,
    /// Only read: any node that has caught up serves such a client.
    pub read_only: bool,
    /// Bytes that the cache may take; 64 MiB by default.
    pub cache_bytes: usize,
    /// How long each step may take: finding a server, an answer, a vote, a finish. 30 s by default.
    pub wait: Duration,
    /// How long a connection may stay without a byte from the server before it is given up; 4 s by default.
    pub silence: Duration,
    /// How often [`Client::transact`](super::Client::transact) tries; 3 by default.
    pub attempts: u32,
    /// The name of this client in the server's log, besides its address.
    pub label: String,
    /// How to speak TLS; `None`: plain TCP.
    pub tls: Option<TlsClient>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            addresses: Vec::new(),
            storage: "1".to_owned(),
            read_only: false,
            cache_bytes: 64 << 20,
            wait: Duration::from_secs(30),
            silence: Duration::from_secs(4),
            attempts: 3,
            label: String::new(),
            tls: None,
        }
    }
}
