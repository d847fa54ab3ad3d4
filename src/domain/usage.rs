//! What accounts use and how much of it they may: transaction classes, daily counts, caps.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, Serializer};

use crate::domain::refusal::{
    Refusal, download_cap_exceeded, storage_cap_exceeded, transaction_cap_exceeded,
};
use crate::domain::time::{DAY_MS, Millis};

/// Transaction classes, by which Backblaze bills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    A,
    B,
    C,
}

impl Class {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::B => "B",
            Self::C => "C",
        }
    }
}

/// A day in UTC, counted since 1970: transactions are counted and capped by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Day(pub(crate) i64);

impl Day {
    pub(crate) fn of(moment: Millis) -> Self {
        Self(moment.0.div_euclid(DAY_MS))
    }
}

/// `YYYY-MM-DD`
impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Millis(self.0.saturating_mul(DAY_MS)).folder_names().0)
    }
}

/// What an account did on a day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) class_a: i64,
    pub(crate) class_b: i64,
    pub(crate) class_c: i64,
    pub(crate) downloaded_bytes: i64,
    pub(crate) uploaded_bytes: i64,
}

impl Counts {
    /// So many transactions of a class and nothing else.
    pub(crate) fn transactions(class: Class, units: i64) -> Self {
        let mut counts = Self::default();
        match class {
            Class::A => counts.class_a = units,
            Class::B => counts.class_b = units,
            Class::C => counts.class_c = units,
        }
        counts
    }

    pub(crate) fn downloaded(bytes: i64) -> Self {
        Self { downloaded_bytes: bytes, ..Self::default() }
    }

    pub(crate) fn uploaded(bytes: i64) -> Self {
        Self { uploaded_bytes: bytes, ..Self::default() }
    }

    /// The sum of two; stops at the ends of the range.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            class_a: self.class_a.saturating_add(other.class_a),
            class_b: self.class_b.saturating_add(other.class_b),
            class_c: self.class_c.saturating_add(other.class_c),
            downloaded_bytes: self.downloaded_bytes.saturating_add(other.downloaded_bytes),
            uploaded_bytes: self.uploaded_bytes.saturating_add(other.uploaded_bytes),
        }
    }

    pub(crate) fn negated(self) -> Self {
        Self {
            class_a: -self.class_a,
            class_b: -self.class_b,
            class_c: -self.class_c,
            downloaded_bytes: -self.downloaded_bytes,
            uploaded_bytes: -self.uploaded_bytes,
        }
    }
}

/// What an account may use; None is without limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Caps {
    /// Bytes of all versions in all buckets of the account.
    pub(crate) storage_bytes: Option<i64>,
    pub(crate) download_bytes_per_day: Option<i64>,
    pub(crate) class_a_per_day: Option<i64>,
    pub(crate) class_b_per_day: Option<i64>,
    pub(crate) class_c_per_day: Option<i64>,
}

fn exceeds(used: i64, more: i64, cap: Option<i64>) -> bool {
    cap.is_some_and(|cap| used.saturating_add(more) > cap)
}

impl Caps {
    /// Refuses `more` bytes on top of what is stored when that would be too much.
    pub(crate) fn admit_stored(&self, stored: i64, more: i64) -> Result<(), Refusal> {
        // An account above its cap may still store what takes no space.
        if more > 0 && exceeds(stored, more, self.storage_bytes) {
            return Err(storage_cap_exceeded());
        }
        Ok(())
    }

    /// Refuses more of a day's transactions and bytes when they would be too many.
    pub(crate) fn admit(&self, used: Counts, more: Counts) -> Result<(), Refusal> {
        let over =
            |of: fn(&Counts) -> i64, cap| of(&more) > 0 && exceeds(of(&used), of(&more), cap);
        if over(|counts| counts.downloaded_bytes, self.download_bytes_per_day) {
            return Err(download_cap_exceeded());
        }
        if over(|counts| counts.class_a, self.class_a_per_day)
            || over(|counts| counts.class_b, self.class_b_per_day)
            || over(|counts| counts.class_c, self.class_c_per_day)
        {
            return Err(transaction_cap_exceeded());
        }
        Ok(())
    }
}

/// What becomes of one cap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum CapChange {
    #[default]
    Keep,
    Remove,
    Set(i64),
}

/// Removes a cap, where a number would set it.
const NONE: &str = "none";

impl CapChange {
    /// Reads a number, or the word that removes a cap.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text == NONE {
            return Some(Self::Remove);
        }
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        text.parse().ok().filter(|_| digits).map(Self::Set)
    }

    fn applied_to(self, cap: Option<i64>) -> Option<i64> {
        match self {
            Self::Keep => cap,
            Self::Remove => None,
            Self::Set(new) => Some(new),
        }
    }
}

/// A number, the word `none`, or null for no change.
impl Serialize for CapChange {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Keep => to.serialize_none(),
            Self::Remove => to.serialize_str(NONE),
            Self::Set(cap) => to.serialize_i64(*cap),
        }
    }
}

impl<'de> Deserialize<'de> for CapChange {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Given {
            Number(u64),
            Word(String),
        }
        let wrong = || D::Error::custom("a cap is a whole number or \"none\"");
        match Option::<Given>::deserialize(from).map_err(|_| wrong())? {
            None => Ok(Self::Keep),
            Some(Given::Number(cap)) => i64::try_from(cap).map(Self::Set).map_err(|_| wrong()),
            Some(Given::Word(word)) => Self::parse(&word).ok_or_else(wrong),
        }
    }
}

/// What becomes of the caps of an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CapsChange {
    pub(crate) storage_bytes: CapChange,
    pub(crate) download_bytes_per_day: CapChange,
    pub(crate) class_a_per_day: CapChange,
    pub(crate) class_b_per_day: CapChange,
    pub(crate) class_c_per_day: CapChange,
}

impl CapsChange {
    pub(crate) fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn applied_to(&self, caps: Caps) -> Caps {
        Caps {
            storage_bytes: self.storage_bytes.applied_to(caps.storage_bytes),
            download_bytes_per_day: self
                .download_bytes_per_day
                .applied_to(caps.download_bytes_per_day),
            class_a_per_day: self.class_a_per_day.applied_to(caps.class_a_per_day),
            class_b_per_day: self.class_b_per_day.applied_to(caps.class_b_per_day),
            class_c_per_day: self.class_c_per_day.applied_to(caps.class_c_per_day),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::refusal::Code;

    #[test]
    fn days_begin_at_midnight_utc() {
        let midnight = Millis(1_700_006_400_000);
        assert_eq!(Day::of(midnight).to_string(), "2023-11-15");
        assert_eq!(Day::of(midnight.plus(-1)).to_string(), "2023-11-14");
        assert_eq!(Day::of(midnight.plus(DAY_MS - 1)), Day::of(midnight));
    }

    #[test]
    fn native_398_a_cap_is_reached_by_its_last_byte_and_exceeded_by_the_next() {
        let caps = Caps { storage_bytes: Some(10), ..Caps::default() };
        assert_eq!(caps.admit_stored(4, 6), Ok(()));
        let code = |outcome: Result<(), Refusal>| outcome.map_err(|refusal| refusal.code);
        assert_eq!(code(caps.admit_stored(4, 7)), Err(Code::StorageCapExceeded));
        assert_eq!(code(caps.admit_stored(10, 1)), Err(Code::StorageCapExceeded));
        assert_eq!(caps.admit_stored(50, 0), Ok(()), "nothing more is no more");
        assert_eq!(Caps::default().admit_stored(i64::MAX, i64::MAX), Ok(()));
    }

    #[test]
    fn native_398_each_class_and_the_bytes_have_a_cap_of_their_own() {
        let caps = Caps {
            download_bytes_per_day: Some(5),
            class_a_per_day: Some(1),
            class_b_per_day: Some(2),
            class_c_per_day: Some(0),
            ..Caps::default()
        };
        let code = |used, more| caps.admit(used, more).map_err(|refusal| refusal.code);
        let none = Counts::default();
        for (more, expected) in [
            (Counts::transactions(Class::A, 1), Ok(())),
            (Counts::transactions(Class::A, 2), Err(Code::TransactionCapExceeded)),
            (Counts::transactions(Class::B, 2), Ok(())),
            (Counts::transactions(Class::B, 3), Err(Code::TransactionCapExceeded)),
            (Counts::transactions(Class::C, 1), Err(Code::TransactionCapExceeded)),
            (Counts::downloaded(5), Ok(())),
            (Counts::downloaded(6), Err(Code::DownloadCapExceeded)),
            (Counts::uploaded(1_000_000), Ok(())),
        ] {
            assert_eq!(code(none, more), expected, "{more:?}");
        }
        let all_used = Counts::transactions(Class::A, 9).plus(Counts::downloaded(9));
        assert_eq!(code(all_used, Counts::transactions(Class::B, 1)), Ok(()), "apart");
    }

    #[test]
    fn a_change_leaves_alone_what_it_does_not_name() {
        let caps = Caps { storage_bytes: Some(1), class_b_per_day: Some(2), ..Caps::default() };
        let change = CapsChange {
            storage_bytes: CapChange::Remove,
            class_c_per_day: CapChange::Set(3),
            ..CapsChange::default()
        };
        let expected =
            Caps { class_b_per_day: Some(2), class_c_per_day: Some(3), ..Caps::default() };
        assert_eq!(change.applied_to(caps), expected);
        assert_eq!(CapsChange::default().applied_to(caps), caps);
        assert!(CapsChange::default().is_nothing() && !change.is_nothing());
    }

    #[test]
    fn a_cap_is_written_as_a_number_or_the_word_none() {
        let read = |text| serde_json::from_str::<CapChange>(text).ok();
        for (text, change) in
            [("5", CapChange::Set(5)), ("\"none\"", CapChange::Remove), ("null", CapChange::Keep)]
        {
            assert_eq!(read(text), Some(change));
            assert_eq!(serde_json::to_string(&change).unwrap(), text);
        }
        for wrong in ["-1", "1.5", "\"\"", "\"-1\"", "\"None\"", "[]", "18446744073709551615"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        assert_eq!(CapChange::parse("17"), Some(CapChange::Set(17)));
        assert_eq!(CapChange::parse("+17"), None);
    }

    #[test]
    fn counts_add_up_and_cancel_out() {
        let some = Counts::transactions(Class::C, 3).plus(Counts::downloaded(5));
        assert_eq!(some.plus(some.negated()), Counts::default());
        assert_eq!(some.plus(Counts::uploaded(2)).uploaded_bytes, 2);
    }
}
