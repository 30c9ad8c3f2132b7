//! Facts about a certificate that rustls does not tell: when it is valid, its key, whether it is a CA's, and its name
//! for people.
//!
//! This reader takes certificates that webpki refuses: of version 1, or a CA's in the place of a server's or client's.
//! Operators list such certificates themselves, and then only these facts count.
//!
//! **Promises.** Any bytes give the facts or `None`. Nothing is verified here.

/// The facts of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts<'a> {
    /// From when to when the certificate is valid, in seconds since the Unix epoch, both included.
    pub valid: (i64, i64),
    /// The subjectPublicKeyInfo, as DER.
    pub key: &'a [u8],
    /// Whether the certificate may sign others.
    pub is_ca: bool,
    /// Whether the certificate names hosts (a subjectAltName).
    pub has_names: bool,
    /// The last common name of its subject, without control characters.
    pub common_name: Option<String>,
}

const INTEGER: u8 = 0x02;
const OID: u8 = 0x06;
const OCTETS: u8 = 0x04;
const BOOLEAN: u8 = 0x01;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
const COMMON_NAME: &[u8] = &[0x55, 4, 3];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1d, 0x11];
/// Characters of a common name that are shown.
const SHOWN: usize = 64;

/// Reads a certificate.
pub fn facts(certificate: &[u8]) -> Option<Facts<'_>> {
    let mut rest = certificate;
    let mut outer = take(&mut rest, SEQUENCE)?.inside;
    let mut body = take(&mut outer, SEQUENCE)?.inside;
    let is_v1 = take(&mut body, VERSION).is_none();
    take(&mut body, INTEGER)?;
    take(&mut body, SEQUENCE)?;
    let issuer = take(&mut body, SEQUENCE)?;
    let mut valid = take(&mut body, SEQUENCE)?.inside;
    let valid = (time(&mut valid)?, time(&mut valid)?);
    let subject = take(&mut body, SEQUENCE)?;
    let key = take(&mut body, SEQUENCE)?.whole;
    let is_ca = match is_v1 {
        // Version 1 has no field for it. A self-signed certificate counts as a CA's, as in other programs.
        true => issuer.inside == subject.inside,
        false => says_ca(body).unwrap_or(false),
    };
    let has_names = extension(body, ALTERNATIVE_NAMES).is_some();
    Some(Facts { valid, key, is_ca, has_names, common_name: common_name(subject.inside) })
}

struct Element<'a> {
    inside: &'a [u8],
    whole: &'a [u8],
}

/// Removes an element from the front of `rest`, if it has this tag.
fn take<'a>(rest: &mut &'a [u8], wanted: u8) -> Option<Element<'a>> {
    let (&tag, after) = rest.split_first()?;
    if tag != wanted {
        return None;
    }
    let (&first, mut after) = after.split_first()?;
    let mut length = usize::from(first);
    if first >= 0x80 {
        let bytes = usize::from(first & 0x7f);
        if bytes == 0 || bytes > 3 {
            return None;
        }
        let (digits, further) = after.split_at_checked(bytes)?;
        length = digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit));
        after = further;
    }
    let (inside, further) = after.split_at_checked(length)?;
    let whole = &rest[..rest.len() - further.len()];
    *rest = further;
    Some(Element { inside, whole })
}

fn time(rest: &mut &[u8]) -> Option<i64> {
    let (text, digits) = match rest.first() {
        Some(&UTC_TIME) => (take(rest, UTC_TIME)?.inside, 2),
        _ => (take(rest, GENERALIZED_TIME)?.inside, 4),
    };
    let text = text.strip_suffix(b"Z").filter(|text| text.len() == digits + 10)?;
    let number = |from: usize, length: usize| {
        let part = std::str::from_utf8(&text[from..from + length]).ok()?;
        if part.bytes().all(|b| b.is_ascii_digit()) { part.parse::<i64>().ok() } else { None }
    };
    let year = match (digits, number(0, digits)?) {
        (2, year) if year >= 50 => 1900 + year,
        (2, year) => 2000 + year,
        (_, year) => year,
    };
    let of = |part: usize| number(digits + part * 2, 2);
    Some(days(year, of(0)?, of(1)?) * 86_400 + of(2)? * 3600 + of(3)? * 60 + of(4)?)
}

/// Days since the Unix epoch, in the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March, so that a leap day is the last of its year.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * month + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Whether the basic constraints name a CA.
fn says_ca(rest: &[u8]) -> Option<bool> {
    let mut value = extension(rest, BASIC_CONSTRAINTS)?;
    let mut constraints = take(&mut value, SEQUENCE)?.inside;
    Some(take(&mut constraints, BOOLEAN).is_some_and(|yes| yes.inside == [0xff]))
}

/// The value of an extension. `rest` is the part of the certificate after the key.
fn extension<'a>(mut rest: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    // (Unique identifiers, long out of use, may come before the extensions.)
    while *rest.first()? != EXTENSIONS {
        let tag = *rest.first()?;
        take(&mut rest, tag)?;
    }
    let mut explicit = take(&mut rest, EXTENSIONS)?.inside;
    let mut extensions = take(&mut explicit, SEQUENCE)?.inside;
    while let Some(extension) = take(&mut extensions, SEQUENCE) {
        let mut extension = extension.inside;
        if take(&mut extension, OID)?.inside == wanted {
            take(&mut extension, BOOLEAN);
            return Some(take(&mut extension, OCTETS)?.inside);
        }
    }
    None
}

fn common_name(mut subject: &[u8]) -> Option<String> {
    let mut found = None;
    while let Some(set) = take(&mut subject, SET) {
        let mut set = set.inside;
        while let Some(attribute) = take(&mut set, SEQUENCE) {
            let mut attribute = attribute.inside;
            if take(&mut attribute, OID)?.inside == COMMON_NAME {
                let tag = *attribute.first()?;
                found = Some(take(&mut attribute, tag)?.inside);
            }
        }
    }
    let shown = |c: char| if c.is_control() { '?' } else { c };
    found.map(|name| String::from_utf8_lossy(name).chars().map(shown).take(SHOWN).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_as_the_calendar_has_them() {
        assert_eq!(days(1970, 1, 1), 0);
        assert_eq!(days(2000, 3, 1), 11_017);
        assert_eq!(days(2024, 2, 29), 19_782);
        assert_eq!(days(1969, 12, 31), -1);
        assert_eq!(days(3004, 12, 18), 378_012);
    }

    #[test]
    fn times() {
        let of = |text: &[u8], tag| {
            let mut der = vec![tag, u8::try_from(text.len()).unwrap()];
            der.extend(text);
            time(&mut &der[..])
        };
        assert_eq!(of(b"700101000001Z", UTC_TIME), Some(1));
        assert_eq!(of(b"491231235959Z", UTC_TIME), Some(2_524_607_999));
        assert_eq!(of(b"30041218090136Z", GENERALIZED_TIME), Some(378_012 * 86_400 + 9 * 3600 + 96));
        for poor in [&b"700101000001"[..], b"7001010001Z", b"70010100000+Z", b"30041218090136Z"] {
            assert_eq!(of(poor, UTC_TIME), None);
        }
    }

    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = facts(&bytes);
        }

        #[test]
        fn a_damaged_certificate_is_read_or_refused(at in 0usize..600, to in any::<u8>(), length in 0usize..700) {
            let mut bytes = super::super::testing::certificate("client").to_vec();
            if let Some(byte) = bytes.get_mut(at) {
                *byte = to;
            }
            bytes.truncate(length);
            let _ = facts(&bytes);
        }
    }
}
