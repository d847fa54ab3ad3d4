//! Large files: what their parts must be like.

use crate::domain::digest::{Md5Digest, Sha1Digest, md5_of};
use crate::domain::file::{ContentSha1, PartsDigest};
use crate::domain::ids::BlobId;
use crate::domain::refusal::{Code, Refusal, bad_request, refuse, shorten};
use crate::domain::time::Millis;

/// The largest part number (documented).
pub(crate) const PART_NUMBER_MAX: i64 = 10_000;

/// Number of a part, 1 to 10,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PartNumber(i64);

impl PartNumber {
    pub(crate) fn new(number: i64) -> Option<Self> {
        (1..=PART_NUMBER_MAX).contains(&number).then_some(Self(number))
    }

    /// Reads the number that a caller gave.
    pub(crate) fn of_caller(number: i64) -> Result<Self, Refusal> {
        Self::new(number).ok_or_else(|| {
            bad_request(format!("part number must be between 1 and {PART_NUMBER_MAX}: {number}"))
        })
    }

    pub(crate) fn get(self) -> i64 {
        self.0
    }
}

/// One part of an unfinished large file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) number: PartNumber,
    pub(crate) blob: BlobId,
    pub(crate) size: u64,
    pub(crate) sha1: ContentSha1,
    pub(crate) md5: Md5Digest,
    pub(crate) uploaded_at: Millis,
}

/// How large parts are; told by `b2_authorize_account`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PartSizes {
    /// Bytes that every part but the last must have.
    pub(crate) bytes_min: u64,
    pub(crate) bytes_recommended: u64,
}

impl Default for PartSizes {
    /// What Backblaze documents.
    fn default() -> Self {
        Self { bytes_min: 5_000_000, bytes_recommended: 100_000_000 }
    }
}

/// Checks the parts of a large file that is to be finished against the SHA-1s its uploader names.
/// `parts` are in the order of their numbers.
pub(crate) fn check_parts(
    parts: &[Part],
    sha1s: &[String],
    sizes: PartSizes,
) -> Result<(), Refusal> {
    let gap = parts.iter().zip(1..).find(|(part, expected)| part.number.get() != *expected);
    if let Some((_, missing)) = gap {
        return Err(missing_part(missing));
    }
    if sha1s.len() > parts.len() {
        return Err(missing_part(i64::try_from(parts.len()).unwrap_or(i64::MAX).saturating_add(1)));
    }
    if sha1s.len() < parts.len() {
        return Err(bad_request(format!(
            "partSha1Array has {} entries, but {} parts were uploaded",
            sha1s.len(),
            parts.len()
        )));
    }
    if parts.len() < 2 {
        // b2sdk's tests look for this text.
        return Err(bad_request("large files must have at least 2 parts"));
    }
    for (part, named) in parts.iter().zip(sha1s) {
        let named_digest = Sha1Digest::parse(named).ok_or_else(|| {
            bad_request(format!("Bad SHA-1 in partSha1Array: {}", shorten(named)))
        })?;
        if part.sha1.digest() != Some(named_digest) {
            return Err(refuse(
                Code::PartSha1Mismatch,
                format!("partSha1Array does not match the SHA-1 of part {}", part.number.get()),
            ));
        }
    }
    let all_but_last = parts.split_last().map_or(&[][..], |(_, before)| before);
    match all_but_last.iter().find(|part| part.size < sizes.bytes_min) {
        Some(small) => Err(bad_request(format!(
            "part number {} is smaller than the minimum part size of {} bytes",
            small.number.get(),
            sizes.bytes_min
        ))),
        None => Ok(()),
    }
}

fn missing_part(number: i64) -> Refusal {
    refuse(Code::MissingPart, format!("part number {number} has not been uploaded"))
}

/// The digest over the digests of the parts, as S3 shows it.
pub(crate) fn parts_digest(parts: &[Part]) -> PartsDigest {
    PartsDigest {
        md5: md5_of(parts.iter().map(|part| &part.md5.0[..])),
        count: u32::try_from(parts.len()).unwrap_or(u32::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(number: i64, size: u64, byte: u8) -> Part {
        Part {
            number: PartNumber::new(number).expect("in range"),
            blob: BlobId(number),
            size,
            sha1: ContentSha1::Verified(Sha1Digest([byte; 20])),
            md5: Md5Digest([byte; 16]),
            uploaded_at: Millis(0),
        }
    }

    fn sha1(byte: u8) -> String {
        Sha1Digest([byte; 20]).to_string()
    }

    fn code(parts: &[Part], sha1s: &[String]) -> Option<Code> {
        let sizes = PartSizes { bytes_min: 100, bytes_recommended: 1000 };
        check_parts(parts, sha1s, sizes).err().map(|refusal| refusal.code)
    }

    #[test]
    fn native_247_part_numbers_reach_from_1_to_10000() {
        for (number, fits) in [(0, false), (1, true), (10_000, true), (10_001, false), (-1, false)]
        {
            assert_eq!(PartNumber::of_caller(number).is_ok(), fits, "{number}");
        }
    }

    #[test]
    fn native_252_to_256_what_makes_a_large_file_complete() {
        let (one, two) = (part(1, 100, 1), part(2, 1, 2));
        let both = [one.clone(), two.clone()];
        assert_eq!(code(&both, &[sha1(1), sha1(2)]), None);
        assert_eq!(code(&both, &[sha1(1), sha1(2).to_uppercase()]), None);
        assert_eq!(code(&both, &[sha1(1), sha1(3)]), Some(Code::PartSha1Mismatch));
        assert_eq!(code(&both, &[sha1(1)]), Some(Code::BadRequest));
        assert_eq!(code(&both, &[sha1(1), sha1(2), sha1(3)]), Some(Code::MissingPart));
        assert_eq!(code(&both, &[sha1(1), "x".to_owned()]), Some(Code::BadRequest));
        let gap = [one.clone(), part(3, 1, 2)];
        assert_eq!(code(&gap, &[sha1(1), sha1(2)]), Some(Code::MissingPart));
        assert_eq!(code(&[], &[]), Some(Code::BadRequest));
        let small = [part(1, 99, 1), two];
        assert_eq!(code(&small, &[sha1(1), sha1(2)]), Some(Code::BadRequest));
        let refusal = check_parts(&[one], &[sha1(1)], PartSizes::default()).expect_err("one part");
        assert!(refusal.message.contains("large files must have at least 2 parts"));
    }

    #[test]
    fn the_digest_over_parts_is_that_of_s3() {
        // MD5 of the two digests one after the other.
        let digest = parts_digest(&[part(1, 1, 0), part(2, 1, 0)]);
        assert_eq!(digest.count, 2);
        assert_eq!(digest.md5.to_string(), "70bc8f4b72a86921468bf8e8441dce51");
    }
}
