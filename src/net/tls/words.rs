//! Faults of TLS, in words for the log. The log line begins with the other end, which is the 'it' of these texts.

use std::io;

use rustls::{AlertDescription, CertificateError, Error};

use super::trust::NotOurs;

/// Replaces the words of rustls in a fault by clearer ones.
pub fn clearer(fault: io::Error) -> io::Error {
    match fault.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(error) => io::Error::new(io::ErrorKind::PermissionDenied, explain(error)),
        None => fault,
    }
}

/// This program's side of a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeSide {
    Accepting,
    Connecting,
    ConnectingToPeer,
}

/// Explains a fault of a handshake.
pub fn explain_handshake(side: HandshakeSide, fault: io::Error) -> io::Error {
    let closed = match side {
        // (asyncio closes without an alert.)
        HandshakeSide::Accepting => {
            "does it trust the CA of --tls-cert, and does the certificate name the host that it connects to?"
        }
        HandshakeSide::Connecting => "does it speak TLS?",
        HandshakeSide::ConnectingToPeer => "does it speak TLS? All nodes have --tls-cert, or none has",
    };
    match (fault.kind(), fault.get_ref().and_then(|inner| inner.downcast_ref::<Error>())) {
        (io::ErrorKind::UnexpectedEof, _) => {
            io::Error::new(fault.kind(), format!("it closed the connection during the TLS handshake ({closed})"))
        }
        (_, Some(Error::InvalidMessage(_))) if side == HandshakeSide::ConnectingToPeer => {
            let why = "it does not speak TLS, and this node does: give all nodes --tls-cert, or none";
            io::Error::new(io::ErrorKind::PermissionDenied, why)
        }
        _ => clearer(fault),
    }
}

/// Explains an error of rustls.
pub fn explain(error: &Error) -> String {
    match error {
        Error::AlertReceived(alert) => match alert {
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::AccessDenied => {
                format!("it refused our certificate ({alert:?}: compare the CAs that it trusts with --tls-cert)")
            }
            AlertDescription::CertificateRequired => "it asks for a certificate, and this program has none".into(),
            other => format!("it ended TLS with the alert {other:?}"),
        },
        Error::NoCertificatesPresented => "it has no certificate".into(),
        Error::InvalidCertificate(why) => format!("its certificate {}", certificate(why)),
        Error::InvalidMessage(_) => "it does not speak TLS, or sends damaged messages".into(),
        Error::PeerIncompatible(why) => format!("TLS 1.2 or 1.3 is needed: {why:?}"),
        other => other.to_string(),
    }
}

fn certificate(why: &CertificateError) -> String {
    use CertificateError as E;
    match why {
        E::Expired | E::ExpiredContext { .. } => "has expired".into(),
        E::NotValidYet | E::NotValidYetContext { .. } => "is not valid yet (compare the clocks)".into(),
        E::Revoked => "was revoked".into(),
        E::UnknownRevocationStatus => {
            "is signed by a CA without a list of revoked certificates, while other CAs have lists".into()
        }
        E::ExpiredRevocationList | E::ExpiredRevocationListContext { .. } => {
            "can't be checked: the list of revoked certificates has expired".into()
        }
        E::UnknownIssuer => "is not listed, and is signed by no listed CA".into(),
        E::NotValidForName | E::NotValidForNameContext { .. } => {
            "is for another host: its subjectAltName must name the host of the address".into()
        }
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => {
            "has the wrong purpose: its extendedKeyUsage must have clientAuth for a client, serverAuth for a server"
                .into()
        }
        E::BadSignature => "is not signed by the issuer that it names".into(),
        E::Other(why) if why.0.is::<NotOurs>() => why.to_string(),
        other => {
            let words = format!("{other:?}");
            match words.contains("CaUsedAsEndEntity") {
                true => "is a CA's (basicConstraints CA:TRUE), and is not listed itself".into(),
                false => format!("is refused: {words}"),
            }
        }
    }
}
