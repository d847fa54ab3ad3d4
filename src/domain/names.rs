//! Names of files, buckets and keys, and what they may look like.

use crate::domain::percent::{self, Undecodable};
use crate::domain::refusal::{Refusal, bad_request, shorten};

/// Longest file name, in bytes of UTF-8 (documented).
pub(crate) const FILE_NAME_BYTES_MAX: usize = 1024;
/// Longest part of a file name between slashes, in bytes (seen on the service).
const SEGMENT_BYTES_MAX: usize = 250;

/// A file name that a client may give a file.
///
/// Shape: 1 to 1024 bytes of UTF-8, compared and sorted by its bytes, never normalised.
/// Source: b2-native-api.md section 5.1.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FileName(String);

impl FileName {
    pub(crate) fn parse(name: &str) -> Result<Self, Refusal> {
        if name.is_empty() || name.len() > FILE_NAME_BYTES_MAX {
            return Err(bad_request("File name length must be between 1 and 1024 bytes"));
        }
        no_control_characters(name)?;
        if name.starts_with('/') {
            return Err(bad_request("File names must not start with '/'"));
        }
        if name.ends_with('/') {
            return Err(bad_request("File names must not end with '/'"));
        }
        if name.contains("//") {
            return Err(bad_request("File names must not contain '//'"));
        }
        if name == "." || name == ".." {
            return Err(bad_request("File names must not be '.' or '..'"));
        }
        if name.split('/').any(|segment| segment.len() > SEGMENT_BYTES_MAX) {
            return Err(bad_request("File name segment must be no more than 250 bytes"));
        }
        Ok(Self(name.to_owned()))
    }

    /// A key that an S3 client gives a file: slashes may stand anywhere (spec: s3-api.md section 1.6).
    /// None when it is empty, too long, or holds control characters.
    pub(crate) fn of_key(key: &str) -> Option<Self> {
        let fits = (1..=FILE_NAME_BYTES_MAX).contains(&key.len());
        (fits && no_control_characters(key).is_ok()).then(|| Self(key.to_owned()))
    }

    /// Reads the percent-encoded form of headers and paths.
    pub(crate) fn decode(encoded: &[u8]) -> Result<Self, Refusal> {
        Self::parse(&decode_text(encoded, "file name")?)
    }

    /// A name that was checked when it was stored.
    pub(crate) fn stored(name: String) -> Self {
        Self(name)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Decodes percent-encoded text a client sent, naming `what` in the refusal.
pub(crate) fn decode_text(encoded: &[u8], what: &str) -> Result<String, Refusal> {
    percent::decode(encoded).map_err(|broken| match broken {
        Undecodable::BadHex(digits) => bad_request(format!("Bad hex digit: {}", shorten(&digits))),
        Undecodable::NotUtf8 => bad_request(format!("{what} is not valid UTF-8")),
    })
}

fn no_control_characters(name: &str) -> Result<(), Refusal> {
    if name.bytes().any(|byte| byte < 32) {
        return Err(bad_request(
            "File names must not contain unicode characters with codes less than 32",
        ));
    }
    if name.contains('\u{7f}') {
        return Err(bad_request("File names must not contain DEL characters"));
    }
    Ok(())
}

/// Checks a prefix of file names: anything a name may begin with, or nothing at all.
pub(crate) fn check_prefix(field: &str, prefix: &str) -> Result<(), Refusal> {
    if prefix.len() > FILE_NAME_BYTES_MAX {
        return Err(bad_request(format!("{field} must be no more than 1024 bytes")));
    }
    if prefix.bytes().any(|byte| byte < 32 || byte == 127) {
        return Err(bad_request(format!("{field} must not contain control characters")));
    }
    Ok(())
}

/// The smallest text that sorts after every text beginning with `prefix`, None when there is none.
///
/// Names never hold U+10FFFF beyond what UTF-8 allows, so raising the last character is enough.
pub(crate) fn successor(prefix: &str) -> Option<String> {
    let mut shortened = prefix.to_owned();
    while let Some(last) = shortened.pop() {
        let raised = match last {
            '\u{d7ff}' => Some('\u{e000}'),
            other => char::from_u32(u32::from(other) + 1),
        };
        if let Some(raised) = raised {
            shortened.push(raised);
            return Some(shortened);
        }
    }
    None
}

/// A bucket name: 6 to 63 ASCII letters, digits, `-` and `.`, not beginning with `b2-`.
///
/// Unique without regard to case; shown as it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BucketName(String);

impl BucketName {
    pub(crate) fn parse(name: &str) -> Result<Self, Refusal> {
        let shown = shorten(name);
        if !(6..=63).contains(&name.len()) {
            return Err(bad_request(format!(
                "Invalid bucketName: '{shown}' must be between 6 and 63 characters long"
            )));
        }
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.') {
            return Err(bad_request(
                "Invalid characters in bucketName: must be alphanumeric or '-' or '.'",
            ));
        }
        if name.to_ascii_lowercase().starts_with("b2-") {
            return Err(bad_request(
                "BucketName must not start with 'b2-'. reserved for Backblaze use.",
            ));
        }
        let parts: Vec<&str> = name.split('.').collect();
        if parts.contains(&"") {
            return Err(bad_request("a '.' in bucketName must stand between other characters"));
        }
        if parts.len() == 4 && parts.iter().all(|part| part.parse::<u8>().is_ok()) {
            return Err(bad_request("bucketName must not look like an IP address"));
        }
        Ok(Self(name.to_owned()))
    }

    pub(crate) fn stored(name: String) -> Self {
        Self(name)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The form that must be unique on the server.
    pub(crate) fn folded(&self) -> String {
        fold_bucket_name(&self.0)
    }
}

pub(crate) fn fold_bucket_name(name: &str) -> String {
    name.to_ascii_lowercase()
}

/// Checks the name of an application key: 1 to 100 ASCII letters, digits and `-`.
pub(crate) fn check_key_name(name: &str) -> Result<(), Refusal> {
    let allowed = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if !allowed || !(1..=100).contains(&name.len()) {
        return Err(bad_request(
            "keyName must be 1 to 100 characters long and hold only letters, digits and '-'",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn native_161_names_up_to_1024_bytes_in_segments_up_to_250() {
        let segment = "a".repeat(249);
        let longest = format!("{segment}/{segment}/{segment}/{segment}/{}", "b".repeat(24));
        assert_eq!(longest.len(), 1024);
        assert!(FileName::parse(&longest).is_ok());
        assert!(FileName::parse(&format!("{longest}b")).is_err());
        assert!(FileName::parse(&"a".repeat(250)).is_ok());
        let refusal = FileName::parse(&"a".repeat(251)).expect_err("too long");
        assert_eq!(refusal.message, "File name segment must be no more than 250 bytes");
    }

    #[test]
    fn native_163_164_control_characters_and_stray_slashes_are_refused() {
        for wrong in ["", "a\u{1}", "a\u{1f}b", "\u{7f}", "/a", "a/", "a//b", ".", "..", "a\0b"] {
            assert!(FileName::parse(wrong).is_err(), "{wrong:?}");
        }
        for right in ["a\\b", "../x", "a/../b", "...", "\u{85}", "\u{1f600}", "-rf", "CON"] {
            assert!(FileName::parse(right).is_ok(), "{right:?}");
        }
    }

    #[test]
    fn native_97_98_99_bucket_names() {
        for right in ["abcdef", "A-b.c9", &"x".repeat(63)] {
            assert!(BucketName::parse(right).is_ok(), "{right}");
        }
        for wrong in [
            "abcde",
            &"x".repeat(64),
            "under_score",
            "b2-bucket",
            "B2-bucket",
            "caf\u{e9}bar",
            "1.2.3.4",
            "......",
            ".bucket",
            "bucket.",
            "buc..ket",
        ] {
            assert!(BucketName::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn native_69_70_71_key_names() {
        assert!(check_key_name(&"k".repeat(100)).is_ok());
        for wrong in ["", "a b", "a_b", "caf\u{e9}", &"k".repeat(101)] {
            assert!(check_key_name(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn the_successor_bounds_exactly_the_names_with_the_prefix(prefix in "\\PC{1,6}", other in "\\PC{0,8}") {
            if let Some(after) = successor(&prefix) {
                let inside = prefix.as_str() <= other.as_str() && other < after;
                prop_assert_eq!(inside, other.starts_with(&prefix));
            }
        }
    }
}
