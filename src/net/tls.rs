//! TLS, on the one port: who connects, and who is connected to.
//!
//! **What it is.** [`Tls`] is a server's side: its certificate, whom it lets in, and how it connects to its peers; it reads its
//! files again when it is told to. [`TlsClient`] is the side of who connects. Both take a [`Wire`] and give a [`Wire`], so
//! that they stand above every [`Network`](super::Network) and nobody else knows of them.
//!
//! **Who is who.** A connection comes in with a certificate or without; [`Credentials`] say what it is worth:
//!
//! - A *client* is believed by the list `--tls-client-ca`. Without that list nobody has to have a certificate.
//! - A *peer* is believed by the list `--tls-peer-ca`. One that a CA of that list has signed must name the host by which
//!   `--peers` lists the node, in both directions: so one node can't pass for another, and a CA may have other uses. So must
//!   one of several that are listed themselves, if it names any.
//!   Without that list, the nodes of a cluster have one certificate in common, and only that one is believed.
//!
//! **Promises.** TLS 1.2 and 1.3. Certificates are judged by `Env`'s clock, and judged anew for each connection: nothing is
//! resumed. A reload that fails changes nothing.
//!
//! **Left out.** Passwords of keys; deadlines (the caller's, through `Env`).

mod files;
mod stream;
mod trust;
mod words;
mod x509;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use self::files::bad;
use self::stream::Ahead;
use self::trust::{Belief, Guests, Hosts, Trust};
use self::words::End;
use super::Wire;
use crate::config::{PeerTrust, TlsFiles, host, limits};
use crate::env::Env;

pub use self::files::BadTls;

/// The first byte of everything that begins with a TLS handshake; no frame that is allowed begins with it.
const HANDSHAKE: u8 = 0x16;
/// How many of a stranger's first bytes are looked at.
const FIRST: usize = 512;
/// How long somebody whose handshake failed may take to hear why.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Bytes that it may say meanwhile.
const UNHEARD: u64 = 64 << 10;

/// A server's TLS; clones are the same.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    files: TlsFiles,
    env: Env,
    loaded: RwLock<Arc<Loaded>>,
}

/// What the files say.
struct Loaded {
    acceptor: TlsAcceptor,
    /// How to connect to peers; `None`: there are none.
    connector: Option<TlsClient>,
    clients: Option<Arc<Trust>>,
    peers: Option<Arc<Trust>>,
    expires: i64,
}

/// What the certificate of who has connected is worth.
#[derive(Clone, Debug)]
pub struct Credentials {
    client: Result<(), String>,
    peer: Result<Belief, String>,
    certificate: Option<CertificateDer<'static>>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tls({:?})", self.0.files)
    }
}

impl Tls {
    /// Reads the files.
    pub fn load(files: TlsFiles, env: Env) -> Result<Tls, BadTls> {
        let loaded = RwLock::new(Arc::new(Loaded::read(&files, &env)?));
        Ok(Tls(Arc::new(Inner { files, env, loaded })))
    }

    /// Reads the files again; connections that begin after that use them. After an error all is as before.
    pub fn reload(&self) -> Result<(), BadTls> {
        let loaded = Arc::new(Loaded::read(&self.0.files, &self.0.env)?);
        *self.0.loaded.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        Ok(())
    }

    /// In how many seconds the own certificate expires; less than none if it has.
    pub fn expires_in(&self) -> i64 {
        let now = i64::try_from(self.0.env.wall().as_secs()).unwrap_or(i64::MAX);
        self.loaded().expires.saturating_sub(now)
    }

    /// The server's part of a handshake, with somebody who has said `first` already.
    pub async fn accept(&self, wire: Wire, first: Bytes) -> io::Result<(Wire, Credentials)> {
        let loaded = self.loaded();
        let Wire { reader, writer, peer } = wire;
        let raw = tokio::io::join(Ahead::new(reader, first), writer);
        let stream = match loaded.acceptor.accept(raw).into_fallible().await {
            Ok(stream) => stream,
            Err((fault, raw)) => {
                let _ = self.0.env.timeout(LAST_WORDS, take_leave(raw)).await;
                return Err(words::of_handshake(End::Accepting, fault));
            }
        };
        let now = UnixTime::since_unix_epoch(self.0.env.wall());
        let credentials = loaded.judge(stream.get_ref().1.peer_certificates().unwrap_or_default(), now);
        Ok((wired(TlsStream::from(stream), peer), credentials))
    }

    /// Makes a connection to a peer, which was found at `address`, a TLS connection.
    pub async fn connect(&self, wire: Wire, address: &str) -> io::Result<Wire> {
        let loaded = self.loaded();
        let none = || io::Error::other("TLS was set up without peers");
        loaded.connector.as_ref().ok_or_else(none)?.connect(wire, address).await
    }

    fn loaded(&self) -> Arc<Loaded> {
        self.0.loaded.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Loaded {
    fn read(files: &TlsFiles, env: &Env) -> Result<Loaded, BadTls> {
        let provider = Arc::new(ring::default_provider());
        let (certificate, expires) = own(("--tls-cert", &files.cert), ("--tls-key", &files.key), &provider)?;
        let trust = |flag, path: &Path| Ok(Arc::new(Trust::new(flag, path, files::trusted(flag, path)?, &provider)?));
        let clients = files.client_ca.as_deref().map(|path| trust("--tls-client-ca", path)).transpose()?;
        let peers = match &files.peers {
            PeerTrust::Nobody => None,
            PeerTrust::SameCertificate => Some(Arc::new(Trust::only(&certificate.cert[0]))),
            PeerTrust::Ca(path) => Some(trust("--tls-peer-ca", path)?),
        };
        let clock = Arc::new(Clock(env.clone()));
        let guests = Guests { clients: clients.clone(), peers: peers.clone(), provider: provider.clone() };
        let mut server = ServerConfig::builder_with_details(provider.clone(), clock)
            .with_safe_default_protocol_versions()
            .map_err(|why| BadTls(why.to_string()))?
            .with_client_cert_verifier(Arc::new(guests))
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certificate.clone())));
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let connector = peers.clone().map(|trust| TlsClient::believing(trust, Some(certificate), None, env, provider));
        let acceptor = TlsAcceptor::from(Arc::new(server));
        Ok(Loaded { acceptor, connector: connector.transpose()?, clients, peers, expires })
    }

    fn judge(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Credentials {
        let of = |trust: &Trust| trust.of_client(chain, now).map_err(|why| words::of(&why));
        Credentials {
            client: self.clients.as_deref().map_or(Ok(()), |clients| of(clients).map(drop)),
            peer: self.peers.as_deref().map_or(Err("no peers are expected".into()), of),
            certificate: chain.first().map(|certificate| certificate.clone().into_owned()),
        }
    }
}

/// Lets the other end hear why it was refused. Closing while there is something unread would take that from it.
async fn take_leave(mut raw: stream::Raw) -> io::Result<()> {
    raw.shutdown().await?;
    tokio::io::copy(&mut raw.take(UNHEARD), &mut tokio::io::sink()).await.map(drop)
}

/// The own certificate with its key, and when it expires.
fn own(
    (cert_flag, cert): (&str, &Path),
    (key_flag, key): (&str, &Path),
    provider: &CryptoProvider,
) -> Result<(Arc<CertifiedKey>, i64), BadTls> {
    let chain = files::chain(cert_flag, cert)?;
    let Some(facts) = x509::facts(&chain[0]) else {
        return bad(cert_flag, cert, "its first certificate can't be read");
    };
    let signer = match provider.key_provider.load_private_key(files::key(key_flag, key)?) {
        Ok(signer) => signer,
        Err(why) => return bad(key_flag, key, format_args!("the key can't be used: {why}")),
    };
    if signer.public_key().is_some_and(|own| own.as_ref() != facts.key) {
        return bad(key_flag, key, format_args!("it is not the key of the certificate in {}", cert.display()));
    }
    let expires = facts.valid.1;
    Ok((Arc::new(CertifiedKey::new(chain, signer)), expires))
}

impl Credentials {
    /// Whether it may be a client; if not, why.
    pub fn may_be_client(&self) -> Result<(), &str> {
        self.client.as_ref().map(|&()| ()).map_err(String::as_str)
    }

    /// Whether it may be the peer that is listed with `address`; if not, why.
    pub fn may_be_peer(&self, address: &str) -> Result<(), String> {
        match (self.peer.clone()?, &self.certificate) {
            (Belief::ForAnyHost, _) => Ok(()),
            (Belief::ForItsHosts, Some(certificate)) => {
                let host = host(address).unwrap_or(address);
                trust::names_host(certificate, host).map_err(|why| format!("{} ({host})", words::of(&why)))
            }
            (Belief::ForItsHosts, None) => Err("it has no certificate".into()),
        }
    }

    /// The common name of the certificate, for people.
    pub fn name(&self) -> Option<String> {
        x509::facts(self.certificate.as_ref()?)?.common_name
    }
}

/// The TLS of who connects; clones are the same.
#[derive(Clone)]
pub struct TlsClient {
    connector: TlsConnector,
    name: Option<ServerName<'static>>,
}

impl fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TlsClient({:?})", self.name)
    }
}

impl TlsClient {
    /// A client that believes servers by the list `ca` (a file or a folder; a listed certificate itself, or one that a listed CA has
    /// signed for the host of the address) and shows its own certificate (`own`: the files of certificate and key) to
    /// those who ask. `name`: the host that certificates must name, where it is not the one in the address.
    pub fn new(ca: &Path, own: Option<(&Path, &Path)>, name: Option<&str>, env: &Env) -> Result<TlsClient, BadTls> {
        let provider = Arc::new(ring::default_provider());
        let trust = Arc::new(Trust::new("CA", ca, files::trusted("CA", ca)?, &provider)?);
        let own = own.map(|(cert, key)| self::own(("certificate", cert), ("key", key), &provider)).transpose()?;
        let name = match name {
            Some(name) => match trust::server_name(name) {
                Some(name) => Some(name),
                None => return Err(BadTls(format!("{name:?} is no name of a host"))),
            },
            None => None,
        };
        TlsClient::believing(trust, own.map(|(own, _)| own), name, env, provider)
    }

    fn believing(
        trust: Arc<Trust>,
        own: Option<Arc<CertifiedKey>>,
        name: Option<ServerName<'static>>,
        env: &Env,
        provider: Arc<CryptoProvider>,
    ) -> Result<TlsClient, BadTls> {
        let config = ClientConfig::builder_with_details(provider.clone(), Arc::new(Clock(env.clone())))
            .with_safe_default_protocol_versions()
            .map_err(|why| BadTls(why.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Hosts { trust, provider }));
        let mut config = match own {
            Some(own) => config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own))),
            None => config.with_no_client_auth(),
        };
        config.resumption = rustls::client::Resumption::disabled();
        Ok(TlsClient { connector: TlsConnector::from(Arc::new(config)), name })
    }

    /// Makes a connection, which was made to `address`, a TLS connection.
    pub async fn connect(&self, wire: Wire, address: &str) -> io::Result<Wire> {
        let Wire { reader, writer, peer } = wire;
        let found = || trust::server_name(host(address).unwrap_or("localhost"));
        let Some(name) = self.name.clone().or_else(found) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{address} names no host that TLS knows")));
        };
        let raw = tokio::io::join(Ahead::new(reader, Bytes::new()), writer);
        let stream = self.connector.connect(name, raw).await;
        let stream = stream.map_err(|fault| words::of_handshake(End::Connecting, fault))?;
        Ok(wired(TlsStream::from(stream), peer))
    }
}

fn wired(stream: TlsStream<stream::Raw>, peer: String) -> Wire {
    let (reader, writer) = stream::halves(stream);
    Wire { reader: Box::new(reader), writer: Box::new(writer), peer }
}

/// `Env`'s wall clock, for rustls.
#[derive(Debug)]
struct Clock(Env);

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(self.0.wall()))
    }
}

/// What a stranger says first, as much of it as comes at once; empty if it closes without a word. Cancel-safe only in that
/// the wire must not be used after a cancelled call.
pub async fn first_bytes(wire: &mut Wire) -> io::Result<Bytes> {
    let mut said = BytesMut::with_capacity(FIRST);
    wire.reader.read_buf(&mut said).await?;
    Ok(said.freeze())
}

/// Somebody who came to the wrong port, by what they say first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misplaced {
    /// In a word, for what is counted: `tls`, `plain` or `http`.
    pub what: &'static str,
    /// In a sentence for the log, with what to do.
    pub cure: &'static str,
}

/// Who speaks like this; `None`: it may be somebody who is welcome. `tls`: whether the port is one for TLS.
pub fn misplaced(first: &[u8], tls: bool) -> Option<Misplaced> {
    let frame = first.get(4..).unwrap_or_default();
    let (what, cure) = match first {
        [b'G', b'E', b'T', b' ', ..] | [b'H', b'E', b'A', b'D', ..] | [b'P', b'O', b'S', b'T', ..] => {
            ("http", "it speaks HTTP, and this is the port of ZEO clients: the one for HTTP is --http")
        }
        [HANDSHAKE, 3, ..] if !tls => (
            "tls",
            "it speaks TLS, and this port is plain: start zrsd with --tls-cert, or take the <ssl> section out of the \
             client's configuration",
        ),
        [HANDSHAKE, ..] => return None,
        _ if !tls => return None,
        _ if frame.starts_with(b"P1") => {
            ("plain", "it is a node that speaks plain, and this port is one for TLS: give all nodes --tls-cert")
        }
        _ if frame.starts_with(b"ruok") => {
            ("plain", "it is a monitor (ruok) that speaks plain, and this port is one for TLS")
        }
        _ => ("plain", "it speaks plain, and this port is one for TLS: ZEO clients need an <ssl> section"),
    };
    Some(Misplaced { what, cure })
}

const _: () = assert!(
    (HANDSHAKE as usize) << 24 > limits::FIRST_FRAME,
    "a first frame that begins like TLS would be too long for a first frame"
);
