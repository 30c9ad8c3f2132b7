//! The files of TLS: certificates, keys and lists of revoked certificates, in PEM.
//!
//! Every error names the flag and the file and says what to do, as operators see these errors at a start.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

/// A file that can't be used: the text says which, why, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadTls(pub String);

impl fmt::Display for BadTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadTls {}

pub fn bad<T>(flag: &str, file: &Path, why: impl fmt::Display) -> Result<T, BadTls> {
    Err(BadTls(format!("{flag} {}: {why}", file.display())))
}

/// The certificates of a list of trusted ones.
#[derive(Debug, Default)]
pub struct Listed {
    pub certificates: Vec<CertificateDer<'static>>,
    pub revoked: Vec<CertificateRevocationListDer<'static>>,
}

/// A certificate, and the certificates that lead from it to its CA.
pub fn chain(flag: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, BadTls> {
    let found = listed(flag, file, &read(flag, file)?)?.certificates;
    if found.is_empty() {
        return bad(flag, file, "there is no certificate in it (-----BEGIN CERTIFICATE-----)");
    }
    Ok(found)
}

/// A private key that is not encrypted.
pub fn key(flag: &str, file: &Path) -> Result<PrivateKeyDer<'static>, BadTls> {
    let text = read(flag, file)?;
    if let Ok(key) = PrivateKeyDer::from_pem_slice(&text) {
        return Ok(key);
    }
    if holds(&text, b"ENCRYPTED") {
        return bad(
            flag,
            file,
            "the key is encrypted, and zrsd can't ask for a password: write the key without one \
             (openssl pkey -in OLD -out NEW) to a file that only zrsd may read (chmod 600)",
        );
    }
    bad(flag, file, "there is no private key in it (-----BEGIN PRIVATE KEY-----); --tls-key names the file of the key")
}

/// The certificates and lists of revoked certificates in a file; or in the files of a folder with the names `*.pem`,
/// `*.crt`, `*.crl`, and those that `openssl rehash` gives. A file with such a name and nothing to read in it is
/// refused: it may be a list of revoked certificates in another format, which would then be trusted.
pub fn trusted(flag: &str, path: &Path) -> Result<Listed, BadTls> {
    let mut found = Listed::default();
    for file in files(flag, path)? {
        let text = read(flag, &file)?;
        let mut more = listed(flag, &file, &text)?;
        let is_empty = more.certificates.is_empty() && more.revoked.is_empty();
        if is_empty && file != path && !holds(&text, b"PRIVATE KEY-----") {
            let why = "there is nothing in it that can be read: zrsd reads PEM (openssl x509 -in OLD -inform DER -out \
                       NEW, or crl for x509), and ignores files with other names";
            return bad(flag, &file, why);
        }
        found.certificates.append(&mut more.certificates);
        found.revoked.append(&mut more.revoked);
    }
    if found.certificates.is_empty() {
        let why = match path.is_dir() {
            true => "no file there with a name like *.pem, *.crt, or those of openssl rehash, has a certificate in it",
            false => "there is no certificate in it (-----BEGIN CERTIFICATE-----)",
        };
        return bad(flag, path, why);
    }
    // `openssl rehash` adds each certificate a second time, under its hash.
    found.certificates.sort_by(|a, b| a.as_ref().cmp(b.as_ref()));
    found.certificates.dedup();
    found.revoked.sort_by(|a, b| a.as_ref().cmp(b.as_ref()));
    found.revoked.dedup();
    Ok(found)
}

fn files(flag: &str, path: &Path) -> Result<Vec<PathBuf>, BadTls> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = fs::read_dir(path).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
    match entries {
        Ok(entries) => {
            let mut files: Vec<PathBuf> = entries.iter().map(fs::DirEntry::path).filter(|file| is_one(file)).collect();
            files.sort();
            Ok(files)
        }
        Err(why) => bad(flag, path, why),
    }
}

/// Whether a file's name is that of a certificate (`x.pem`, `x.crt`, `0123abcd.0`) or of a list of revoked
/// certificates (`x.crl`, `0123abcd.r0`).
fn is_one(file: &Path) -> bool {
    let part = |part: Option<&std::ffi::OsStr>| part.and_then(|part| part.to_str()).unwrap_or_default().to_owned();
    let (stem, ending) = (part(file.file_stem()), part(file.extension()));
    let number = ending.strip_prefix('r').unwrap_or(&ending);
    let hashed = stem.len() == 8
        && stem.bytes().all(|b| b.is_ascii_hexdigit())
        && !number.is_empty()
        && number.bytes().all(|b| b.is_ascii_digit());
    hashed || ["pem", "crt", "crl"].contains(&ending.to_ascii_lowercase().as_str())
}

fn listed(flag: &str, file: &Path, text: &[u8]) -> Result<Listed, BadTls> {
    let certificates = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>();
    let revoked = CertificateRevocationListDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>();
    match (certificates, revoked) {
        (Ok(certificates), Ok(revoked)) => Ok(Listed { certificates, revoked }),
        (Err(why), _) | (_, Err(why)) => bad(flag, file, format_args!("it is not a PEM file: {why}")),
    }
}

fn holds(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

fn read(flag: &str, file: &Path) -> Result<Vec<u8>, BadTls> {
    fs::read(file).or_else(|why| bad(flag, file, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_folder() {
        for good in ["a.pem", "b.CRT", "c.crl", "0123abcd.0", "0123abcd.12", "0123abcd.r0"] {
            assert!(is_one(Path::new(good)), "{good}");
        }
        for other in ["a.key", "README", "0123abcd", "0123abc.0", "0123abcd.x", "0123abcd.r", ".pem"] {
            assert!(!is_one(Path::new(other)), "{other}");
        }
    }
}
