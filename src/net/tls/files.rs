//! The files of TLS: certificates, keys and lists of revoked ones, in PEM.
//!
//! What is wrong is said with the flag and the file, and with what to do, as operators meet it at a start.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

/// Files that can't be used: which, why, and what to do.
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

/// Certificates that others are judged by.
#[derive(Debug, Default)]
pub struct Listed {
    pub certificates: Vec<CertificateDer<'static>>,
    pub revoked: Vec<CertificateRevocationListDer<'static>>,
}

/// A certificate, and those that lead from it to its CA.
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
            "the key is encrypted, and there is nobody to ask for its password: write it without one \
             (openssl pkey -in OLD -out NEW) to a file that only zrsd may read (chmod 600)",
        );
    }
    bad(flag, file, "there is no private key in it (-----BEGIN PRIVATE KEY-----); --tls-key says where it is")
}

/// The certificates in a file, and the lists of revoked ones; or those in the files of a folder that are called like such:
/// `*.pem`, `*.crt`, `*.crl`, and the names that `openssl rehash` gives. A file with such a name and nothing to read in it is
/// refused: if it is a list of revoked ones in another format, those would be let in.
pub fn trusted(flag: &str, path: &Path) -> Result<Listed, BadTls> {
    let mut found = Listed::default();
    for file in files(flag, path)? {
        let text = read(flag, &file)?;
        let mut more = listed(flag, &file, &text)?;
        let is_empty = more.certificates.is_empty() && more.revoked.is_empty();
        if is_empty && file != path && !holds(&text, b"PRIVATE KEY-----") {
            let why = "there is nothing in it that can be read: PEM is (openssl x509 -in OLD -inform DER -out NEW, or crl \
                       for x509), under another name it is left alone";
            return bad(flag, &file, why);
        }
        found.certificates.append(&mut more.certificates);
        found.revoked.append(&mut more.revoked);
    }
    if found.certificates.is_empty() {
        let why = match path.is_dir() {
            true => "no file there that is called *.pem, *.crt or as openssl rehash does it has a certificate in it",
            false => "there is no certificate in it (-----BEGIN CERTIFICATE-----)",
        };
        return bad(flag, path, why);
    }
    // A folder has each certificate twice, by its name and by its hash.
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

/// `x.pem`, `x.crt`, `x.crl`; `0123abcd.0` for a certificate and `0123abcd.r0` for a list of revoked ones.
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
        (Err(why), _) | (_, Err(why)) => bad(flag, file, format_args!("it is no PEM file: {why}")),
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
