//! TLS on the one port: of a server, which also connects to peers, and of a client.
//!
//! **What it is.** [`Tls`] is a server's side: its certificate, the certificates that it trusts, and its connections
//! to peers; it can read its files again. [`TlsClient`] is a client's side. Both turn a [`Wire`] into a [`Wire`], so
//! they work over every [`Network`](super::Network), and no other module knows of TLS.
//!
//! **Trust.** A connection comes with a certificate or without; [`Credentials`] tell what the certificate
//! allows:
//!
//! - A *client* needs a certificate by the list `--tls-client-ca`. Without that list no client needs a certificate.
//! - A *peer* needs a certificate by the list `--tls-peer-ca`. A certificate that a CA of that list has signed must
//!   name the host under which `--peers` lists the node, in both directions: so no node can pass for another, and the
//!   CA may sign other certificates, too. If several certificates are listed themselves, each that names hosts is
//!   trusted for those only. Without that list all nodes have the same certificate, and only that one is trusted.
//!
//! **Promises.** TLS 1.2 and 1.3. Certificates are checked by `Env`'s clock, for each connection anew: no session is
//! resumed. A reload that fails changes nothing.
//!
//! **Left out.** Passwords of keys; deadlines (the caller sets them, through `Env`).

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

use bytes::{Bytes, BytesMut};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ServerConfig};
use tokio::io::AsyncReadExt as _;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use self::files::bad;
use self::stream::ReadAhead;
use self::trust::{Belief, ClientVerifier, ServerVerifier, Trust};
use self::words::HandshakeSide;
use super::linger::lingering_close;
use super::network::Wire;
use crate::config::{PeerTrust, TlsFiles, host, limits};
use crate::env::Env;

pub use self::files::BadTls;
pub(super) use self::stream::Reading;

/// The first byte of a TLS handshake. A frame that begins with this byte would be longer than is allowed.
const HANDSHAKE: u8 = 0x16;
/// The first bytes of a connection that are looked at, at most.
const FIRST: usize = 512;

/// A server's TLS; all clones share one policy.
#[derive(Clone)]
pub struct Tls(Arc<Reloadable>);

struct Reloadable {
    files: TlsFiles,
    env: Env,
    policy: RwLock<Arc<Policy>>,
}

/// The content of the files, ready for use.
struct Policy {
    acceptor: TlsAcceptor,
    /// Connects to peers; `None`: there are no peers.
    connector: Option<TlsClient>,
    clients: Option<Arc<Trust>>,
    peers: Option<Arc<Trust>>,
    expires: i64,
}

/// The rights that the certificate of an accepted connection gives.
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
        let policy = RwLock::new(Arc::new(Policy::read(&files, &env)?));
        Ok(Tls(Arc::new(Reloadable { files, env, policy })))
    }

    /// Reads the files again, for the connections that begin after that. After an error all is as before.
    pub fn reload(&self) -> Result<(), BadTls> {
        let policy = Arc::new(Policy::read(&self.0.files, &self.0.env)?);
        *self.0.policy.write().unwrap_or_else(PoisonError::into_inner) = policy;
        Ok(())
    }

    /// Seconds until this server's certificate expires; negative if it has expired.
    pub fn expires_in(&self) -> i64 {
        let now = i64::try_from(self.0.env.wall().as_secs()).unwrap_or(i64::MAX);
        self.policy().expires.saturating_sub(now)
    }

    /// The server's part of a handshake, on a wire from which `first` was read already.
    pub async fn accept(&self, wire: Wire, first: Bytes) -> io::Result<(Wire, Credentials)> {
        let policy = self.policy();
        let Wire { reader, writer, peer } = wire;
        let raw = tokio::io::join(ReadAhead::new(reader, first), writer);
        let stream = match policy.acceptor.accept(raw).into_fallible().await {
            Ok(stream) => stream,
            Err((fault, raw)) => {
                // (The other end reads the alert that says why.)
                let (unheard, alert) = raw.into_inner();
                lingering_close(&self.0.env, alert, unheard).await;
                return Err(words::explain_handshake(HandshakeSide::Accepting, fault));
            }
        };
        let now = UnixTime::since_unix_epoch(self.0.env.wall());
        let credentials = policy.judge(stream.get_ref().1.peer_certificates().unwrap_or_default(), now);
        Ok((wire_of(TlsStream::from(stream), peer), credentials))
    }

    /// The client's part of a handshake, on a wire to the peer at `address`.
    pub async fn connect(&self, wire: Wire, address: &str) -> io::Result<Wire> {
        let policy = self.policy();
        let none = || io::Error::other("TLS was configured without peers (--peers is missing)");
        policy.connector.as_ref().ok_or_else(none)?.shake(wire, address, HandshakeSide::ConnectingToPeer).await
    }

    fn policy(&self) -> Arc<Policy> {
        self.0.policy.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Policy {
    fn read(files: &TlsFiles, env: &Env) -> Result<Policy, BadTls> {
        let provider = Arc::new(ring::default_provider());
        let (certificate, expires) =
            own_certificate(("--tls-cert", &files.cert), ("--tls-key", &files.key), &provider)?;
        let trust = |flag, path: &Path| Ok(Arc::new(Trust::new(flag, path, files::trusted(flag, path)?, &provider)?));
        let clients = files.client_ca.as_deref().map(|path| trust("--tls-client-ca", path)).transpose()?;
        let peers = match &files.peers {
            PeerTrust::Nobody => None,
            PeerTrust::SameCertificate => Some(Arc::new(Trust::only(&certificate.cert[0]))),
            PeerTrust::Ca(path) => Some(trust("--tls-peer-ca", path)?),
        };
        let clock = Arc::new(Clock(env.clone()));
        let verifier = ClientVerifier { clients: clients.clone(), peers: peers.clone(), provider: provider.clone() };
        let mut server = ServerConfig::builder_with_details(provider.clone(), clock)
            .with_safe_default_protocol_versions()
            .map_err(|why| BadTls(why.to_string()))?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certificate.clone())));
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let connector = peers.clone().map(|trust| TlsClient::believing(trust, Some(certificate), None, env, provider));
        let acceptor = TlsAcceptor::from(Arc::new(server));
        Ok(Policy { acceptor, connector: connector.transpose()?, clients, peers, expires })
    }

    fn judge(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Credentials {
        let of = |trust: &Trust| trust.of_client(chain, now).map_err(|why| words::explain(&why));
        Credentials {
            client: self.clients.as_deref().map_or(Ok(()), |clients| of(clients).map(drop)),
            peer: self.peers.as_deref().map_or(Err("no peers are expected".into()), of),
            certificate: chain.first().map(|certificate| certificate.clone().into_owned()),
        }
    }
}

/// This program's certificate with its key, and the time when it expires.
fn own_certificate(
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
    /// `Ok` if the other end may be a client; else the reason.
    pub fn may_be_client(&self) -> Result<(), &str> {
        self.client.as_ref().map(|&()| ()).map_err(String::as_str)
    }

    /// `Ok` if the other end may be the peer that is listed with `address`; else the reason.
    pub fn may_be_peer(&self, address: &str) -> Result<(), String> {
        match (self.peer.clone()?, &self.certificate) {
            (Belief::ForAnyHost, _) => Ok(()),
            (Belief::ForItsHosts, Some(certificate)) => {
                let host = host(address).unwrap_or(address);
                trust::names_host(certificate, host).map_err(|why| format!("{} ({host})", words::explain(&why)))
            }
            (Belief::ForItsHosts, None) => Err("it has no certificate".into()),
        }
    }

    /// The common name of the certificate, for the log.
    pub fn name(&self) -> Option<String> {
        x509::facts(self.certificate.as_ref()?)?.common_name
    }
}

/// A client's TLS; clones are the same.
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
    /// A client that trusts servers by the list `ca`, a file or a folder: a listed certificate itself, or a
    /// certificate that a listed CA has signed for the host of the address. `own`: the files of the client's
    /// certificate and key, shown to servers that ask for a certificate. `name`: the host that certificates must name,
    /// if not the one in the address.
    pub fn new(ca: &Path, own: Option<(&Path, &Path)>, name: Option<&str>, env: &Env) -> Result<TlsClient, BadTls> {
        let provider = Arc::new(ring::default_provider());
        let trust = Arc::new(Trust::new("CA", ca, files::trusted("CA", ca)?, &provider)?);
        let own = own.map(|(cert, key)| own_certificate(("certificate", cert), ("key", key), &provider)).transpose()?;
        let name = match name {
            Some(name) => match trust::server_name(name) {
                Some(name) => Some(name),
                None => return Err(BadTls(format!("{name:?} is not the name of a host"))),
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
            .with_custom_certificate_verifier(Arc::new(ServerVerifier { trust, provider }));
        let mut config = match own {
            Some(own) => config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own))),
            None => config.with_no_client_auth(),
        };
        config.resumption = rustls::client::Resumption::disabled();
        Ok(TlsClient { connector: TlsConnector::from(Arc::new(config)), name })
    }

    /// The client's part of a handshake, on a wire to the server at `address`.
    pub async fn connect(&self, wire: Wire, address: &str) -> io::Result<Wire> {
        self.shake(wire, address, HandshakeSide::Connecting).await
    }

    async fn shake(&self, wire: Wire, address: &str, side: HandshakeSide) -> io::Result<Wire> {
        let Wire { reader, writer, peer } = wire;
        let found = || trust::server_name(host(address).unwrap_or("localhost"));
        let Some(name) = self.name.clone().or_else(found) else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{address} has no host that TLS can check"),
            ));
        };
        let raw = tokio::io::join(ReadAhead::new(reader, Bytes::new()), writer);
        let stream = self.connector.connect(name, raw).await;
        let stream = stream.map_err(|fault| words::explain_handshake(side, fault))?;
        Ok(wire_of(TlsStream::from(stream), peer))
    }
}

fn wire_of(stream: TlsStream<stream::Raw>, peer: String) -> Wire {
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

/// The first bytes from the other end, as many as arrive at once; empty if the other end closes at once. Not
/// cancel-safe: the wire must not be used after a cancelled call.
pub async fn first_bytes(wire: &mut Wire) -> io::Result<Bytes> {
    let mut said = BytesMut::with_capacity(FIRST);
    wire.reader.read_buf(&mut said).await?;
    Ok(said.freeze())
}

/// A connection to the wrong port, known by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misplaced {
    /// The label of its counter: `tls`, `plain` or `http`.
    pub what: &'static str,
    /// A sentence for the log, with what to do.
    pub cure: &'static str,
    /// Whether the other end is a node that wants to speak with its peer.
    pub is_node: bool,
}

/// Recognizes a connection to the wrong port; `None`: the port may be the right one. `tls`: whether the port is for
/// TLS.
pub fn misplaced(first: &[u8], tls: bool) -> Option<Misplaced> {
    let frame = first.get(4..).unwrap_or_default();
    let is_node = tls && frame.starts_with(b"P1");
    let (what, cure) = match first {
        [b'G', b'E', b'T', b' ', ..] | [b'H', b'E', b'A', b'D', ..] | [b'P', b'O', b'S', b'T', ..] => {
            ("http", "it speaks HTTP, and this port is for ZEO clients: HTTP is served at the address of --http")
        }
        [HANDSHAKE, 3, ..] if !tls => (
            "tls",
            "it speaks TLS, and this port is plain: start zrsd with --tls-cert (all nodes have it, or none has), or \
             remove the <ssl> section from the client's configuration",
        ),
        [HANDSHAKE, ..] => return None,
        _ if !tls => return None,
        _ if is_node => {
            ("plain", "it is a node without TLS, and this port is for TLS: give all nodes --tls-cert, or none")
        }
        _ if frame.starts_with(b"ruok") => ("plain", "it is a monitor (ruok) without TLS, and this port is for TLS"),
        _ => ("plain", "it does not speak TLS, and this port is for TLS: ZEO clients need an <ssl> section"),
    };
    Some(Misplaced { what, cure, is_node })
}

const _: () = assert!(
    (HANDSHAKE as usize) << 24 > limits::FIRST_FRAME,
    "a frame that begins like TLS would be too long for a first frame"
);
