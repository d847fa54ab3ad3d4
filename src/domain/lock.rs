//! Object Lock: retention and legal hold of versions, and what a bucket says about new ones.
//!
//! Source: b2-native-api.md section 14. What cannot be read, or is not known for sure, counts as
//! locked.

use crate::domain::refusal::{Code, Refusal, access_forbidden, bad_request, refuse};
use crate::domain::time::{DAY_MS, Millis};

/// How strictly a retention is kept.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RetentionMode {
    /// May be shortened by a caller who may bypass it and says so.
    Governance,
    /// May be shortened by nobody.
    Compliance,
}

impl RetentionMode {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Governance => "governance",
            Self::Compliance => "compliance",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Governance, Self::Compliance].into_iter().find(|mode| mode.as_str() == text)
    }
}

/// Until when a version may not be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Retention {
    pub(crate) mode: RetentionMode,
    pub(crate) until: Millis,
}

/// The first moment of the year 10000, which no caller can name.
const END_OF_TIME: Millis = Millis(253_402_300_800_000);

impl Retention {
    /// Stands for one that cannot be read back: kept by everybody, for ever.
    pub(crate) const UNREADABLE: Self =
        Self { mode: RetentionMode::Compliance, until: END_OF_TIME };

    pub(crate) fn is_active(self, now: Millis) -> bool {
        now < self.until
    }

    /// Refuses to begin a retention that is over already, or that ends later than can be written.
    fn check_until(self, now: Millis) -> Result<(), Refusal> {
        if !self.is_active(now) {
            return Err(refuse(
                Code::RetainUntilTimestampMustBeInFuture,
                "The retainUntilTimestamp must be in future",
            ));
        }
        self.check_writable()
    }

    /// Refuses one that ends later than can be written.
    fn check_writable(self) -> Result<(), Refusal> {
        if self.until >= END_OF_TIME {
            return Err(bad_request("The retainUntilTimestamp must be before the year 10000"));
        }
        Ok(())
    }
}

/// The lock of one version, or the one that a caller asks for. Both halves are independent of each
/// other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct FileLock {
    pub(crate) retention: Option<Retention>,
    /// None when nobody ever set it; answers tell that from `off`.
    pub(crate) legal_hold: Option<bool>,
}

impl FileLock {
    pub(crate) fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// Whether the version may be deleted now. `bypass` lifts governance and nothing else.
    pub(crate) fn may_delete(self, now: Millis, bypass: bool) -> bool {
        let retained = self.retention.is_some_and(|retention| {
            retention.is_active(now) && !(bypass && retention.mode == RetentionMode::Governance)
        });
        !retained && self.legal_hold != Some(true)
    }
}

/// What is to be thought of a clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Belief {
    Believed,
    /// Further ahead of the time that has passed than is tolerated.
    Ahead,
    /// Further behind it than is tolerated.
    Behind,
}

/// What the clock says, and the moments by which locks begin and run out. None of them lets a lock
/// end early, whatever the clock says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LockTimes {
    /// The wall clock, as it is.
    pub(crate) now: Millis,
    /// Locks that end here or before are over. The same as `now` unless the clock is ahead; never
    /// after `now`.
    pub(crate) locks_run_to: Millis,
    /// What the clock ought to show, by the last reading that was believed.
    proven: Millis,
    tolerance_ms: i64,
}

impl LockTimes {
    /// `proven` is what a clock must show that was right when it was last believed. When `now` is
    /// ahead of that by more than the tolerance, locks run by what is proven.
    pub(crate) fn of(now: Millis, proven: Millis, tolerance_ms: i64) -> Self {
        let is_ahead = now > proven.plus(tolerance_ms);
        let locks_run_to = if is_ahead { proven } else { now };
        Self { now, locks_run_to, proven, tolerance_ms }
    }

    pub(crate) fn belief(self) -> Belief {
        if self.ahead_ms() > 0 {
            Belief::Ahead
        } else if self.behind_ms() > self.tolerance_ms {
            Belief::Behind
        } else {
            Belief::Believed
        }
    }

    /// How far the clock is ahead of the locks; 0 unless that is too far.
    pub(crate) fn ahead_ms(self) -> i64 {
        self.now.0.saturating_sub(self.locks_run_to.0)
    }

    /// How far the clock is behind what it ought to show, tolerated or not.
    pub(crate) fn behind_ms(self) -> i64 {
        self.proven.0.saturating_sub(self.now.0).max(0)
    }

    /// The latest moment that is known to have been: what a stop must not forget.
    pub(crate) fn known(self) -> Millis {
        self.locks_run_to.max(self.proven)
    }

    /// From when the default retention of a version counts that was stored at `stored_at`: a clock
    /// that has gone back makes no retention that is over as soon as it is set right.
    pub(crate) fn begin(self, stored_at: Millis) -> Millis {
        if self.belief() == Belief::Behind { stored_at.max(self.proven) } else { stored_at }
    }

    /// The moment up to which the days of lifecycle rules have passed in a bucket. Where versions
    /// may be locked, a clock that is ahead makes nothing due.
    pub(crate) fn rules_run_to(self, lock: BucketLock) -> Millis {
        if lock.is_file_lock_enabled { self.locks_run_to } else { self.now }
    }
}

/// What is proven follows a clock that is believed by one part in so many of the time that passes.
const FOLLOWED_PART: i64 = 100;

/// By how much what is proven follows a clock that is believed, once `passed_ms` have passed since
/// it last did. Small differences that add up over years are taken in so; a clock that runs wild is
/// not: locks never run more than a hundredth too fast, beyond the tolerance.
pub(crate) fn followed_ms(now: Millis, proven: Millis, passed_ms: i64) -> i64 {
    let most = passed_ms.max(0) / FOLLOWED_PART;
    now.0.saturating_sub(proven.0).clamp(-most, most)
}

/// Refuses a change of retention from `current` to `wanted` that would let a version go earlier
/// than it was promised to be kept. `bypass` lifts governance and nothing else.
pub(crate) fn check_change(
    current: Option<Retention>,
    wanted: Option<Retention>,
    times: LockTimes,
    bypass: bool,
) -> Result<(), Refusal> {
    if let Some(wanted) = wanted {
        wanted.check_until(times.now)?;
    }
    let Some(current) = current.filter(|current| current.is_active(times.locks_run_to)) else {
        return Ok(());
    };
    let keeps =
        wanted.is_some_and(|wanted| wanted.mode >= current.mode && wanted.until >= current.until);
    if keeps || (bypass && current.mode == RetentionMode::Governance) {
        Ok(())
    } else {
        Err(access_forbidden())
    }
}

/// Unit of a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PeriodUnit {
    Days,
    Years,
}

/// How long new files of a bucket are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Period {
    duration: u32,
    unit: PeriodUnit,
}

/// Longest period in each unit; Backblaze documents none.
const DAYS_MAX: i64 = 36_500;
const YEARS_MAX: i64 = 100;

impl Period {
    /// Reads what a caller gave.
    pub(crate) fn of_caller(duration: i64, unit: &str) -> Result<Self, Refusal> {
        let (unit, max) = match unit {
            "days" => (PeriodUnit::Days, DAYS_MAX),
            "years" => (PeriodUnit::Years, YEARS_MAX),
            _ => return Err(bad_request("period unit must be days or years")),
        };
        let fits = (1..=max).contains(&duration).then(|| u32::try_from(duration).ok()).flatten();
        let text = format!("period duration must be between 1 and {max}: {duration}");
        fits.map(|duration| Self { duration, unit }).ok_or_else(|| bad_request(text))
    }

    pub(crate) fn duration(self) -> u32 {
        self.duration
    }

    pub(crate) fn unit(self) -> PeriodUnit {
        self.unit
    }

    fn end(self, from: Millis) -> Millis {
        match self.unit {
            PeriodUnit::Days => from.plus(i64::from(self.duration) * DAY_MS),
            PeriodUnit::Years => from.plus_years(self.duration),
        }
    }
}

/// The retention that new files of a bucket get when their uploader names none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct DefaultRetention {
    pub(crate) mode: RetentionMode,
    pub(crate) period: Period,
}

/// Object Lock of a bucket; once on, it stays on. Its serde form is what the catalog stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct BucketLock {
    pub(crate) default_retention: Option<DefaultRetention>,
    pub(crate) is_file_lock_enabled: bool,
}

/// What shall become of the default retention of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum DefaultChange {
    #[default]
    Keep,
    Clear,
    Set(DefaultRetention),
}

/// What of a bucket's lock shall change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct BucketLockChange {
    /// None leaves it as it is.
    pub(crate) enable: Option<bool>,
    pub(crate) default_retention: DefaultChange,
}

impl BucketLockChange {
    pub(crate) fn is_empty(self) -> bool {
        self == Self::default()
    }
}

impl BucketLock {
    /// The lock after a change. `is_source` says that the bucket has replication rules.
    pub(crate) fn changed(
        self,
        change: BucketLockChange,
        is_source: bool,
    ) -> Result<Self, Refusal> {
        let mut changed = self;
        match (self.is_file_lock_enabled, change.enable) {
            // b2sdk compares both texts.
            (true, Some(false)) => {
                return Err(refuse(
                    Code::FileLockConflict,
                    "fileLockEnabled value of false is not allowed when bucket is already file \
                     lock enabled.",
                ));
            }
            (false, Some(true)) if is_source => {
                return Err(refuse(
                    Code::SourceReplicationConflict,
                    "Turning on file lock for an existing bucket having source replication \
                     configuration is not allowed.",
                ));
            }
            (_, enable) => changed.is_file_lock_enabled |= enable == Some(true),
        }
        changed.default_retention = match change.default_retention {
            DefaultChange::Keep => return Ok(changed),
            DefaultChange::Clear => None,
            DefaultChange::Set(default) => Some(default),
        };
        changed.check_enabled()?;
        Ok(changed)
    }

    pub(crate) fn check_enabled(self) -> Result<(), Refusal> {
        if self.is_file_lock_enabled { Ok(()) } else { Err(bucket_missing_file_lock()) }
    }

    /// Refuses a lock that a new file of the bucket cannot begin with.
    pub(crate) fn check_new(self, wanted: FileLock, now: Millis) -> Result<(), Refusal> {
        if wanted.is_empty() {
            return Ok(());
        }
        self.check_enabled()?;
        wanted.retention.map_or(Ok(()), |retention| retention.check_until(now))
    }

    /// Refuses a lock that a replica cannot have here. One that is over already was the source's, and
    /// is taken as it is.
    pub(crate) fn check_replica(self, lock: FileLock) -> Result<(), Refusal> {
        if lock.is_empty() {
            return Ok(());
        }
        self.check_enabled()?;
        lock.retention.map_or(Ok(()), Retention::check_writable)
    }

    /// The lock of a new file: what was asked for, else the bucket's default counted `from` the
    /// time of its upload.
    pub(crate) fn of_new(self, wanted: FileLock, from: Millis) -> FileLock {
        let default = self.default_retention.filter(|_| self.is_file_lock_enabled);
        let default = default
            .map(|default| Retention { mode: default.mode, until: default.period.end(from) });
        FileLock { retention: wanted.retention.or(default), ..wanted }
    }
}

/// b2 shows this text as it is.
fn bucket_missing_file_lock() -> Refusal {
    refuse(Code::BucketMissingFileLock, "The bucket is not file lock enabled")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::RetentionMode::{Compliance, Governance};
    use super::*;

    #[expect(clippy::unnecessary_wraps, reason = "the shape that locks have it in")]
    fn until(mode: RetentionMode, until: i64) -> Option<Retention> {
        Some(Retention { mode, until: Millis(until) })
    }

    #[test]
    fn native_347_349_350_what_a_lock_lets_be_deleted() {
        let (now, later, earlier) = (Millis(1000), 1001, 1000);
        let lock = |mode, end, legal_hold| FileLock { retention: until(mode, end), legal_hold };
        let table = [
            (FileLock::default(), true, true),
            (FileLock { retention: None, legal_hold: Some(false) }, true, true),
            (FileLock { retention: None, legal_hold: Some(true) }, false, false),
            (lock(Governance, later, None), false, true),
            (lock(Governance, later, Some(true)), false, false),
            (lock(Compliance, later, None), false, false),
            (lock(Governance, earlier, None), true, true),
            (lock(Compliance, earlier, Some(false)), true, true),
            (lock(Compliance, earlier, Some(true)), false, false),
        ];
        for (lock, plain, bypassing) in table {
            assert_eq!(lock.may_delete(now, false), plain, "{lock:?}");
            assert_eq!(lock.may_delete(now, true), bypassing, "{lock:?} with bypass");
        }
    }

    #[test]
    fn native_340_343_to_346_which_retention_may_follow_which() {
        let times = LockTimes::of(Millis(1000), Millis(1000), 0);
        let code = |current, wanted, bypass| {
            check_change(current, wanted, times, bypass).err().map(|refusal| refusal.code)
        };
        let forbidden = Some(Code::AccessForbidden);
        let (governed, complied) = (until(Governance, 2000), until(Compliance, 2000));
        // From, to, what is said plainly, what is said with bypass.
        let table = [
            (None, None, None, None),
            (None, until(Governance, 1001), None, None),
            (None, until(Compliance, 1001), None, None),
            (governed, until(Governance, 2000), None, None),
            (governed, until(Governance, 2001), None, None),
            (governed, until(Governance, 1999), forbidden, None),
            (governed, None, forbidden, None),
            (governed, until(Compliance, 2000), None, None),
            (governed, until(Compliance, 1999), forbidden, None),
            (complied, until(Compliance, 2000), None, None),
            (complied, until(Compliance, 2001), None, None),
            (complied, until(Compliance, 1999), forbidden, forbidden),
            (complied, until(Governance, 3000), forbidden, forbidden),
            (complied, None, forbidden, forbidden),
            (until(Governance, 1000), None, None, None),
            (until(Compliance, 1000), None, None, None),
            (until(Compliance, 999), until(Governance, 1001), None, None),
            (Some(Retention::UNREADABLE), None, forbidden, forbidden),
        ];
        for (current, wanted, plain, bypassing) in table {
            assert_eq!(code(current, wanted, false), plain, "{current:?} to {wanted:?}");
            assert_eq!(code(current, wanted, true), bypassing, "{current:?} to {wanted:?}, bypass");
        }
        let past = Some(Code::RetainUntilTimestampMustBeInFuture);
        for current in [None, governed, complied] {
            assert_eq!(code(current, until(Compliance, 1000), true), past, "{current:?}");
        }
        let last = Some(Retention { until: Millis(END_OF_TIME.0 - 1), ..Retention::UNREADABLE });
        assert_eq!(code(None, last, false), None);
        assert_eq!(code(None, Some(Retention::UNREADABLE), false), Some(Code::BadRequest));
    }

    #[test]
    fn reliability_l5_locks_never_run_ahead_of_the_time_that_has_passed() {
        let on = BucketLock { is_file_lock_enabled: true, ..BucketLock::default() };
        // What the clock says, up to when locks run, what is to be thought of it, from when a
        // retention counts that begins at 990.
        let table = [
            (1000, 1000, Belief::Believed, 990),
            (1100, 1100, Belief::Believed, 990),
            (1101, 1000, Belief::Ahead, 990),
            (i64::MAX, 1000, Belief::Ahead, 990),
            (900, 900, Belief::Believed, 990),
            (899, 899, Belief::Behind, 1000),
            (0, 0, Belief::Behind, 1000),
            (i64::MIN, i64::MIN, Belief::Behind, 1000),
        ];
        for (now, run_to, belief, begin) in table {
            let times = LockTimes::of(Millis(now), Millis(1000), 100);
            assert_eq!(times.locks_run_to, Millis(run_to), "{now}");
            assert_eq!(times.belief(), belief, "{now}");
            assert_eq!(times.begin(Millis(990)), Millis(begin), "{now}");
            assert_eq!(times.known(), Millis(run_to.max(1000)), "{now}");
            assert_eq!(times.ahead_ms(), now.saturating_sub(run_to), "{now}");
            assert_eq!(times.behind_ms(), 1000_i64.saturating_sub(now).max(0), "{now}");
            assert_eq!(times.rules_run_to(on), Millis(run_to), "{now}");
            assert_eq!(times.rules_run_to(BucketLock::default()), Millis(now), "{now}");
        }
    }

    #[test]
    fn reliability_l5_small_steps_are_followed_by_a_hundredth_of_the_time_that_passes() {
        let followed = |now, passed| followed_ms(Millis(now), Millis(1000), passed);
        assert_eq!((followed(1003, 1000), followed(997, 1000)), (3, -3));
        assert_eq!((followed(1050, 1000), followed(950, 1000)), (10, -10));
        assert_eq!((followed(1050, 0), followed(1050, -5)), (0, 0));
        assert_eq!(followed(1050, 99), 0);
    }

    #[test]
    fn a_retention_that_only_the_clock_calls_over_is_not_over() {
        let times = LockTimes::of(Millis(3000), Millis(1000), 0);
        let change = |wanted| check_change(until(Compliance, 2000), wanted, times, false);
        assert_eq!(change(None).map_err(|refusal| refusal.code), Err(Code::AccessForbidden));
        assert!(change(until(Compliance, 3001)).is_ok());
    }

    #[test]
    fn native_337_338_339_periods_have_ends_and_explicit_retention_wins() {
        for (duration, unit, fits) in [
            (1, "days", true),
            (36_500, "days", true),
            (36_501, "days", false),
            (1, "years", true),
            (100, "years", true),
            (101, "years", false),
            (0, "days", false),
            (-1, "years", false),
            (i64::MAX, "days", false),
            (1, "weeks", false),
            (1, "Days", false),
        ] {
            assert_eq!(Period::of_caller(duration, unit).is_ok(), fits, "{duration} {unit}");
        }
        let period = Period::of_caller(2, "days").expect("two days");
        let bucket = BucketLock {
            default_retention: Some(DefaultRetention { mode: Governance, period }),
            is_file_lock_enabled: true,
        };
        let from = Millis(5000);
        let end = 5000 + 2 * DAY_MS;
        assert_eq!(bucket.of_new(FileLock::default(), from).retention, until(Governance, end));
        let asked = FileLock { retention: until(Compliance, 7000), legal_hold: Some(true) };
        assert_eq!(bucket.of_new(asked, from), asked);
        let held = FileLock { retention: None, legal_hold: Some(true) };
        let kept = FileLock { retention: until(Governance, end), legal_hold: Some(true) };
        assert_eq!(bucket.of_new(held, from), kept);
    }

    #[test]
    fn native_331_333_to_336_a_bucket_lock_goes_on_and_never_off() {
        let (off, on) = (
            BucketLock::default(),
            BucketLock { default_retention: None, is_file_lock_enabled: true },
        );
        let period = Period::of_caller(1, "years").expect("a year");
        let default = DefaultRetention { mode: Compliance, period };
        let (keep, clear) = (DefaultChange::Keep, DefaultChange::Clear);
        let set = DefaultChange::Set(default);
        let change = |enable, default_retention| BucketLockChange { enable, default_retention };
        let code = |lock: BucketLock, change, is_source| {
            lock.changed(change, is_source).map_err(|refusal| refusal.code)
        };
        assert_eq!(code(off, change(Some(true), keep), false), Ok(on));
        assert_eq!(code(on, change(Some(true), keep), true), Ok(on));
        assert_eq!(code(off, change(Some(false), keep), true), Ok(off));
        assert_eq!(code(on, change(Some(false), keep), false), Err(Code::FileLockConflict));
        let conflict = Err(Code::SourceReplicationConflict);
        assert_eq!(code(off, change(Some(true), keep), true), conflict);
        let missing = Err(Code::BucketMissingFileLock);
        assert_eq!(code(off, change(None, set), false), missing);
        assert_eq!(code(off, change(None, clear), false), missing);
        let both = on.changed(change(Some(true), set), false).expect("at once");
        assert_eq!(both.default_retention, Some(default));
        assert_eq!(both.changed(change(None, keep), false), Ok(both));
        assert_eq!(both.changed(change(None, clear), false), Ok(on));
        let wanted = FileLock { retention: None, legal_hold: Some(false) };
        assert_eq!(off.check_new(wanted, Millis(0)), Err(bucket_missing_file_lock()));
        assert_eq!(off.check_new(FileLock::default(), Millis(0)), Ok(()));
    }

    fn any_retention() -> impl Strategy<Value = Option<Retention>> {
        let mode = prop_oneof![Just(Governance), Just(Compliance)];
        proptest::option::of(
            (mode, 0_i64..40).prop_map(|(mode, end)| Retention { mode, until: Millis(end) }),
        )
    }

    proptest! {
        /// Whatever changes are tried: what could not be deleted at some moment before cannot be
        /// deleted then after them either, unless governance was bypassed.
        #[test]
        fn no_row_of_changes_lets_a_version_go_earlier(
            first in any_retention(),
            changes in proptest::collection::vec((any_retention(), any::<bool>(), 0_i64..5), 0..8),
        ) {
            let (mut now, mut current) = (0, first);
            for (wanted, bypass, passed) in changes {
                now += passed;
                let times = LockTimes::of(Millis(now), Millis(now), 0);
                if check_change(current, wanted, times, bypass).is_err() {
                    continue;
                }
                for moment in now..60 {
                    let may = |retention| FileLock { retention, legal_hold: None }
                        .may_delete(Millis(moment), bypass);
                    let was_kept = current.is_some_and(|c| c.is_active(Millis(now))) && !may(current);
                    prop_assert!(!was_kept || !may(wanted), "{current:?} to {wanted:?} at {moment}");
                }
                current = wanted;
            }
        }

        #[test]
        fn a_hold_or_compliance_is_never_bypassed(retention in any_retention(), now in 0_i64..60) {
            let held = FileLock { retention, legal_hold: Some(true) };
            prop_assert!(!held.may_delete(Millis(now), true));
            let free = FileLock { retention, legal_hold: None };
            let complied = retention.is_some_and(|r| r.mode == Compliance && r.is_active(Millis(now)));
            prop_assert_eq!(free.may_delete(Millis(now), true), !complied);
        }
    }
}
