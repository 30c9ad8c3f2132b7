//! Object ids and transaction ids: 8 bytes each, big-endian on the wire and in keys, so that byte order is number
//! order.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// An object id. The root object of a database is `Oid(0)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Oid(pub u64);

/// A transaction id; also the *serial* of every revision that the transaction wrote.
///
/// A tid has the shape of a ZODB `TimeStamp`: minutes since 1900 in the calendar of 31-day months in the upper four
/// bytes, the second within the minute times 2^32/60 in the lower four (`persistent.timestamp`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Tid(pub u64);

/// The number of a storage within a cluster; the store has the storage's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StorageId(pub u32);

impl Oid {
    /// The root object of a database.
    pub const ROOT: Oid = Oid(0);
    /// The greatest object id.
    pub const MAX: Oid = Oid(u64::MAX);
    /// From here on ids are never given out: objects that have such ids (from tools that count down, or draw ids at
    /// random) do not end the supply of ids for new objects.
    pub const NOT_GIVEN: Oid = Oid(1 << 63);

    /// From where on ids may be given out once this one is in use, as `FileStorage` does: it gives none that is smaller
    /// than one in use. `None`: this one does not matter for that.
    pub fn next_given(self) -> Option<Oid> {
        (self < Oid::NOT_GIVEN).then(|| Oid(self.0 + 1))
    }

    /// The id as on the wire and in keys: big-endian.
    pub fn to_bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }

    /// `None` unless `bytes` are exactly eight.
    pub fn from_bytes(bytes: &[u8]) -> Option<Oid> {
        Some(Oid(u64::from_be_bytes(bytes.try_into().ok()?)))
    }
}

const SECONDS_SCALE: f64 = (1u64 << 32) as f64 / 60.0;
/// Seconds from 1901 to the Unix epoch.
const EPOCH_FROM_1901: i64 = 25_202 * 86_400;

impl Tid {
    /// `z64`: "no transaction yet", and the serial of an object that was never stored.
    pub const ZERO: Tid = Tid(0);
    /// Greater than every tid that a clock can make; `maxtid` of ZODB.
    pub const MAX: Tid = Tid(0x7fff_ffff_ffff_ffff);

    /// The tid as on the wire and in keys: big-endian.
    pub fn to_bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }

    /// `None` unless `bytes` are exactly eight.
    pub fn from_bytes(bytes: &[u8]) -> Option<Tid> {
        Some(Tid(u64::from_be_bytes(bytes.try_into().ok()?)))
    }

    /// The tid of a moment, the time since the Unix epoch.
    pub fn from_unix(since_epoch: Duration) -> Tid {
        let secs = since_epoch.as_secs();
        let (year, month, day) = civil_from_days((secs / 86_400) as i64);
        let minute_of_day = secs % 86_400 / 60;
        let months = (year - 1900) as u64 * 12 + (month - 1) as u64;
        let minutes = (months * 31 + (day - 1) as u64) * 1440 + minute_of_day;
        let second = (secs % 60) as f64 + f64::from(since_epoch.subsec_nanos()) / 1e9;
        Tid(minutes << 32 | (second * SECONDS_SCALE) as u64)
    }

    /// The tid of a moment in Python's form, a float (a pack's time): to the last bit the same as
    /// `TimeStamp(*time.gmtime(t)[:5] + (t % 60,)).raw()`. `None` for a float that is not a moment from 1970 to 9999.
    pub fn from_unix_seconds(seconds: f64) -> Option<Tid> {
        if !(0.0..=253_402_300_799.0).contains(&seconds) {
            return None;
        }
        let minute = Tid::from_unix(Duration::from_secs(seconds as u64 / 60 * 60));
        Some(Tid(minute.0 | ((seconds % 60.0) / (60.0 / 4_294_967_296.0)) as u64))
    }

    /// Seconds since the Unix epoch, to the last bit the same as `TimeStamp(tid).timeTime()`, which counts from 1901
    /// first.
    pub fn unix_seconds(self) -> f64 {
        let minutes = self.0 >> 32;
        let days31 = minutes / 1440;
        let (months, day) = (days31 / 31, days31 % 31);
        let days = days_from_civil(1900 + (months / 12) as i64, (months % 12) as i64 + 1, day as i64 + 1);
        let second = (self.0 & 0xffff_ffff) as f64 * (60.0 / 4_294_967_296.0);
        let minute = days * 86_400 + (minutes % 1440 * 60) as i64;
        (minute + EPOCH_FROM_1901) as f64 + second - EPOCH_FROM_1901 as f64
    }

    /// The tid of `since_epoch`, or the next one after `last` if the clock is not past `last` (or was set back).
    pub fn after(last: Tid, since_epoch: Duration) -> Tid {
        Tid::from_unix(since_epoch).max(last.next())
    }

    /// The next greater tid.
    pub fn next(self) -> Tid {
        Tid(self.0.saturating_add(1))
    }

    /// The next smaller tid.
    pub fn previous(self) -> Tid {
        Tid(self.0.saturating_sub(1))
    }
}

/// Days since 1970-01-01 to (year, month 1-12, day 1-31); H. Hinnant, "chrono-Compatible Low-Level Date Algorithms".
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(month <= 2), month, day)
}

/// The inverse of [`civil_from_days`].
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let y = year - i64::from(month <= 2);
    let era = y.div_euclid(400);
    let yoe = y.rem_euclid(400);
    let doy = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    let doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    era * 146_097 + doe - 719_468
}

impl fmt::Display for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for Tid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for StorageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tid_is_the_timestamp_that_python_makes() {
        // persistent.timestamp.TimeStamp(2026, 9, 12, 10, 30, 15.5).raw() -> 040d1df68 and so on, worked out by hand:
        // ((126 * 12 + 8) * 31 + 11) * 1440 + 630 minutes; 15.5 s of 60 s.
        let minutes = ((126u64 * 12 + 8) * 31 + 11) * 1440 + 630;
        let expected = minutes << 32 | (15.5f64 / 60.0 * 4294967296.0) as u64;
        let since_epoch = Duration::from_millis(1_789_209_015_500);
        assert_eq!(Tid::from_unix(since_epoch).0, expected);
        assert!((Tid(expected).unix_seconds() - 1_789_209_015.5).abs() < 1e-6);
        // TimeStamp(bytes.fromhex("040d31ff84f1076e")).timeTime()
        assert_eq!(Tid(0x040d_31ff_84f1_076e).unix_seconds(), 1_795_384_291.158_168_8);
    }

    #[test]
    fn moments_are_those_of_python_to_the_last_bit() {
        // (TimeStamp(tid).timeTime(), and TimeStamp(*time.gmtime(t)[:5] + (t % 60,)).raw() of that)
        for (tid, seconds, back) in [
            (0x040d_31fa_8a2d_4383, 1_795_383_992.385_19, 0x040d_31fa_8a2d_4377),
            (0x040d_31fa_8e67_57a4, 1_795_383_993.375_862_6, 0x040d_31fa_8e67_5799),
            (0x03f4_a7b2_c000_0001, 1_700_616_165.0, 0x03f4_a7b2_c000_0000),
        ] {
            assert_eq!(Tid(tid).unix_seconds(), seconds);
            assert_eq!(Tid::from_unix_seconds(seconds), Some(Tid(back)));
        }
        assert_eq!(Tid::from_unix_seconds(1.5), Some(Tid(0x023c_2b00_0666_6666)));
        for never in [-1.0, f64::NAN, f64::INFINITY, 1e18] {
            assert_eq!(Tid::from_unix_seconds(never), None);
        }
    }

    #[test]
    fn tids_grow_though_the_clock_goes_back() {
        let noon = Duration::from_secs(1_789_209_000);
        let first = Tid::after(Tid::ZERO, noon);
        let second = Tid::after(first, noon - Duration::from_secs(3600));
        assert_eq!(second, first.next());
    }

    #[test]
    fn days_and_dates_are_inverse() {
        for days in (-800_000..800_000).step_by(373) {
            let (y, m, d) = civil_from_days(days);
            assert_eq!(days_from_civil(y, m, d), days);
        }
    }
}
