//! What went wrong with TLS, in words for the log.

use std::io;

use rustls::{AlertDescription, CertificateError, Error};

/// The fault, with rustls' own words replaced by clearer ones where it is one of rustls.
pub fn told(fault: io::Error) -> io::Error {
    match fault.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(error) => io::Error::new(io::ErrorKind::PermissionDenied, of(error)),
        None => fault,
    }
}

/// Which end of a handshake we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Accepting,
    Connecting,
}

/// A fault of a handshake.
pub fn of_handshake(end: End, fault: io::Error) -> io::Error {
    let closed = match end {
        // (asyncio does not say why it leaves.)
        End::Accepting => "does it believe the CA of --tls-cert, and is the certificate for the host it connects to?",
        End::Connecting => "does it speak TLS?",
    };
    match fault.kind() {
        io::ErrorKind::UnexpectedEof => {
            io::Error::new(fault.kind(), format!("it closed the connection during the TLS handshake ({closed})"))
        }
        _ => told(fault),
    }
}

/// An error of rustls.
pub fn of(error: &Error) -> String {
    match error {
        Error::AlertReceived(alert) => match alert {
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::AccessDenied => {
                format!("it refused our certificate ({alert:?}: compare what it trusts with what --tls-cert has)")
            }
            AlertDescription::CertificateRequired => "it wants a certificate and was given none".into(),
            other => format!("it ended TLS with the alert {other:?}"),
        },
        Error::NoCertificatesPresented => "it has no certificate".into(),
        Error::InvalidCertificate(why) => format!("its certificate {}", certificate(why)),
        Error::InvalidMessage(_) => "it does not speak TLS, or not well".into(),
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
        E::UnknownRevocationStatus => "is by a CA of which there is no list of revoked ones, though there are such lists".into(),
        E::ExpiredRevocationList | E::ExpiredRevocationListContext { .. } => {
            "can't be judged: the list of revoked ones has expired".into()
        }
        E::UnknownIssuer => "is not listed, and is by no CA that is".into(),
        E::NotValidForName | E::NotValidForNameContext { .. } => {
            "is for another host: its subjectAltName must have the host of the address".into()
        }
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => {
            "is not for this: its extendedKeyUsage must have clientAuth for who connects, serverAuth for who is connected to"
                .into()
        }
        E::BadSignature => "is not signed by whom it says".into(),
        other => {
            let words = format!("{other:?}");
            match words.contains("CaUsedAsEndEntity") {
                true => "says that it is a CA's (basicConstraints CA:TRUE), and is not listed itself".into(),
                false => format!("is refused: {words}"),
            }
        }
    }
}
