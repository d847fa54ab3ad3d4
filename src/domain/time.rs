//! Moments and their two written forms: milliseconds on the wire, calendar digits in file ids.

use std::fmt;

use chrono::{DateTime, Utc};

/// Milliseconds, either since 1970 or as a span; which of the two is in the name of the field.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Millis(pub(crate) i64);

/// One day.
pub(crate) const DAY_MS: i64 = 24 * 60 * 60 * 1000;

impl Millis {
    /// The moment `by_ms` later; stops at the ends of the range instead of wrapping.
    pub(crate) fn plus(self, by_ms: i64) -> Self {
        Self(self.0.saturating_add(by_ms))
    }

    fn calendar(self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.0).unwrap_or(DateTime::UNIX_EPOCH)
    }

    /// `YYYYMMDD` in UTC, as it stands in file ids.
    pub(crate) fn day_digits(self) -> String {
        self.calendar().format("%Y%m%d").to_string()
    }

    /// `HHMMSS` in UTC, as it stands in file ids.
    pub(crate) fn time_digits(self) -> String {
        self.calendar().format("%H%M%S").to_string()
    }

    /// `YYYY-MM-DD` and `HH`, the names of the folders blobs are kept in.
    pub(crate) fn folder_names(self) -> (String, String) {
        let moment = self.calendar();
        (moment.format("%Y-%m-%d").to_string(), moment.format("%H").to_string())
    }

    /// The first moment of the next day in UTC.
    pub(crate) fn next_midnight(self) -> Self {
        Self((self.0.div_euclid(DAY_MS) + 1).saturating_mul(DAY_MS))
    }

    /// RFC 3339 in UTC with milliseconds, for people.
    pub(crate) fn readable(self) -> String {
        self.calendar().format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
    }
}

impl fmt::Debug for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calendar_digits_are_utc() {
        let moment = Millis(1_641_308_478_123);
        assert_eq!(moment.day_digits(), "20220104");
        assert_eq!(moment.time_digits(), "150118");
        assert_eq!(moment.folder_names(), ("2022-01-04".to_owned(), "15".to_owned()));
    }

    #[test]
    fn people_read_moments_in_utc() {
        assert_eq!(Millis(1_641_308_478_123).readable(), "2022-01-04T15:01:18.123Z");
    }

    #[test]
    fn midnight_is_strictly_later() {
        assert_eq!(Millis(0).next_midnight(), Millis(DAY_MS));
        assert_eq!(Millis(DAY_MS - 1).next_midnight(), Millis(DAY_MS));
    }
}
