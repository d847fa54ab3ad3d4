//! Object Lock: retention and legal hold of versions, and the default retention of a bucket.

use crate::domain::time::Millis;

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
}

/// Until when a version may not be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Retention {
    pub(crate) mode: RetentionMode,
    pub(crate) until: Millis,
}

impl Retention {
    pub(crate) fn is_active(self, now: Millis) -> bool {
        now < self.until
    }
}

/// The lock of one version. Both halves are independent of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct FileLock {
    pub(crate) retention: Option<Retention>,
    /// None when nobody ever set it; answers tell that from `off`.
    pub(crate) legal_hold: Option<bool>,
}

impl FileLock {
    /// Whether the version may be deleted now. `bypass` lifts governance and nothing else.
    pub(crate) fn may_delete(self, now: Millis, bypass: bool) -> bool {
        let retained = self.retention.is_some_and(|retention| {
            retention.is_active(now) && !(bypass && retention.mode == RetentionMode::Governance)
        });
        !retained && self.legal_hold != Some(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn native_347_349_350_what_a_lock_lets_be_deleted() {
        use RetentionMode::{Compliance, Governance};
        let (now, later, earlier) = (Millis(1000), Millis(1001), Millis(1000));
        let lock = |mode, until, legal_hold| FileLock {
            retention: Some(Retention { mode, until }),
            legal_hold,
        };
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
}
