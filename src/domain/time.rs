//! Moments and their two written forms: milliseconds on the wire, calendar digits in file ids.

use std::fmt;

use chrono::{DateTime, Datelike as _, Months, NaiveDateTime, Timelike as _, Utc};

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

    /// The same day and time `years` later; 28 February where there is no 29th.
    pub(crate) fn plus_years(self, years: u32) -> Self {
        let months = Months::new(years.saturating_mul(12));
        let later = DateTime::from_timestamp_millis(self.0)
            .and_then(|moment| moment.checked_add_months(months));
        later.map_or(Self(i64::MAX), |moment| Self(moment.timestamp_millis()))
    }

    fn calendar(self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.0).unwrap_or(DateTime::UNIX_EPOCH)
    }

    /// The digits `YYYYMMDD` in UTC as one number, as they stand in file ids.
    ///
    /// A number because every line of a listing has them, and reading a format text for each takes
    /// longer than reading the line.
    pub(crate) fn day_digits(self) -> u32 {
        let day = self.calendar();
        (day.year().unsigned_abs() * 100 + day.month()) * 100 + day.day()
    }

    /// The digits `HHMMSS` in UTC as one number, as they stand in file ids.
    pub(crate) fn time_digits(self) -> u32 {
        let time = self.calendar();
        (time.hour() * 100 + time.minute()) * 100 + time.second()
    }

    /// Reads `YYYYMMDD` and `HHMMSS` in UTC; None when there is no such second.
    pub(crate) fn from_digits(day: &str, time: &str) -> Option<Self> {
        Self::written(&format!("{day}{time}"), "%Y%m%d%H%M%S")
    }

    /// Reads a date as HTTP headers carry it, `Sun, 06 Nov 1994 08:49:37 GMT`; None when it is
    /// anything else, or names the wrong day of the week.
    pub(crate) fn from_http_date(text: &str) -> Option<Self> {
        let whole = Self::written(text, "%a, %d %b %Y %H:%M:%S GMT")?;
        // The parser takes letters in either case and blanks in any number.
        let written = whole.calendar().format("%a, %d %b %Y %H:%M:%S GMT").to_string();
        (written == text).then_some(whole)
    }

    /// Reads an ISO 8601 moment in UTC or with an offset, with or without a fraction of a second.
    pub(crate) fn from_iso(text: &str) -> Option<Self> {
        let moment = DateTime::parse_from_rfc3339(text).ok()?;
        Some(Self(moment.timestamp_millis()))
    }

    /// The moment as HTTP headers carry it, to the second.
    pub(crate) fn http_date(self) -> String {
        self.calendar().format("%a, %d %b %Y %H:%M:%S GMT").to_string()
    }

    fn written(text: &str, format: &str) -> Option<Self> {
        let moment = NaiveDateTime::parse_from_str(text, format).ok()?;
        Some(Self(moment.and_utc().timestamp_millis()))
    }

    /// `YYYY-MM-DD` and `HH`, the names of the folders blobs are kept in.
    pub(crate) fn folder_names(self) -> (String, String) {
        let moment = self.calendar();
        (moment.format("%Y-%m-%d").to_string(), moment.format("%H").to_string())
    }

    /// Days since 1970 in UTC.
    pub(crate) fn day(self) -> i64 {
        self.0.div_euclid(DAY_MS)
    }

    /// `YYYYMMDDTHHMMSSZ` in UTC, as it stands in signatures.
    pub(crate) fn compact(self) -> String {
        self.calendar().format("%Y%m%dT%H%M%SZ").to_string()
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

/// Milliseconds on the time line of waits: wall time as it was when the process started, and from
/// then on what the monotonic clock counts. So a wait neither grows nor shrinks when the wall clock
/// jumps. A type of its own, because comparing it with wall time would be a fault.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Steady(pub(crate) i64);

impl Steady {
    /// The moment `by_ms` later; stops at the ends of the range instead of wrapping.
    pub(crate) fn plus(self, by_ms: i64) -> Self {
        Self(self.0.saturating_add(by_ms))
    }
}

impl fmt::Debug for Steady {
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
        assert_eq!(moment.day_digits(), 20_220_104);
        assert_eq!(moment.time_digits(), 150_118);
        assert_eq!(moment.folder_names(), ("2022-01-04".to_owned(), "15".to_owned()));
    }

    #[test]
    fn digits_and_http_dates_are_read_back_and_nothing_else_is() {
        assert_eq!(Millis::from_digits("20220104", "150118"), Some(Millis(1_641_308_478_000)));
        for (day, time) in [("20220230", "000000"), ("20220104", "240000"), ("2022010", "150118")] {
            assert_eq!(Millis::from_digits(day, time), None, "{day} {time}");
        }
        let date = "Tue, 04 Jan 2022 15:01:18 GMT";
        assert_eq!(Millis::from_http_date(date), Some(Millis(1_641_308_478_000)));
        for wrong in [
            "Wed, 04 Jan 2022 15:01:18 GMT",
            "Tue, 4 Jan 2022 15:01:18 GMT",
            "Tue, 04 Jan 2022 15:01:18 CET",
            "tue, 04 jan 2022 15:01:18 GMT",
            "xyz, nonsense of 29 bytes GMT",
            "",
        ] {
            assert_eq!(Millis::from_http_date(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn people_read_moments_in_utc() {
        assert_eq!(Millis(1_641_308_478_123).readable(), "2022-01-04T15:01:18.123Z");
    }

    #[test]
    fn days_begin_at_midnight() {
        assert_eq!((Millis(0).day(), Millis(DAY_MS - 1).day(), Millis(DAY_MS).day()), (0, 0, 1));
        assert_eq!(Millis(-1).day(), -1);
    }

    #[test]
    fn years_are_those_of_the_calendar() {
        let leap_day = Millis(1_709_164_800_000);
        assert_eq!(leap_day.readable(), "2024-02-29T00:00:00.000Z");
        assert_eq!(leap_day.plus_years(1).readable(), "2025-02-28T00:00:00.000Z");
        assert_eq!(leap_day.plus_years(4).readable(), "2028-02-29T00:00:00.000Z");
        assert_eq!(Millis(i64::MAX).plus_years(1), Millis(i64::MAX));
    }
}
