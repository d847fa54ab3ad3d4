//! Identifiers. Each is a type of its own, so that a bucket id cannot stand where a file id belongs.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::domain::digits::push_digits;
use crate::domain::time::Millis;

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(crate) struct $name([u8; $bytes]);

        impl $name {
            pub(crate) const fn from_bytes(bytes: [u8; $bytes]) -> Self {
                Self(bytes)
            }

            /// Accepts exactly the lower-case form that `Display` writes.
            pub(crate) fn parse(text: &str) -> Option<Self> {
                let mut bytes = [0_u8; $bytes];
                let lower = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
                (lower && hex::decode_to_slice(text, &mut bytes).is_ok()).then_some(Self(bytes))
            }

            /// Shows the text to `show`, without keeping it.
            pub(crate) fn with_digits<T>(&self, show: impl FnOnce(&str) -> T) -> T {
                let mut digits = [0_u8; $bytes * 2];
                // Cannot fail: there is room for two digits a byte, and digits are ASCII.
                hex::encode_to_slice(self.0, &mut digits).unwrap_or_default();
                show(std::str::from_utf8(&digits).unwrap_or_default())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.with_digits(|digits| f.write_str(digits))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                self.with_digits(|digits| to.serialize_str(digits))
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = String::deserialize(from)?;
                Self::parse(&text).ok_or_else(|| serde::de::Error::custom("no such id"))
            }
        }
    };
}

hex_id!(
    /// 12 lower-case hex digits; also the id of the account's master application key.
    AccountId,
    6
);
hex_id!(
    /// 24 lower-case hex digits, never given out twice.
    BucketId,
    12
);

/// Id of an application key: the account id for the master key, else 25 characters
/// (three digits, the account id, ten hex digits that count up). Sorted as text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub(crate) struct KeyId(String);

impl KeyId {
    pub(crate) fn numbered(account: AccountId, number: i64) -> Self {
        Self(format!("{CLUSTER}{account}{number:010x}"))
    }

    pub(crate) fn master(account: AccountId) -> Self {
        Self(account.to_string())
    }

    /// Any text a client may name a key by; whether such a key exists is the catalog's to say.
    pub(crate) fn named(text: &str) -> Self {
        Self(text.to_owned())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The cluster digits that Backblaze puts in front of key ids and secrets; ours are always `000`.
pub(crate) const CLUSTER: &str = "000";

/// The number inside a file id: `1` or `2` as top hex digit (small or large file), then 60 bits
/// that grow with time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FileNumber(pub(crate) i64);

impl FileNumber {
    pub(crate) fn is_large(self) -> bool {
        (LARGE_FILE_TAG..LARGE_FILE_TAG + SMALL_FILE_TAG).contains(&self.0)
    }
}

impl fmt::Debug for FileNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "f{:016x}", self.0)
    }
}

/// Name of one blob: 60 bits that grow with time, so that a sweep can look at recent ones only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct BlobId(pub(crate) i64);

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl BlobId {
    /// Accepts exactly what `Display` writes.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digits = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let number = i64::from_str_radix(text, 16).ok()?;
        (digits && Self(number).to_string() == text).then_some(Self(number))
    }

    /// The smallest id that can be drawn at or after a moment.
    pub(crate) fn first_at(moment: Millis) -> Self {
        Self(number_at(moment))
    }

    /// When the id was drawn.
    pub(crate) fn drawn_at(self) -> Millis {
        Millis((self.0 >> NUMBER_LOW_BITS) + NUMBER_EPOCH_MS)
    }
}

/// Id of a file version: opaque to clients, but it carries its bucket, its number and two times.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FileId {
    pub(crate) bucket: BucketId,
    pub(crate) number: FileNumber,
    /// When the version was written here (seconds are kept).
    pub(crate) written_at: Millis,
    /// The version's upload timestamp; for a replica that of its source.
    pub(crate) upload_at: Millis,
}

impl FileId {
    /// Writes the id as clients see it.
    pub(crate) fn push_to(&self, text: &mut String) {
        text.push_str("4_z");
        self.bucket.with_digits(|digits| text.push_str(digits));
        text.push_str("_f");
        push_digits::<16>(text, u64::from_be_bytes(self.number.0.to_be_bytes()), 16);
        text.push_str("_d");
        push_digits::<10>(text, self.written_at.day_digits().into(), 8);
        text.push_str("_m");
        push_digits::<10>(text, self.written_at.time_digits().into(), 6);
        text.push_str("_c");
        text.push_str(CLUSTER);
        text.push_str("_v0000000_t0000_u");
        push_digits::<10>(text, u64::try_from(self.upload_at.0).unwrap_or_default(), 14);
    }

    fn text(&self) -> String {
        let mut text = String::with_capacity(100);
        self.push_to(&mut text);
        text
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl fmt::Debug for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for FileId {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.text())
    }
}

/// What can be read out of a file id that a client sent. Only a comparison of the whole text with
/// the stored version's id proves that the id is real.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClaimedFileId {
    pub(crate) bucket: BucketId,
    pub(crate) number: FileNumber,
    pub(crate) upload_at: Millis,
    pub(crate) text: String,
}

impl ClaimedFileId {
    /// Reads the shape that `FileId` writes, and the older one that ends before the `u`: ids from
    /// Backblaze that name nothing here are well-formed all the same. None when it is anything else.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("4_z")?;
        let mut fields = rest.split('_');
        let bucket = BucketId::parse(fields.next()?)?;
        let number = tagged(fields.next()?, 'f', 16, true)?;
        let day = tagged(fields.next()?, 'd', 8, false)?;
        let time = tagged(fields.next()?, 'm', 6, false)?;
        tagged(fields.next()?, 'c', 3, false)?;
        tagged(fields.next()?, 'v', 7, false)?;
        tagged(fields.next()?, 't', 4, false)?;
        let upload_at = match fields.next() {
            Some(field) => Millis(tagged(field, 'u', 14, false)?.parse().ok()?),
            None => Millis::from_digits(day, time)?,
        };
        if fields.next().is_some() {
            return None;
        }
        let number = FileNumber(i64::from_str_radix(number, 16).ok()?);
        Some(Self { bucket, number, upload_at, text: text.to_owned() })
    }
}

fn tagged(field: &str, tag: char, digits: usize, hex: bool) -> Option<&str> {
    let value = field.strip_prefix(tag)?;
    let allowed = |b: u8| b.is_ascii_digit() || (hex && (b'a'..=b'f').contains(&b));
    (value.len() == digits && value.bytes().all(allowed)).then_some(value)
}

/// 2020-01-01, the zero of the time in numbers: 41 bits of milliseconds last until 2089.
const NUMBER_EPOCH_MS: i64 = 1_577_836_800_000;
/// Bits below the time: six for a server number to come, thirteen that count within a millisecond.
const NUMBER_LOW_BITS: u32 = 19;
const SMALL_FILE_TAG: i64 = 0x1000_0000_0000_0000;
const LARGE_FILE_TAG: i64 = 0x2000_0000_0000_0000;

/// Times above this are not counted with: the last sixteenth of the range is for counting on.
const NUMBER_BY_TIME_MAX: i64 = (SMALL_FILE_TAG >> 4) * 15;
/// A mark is this far ahead of the clock.
const MARK_AHEAD_MS: i64 = 60_000;
/// A new mark is due when drawing has come this close to the old one.
const MARK_DUE_MS: i64 = 30_000;
/// Numbers below a mark that only counting reaches, not time: a billion, which is more than can be
/// drawn while a new mark is waited for.
const MARK_RESERVE: i64 = 2_000 << NUMBER_LOW_BITS;

/// The smallest number that can be drawn at or after a moment.
fn number_at(moment: Millis) -> i64 {
    let since_epoch = (moment.0 - NUMBER_EPOCH_MS).max(0);
    since_epoch.saturating_mul(1 << NUMBER_LOW_BITS).min(NUMBER_BY_TIME_MAX)
}

/// Draws numbers that grow with time and never come twice, neither within this process nor in a
/// later one.
///
/// The catalog keeps a mark that is above every number ever drawn, and a process begins at the mark
/// it finds. So a mark must be in the catalog before it is used here: whoever opens the catalog
/// stores the first [`Numbers::mark`], and a worker stores those that [`Numbers::due_mark`] asks
/// for. While a new mark fails to come, numbers no longer follow the time and count on.
pub(crate) struct Numbers {
    last: AtomicI64,
    mark: AtomicI64,
}

impl Numbers {
    /// Starts at `stored`, the mark of earlier processes, so that a clock that went back cannot
    /// make a number come again, whatever has become of the row that had it.
    pub(crate) fn starting_at(stored: i64, now: Millis) -> Self {
        // Processes that end at once, again and again, use up little of the future.
        let mark = number_at(now.plus(MARK_AHEAD_MS)).max(stored + MARK_RESERVE + 1);
        Self { last: AtomicI64::new(stored - 1), mark: AtomicI64::new(mark) }
    }

    /// One more than the largest number that may be drawn.
    pub(crate) fn mark(&self) -> i64 {
        self.mark.load(Ordering::Acquire)
    }

    /// The mark that shall be stored now; None while there is room enough below the present one.
    pub(crate) fn due_mark(&self, now: Millis) -> Option<i64> {
        let (last, mark) = (self.last.load(Ordering::Relaxed), self.mark());
        let ahead = number_at(now.plus(MARK_AHEAD_MS));
        let room = mark - last;
        // Nobody asks for the time while nobody draws.
        let lags = ahead > mark && room <= MARK_RESERVE + (MARK_DUE_MS << NUMBER_LOW_BITS);
        (lags || room < MARK_RESERVE / 2).then_some(ahead.max(last + 2 * MARK_RESERVE))
    }

    /// Uses a mark that has been stored. A mark never goes back.
    pub(crate) fn raise_mark(&self, stored: i64) {
        self.mark.fetch_max(stored, Ordering::AcqRel);
    }

    fn draw(&self, now: Millis) -> i64 {
        let by_time = number_at(now).min(self.mark() - MARK_RESERVE);
        let previous = self
            .last
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(by_time.max(last + 1)))
            .unwrap_or(by_time);
        by_time.max(previous + 1)
    }

    /// A number for a small file or a hide marker.
    pub(crate) fn small_file(&self, now: Millis) -> FileNumber {
        FileNumber(SMALL_FILE_TAG | self.draw(now))
    }

    /// A number for a large file.
    pub(crate) fn large_file(&self, now: Millis) -> FileNumber {
        FileNumber(LARGE_FILE_TAG | self.draw(now))
    }

    pub(crate) fn blob(&self, now: Millis) -> BlobId {
        BlobId(self.draw(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = Millis(1_700_000_000_000);

    #[test]
    fn hex_ids_accept_only_their_own_form() {
        assert!(AccountId::parse("d2e6b27577ea").is_some());
        for wrong in ["", "d2e6b27577e", "D2E6B27577EA", "d2e6b27577eaf", "d2e6b27577eg"] {
            assert_eq!(AccountId::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn file_ids_round_trip_and_stay_short() {
        let numbers = Numbers::starting_at(0, NOW);
        let bucket = BucketId::from_bytes([7; 12]);
        let id = FileId {
            bucket,
            number: numbers.small_file(NOW),
            written_at: NOW,
            upload_at: Millis(5),
        };
        let text = id.to_string();
        let claimed = ClaimedFileId::parse(&text).expect("our own form");
        assert_eq!((claimed.bucket, claimed.number), (bucket, id.number));
        assert!(text.contains("_f1"), "small files carry a leading 1: {text}");
        let plain = FileId { number: FileNumber(0x1000_0000_00ab_cdef), ..id };
        let bucket = "07".repeat(12);
        let day = "_d20231114_m221320_c000_v0000000_t0000_u00000000000005";
        assert_eq!(plain.to_string(), format!("4_z{bucket}_f1000000000abcdef{day}"));
        assert!(text.len() <= 200);
        for wrong in [text.to_uppercase(), format!("{text}_x1"), text.replace("_u", "_w")] {
            assert_eq!(ClaimedFileId::parse(&wrong), None, "{wrong}");
        }
        let older =
            "4_z8d625eb63be2775577c70e1a_f1107e2a4b0cc0a02_d20220104_m150118_c002_v0001112_t0011";
        let claimed = ClaimedFileId::parse(older).expect("the form of ids before 2022");
        assert_eq!(claimed.upload_at, Millis(1_641_308_478_000));
        for wrong in [older.replace("_d2022", "_d20x2"), older.replace("_m15", "_m25")] {
            assert_eq!(ClaimedFileId::parse(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn numbers_grow_even_when_the_clock_goes_back() {
        let numbers = Numbers::starting_at(0, NOW);
        let mut last = numbers.small_file(NOW);
        for step in 0..20_000 {
            let next = numbers.small_file(Millis(NOW.0 - step));
            assert!(next > last);
            last = next;
        }
    }

    #[test]
    fn a_later_process_begins_above_whatever_an_earlier_one_may_have_drawn() {
        // Whatever the clock does, in a process or between two of them.
        let jumps = [0, 1, -1, 3_600_000, -7_200_000, 86_400_000_000, -90_000_000_000, i64::MAX];
        let mut stored = 0;
        let mut last = BlobId(0);
        let mut now = NOW;
        for jump in jumps.into_iter().cycle().take(80) {
            let numbers = Numbers::starting_at(stored, now);
            stored = numbers.mark();
            for step in 0..200 {
                now = if step == 100 { now.plus(jump) } else { now.plus(997) };
                let drawn = numbers.blob(now);
                assert!(drawn > last, "{drawn} after {last}");
                assert!(drawn.0 < numbers.mark(), "only what the catalog knows of is drawn");
                assert!(numbers.mark() == stored && stored < SMALL_FILE_TAG);
                last = drawn;
                // The worker that stores marks comes late, and misses every other time.
                if step % 40 == 39
                    && let Some(due) = numbers.due_mark(now)
                {
                    stored = due.max(stored);
                    numbers.raise_mark(due);
                }
            }
            now = NOW;
        }
    }

    #[test]
    fn marks_are_few_and_numbers_follow_the_time_between_them() {
        let numbers = Numbers::starting_at(0, NOW);
        let mut marks = 0;
        for second in 0..3_600 {
            let now = NOW.plus(second * 1_000);
            assert_eq!(numbers.blob(now).drawn_at(), now);
            if let Some(due) = numbers.due_mark(now) {
                numbers.raise_mark(due);
                marks += 1;
            }
        }
        assert!((110..=140).contains(&marks), "about two in a minute: {marks}");
        // A process that draws nothing asks for nothing.
        let idle = Numbers::starting_at(0, NOW);
        assert_eq!(idle.due_mark(NOW.plus(86_400_000)), None);
        // One without a mark to come goes on counting, without end for all purposes.
        for _ in 0..1_000 {
            idle.blob(NOW.plus(86_400_000));
        }
        assert!(idle.due_mark(NOW.plus(86_400_000)).is_some());
        assert!(idle.mark() - idle.blob(NOW.plus(86_400_000)).0 > 1_000_000_000);
        // Restarts in a row use up little of the future.
        let mut stored = 0;
        for _ in 0..1_000 {
            let numbers = Numbers::starting_at(stored, NOW);
            numbers.blob(NOW);
            stored = numbers.due_mark(NOW).unwrap_or(0).max(numbers.mark());
        }
        assert!(BlobId(stored).drawn_at() < NOW.plus(3_000_000));
    }

    #[test]
    fn blob_ids_remember_when_they_were_drawn() {
        let blob = Numbers::starting_at(0, NOW).blob(NOW);
        assert_eq!(blob.drawn_at(), NOW);
        assert_eq!(BlobId::parse(&blob.to_string()), Some(blob));
        assert_eq!(BlobId::parse("+00000000000000f"), None);
    }
}
