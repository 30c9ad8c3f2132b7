//! Trust: the rules by which certificates are trusted.
//!
//! A [`Trust`] is a list of certificates. It trusts a certificate that is listed itself, while the certificate is
//! valid and whatever its other fields say (ZEO sites list the self-signed certificates of their clients); and a
//! certificate that a listed CA has signed, directly or through others, by the rules of webpki. A listed certificate
//! that is not a CA's signs no other.
//!
//! If several certificates are listed, each that names hosts is trusted for those hosts only, as a signed one is: so
//! the owner of one key can't pass for the others. A certificate that is listed alone may be the common one of all
//! nodes, whatever hosts it names.
//!
//! Lists of revoked certificates count for signed certificates, not for those that are listed themselves.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, verify_tls12_signature, verify_tls13_signature, verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore, SignatureScheme,
};

use super::files::{BadTls, Listed, bad};
use super::x509;

/// For which hosts a certificate is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Belief {
    /// Any: it is the only certificate in the list, or is listed and names no hosts.
    ForAnyHost,
    /// The hosts that it names: a listed CA has signed it, or it is one of several that are listed.
    ForItsHosts,
}

/// A list of trusted certificates and CAs.
#[derive(Debug)]
pub struct Trust {
    exact: BTreeSet<Vec<u8>>,
    /// The verifiers for accepted and for made connections; `None`: no CA is listed.
    by_ca: Option<Verifiers>,
    /// Whether the only certificate is this node's own.
    is_own: bool,
}

/// Why a peer is refused where all nodes must have the same certificate.
#[derive(Debug)]
pub struct NotOurs;

impl fmt::Display for NotOurs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "is not the one of this node, and without --tls-peer-ca all nodes must have the same certificate: if each has \
             its own, give all of them --tls-peer-ca with the CA that has signed these",
        )
    }
}

impl std::error::Error for NotOurs {}

impl Trust {
    /// `flag` and `path` name the list in errors.
    pub fn new(
        flag: &str,
        path: &std::path::Path,
        listed: Listed,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Trust, BadTls> {
        let mut roots = RootCertStore::empty();
        for (n, certificate) in listed.certificates.iter().enumerate() {
            let Some(facts) = x509::facts(certificate) else {
                return bad(flag, path, format_args!("certificate {} in it can't be read", n + 1));
            };
            if facts.is_ca
                && let Err(why) = roots.add(certificate.clone())
            {
                let name = facts.common_name.unwrap_or_default();
                return bad(flag, path, format_args!("the CA {name:?} (certificate {}) can't be used: {why}", n + 1));
            }
        }
        if roots.is_empty() && !listed.revoked.is_empty() {
            let why = "there is a list of revoked certificates (X509 CRL) and no CA: the list would have no effect, as \
                       a certificate that is listed itself is trusted until it is removed";
            return bad(flag, path, why);
        }
        let by_ca = if roots.is_empty() { None } else { Some(by_ca(flag, path, roots, listed.revoked, provider)?) };
        let exact = listed.certificates.iter().map(|certificate| certificate.to_vec()).collect();
        Ok(Trust { exact, by_ca, is_own: false })
    }

    /// Trusts this node's own certificate and no other.
    pub fn only(certificate: &CertificateDer<'_>) -> Trust {
        Trust { exact: BTreeSet::from([certificate.to_vec()]), by_ca: None, is_own: true }
    }

    /// The verifiers by CA, for a certificate that is not listed itself.
    fn by_ca(&self) -> Result<&Verifiers, Error> {
        let unknown = || match self.is_own {
            true => CertificateError::Other(OtherError(Arc::new(NotOurs))),
            false => CertificateError::UnknownIssuer,
        };
        self.by_ca.as_ref().ok_or_else(|| unknown().into())
    }

    /// Checks the certificate of an accepted connection.
    pub fn of_client(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<Belief, Error> {
        let (end, between) = chain.split_first().ok_or(Error::NoCertificatesPresented)?;
        if self.exact.contains(end.as_ref()) {
            is_valid(end, now)?;
            return Ok(self.of_listed(end));
        }
        let (by_ca, _) = self.by_ca()?;
        by_ca.verify_client_cert(end, between, now).map(|_| Belief::ForItsHosts)
    }

    fn of_listed(&self, end: &CertificateDer<'_>) -> Belief {
        let has_names = x509::facts(end).is_some_and(|facts| facts.has_names);
        if self.exact.len() > 1 && has_names { Belief::ForItsHosts } else { Belief::ForAnyHost }
    }

    fn of_server(
        &self,
        end: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        if self.exact.contains(end.as_ref()) {
            is_valid(end, now)?;
            return match self.of_listed(end) {
                Belief::ForAnyHost => Ok(()),
                Belief::ForItsHosts => is_for(end, name),
            };
        }
        let (_, by_ca) = self.by_ca()?;
        by_ca.verify_server_cert(end, between, name, &[], now).map(drop)
    }
}

type Verifiers = (Arc<dyn ClientCertVerifier>, Arc<WebPkiServerVerifier>);

/// As with stock ZEO, lists of revoked certificates count for the last certificate of a chain, and must exist for
/// every CA if there is one at all.
fn by_ca(
    flag: &str,
    path: &std::path::Path,
    roots: RootCertStore,
    revoked: Vec<rustls::pki_types::CertificateRevocationListDer<'static>>,
    provider: &Arc<CryptoProvider>,
) -> Result<Verifiers, BadTls> {
    let roots = Arc::new(roots);
    let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
        .with_crls(revoked.clone())
        .only_check_end_entity_revocation()
        .enforce_revocation_expiration()
        .build();
    let servers = WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
        .with_crls(revoked)
        .only_check_end_entity_revocation()
        .enforce_revocation_expiration()
        .build();
    match (clients, servers) {
        (Ok(clients), Ok(servers)) => Ok((clients, servers)),
        (Err(why), _) | (_, Err(why)) => bad(flag, path, why),
    }
}

fn is_valid(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let facts = x509::facts(certificate).ok_or(CertificateError::BadEncoding)?;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    match facts.valid {
        (from, _) if now < from => Err(CertificateError::NotValidYet.into()),
        (_, to) if now > to => Err(CertificateError::Expired.into()),
        _ => Ok(()),
    }
}

/// `Ok` if the certificate names `host`.
pub fn names_host(certificate: &CertificateDer<'_>, host: &str) -> Result<(), Error> {
    let name = server_name(host).ok_or_else(|| Error::General(format!("{host} is not the name of a host")))?;
    is_for(certificate, &name)
}

fn is_for(certificate: &CertificateDer<'_>, name: &ServerName<'_>) -> Result<(), Error> {
    rustls::client::verify_server_name(&ParsedCertificate::try_from(certificate)?, name)
}

/// A host in the form that rustls expects.
pub fn server_name(host: &str) -> Option<ServerName<'static>> {
    ServerName::try_from(host.to_owned()).ok()
}

/// Checks clients and peers that connect to this server: one of the lists must trust the certificate. Without a list
/// of clients a connection needs none.
pub struct ClientVerifier {
    pub clients: Option<Arc<Trust>>,
    pub peers: Option<Arc<Trust>>,
    pub provider: Arc<CryptoProvider>,
}

impl fmt::Debug for ClientVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientVerifier")
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn offer_client_auth(&self) -> bool {
        self.clients.is_some() || self.peers.is_some()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.clients.is_some()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let chain: Vec<CertificateDer<'_>> = [end].into_iter().chain(between).cloned().collect();
        let is_peer = self.peers.as_ref().is_some_and(|peers| peers.of_client(&chain, now).is_ok());
        if let (false, Some(clients)) = (is_peer, &self.clients) {
            clients.of_client(&chain, now)?;
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        has_signed(message, certificate, signed, &self.provider)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Checks the servers that this program connects to: the list must trust the certificate.
#[derive(Debug)]
pub struct ServerVerifier {
    pub trust: Arc<Trust>,
    pub provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.trust.of_server(end, between, name, now).map(|_| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        has_signed(message, certificate, signed, &self.provider)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Checks that the handshake was signed with the key of the certificate, even if webpki refuses the certificate.
fn has_signed(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
    provider: &CryptoProvider,
) -> Result<HandshakeSignatureValid, Error> {
    let algorithms = &provider.signature_verification_algorithms;
    if ParsedCertificate::try_from(certificate).is_ok() {
        return verify_tls13_signature(message, certificate, signed, algorithms);
    }
    let facts = x509::facts(certificate).ok_or(CertificateError::BadEncoding)?;
    let key = SubjectPublicKeyInfoDer::from(facts.key);
    verify_tls13_signature_with_raw_key(message, &key, signed, algorithms)
}
